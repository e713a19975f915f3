# SPDX-License-Identifier: MIT
"""Processes that run plans are killed at random events: no stored build is lost or repeated.

TVIX_BUILD_KILL_TRIALS is how many kills, 20 if unset.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli_support import environment
from fake_builder import FakeBuilder, describe
from made_plans import digest_of, make_graph
from tvix_build.builders.messages import Request
from tvix_build.castore import CastoreStore
from tvix_build.plan.running import run
from tvix_build.plan.state import PlanState, StepResult
from waiting import LIMIT

KILLS = int(os.environ.get("TVIX_BUILD_KILL_TRIALS", "20"))
EVENTS = 60  # at which a process is killed at the latest


def random_graph(source: random.Random) -> list[list[int]]:
    return [
        sorted(source.sample(range(number), source.randrange(min(number, 3) + 1)))
        for number in range(20)
    ]


def run_undisturbed(directory: Path, plan: bytes) -> dict[bytes, StepResult]:
    """Return the outcomes of a run without kills."""

    def behave(request: Request) -> bytes:
        if request.message.command_args[-1].endswith("-7"):
            raise ValueError("defect")
        return describe(request)

    with CastoreStore(directory / "c") as castore, PlanState(directory / "s") as state:
        found = run(state.put_plan(plan), [FakeBuilder(castore, behave)], state, castore=castore)
        return {one.step: one for one in state.results(found.run)}


def outcome(result: StepResult) -> tuple[bool, bytes | None, bool]:
    """Return what must not depend on kills: which of several equal steps was built first does."""
    return result.succeeded, result.request, result.cause is None


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_kills(tmp_path: Path, seed: int) -> None:
    source = random.Random(seed)
    plan, _ = make_graph(random_graph(source))
    (tmp_path / "plan").write_bytes(plan)
    expected = run_undisturbed(tmp_path, plan)
    kills = 0
    while kills < KILLS / 4:
        directory = tmp_path / str(kills)
        directory.mkdir()
        (directory / "built").touch()
        stored: set[bytes] = set()
        while True:
            last = source.randrange(1, EVENTS)
            before = (directory / "built").read_text().splitlines()
            command = [sys.executable, "-m", "plan_process", directory, tmp_path / "plan", last]
            status = subprocess.run(
                [str(word) for word in command], env=environment(), timeout=LIMIT, check=False
            ).returncode
            lines = (directory / "built").read_text().splitlines()
            assert stored.isdisjoint(bytes.fromhex(line) for line in lines[len(before) :])
            with PlanState(directory / "state") as state:
                found = {build.record.request_digest for _, build in state.builds.builds()}
                assert state.builds.verify() == []
                for one in state.runs():
                    failed = (result for result in state.results(one) if result.reason)
                    found |= {result.request for result in failed if result.request}
            assert stored <= found
            stored = found
            if status == 0:
                break
            assert status == -signal.SIGKILL
            kills += 1
        with PlanState(directory / "state") as state:
            (finished,) = state.runs()
            assert finished.plan == digest_of(plan)
            assert finished.finished is not None
            results = {one.step: one for one in state.results(finished)}
        assert {step: outcome(one) for step, one in results.items()} == {
            step: outcome(one) for step, one in expected.items()
        }
