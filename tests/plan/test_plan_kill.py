# SPDX-License-Identifier: MIT
"""Processes that run plans are killed at random events: no stored build is lost or repeated.

TVIX_BUILD_KILL_TRIALS is how many kills, 4 if unset.
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
from plan_kills import check_finished, make_random_plan, read_recorded, run_undisturbed
from tvix_build.plan.state import PlanState
from waiting import LIMIT

KILLS = int(os.environ.get("TVIX_BUILD_KILL_TRIALS", "4"))
EVENTS = 60  # at which a process is killed at the latest


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_kills(tmp_path: Path, seed: int) -> None:
    source = random.Random(seed)
    plan = make_random_plan(source)
    (tmp_path / "plan").write_bytes(plan)
    expected = run_undisturbed(tmp_path, plan)
    kills = 0
    while kills < KILLS / 2:
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
                found = read_recorded(state)
            assert stored <= found
            stored = found
            if status == 0:
                break
            assert status == -signal.SIGKILL
            kills += 1
        with PlanState(directory / "state") as state:
            check_finished(state, plan, expected)
