# SPDX-License-Identifier: MIT
"""Requests of a run that are not finished."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tvix_build._core.nodes import renamed
from tvix_build.builders import BuildResult
from tvix_build.plan.attempts import Failure, Resolved
from tvix_build.plan.state import Status, StepResult
from tvix_build.plan.wire import Input, base_name, make_input


@dataclass
class Job:
    """A request that some steps have.

    Attributes:
        steps: the steps that are not finished.
        outcome: the result, once there is one.
        status: the outcome of the first step, if there is a build.
        stored: the steps whose outcome is being stored.
    """

    request: Resolved
    steps: list[int]
    outcome: BuildResult[bytes] | Failure | None = None
    status: Status = Status.CACHED
    stored: list[int] = field(default_factory=list)

    def describe(self) -> StepResult:
        """Return the outcome, as that of no step."""
        assert self.outcome is not None
        found = StepResult(b"", self.status, self.request.digest)
        if isinstance(self.outcome, Failure):
            found = replace(found, status=Status.FAILED, reason=self.outcome.reason)
        record = self.outcome.record
        if record is None:
            return found
        return replace(
            found, builder=record.builder, started=record.started, finished=record.finished
        )

    def outputs(self) -> Mapping[bytes, Input]:
        """Return the outputs of a successful build, as inputs of other requests, by name."""
        assert isinstance(self.outcome, BuildResult)
        found = {}
        for path, node in self.outcome.outputs.items():
            name = base_name(path.encode())
            encoding = renamed(node, name).SerializeToString()
            found[name] = make_input(self.request.schema, name, encoding)
        return found
