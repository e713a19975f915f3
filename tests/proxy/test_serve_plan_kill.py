# SPDX-License-Identifier: MIT
"""Clients, servers and builders of plans are killed at random events: no stored build is lost or
repeated, and the plan ends as without kills."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cli_support import environment
from waiting import LIMIT


def kill(seed: int, count: int) -> None:
    """Kill at least `count` processes."""
    command = [sys.executable, "-m", "plan_service_kills", str(seed), str(count)]
    done = subprocess.run(
        command, env=environment(), stdout=subprocess.PIPE, text=True, timeout=LIMIT, check=True
    )
    words = done.stdout.split()
    assert words[1::2] == ["client", "server", "builder"]
    assert sum(map(int, words[::2])) >= count


@pytest.mark.slow
def test_kills() -> None:
    kill(0, 20)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(3, 13))
def test_a_thousand_kills(seed: int) -> None:
    kill(seed, 100)
