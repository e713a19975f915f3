# SPDX-License-Identifier: MIT
"""Every mutant of tools/mutants is a change of the tree as it is now."""

from __future__ import annotations

import pytest

from mutants import FILES, TREE, Mutant, read_mutants

MUTANTS = [mutant for file in FILES for mutant in read_mutants(file.read_text())]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.file}: {mutant.about}")
def test_applies_once(mutant: Mutant) -> None:
    text = (TREE / mutant.file).read_text()
    assert mutant.apply(text) != text


def test_mutants_differ() -> None:
    changes = {(mutant.file, mutant.old, mutant.new) for mutant in MUTANTS}
    names = {(mutant.file, mutant.about) for mutant in MUTANTS}
    assert len(changes) == len(names) == len(MUTANTS)


@pytest.mark.parametrize("text", ["one", "one two one"])
def test_old_text_is_there_once(text: str) -> None:
    mutant = Mutant("file", "about", "one", "1")
    if text == "one":
        assert mutant.apply(text) == "1"
    else:
        with pytest.raises(ValueError, match="found 2 times"):
            mutant.apply(text)


@pytest.mark.parametrize(
    "text", ["file\n-a\n+b", "file: about\n+b", "file: about\n-a\n+a", "file: about\n-a\n+b\nc"]
)
def test_damaged_blocks_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected FILE: ABOUT"):
        read_mutants(text)
