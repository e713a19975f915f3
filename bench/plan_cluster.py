# SPDX-License-Identifier: MIT
"""How long a plan takes on a cluster, by simulation: the scheduler of the package with builds that
only take time."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush

from tvix_build.plan.scheduling import Schedule, order_steps

LONGEST = 7200.0  # seconds


def durations(count: int, seed: int) -> list[float]:
    """Return seconds for builds: half of them up to 20 s, one in a hundred above 11 minutes."""
    rng = random.Random(seed)
    return [min(rng.lognormvariate(3, 1.5), LONGEST) for _ in range(count)]


def bound(needs: Sequence[Iterable[int]], seconds: Sequence[float], builders: int) -> float:
    """Return the time that no scheduler beats: that of the critical path, or the work for each
    builder."""
    finished = [0.0] * len(needs)
    for step in order_steps(needs):
        finished[step] = seconds[step] + max((finished[one] for one in needs[step]), default=0.0)
    return max(*finished, sum(seconds) / builders)


def simulate(needs: Sequence[Iterable[int]], seconds: Sequence[float], builders: int) -> float:
    """Return the time until all steps are built."""
    schedule = Schedule(needs)
    now = 0.0
    running: list[tuple[float, int]] = []
    while schedule.left:
        while len(running) < builders and (step := schedule.take()) is not None:
            heappush(running, (now + seconds[step], step))
        now, step = heappop(running)
        schedule.succeed(step)
    return now
