# SPDX-License-Identifier: MIT
"""Explains why the steps of two plans differ."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tvix_build._core.check import check
from tvix_build._core.nodes import name_of
from tvix_build._core.references import is_replaced
from tvix_build._core.report import Kind
from tvix_build.plan.graph import PlanGraph, request_of
from tvix_build.plan.v1.plan_pb2 import Step
from tvix_build.plan.wire import request_end

_HASH = re.compile(rb"[0-9a-df-np-sv-z]{32}(?=-)")
"""The hash of a store path."""
_BLOCK = 1 << 14
"""How many steps of a cascade are counted at once, a bit each, to limit memory."""


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
        places = {digest: j for j, digest in enumerate(new.digests)}
        same = {i: places[one] for i, one in enumerate(old.digests) if one in places}
        self._left = set(range(len(old))) - same.keys()
        self._right = set(range(len(new))) - set(same.values())
        # The number of the new output to which each old output corresponds, or -1.
        self._outputs = [-1] * len(old.output_names)
        for i, j in same.items():
            for one, other in zip(old.output_numbers(i), new.output_numbers(j), strict=True):
                self._outputs[one] = other
        self._old_outputs = {i: _split_names(old.outputs(i)) for i in self._left}
        self._new_outputs = {j: _split_names(new.outputs(j)) for j in self._right}
        self._old_names = {i: _shortest(names) for i, names in self._old_outputs.items()}
        self._new_names = {j: _shortest(names) for j, names in self._new_outputs.items()}
        # The hashes of the outputs of steps with a pair, each followed by that of the pair.
        self._hashes: dict[int, list[bytes]] = {}
        self.pairs: dict[int, int] = {}
        self._taken: set[int] = set()
        self._waiting: list[tuple[int, int]] = []

    def result(self) -> PlanDifference:
        self._pair_all()
        causes = {}
        for i, j in self.pairs.items():
            if not self._is_cascade(i, j):
                adapted = Step.FromString(self._adapted(i, self._hashes_of(i, j)))
                changes = describe(adapted, self._new.step(j))
                causes[j] = i, tuple(changes) or ("order of inputs",)
        cascades = self._cascades(causes)
        found = [
            RootCause(
                self._new_names[j], self._old.digests[i], self._new.digests[j], changes, cascades[j]
            )
            for j, (i, changes) in causes.items()
        ]
        return PlanDifference(
            len(self._old) - len(self._left),
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
        """Pair the steps that are part of a cascade, each after those that it needs: those that are
        equal when the hashes of their own outputs are replaced by numbers."""
        left, right = self._unpaired()
        others = defaultdict(list)
        for j in right:
            step = _replaced(self._new.encoding(j), _numbered_hashes(self._new_outputs[j]))
            others[_canonical_digest(step)].append(j)
        for i in left:
            hashes = [*_numbered_hashes(self._old_outputs[i]), *self._needed_hashes(i)]
            if found := others.get(_canonical_digest(self._adapted(i, hashes))):
                self._add_pair(i, found.pop(0))

    def _unpaired(self) -> tuple[list[int], list[int]]:
        """Return the steps that differ and have no pair, in the order of their builds; none
        if only one plan has such steps."""
        if len(self.pairs) in (len(self._left), len(self._right)):
            return [], []
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
            old, new = self._old_outputs[i], self._new_outputs[j]
            pairs = _pair_names(old, new)
            self._hashes[i] = _paired_hashes(old, new, pairs)
            first, second = self._old.output_numbers(i).start, self._new.output_numbers(j).start
            for one, other in pairs:
                self._outputs[first + one] = second + other
            self._taken.add(j)
            self._waiting.append((i, j))

    # ---- causes

    def _is_cascade(self, i: int, j: int) -> bool:
        """Return whether an old step is a new one, apart from the digests and the hashes of store
        paths of new steps, and from the order of lists."""
        old, new = self._old.encoding(i), self._new.encoding(j)
        if (
            len(old) != len(new)
            or self._old.schema != self._new.schema
            or sorted(map(self._outputs.__getitem__, self._old.needed_outputs(i)))
            != sorted(self._new.needed_outputs(j))
        ):
            return False
        size = request_end(old)
        if is_replaced(old[:size], new[:size], self._hashes_of(i, j)):
            return True
        return _canonical_digest(self._adapted(i, self._hashes_of(i, j))) == self._new.digests[j]

    def _hashes_of(self, i: int, j: int) -> Sequence[bytes]:
        """Return the hashes of store paths that an old step may have, each followed by that of the
        new step: of its own outputs, and of the steps that it needs and that differ."""
        own = self._hashes.get(i)
        if own is None:
            names, others = self._old_outputs[i], self._new_outputs[j]
            own = _paired_hashes(names, others, _pair_names(names, others))
        return [*own, *self._needed_hashes(i)]

    def _needed_hashes(self, i: int) -> Iterator[bytes]:
        """Yield the hashes of the outputs of the steps with a pair that an old step needs, each
        followed by that of the pair."""
        for one in self._old.needs[i]:
            yield from self._hashes.get(one, ())

    def _adapted(self, i: int, hashes: Sequence[bytes]) -> bytes:
        """Return an old step with the digests of new steps, and with hashes of store paths, each of
        which is replaced by the next one."""
        step = _replaced(self._old.encoding(i), hashes)
        for one in self._old.needs[i]:
            if one in self.pairs:
                step = step.replace(self._old.digests[one], self._new.digests[self.pairs[one]])
        return step

    def _cascades(self, causes: Iterable[int]) -> dict[int, int]:
        """Return the number of new steps that differ and need each of some, directly or not."""
        counts = dict.fromkeys(causes, 0)
        order = [j for j in reversed(self._new.order) if j in self._right]
        for first in range(0, len(order), _BLOCK):
            above: dict[int, int] = {}  # the steps of the block that need a step, as bits
            for number, j in enumerate(order[first:]):
                steps = above.pop(j, 0)
                if j in counts:
                    counts[j] += steps.bit_count()
                if number < _BLOCK:
                    steps |= 1 << number
                if steps:
                    for one in self._new.needs[j]:
                        if one in self._right:
                            above[one] = above.get(one, 0) | steps
        return counts


def _by_key(steps: Iterable[int], keys: Mapping[int, object]) -> dict[object, list[int]]:
    """Return the steps that have a key, by key."""
    found: dict[object, list[int]] = {}
    for i in steps:
        if i in keys:
            found.setdefault(keys[i], []).append(i)
    return found


class _Name(NamedTuple):
    """A base name: the hash of a store path and what follows, or no hash, a slash and the name."""

    hash: bytes
    rest: str


def _split_names(names: Iterable[str]) -> list[_Name]:
    """Split names that may begin with the hash of a store path."""
    found = []
    for name in names:
        begin = _HASH.match(name.encode())
        # No name has the slash, which distinguishes names without a hash.
        found.append(_Name(begin[0], name[32:]) if begin else _Name(b"", f"/{name}"))
    return found


def _shortest(names: Iterable[_Name]) -> str:
    """Return the shortest of some names, without the hash."""
    return min((name.rest[1:] for name in names), key=len, default="")


def _pair_names(old: Sequence[_Name], new: Sequence[_Name]) -> Sequence[tuple[int, int]]:
    """Return the indices of names that are the same apart from the hash of a store path, in their
    order."""
    if len(old) == len(new) == 1:  # as of most steps
        return [(0, 0)] if old[0].rest == new[0].rest else []
    by_rest = defaultdict(list)
    for j, name in enumerate(new):
        by_rest[name.rest].append(j)
    pairs = []
    for i, name in enumerate(old):
        if others := by_rest[name.rest]:
            pairs.append((i, others.pop(0)))
    return pairs


def _paired_hashes(
    old: Sequence[_Name], new: Sequence[_Name], pairs: Iterable[tuple[int, int]]
) -> list[bytes]:
    """Return the hashes of store paths in pairs of names: each old one followed by the new one."""
    hashes: list[bytes] = []
    for i, j in pairs:
        if old[i].hash:
            hashes += old[i].hash, new[j].hash
    return hashes


def _numbered_hashes(names: Iterable[_Name]) -> list[bytes]:
    """Return the hashes of names, each followed by a number of 32 digits that depends only on what
    follows the hashes in all names."""
    hashes: list[bytes] = []
    for number, name in enumerate(sorted(names, key=lambda one: one.rest)):
        if name.hash:
            hashes += name.hash, b"%032d" % number
    return hashes


def _replaced(step: bytes, hashes: Sequence[bytes]) -> bytes:
    """Return a step in which each hash is replaced by the next one."""
    for old, new in zip(hashes[::2], hashes[1::2], strict=True):
        step = step.replace(old, new)
    return step


def _canonical_digest(step: bytes) -> bytes:
    """Return the digest of a step whose lists need not be in order; itself if it is invalid."""
    return check(step, kind=Kind.STEP).digest or step


def describe(old: Step, new: Step) -> Iterator[str]:
    """Yield what differs between two steps."""
    before, after = request_of(old), request_of(new)
    sources = _keyed(before.inputs, after.inputs, _node_name)
    names, others = map(_split_names, _names_of_sources(before, after))
    paired = _paired_hashes(names, others, _pair_names(names, others))
    hashes = dict(zip(paired[::2], paired[1::2], strict=True))
    yield from (f"source {name}" for name in sorted({_base_name(one) for one in sources}))
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
    yield from (f"input {name}" for name in sorted({_base_name(ref) for ref in refs}))


def _base_name(path: str) -> str:
    """Return the last part of a path, without the hash of a store path."""
    (name,) = _split_names([path.rpartition("/")[2]])
    return name.rest[1:]


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
    return name_of(node).decode(errors="backslashreplace")
