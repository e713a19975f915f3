# SPDX-License-Identifier: MIT
"""Runs builds in threads, for asyncio."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


async def run_in_thread(function: Callable[[], T], cancel: Callable[[], object]) -> T:
    """Call a function in a thread of its own, and return its result.

    If this call is cancelled, it calls `cancel` and waits for the function. A second cancellation
    ends the wait, while the function goes on.
    """
    import asyncio  # Builds without asyncio do not need its many modules.

    # Not in a pool that others use, because a build may take long, and bubblewrap ends with the
    # thread that started it.
    pool = ThreadPoolExecutor(1)
    try:
        context = contextvars.copy_context()
        running = asyncio.get_running_loop().run_in_executor(pool, context.run, function)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            cancel()
            await asyncio.wait([running])
            running.exception()  # so that it is not reported
            raise
    finally:
        pool.shutdown(wait=False)
