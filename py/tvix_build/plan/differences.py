# SPDX-License-Identifier: MIT
"""Explains why the steps of two plans differ."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvix_build._core.batch import check_batch
from tvix_build._core.check import check
from tvix_build._core.report import Kind
from tvix_build.plan.graph import PlanGraph, name_of, request_of
from tvix_build.plan.v1.plan_pb2 import Step

_HASH = re.compile(rb"[0-9a-df-np-sv-z]{32}(?=-)")
"""The hash of a store path."""


@dataclass(frozen=True)
class RootCause:
    """A pair of steps that differ by themselves, not only in what they need.

    Attributes:
        name: the name of the steps.
        old: the digest of the step in the old plan.
        new: the digest of the step in the new plan.
        changes: what differs, such as `variable CFLAGS`, `argument 2` or `source main.c`.
        cascade: the number of other steps that differ and that need this one, directly or not.
    """

    name: str
    old: bytes
    new: bytes
    changes: tuple[str, ...]
    cascade: int


@dataclass(frozen=True)
class PlanDifference:
    """The difference between two plans.

    Attributes:
        same: the number of steps that both plans have.
        changed: the digests of steps that correspond to each other and differ, old and new.
        added: the digests of steps to which none of the old plan corresponds.
        removed: the digests of steps to which none of the new plan corresponds.
        causes: why steps changed, the largest cascade first.
    """

    same: int
    changed: Sequence[tuple[bytes, bytes]]
    added: Sequence[bytes]
    removed: Sequence[bytes]
    causes: Sequence[RootCause]


def compare_plans(old: PlanGraph, new: PlanGraph) -> PlanDifference:
    """Compare two plans, and find the root causes of the differences.

    Steps that differ correspond to each other if they have the same name and, if there are several
    of that name, if steps that need them correspond to each other, or else by their levels.

    A step that differs only in hashes of store paths and digests of steps that differ, too, is part
    of a cascade. All other steps that differ are root causes.
    """
    return _Comparison(old, new).result()


class _Comparison:
    """A comparison of two plans.

    Attributes:
        pairs: the new step to which each old step corresponds, if they differ.
    """

    def __init__(self, old: PlanGraph, new: PlanGraph) -> None:
        self._old, self._new = old, new
        common = set(old.digests) & set(new.digests)
        self._same = len(common)
        self._left = {i for i, digest in enumerate(old.digests) if digest not in common}
        self._right = {i for i, digest in enumerate(new.digests) if digest not in common}
        self._old_outputs = {i: old.outputs(i) for i in self._left}
        self._new_outputs = {i: new.outputs(i) for i in self._right}
        self._old_names = {i: name_of(one) for i, one in self._old_outputs.items()}
        self._new_names = {i: name_of(one) for i, one in self._new_outputs.items()}
        self._hashes: dict[int, Sequence[tuple[bytes, bytes]]] = {}
        self.pairs: dict[int, int] = {}
        self._taken: set[int] = set()
        self._waiting: list[tuple[int, int]] = []

    def result(self) -> PlanDifference:
        self._pair_all()
        causes = {}
        adapted = [self._adapted(i, j) for i, j in self.pairs.items()]
        digests = check_batch(adapted, kind=Kind.STEP).digests
        for (i, j), step, digest in zip(self.pairs.items(), adapted, digests, strict=True):
            if digest != self._new.digests[j]:
                changes = describe(Step.FromString(step), self._new.step(j))
                causes[j] = i, tuple(changes) or ("order of inputs",)
        cascades = self._cascades(causes)
        found = [
            RootCause(
                self._new_names[j], self._old.digests[i], self._new.digests[j], changes, cascades[j]
            )
            for j, (i, changes) in causes.items()
        ]
        return PlanDifference(
            self._same,
            [(self._old.digests[i], self._new.digests[j]) for i, j in self.pairs.items()],
            [self._new.digests[j] for j in sorted(self._right - set(self.pairs.values()))],
            [self._old.digests[i] for i in sorted(self._left - self.pairs.keys())],
            sorted(found, key=lambda one: (-one.cascade, one.name)),
        )

    # ---- pairs

    def _pair_all(self) -> None:
        """Pair the steps whose name is unique, then those that paired steps need, then those that
        are part of a cascade, and then those that are left, by name and level."""
        old, new = self._old_names, self._new_names
        self._pair_unique(self._left, self._right, old, new)
        while self._waiting:
            i, j = self._waiting.pop()
            left = [one for one in self._old.needs[i] if one in old and one not in self.pairs]
            if left:
                self._pair_unique(left, self._new.needs[j], old, new)
        self._pair_equal()
        left, right = self._unpaired()
        self._pair_unique(
            left,
            right,
            {i: (old[i], self._old.levels[i]) for i in left},
            {j: (new[j], self._new.levels[j]) for j in right},
        )
        left, right = self._unpaired()
        others = _by_key(right, new)
        for i in left:
            if others.get(old[i]):
                self._add_pair(i, others[old[i]].pop(0))

    def _pair_equal(self) -> None:
        """Pair the steps that are part of a cascade, each after those that it needs."""
        left, right = self._unpaired()
        others = _by_key(right, self._new_names)
        for i in left:
            for j in others.get(self._old_names[i], ()):
                if j not in self._taken and self._is_cascade(self._adapted(i, j), j):
                    self._add_pair(i, j)
                    break

    def _unpaired(self) -> tuple[list[int], list[int]]:
        """Return the steps that differ and have no pair, in the order of their builds."""
        left = [i for i in self._old.order if i in self._left and i not in self.pairs]
        right = [j for j in self._new.order if j in self._right and j not in self._taken]
        return left, right

    def _pair_unique(
        self,
        old: Iterable[int],
        new: Iterable[int],
        old_keys: Mapping[int, object],
        new_keys: Mapping[int, object],
    ) -> None:
        """Pair the steps with a key that only one old and one new step has."""
        left, right = _by_key(old, old_keys), _by_key(new, new_keys)
        for key, steps in left.items():
            others = right.get(key, ())
            if len(steps) == len(others) == 1:
                self._add_pair(steps[0], others[0])

    def _add_pair(self, i: int, j: int) -> None:
        if i not in self.pairs and j not in self._taken:
            self.pairs[i] = j
            self._taken.add(j)
            self._waiting.append((i, j))

    # ---- causes

    def _adapted(self, i: int, j: int) -> bytes:
        """Return an old step with the digests and the hashes of store paths of new steps: its own,
        and those of steps that it needs and that differ."""
        step = self._old.encoded[i]
        for old, new in _paired_hashes(self._old_outputs[i], self._new_outputs[j]):
            step = step.replace(old, new)
        for one in self._old.needs[i]:
            if one in self.pairs:
                digest = self._new.digests[self.pairs[one]]
                step = step.replace(self._old.digests[one], digest)
                for old, new in self._replaced(one):
                    step = step.replace(old, new)
        return step

    def _is_cascade(self, step: bytes, j: int) -> bool:
        """Return whether an adapted step is a new one, apart from the order of lists."""
        if len(step) != len(self._new.encoded[j]):
            return False
        return check(step, kind=Kind.STEP).digest == self._new.digests[j]

    def _replaced(self, i: int) -> Sequence[tuple[bytes, bytes]]:
        """Return the hashes of the outputs of a step with a pair, with those of the pair."""
        found = self._hashes.get(i)
        if found is None:
            outputs = self._new_outputs[self.pairs[i]]
            found = list(_paired_hashes(self._old_outputs[i], outputs))
            self._hashes[i] = found
        return found

    def _cascades(self, causes: Iterable[int]) -> dict[int, int]:
        """Return the number of new steps that differ and need each of some, directly or not."""
        needed_by = defaultdict(list)
        for j in self._right:
            for one in self._new.needs[j]:
                needed_by[one].append(j)
        counts = {}
        for cause in causes:
            reached = {cause}
            waiting = [cause]
            while waiting:
                for one in needed_by.get(waiting.pop(), ()):
                    if one not in reached:
                        reached.add(one)
                        waiting.append(one)
            counts[cause] = len(reached) - 1
        return counts


def _by_key(steps: Iterable[int], keys: Mapping[int, object]) -> dict[object, list[int]]:
    """Return the steps that have a key, by key."""
    found: dict[object, list[int]] = {}
    for i in steps:
        if i in keys:
            found.setdefault(keys[i], []).append(i)
    return found


def _paired_hashes(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the hashes of store paths that have the same name, in their order."""
    by_name = defaultdict(list)
    for one in new:
        by_name[one[32:]].append(one)
    for one in old:
        if by_name[one[32:]]:
            other = by_name[one[32:]].pop(0)
            if _HASH.match(one.encode()) and _HASH.match(other.encode()):
                yield one[:32].encode(), other[:32].encode()


