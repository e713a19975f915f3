# SPDX-License-Identifier: MIT
"""Work that ends before its call does, although the call is cancelled."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tvix_build.proxy.loop_thread import LoopThread
from tvix_build.proxy.service_calls import complete
from waiting import LIMIT


def test_a_cancelled_call_completes_its_work() -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def change() -> None:
            await gate.wait()
            completed.append("change")

        completed: list[str] = []
        call = asyncio.create_task(complete(change()))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.sleep(0)
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert completed == ["change"]

    asyncio.run(main())


def test_a_run_ends_before_its_call_that_is_cancelled_twice() -> None:
    started, cancelled, gate = threading.Event(), threading.Event(), threading.Event()
    ended: list[str] = []

    async def run() -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            cancelled.set()
            await asyncio.to_thread(gate.wait, LIMIT)
            ended.append("run")

    async def main() -> None:
        thread = LoopThread("test")
        call = asyncio.create_task(thread.run(run()))
        await asyncio.to_thread(started.wait, LIMIT)
        call.cancel()
        await asyncio.to_thread(cancelled.wait, LIMIT)
        call.cancel()
        await asyncio.sleep(0)
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert ended == ["run"]
        await thread.close()

    asyncio.run(main())
