# SPDX-License-Identifier: MIT
"""Reads plans as graphs of steps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from tvix_build._core.blake3 import blake3_many
from tvix_build._core.check import canonicalize
from tvix_build._core.ranges import BytesLike
from tvix_build._core.report import Kind, Schema
from tvix_build.plan.v1.plan_pb2 import Step
from tvix_build.plan.wire import read_outputs, read_plan

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

    It keeps one copy of the encoded steps; the rest is proportional to the number of references.

    Attributes:
        digests: the digests of the steps, in ascending order.
        encoded: the encodings of the steps.
        roots: the indices of the roots.
        needs: for each step, the indices of the steps that it refers to, in the order of its refs.
    """

    def __init__(self, plan: BytesLike | Message) -> None:
        """Read a plan.

        Raises:
            ValidationError: if it has a violation other than `not_sorted`.
        """
        data = canonicalize(plan, kind=Kind.PLAN)
        found = read_plan(data)
        encoded = [data[begin:end] for begin, end in zip(found.begins, found.ends, strict=True)]
        self.encoded: Sequence[bytes] = encoded
        self.digests: Sequence[bytes] = list(blake3_many(encoded))
        index = {digest: i for i, digest in enumerate(self.digests)}
        self.roots: Sequence[int] = [index[root] for root in found.roots]
        self.needs: Sequence[Sequence[int]] = [
            [index[ref.step] for ref in Step.FromString(step).input_refs] for step in encoded
        ]

    def __len__(self) -> int:
        return len(self.digests)

    def step(self, i: int) -> Step:
        """Return a step."""
        return Step.FromString(self.encoded[i])

    def outputs(self, i: int) -> Sequence[str]:
        """Return the base names of the outputs of a step."""
        step = self.step(i)
        return [name.decode() for name in read_outputs(step.request, Schema(step.schema))]

    def name(self, i: int) -> str:
        """Return a name of a step for people: that of its shortest output, without the hash of a
        store path. Names need not be unique."""
        return name_of(self.outputs(i))

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
