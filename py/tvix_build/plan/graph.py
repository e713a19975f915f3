# SPDX-License-Identifier: MIT
"""Reads plans as graphs of steps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, starmap
from typing import TypeVar

from google.protobuf.message import Message

from tvix_build._core.batch import serialized
from tvix_build._core.check import canonicalize
from tvix_build._core.engine import DIGEST_SIZE, Steps, read_steps
from tvix_build._core.ranges import BytesLike
from tvix_build._core.report import Kind, Schema
from tvix_build.plan.v1.plan_pb2 import Step
from tvix_build.plan.wire import read_roots

Item = TypeVar("Item")

_HASH = re.compile("[0-9a-df-np-sv-z]{32}-")


def split(items: list[Item], starts: Sequence[int]) -> list[list[Item]]:
    """Return the parts of a list that begin at ascending indices. The last index is its end."""
    return [*map(items.__getitem__, starmap(slice, pairwise(starts)))]


def split_names(names: Iterable[str]) -> list[tuple[str, str]]:
    """Split base names into the hash of a store path and what follows, a dash and a name. Without a
    hash, what follows is a slash and the name, because no name has a slash."""
    is_hash = _HASH.match
    return [(name[:32], name[32:]) if is_hash(name) else ("", f"/{name}") for name in names]


def shortest(names: Sequence[tuple[str, str]]) -> str:
    """Return the shortest of some names that `split_names` split, without the hash."""
    return min([rest for _, rest in names], key=len, default="")[1:]


def check_plan(plan: BytesLike | Message) -> tuple[bytes | memoryview, Steps]:
    """Return the canonical encoding of a plan, and its steps. A canonical plan is not copied.

    Raises:
        ValidationError: if it has a violation other than `not_sorted`.
    """
    data = serialized(plan)
    found = read_steps(data)
    if found is None:
        data = canonicalize(data, kind=Kind.PLAN)
        found = read_steps(data)
        assert found is not None
    return data, found


@dataclass(frozen=True)
class Statistics:
    """The shape of a plan.

    Attributes:
        steps: the number of steps.
        refs: the number of references between steps.
        roots: the number of roots.
        depth: the number of steps on the longest path.
        width: the largest number of steps at the same level. The level of a step is the length of
            the longest path below it.
        critical_path: the indices of the steps on a longest path, in the order of their builds.
    """

    steps: int
    refs: int
    roots: int
    depth: int
    width: int
    critical_path: tuple[int, ...]


class PlanGraph:
    """The steps of a valid plan, ordered by digest, and what they need. Steps have indices.

    It keeps the encoded plan; the rest is proportional to the number of steps, references and
    outputs. A canonical plan in a buffer is not copied, so the buffer must not change.

    Attributes:
        data: the canonical encoding of the plan.
        found: where the steps and their outputs are in it, and the references by number.
        digests: the digests of the steps, in ascending order.
        roots: the indices of the roots.
        needs: for each step, the indices of the steps that it refers to, in the order of its refs.
        order: the indices of all steps, each after the steps that it needs.
    """

    def __init__(self, plan: BytesLike | Message) -> None:
        """Read a plan.

        Raises:
            ValidationError: if it has a violation other than `not_sorted`.
        """
        data, found = check_plan(plan)
        self.data: bytes | memoryview = data
        self.found: Steps = found
        rows = found.digests
        self.digests: Sequence[bytes] = [
            rows[at : at + DIGEST_SIZE] for at in range(0, len(rows), DIGEST_SIZE)
        ]
        index = {digest: i for i, digest in enumerate(self.digests)}
        self.roots: Sequence[int] = [index[root] for root in read_roots(data)]
        self.needs: Sequence[Sequence[int]] = split(found.ref_steps, found.ref_starts)
        self.order: Sequence[int] = found.order

    def __len__(self) -> int:
        return len(self.digests)

    def encoding(self, i: int) -> bytes:
        """Return the canonical encoding of a step."""
        return bytes(self.data[self.found.begins[i] : self.found.ends[i]])

    def step(self, i: int) -> Step:
        """Return a step."""
        return Step.FromString(self.encoding(i))

    def outputs(self, i: int) -> Sequence[str]:
        """Return the base names of the outputs of a step."""
        begin, end = self.found.output_starts[i : i + 2]
        return self.output_names[begin:end]

    @cached_property
    def output_names(self) -> Sequence[str]:
        """The base names of the outputs of all steps."""
        data, found = self.data, self.found
        return [
            str(data[begin:end], "utf-8").rpartition("/")[2]
            for begin, end in zip(found.output_begins, found.output_ends, strict=True)
        ]

    def name(self, i: int) -> str:
        """Return a name of a step for people: that of its shortest output, without the hash of a
        store path. Names need not be unique."""
        return shortest(split_names(self.outputs(i)))

    @cached_property
    def schema(self) -> Schema:
        """The schema of all steps."""
        return Schema(self.step(0).schema)

    @cached_property
    def levels(self) -> Sequence[int]:
        """For each step, the number of steps on the longest path below it."""
        levels = [0] * len(self)
        for i in self.order:
            levels[i] = max((levels[one] + 1 for one in self.needs[i]), default=0)
        return levels

    def statistics(self) -> Statistics:
        """Return the shape of the plan."""
        widths = [0] * (max(self.levels) + 1)
        for level in self.levels:
            widths[level] += 1
        path = [max(range(len(self)), key=self.levels.__getitem__)]
        while self.needs[path[-1]]:
            path.append(max(self.needs[path[-1]], key=self.levels.__getitem__))
        refs = sum(map(len, self.needs))
        return Statistics(
            len(self), refs, len(self.roots), len(path), max(widths), tuple(reversed(path))
        )