def describe(old: Step, new: Step) -> Iterator[str]:
    """Yield what differs between two steps."""
    before, after = request_of(old), request_of(new)
    sources = _keyed(before.inputs, after.inputs, _node_name)
    hashes = dict(_paired_hashes(*_names_of_sources(before, after)))
    named = {name[33:] if _HASH.match(name.encode()) else name for name in sources}
    yield from (f"source {name}" for name in sorted(named))
    if old.schema != new.schema:
        yield "schema"
        return
    before.ParseFromString(
        _HASH.sub(lambda found: hashes.get(found[0], found[0]), before.SerializeToString())
    )
    yield from _describe_command(before.command_args, after.command_args)
    variables = _keyed(before.environment_vars, after.environment_vars, lambda one: one.key)
    yield from (f"variable {name}" for name in variables)
    for field in before.DESCRIPTOR.fields:
        if field.name in ("command_args", "environment_vars", "inputs"):
            continue
        one, other = getattr(before, field.name), getattr(after, field.name)
        if field.name == "outputs":
            one, other = sorted(one), sorted(other)
        if one != other:
            yield field.name.replace("_", " ")
    refs = _keyed(old.input_refs, new.input_refs, lambda one: one.output)
    yield from (f"input {name.rpartition('/')[2][33:] or name}" for name in refs)


def _describe_command(old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    if old[0] != new[0]:
        yield "builder"
    for i in range(1, max(len(old), len(new))):
        if old[i : i + 1] != new[i : i + 1]:
            yield f"argument {i}"


def _keyed(old: Iterable[Any], new: Iterable[Any], key: Callable[[Any], str]) -> list[str]:
    """Return the keys of elements that differ, in ascending order."""
    before = {key(one): one for one in old}
    after = {key(one): one for one in new}
    return sorted(name for name in before | after if before.get(name) != after.get(name))


def _names_of_sources(old: Any, new: Any) -> tuple[list[str], list[str]]:
    """Return the names of inputs that only one of two requests has."""
    before, after = ({_node_name(one) for one in request.inputs} for request in (old, new))
    return sorted(before - after), sorted(after - before)


def _node_name(node: Any) -> str:
    (oneof,) = node.DESCRIPTOR.oneofs
    name: bytes = getattr(node, node.WhichOneof(oneof.name)).name
    return name.decode(errors="surrogateescape")
