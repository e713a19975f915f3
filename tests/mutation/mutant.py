# SPDX-License-Identifier: MIT
"""A mutant: one small change of a source file, with a name that survives most refactorings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Mutant:
    """A replacement of source[begin:end] of a file."""

    file: str  # relative to the root of the tree
    name: str  # scope, operator and changed source, without file and line
    line: int  # of `begin`, from 1
    begin: int  # in characters
    end: int
    text: str  # the replacement
    avx512: bool = False  # whether only a CPU with AVX-512 runs the changed code

    def apply(self, source: str) -> str:
        """Return the source with the change."""
        return source[: self.begin] + self.text + source[self.end :]


def one_line(source: str) -> str:
    """Return source text with each run of white space and line continuations as one space."""
    return " ".join(source.replace("\\\n", " ").split())


def describe(source: str, clause: tuple[int, int], begin: int, end: int, text: str) -> str:
    """Return "BEFORE -> AFTER" for a clause of the source in which [begin, end) is replaced."""
    first, last = clause
    before = source[first:last]
    after = source[first:begin] + text + source[end:last]
    return f"{one_line(before)} -> {one_line(after)}"


def number_repeated(mutants: Iterable[Mutant]) -> list[Mutant]:
    """Make names unique: the second mutant with a name gets the suffix " #2", and so on."""
    seen = Counter[str]()
    numbered = []
    for mutant in mutants:
        seen[mutant.name] += 1
        count = seen[mutant.name]
        name = mutant.name if count == 1 else f"{mutant.name} #{count}"
        numbered.append(replace(mutant, name=name))
    return numbered


def rounds(mutants: Iterable[Mutant]) -> list[list[Mutant]]:
    """Return the mutants of a file as few lists, each without overlapping changes."""
    lists: list[list[Mutant]] = []
    for mutant in sorted(mutants, key=lambda mutant: (mutant.begin, mutant.end)):
        for mutants_of_round in lists:
            if mutants_of_round[-1].end < mutant.begin:
                mutants_of_round.append(mutant)
                break
        else:
            lists.append([mutant])
    return lists


def apply_all(mutants: Iterable[Mutant], source: str) -> str:
    """Return the source with several changes, which must not overlap."""
    for mutant in sorted(mutants, key=lambda mutant: mutant.begin, reverse=True):
        source = mutant.apply(source)
    return source
