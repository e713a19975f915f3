# SPDX-License-Identifier: MIT
"""Reads plans as graphs of steps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from tvix_build._core.batch import serialized
from tvix_build._core.check import canonicalize
from tvix_build._core.engine import DIGEST_SIZE, read_steps
from tvix_build._core.ranges import BytesLike
from tvix_build._core.report import Kind, Schema
from tvix_build.plan.v1.plan_pb2 import Step
from tvix_build.plan.wire import read_roots

if TYPE_CHECKING:
    from snix.build.protos.build_pb2 import BuildRequest as LaterBuildRequest
    from tvix.build.protos.build_pb2 import BuildRequest

_HASH = re.compile("[0-9a-df-np-sv-z]{32}-")


def request_of(step: Step) -> BuildRequest | LaterBuildRequest:
    """Return the request of a valid step. That of tvix.build.v1@2024 is a message of snix.build.v1,
    which has the same fields."""
    if step.schema == Schema.TVIX_BUILD_V1:
        from tvix.build.protos.build_pb2 import BuildRequest

        return BuildRequest.FromString(step.request)
    from snix.build.protos.build_pb2 import BuildRequest as LaterBuildRequest

    return LaterBuildRequest.FromString(step.request)


def name_of(outputs: Iterable[str]) -> str:
    """Return the shortest of some base names, without the hash of a store path."""
    names = [_HASH.sub("", output, count=1) for output in outputs]
    return min(names, key=len, default="")


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

    It keeps one copy of the encoded plan; the rest is proportional to the number of steps,
    references and outputs.

    Attributes:
        digests: the digests of the steps, in ascending order.
        roots: the indices of the roots.
        needs: for each step, the indices of the steps that it refers to, in the order of its refs.
    """

    def __init__(self, plan: BytesLike | Message) -> None:
        """Read a plan.

        Raises:
            ValidationError: if it has a violation other than `not_sorted`.
        """
        data = bytes(serialized(plan))
        found = read_steps(data)
        if found is None:
            data = canonicalize(data, kind=Kind.PLAN)
            found = read_steps(data)
            assert found is not None
        self._data = data
        self._found = found
        rows = found.digests
        self.digests: Sequence[bytes] = [
            rows[at : at + DIGEST_SIZE] for at in range(0, len(rows), DIGEST_SIZE)
        ]
        index = {digest: i for i, digest in enumerate(self.digests)}
        self.roots: Sequence[int] = [index[root] for root in read_roots(data)]
        self.needs: Sequence[Sequence[int]] = [
            found.ref_steps[begin:end] for begin, end in pairwise(found.ref_starts)
        ]

    def __len__(self) -> int:
        return len(self.digests)

    def encoding(self, i: int) -> bytes:
        """Return the canonical encoding of a step."""
        return self._data[self._found.begins[i] : self._found.ends[i]]

    def step(self, i: int) -> Step:
        """Return a step."""
        return Step.FromString(self.encoding(i))

    def outputs(self, i: int) -> Sequence[str]:
        """Return the base names of the outputs of a step."""
        return [self.output_names[number] for number in self.output_numbers(i)]

    def output_numbers(self, i: int) -> range:
        """Return the numbers of the outputs of a step among those of all steps."""
        return range(self._found.output_starts[i], self._found.output_starts[i + 1])

    def needed_outputs(self, i: int) -> Sequence[int]:
        """Return the numbers of the outputs that a step refers to, in the order of its refs."""
        return self._found.ref_outputs[self._found.ref_starts[i] : self._found.ref_starts[i + 1]]

    @cached_property
    def output_names(self) -> Sequence[str]:
        """The base names of the outputs of all steps."""
        data, found = self._data, self._found
        return [
            data[begin:end].decode().rpartition("/")[2]
            for begin, end in zip(found.output_begins, found.output_ends, strict=True)
        ]

    def name(self, i: int) -> str:
        """Return a name of a step for people: that of its shortest output, without the hash of a
        store path. Names need not be unique."""
        return name_of(self.outputs(i))

    @cached_property
    def schema(self) -> Schema:
        """The schema of all steps."""
        return Schema(self.step(0).schema)

    @cached_property
    def order(self) -> Sequence[int]:
        """The indices of all steps, each after the steps that it needs."""
        order: list[int] = []
        seen = bytearray(len(self))
        for root in self.roots:
            if seen[root]:
                continue
            seen[root] = 1
            above = [(root, iter(self.needs[root]))]
            while above:
                i, needed = above[-1]
                for one in needed:
                    if not seen[one]:
                        seen[one] = 1
                        above.append((one, iter(self.needs[one])))
                        break
                else:
                    above.pop()
                    order.append(i)
        return order

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
