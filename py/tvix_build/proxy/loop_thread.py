# SPDX-License-Identifier: MIT
"""An event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any


class LoopThread:
    """Runs coroutines in an event loop of its own, so that they never block the caller's loop.

    Args:
        name: the name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name=name)
        self._thread.start()

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine. Cancelling the call cancels it, and waits for its end, also if the call
        is cancelled again."""
        here = asyncio.get_running_loop()
        ended: asyncio.Future[asyncio.Task[None]] = here.create_future()
        tasks: list[asyncio.Task[None]] = []

        def begin() -> None:
            task = self._loop.create_task(work)
            tasks.append(task)
            task.add_done_callback(lambda _: here.call_soon_threadsafe(ended.set_result, task))

        self._loop.call_soon_threadsafe(begin)
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError:
            self._loop.call_soon_threadsafe(lambda: tasks[0].cancel())
            while not ended.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([ended])
            raise
        ended.result().result()

    async def close(self) -> None:
        """End the thread, after all calls of `run` have ended."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)

    def _serve(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()
