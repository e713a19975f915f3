# SPDX-License-Identifier: MIT
"""Waits of the tests. A test waits for an event, for as long as a busy machine may take; the limit
only ends a test that would wait forever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

LIMIT = 600.0
"""The seconds after which a wait fails."""
DEADLINES = [0.1 * 2**number for number in range(13)]
"""Deadlines in seconds, for tests of a deadline that expires after an event. On a slow machine the
first ones can expire before the event; then the test repeats with the next one."""


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition is true. It polls, because the numbers of a proxy and of gRPC's calls
    have no event to wait for."""

    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.005)

    await asyncio.wait_for(poll(), LIMIT)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until a condition on another process is true. It polls, because files that another
    process makes have no event to wait for."""
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
