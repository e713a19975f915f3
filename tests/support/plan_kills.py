# SPDX-License-Identifier: MIT
"""Plans for tests that kill processes, and what must be true after that."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fake_builder import FakeBuilder, describe
from made_plans import digest_of, make_graph
from tvix_build.builders.messages import Request
from tvix_build.castore import CastoreStore
from tvix_build.plan.running import run
from tvix_build.plan.state import PlanState, StepResult


def make_random_plan(source: random.Random) -> bytes:
    """Return a plan of 20 steps, each of which needs up to three others."""
    needs = [
        sorted(source.sample(range(number), source.randrange(min(number, 3) + 1)))
        for number in range(20)
    ]
    return make_graph(needs)[0]


def behave(request: Request) -> bytes:
    """Return what an output contains. The build of step 7 fails."""
    if request.message.command_args[-1].endswith("-7"):
        raise ValueError("defect")
    return describe(request)


def run_undisturbed(directory: Path, plan: bytes) -> dict[bytes, StepResult]:
    """Return the outcomes of a run without kills."""
    with CastoreStore(directory / "c") as castore, PlanState(directory / "s") as state:
        found = run(state.put_plan(plan), [FakeBuilder(castore, behave)], state, castore=castore)
        return {one.step: one for one in state.results(found.run)}


def read_recorded(state: PlanState) -> set[bytes]:
    """Return the digests of the requests whose outcomes are stored, and check the builds."""
    assert state.builds.verify() == []
    found = {build.record.request_digest for _, build in state.builds.builds()}
    for one in state.runs():
        failed = (result for result in state.results(one) if result.reason)
        found |= {result.request for result in failed if result.request}
    return found


def check_finished(state: PlanState, plan: bytes, expected: dict[bytes, StepResult]) -> None:
    """Check that the only run of a plan is finished, with the outcomes of a run without kills."""
    (finished,) = state.runs()
    assert finished.plan == digest_of(plan)
    assert finished.finished is not None
    results = {one.step: _outcome(one) for one in state.results(finished)}
    assert results == {step: _outcome(one) for step, one in expected.items()}


def _outcome(result: StepResult) -> tuple[bool, bytes | None, bool]:
    """Return what must not depend on kills: which of several equal steps was built first does."""
    return result.succeeded, result.request, result.cause is None


class Killer:
    """Kills this process at an event.

    Args:
        last: the number of the event; the first one is 1.
    """

    def __init__(self, last: int) -> None:
        self._left = last

    def event(self, *_: Any) -> None:
        """Count an event."""
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def between_events(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function with an event before it and one after it."""

        def call(*arguments: Any, **options: Any) -> Any:
            self.event()
            result = function(*arguments, **options)
            self.event()
            return result

        return call
