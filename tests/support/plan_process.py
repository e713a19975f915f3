# SPDX-License-Identifier: MIT
"""Runs a plan, and kills itself at an event.

usage: python -m plan_process DIRECTORY PLAN EVENT

The plan in the file PLAN runs with the state and the castore in DIRECTORY. The process ends itself
by SIGKILL at event number EVENT: the beginning or the end of a build, or of a write to the state,
or the end of a step. Builds whose script ends in -7 fail. DIRECTORY/built gets a line for each
build that begins: the digest of its request.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fake_builder import FakeBuilder
from plan_kills import Killer, behave
from tvix_build.builders.messages import Request
from tvix_build.castore import CastoreStore
from tvix_build.plan.running import run
from tvix_build.plan.state import PlanState


def main(directory: Path, plan: bytes, last: int) -> None:
    """Run the plan."""
    killer = Killer(last)

    def build(request: Request) -> bytes:
        killer.event()
        built.write(f"{request.digest.hex()}\n")
        return behave(request)

    with (
        CastoreStore(directory / "castore") as castore,
        PlanState(directory / "state") as state,
        (directory / "built").open("a", buffering=1) as built,
    ):
        state.put_results = killer.between_events(state.put_results)  # type: ignore[method-assign]
        state.builds.put_builds = killer.between_events(  # type: ignore[method-assign]
            state.builds.put_builds
        )
        builders = [FakeBuilder(castore, build)]
        digest = state.put_plan(plan)
        run(digest, builders, state, castore=castore, max_builds=3, on_event=killer.event)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]).read_bytes(), int(sys.argv[3]))
