# SPDX-License-Identifier: MIT
"""Runs a plan, and kills itself at an event.

usage: python -m plan_process DIRECTORY PLAN EVENT

The plan in the file PLAN runs with the state and the castore in DIRECTORY. The process ends itself
by SIGKILL at event number EVENT: the beginning or the end of a build, or of a write to the state,
or the end of a step. Builds whose script ends in -7 fail. DIRECTORY/built gets a line for each
build that begins: the digest of its request.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fake_builder import FakeBuilder, describe
from tvix_build.builders.messages import Request
from tvix_build.castore import CastoreStore
from tvix_build.plan.running import run
from tvix_build.plan.state import PlanState

_COUNT = itertools.count(1)


def main(directory: Path, plan: bytes, last: int) -> None:
    """Run the plan."""

    def event(*_: Any) -> None:
        if next(_COUNT) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    def between_events(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            event()
            result = function(*arguments, **options)
            event()
            return result

        return call

    def behave(request: Request) -> bytes:
        event()
        built.write(f"{request.digest.hex()}\n")
        if request.message.command_args[-1].endswith("-7"):
            raise ValueError("defect")
        return describe(request)

    with (
        CastoreStore(directory / "castore") as castore,
        PlanState(directory / "state") as state,
        (directory / "built").open("a", buffering=1) as built,
    ):
        state.put_results = between_events(state.put_results)  # type: ignore[method-assign]
        state.builds.put_builds = between_events(  # type: ignore[method-assign]
            state.builds.put_builds
        )
        builders = [FakeBuilder(castore, behave)]
        run(state.put_plan(plan), builders, state, castore=castore, max_builds=3, on_event=event)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]).read_bytes(), int(sys.argv[3]))
