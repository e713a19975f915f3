# SPDX-License-Identifier: MIT
"""Explains why the steps of two plans differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import sub
from typing import Any, TypeAlias

from tvix_build._core.check import check
from tvix_build._core.convert import request_of
from tvix_build._core.nodes import name_of
from tvix_build._core.references import find_replaced, replace_all
from tvix_build._core.report import Kind, Schema
from tvix_build.plan.graph import PlanGraph, shortest, split, split_names
from tvix_build.plan.v1.plan_pb2 import Step
from tvix_build.plan.wire import request_end, split_inputs

_WIDTH = 32
"""The length of the hash of a store path, and of a digest."""
_Keys: TypeAlias = "Mapping[int, object] | Sequence[object]"
"""The key of each step."""
_Names: TypeAlias = "Sequence[tuple[str, str]]"
"""Base names of outputs, as `split_names` splits them."""
_BLOCK = 1 << 13
"""How many cascades are counted at once, a bit each, to limit memory."""


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
        self._outputs = [-1] * len(old.found.output_begins)
        for i, j in same.items():
            first, end = old.found.output_starts[i : i + 2]
            other = new.found.output_starts[j]
            self._outputs[first:end] = range(other, other + end - first)
        self._old_outputs, self._old_names = _names_of_steps(old)
        self._new_outputs, self._new_names = _names_of_steps(new)
        # The hashes of the outputs of steps with a pair, each followed by that of the pair.
        self._hashes = [b""] * len(old)
        # The digests of steps with a pair, likewise.
        self._digests = [b""] * len(old)
        self.pairs: dict[int, int] = {}
        self._unpaired = set(self._left)
        self._taken: set[int] = set()
        self._waiting: list[tuple[int, int]] = []

    def result(self) -> PlanDifference:
        self._pair_all()
        equal = self._find_equal()
        causes = {}
        for i, j in self.pairs.items():
            if not equal.get(i) and (changes := self._changes(i, j, same_needs=i in equal)):
                causes[j] = i, changes
        cascades = self._cascades([*causes])
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
            if not self._unpaired.isdisjoint(self._old.needs[i]):
                left = [one for one in self._old.needs[i] if one in self._unpaired]
                right = [one for one in self._new.needs[j] if one in self._right]
                self._pair_unique(left, right, old, new)
        self._pair_equal()
        left, right = self._steps_left()
        self._pair_unique(
            left,
            right,
            {i: (old[i], self._old.levels[i]) for i in left},
            {j: (new[j], self._new.levels[j]) for j in right},
        )
        left, right = self._steps_left()
        others = _by_key(right, new)
        for i in left:
            if others.get(old[i]):
                self._add_pair(i, others[old[i]].pop(0))

    def _pair_equal(self) -> None:
        """Pair the steps that are part of a cascade, each after those that it needs: those that are
        equal when the hashes of their own outputs are replaced by numbers."""
        left, right = self._steps_left()
        others = defaultdict(list)
        for j in right:
            step = replace_all(
                self._new.encoding(j), _numbered_hashes(self._new_outputs[j]), _WIDTH
            )
            others[_canonical_digest(step)].append(j)
        for i in left:
            hashes = _numbered_hashes(self._old_outputs[i]) + self._needed_hashes(i)
            if found := others.get(_canonical_digest(self._adapted(i, hashes))):
                self._add_pair(i, found.pop(0))

    def _steps_left(self) -> tuple[list[int], list[int]]:
        """Return the steps that differ and have no pair, in the order of their builds; none
        if only one plan has such steps."""
        if len(self.pairs) in (len(self._left), len(self._right)):
            return [], []
        left = [i for i in self._old.order if i in self._unpaired]
        right = [j for j in self._new.order if j in self._right and j not in self._taken]
        return left, right

    def _pair_unique(
        self,
        old: Iterable[int],
        new: Iterable[int],
        old_keys: _Keys,
        new_keys: _Keys,
    ) -> None:
        """Pair the steps with a key that only one old and one new step has."""
        others = _unique(new, new_keys)
        for key, i in _unique(old, old_keys).items():
            j = others.get(key)
            if i is not None and j is not None:
                self._add_pair(i, j)

    def _add_pair(self, i: int, j: int) -> None:
        if i not in self._unpaired or j in self._taken:
            return
        self.pairs[i] = j
        self._unpaired.remove(i)
        self._taken.add(j)
        self._waiting.append((i, j))
        first, second = self._old.found.output_starts[i], self._new.found.output_starts[j]
        names, others = self._old_outputs[i], self._new_outputs[j]
        hashes = ""
        for one, other in _pair_names(names, others):
            self._outputs[first + one] = second + other
            hashes += names[one][0] + others[other][0]
        self._hashes[i] = hashes.encode()
        self._digests[i] = self._old.digests[i] + self._new.digests[j]

    # ---- causes

    def _find_equal(self) -> dict[int, bool]:
        """Return the old steps with a pair whose sizes are equal and whose outputs that they need
        correspond to each other, and whether they are equal apart from digests and hashes of store
        paths of new steps, without a look at other orders of lists."""
        old, new = self._old, self._new
        if old.schema != new.schema:
            return {}
        outputs = [self._outputs[one] for one in old.found.ref_outputs]
        needed, others = _sorted_parts(outputs, old), _sorted_parts(new.found.ref_outputs, new)
        sizes, new_sizes = _sizes(old), _sizes(new)
        pairs = [
            (i, j)
            for i, j in self.pairs.items()
            if sizes[i] == new_sizes[j] and needed[i] == others[j]
        ]
        hashes = [self._hashes_of(i) for i, _ in pairs]
        begins = [old.found.begins[i] for i, _ in pairs]
        replaced = find_replaced(
            old.data,
            begins,
            new.data,
            [new.found.begins[j] for _, j in pairs],
            [request_end(old.data, begin) - begin for begin in begins],
            hashes,
            _WIDTH,
        )
        return {i: equal == 1 for (i, _), equal in zip(pairs, replaced, strict=True)}

    def _changes(self, i: int, j: int, *, same_needs: bool) -> tuple[str, ...]:
        """Return what differs between the steps of a pair; nothing if they are part of a cascade.

        Args:
            same_needs: whether the outputs that they need correspond to each other.
        """
        adapted = self._adapted(i, self._hashes_of(i))
        if same_needs and _canonical_digest(adapted) == self._new.digests[j]:
            return ()
        changes = describe(Step.FromString(adapted), self._new.step(j))
        return tuple(changes) or ("order of inputs",)

    def _hashes_of(self, i: int) -> bytes:
        """Return the hashes of store paths that an old step with a pair may have, each followed by
        that of the pair: of its own outputs, and of the steps that it needs and that differ."""
        return self._hashes[i] + self._needed_hashes(i)

    def _needed_hashes(self, i: int) -> bytes:
        """Return the hashes of the outputs of the steps with a pair that an old step needs, each
        followed by that of the pair."""
        return b"".join(map(self._hashes.__getitem__, self._old.needs[i]))

    def _adapted(self, i: int, hashes: bytes) -> bytes:
        """Return an old step with the digests of new steps, and with hashes of store paths, each of
        which is replaced by the next one."""
        digests = b"".join(map(self._digests.__getitem__, self._old.needs[i]))
        return replace_all(self._old.encoding(i), hashes + digests, _WIDTH)

    def _cascades(self, causes: Sequence[int]) -> dict[int, int]:
        """Return the number of new steps that differ and need each of some, directly or not."""
        counts: dict[int, int] = {}
        order = [j for j in self._new.order if j in self._right]
        for first in range(0, len(causes), _BLOCK):
            block = causes[first : first + _BLOCK]
            counts.update(zip(block, _count_bits(self._needed(block, order)), strict=False))
        return counts

    def _needed(self, causes: Sequence[int], order: Iterable[int]) -> Iterator[int]:
        """Yield which of some new steps each new step that differs needs, as bits."""
        own = {j: 1 << bit for bit, j in enumerate(causes)}
        found = [0] * len(self._new)  # the causes that a step is or needs
        for j in order:
            needed = 0
            for one in self._new.needs[j]:
                needed |= found[one]
            yield needed
            found[j] = needed | own.get(j, 0)


def _count_bits(numbers: Iterable[int]) -> Iterator[int]:
    """Yield for each bit in how many numbers it is set, the lowest bit first, and then zeros."""
    sums: list[int] = []  # sums[k] has bit k of each sum
    for carry in numbers:
        for k, bits in enumerate(sums):
            if not carry:
                break
            sums[k], carry = bits ^ carry, bits & carry
        if carry:
            sums.append(carry)
    width = max((bits.bit_length() for bits in sums), default=0)
    digits = [f"{bits:0{width}b}" for bits in reversed(sums)]
    for number in zip(*map(reversed, digits), strict=True):
        yield int("".join(number), 2)
    yield from repeat(0)


def _sorted_parts(outputs: list[int], graph: PlanGraph) -> list[list[int]]:
    """Return the outputs that the references of each step need, sorted. `outputs` has those of all
    steps."""
    return [*map(sorted, split(outputs, graph.found.ref_starts))]


def _sizes(graph: PlanGraph) -> list[int]:
    """Return the size of each step."""
    return [*map(sub, graph.found.ends, graph.found.begins)]


def _names_of_steps(graph: PlanGraph) -> tuple[Sequence[_Names], list[str]]:
    """Return the names of the outputs of each step, and the shortest of them."""
    names = split_names(graph.output_names)
    outputs = split(names, graph.found.output_starts)
    return outputs, [one[0][1][1:] if len(one) == 1 else shortest(one) for one in outputs]


def _by_key(steps: Iterable[int], keys: _Keys) -> dict[object, list[int]]:
    """Return the steps by key."""
    found: dict[object, list[int]] = defaultdict(list)
    for i in steps:
        found[keys[i]].append(i)
    return found


def _unique(steps: Iterable[int], keys: _Keys) -> dict[object, int | None]:
    """Return the step with each key, or None if several steps have it. Steps may be repeated."""
    found: dict[object, int | None] = {}
    for i in steps:
        key = keys[i]
        found[key] = i if found.get(key, i) == i else None
    return found


def _pair_names(old: _Names, new: _Names) -> list[tuple[int, int]]:
    """Return the indices of names that are the same apart from the hash of a store path, in their
    order."""
    if len(old) == len(new) == 1:  # as of most steps
        return [(0, 0)] if old[0][1] == new[0][1] else []
    by_rest = defaultdict(list)
    for j, (_, rest) in enumerate(new):
        by_rest[rest].append(j)
    pairs = []
    for i, (_, rest) in enumerate(old):
        if others := by_rest[rest]:
            pairs.append((i, others.pop(0)))
    return pairs


def _numbered_hashes(names: _Names) -> bytes:
    """Return the hashes of names, each followed by a number of 32 digits that depends only on what
    follows the hashes in all names."""
    hashes: list[str] = []
    for number, (found, _) in enumerate(sorted(names, key=lambda one: one[1])):
        if found:
            hashes += found, f"{number:0{_WIDTH}}"
    return "".join(hashes).encode()


def _canonical_digest(step: bytes) -> bytes:
    """Return the digest of a step whose lists need not be in order; itself if it is invalid."""
    return check(step, kind=Kind.STEP).digest or step


def describe(old: Step, new: Step) -> Iterator[str]:
    """Yield what differs between two steps. Only the parts of requests that differ are parsed."""
    schema, new_schema = Schema(old.schema), Schema(new.schema)
    inputs, before = split_inputs(old.request, schema)
    new_inputs, after = split_inputs(new.request, new_schema)
    nodes, others = _nodes(inputs, schema), _nodes(new_inputs, new_schema)
    yield from (f"source {name}" for name in _base_names(_different(nodes, others)))
    if schema is not new_schema:
        yield "schema"
        return
    before = _with_hashes(before, sorted(nodes.keys() - others), sorted(others.keys() - nodes))
    if before != after:
        yield from _describe_requests(request_of(before, schema), request_of(after, schema))
    if old.input_refs != new.input_refs:
        refs, others = ({ref.output: ref.step for ref in step.input_refs} for step in (old, new))
        yield from (f"input {name}" for name in _base_names(_different(refs, others)))


def _nodes(inputs: bytes, schema: Schema) -> dict[str, Any]:
    """Return the nodes of the inputs of a request, by name."""
    nodes = request_of(inputs, schema).inputs
    return {name_of(one).decode(errors="backslashreplace"): one for one in nodes}


def _with_hashes(request: bytes, old: Sequence[str], new: Sequence[str]) -> bytes:
    """Return a request in which the hashes of the names of inputs are those of the new names."""
    names, others = split_names(old), split_names(new)
    for i, j in _pair_names(names, others):
        if names[i][0]:
            request = request.replace(f"{names[i][0]}-".encode(), f"{others[j][0]}-".encode())
    return request


def _describe_requests(old: Any, new: Any) -> Iterator[str]:
    """Yield what differs between two requests, apart from inputs."""
    yield from _describe_command(old.command_args, new.command_args)
    variables, others = (
        {one.key: one.value for one in request.environment_vars} for request in (old, new)
    )
    yield from (f"variable {name}" for name in _different(variables, others))
    for field in old.DESCRIPTOR.fields:
        if field.name in ("command_args", "environment_vars"):
            continue
        one, other = getattr(old, field.name), getattr(new, field.name)
        if field.name == "outputs":
            one, other = sorted(one), sorted(other)
        if one != other:
            yield field.name.replace("_", " ")


def _different(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """Return the keys whose values differ, in ascending order."""
    if old == new:
        return []
    return sorted(name for name in {**old, **new} if old.get(name) != new.get(name))


def _base_names(paths: Iterable[str]) -> list[str]:
    """Return the distinct base names of paths, in ascending order."""
    return sorted({_base_name(one) for one in paths})


def _base_name(path: str) -> str:
    """Return the last part of a path, without the hash of a store path."""
    return shortest(split_names([path.rpartition("/")[2]]))


def _describe_command(old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    if old[0] != new[0]:
        yield "builder"
    for i in range(1, max(len(old), len(new))):
        if old[i : i + 1] != new[i : i + 1]:
            yield f"argument {i}"
