# SPDX-License-Identifier: MIT
"""Counts the calls that the server has not ended, so that a shutdown can wait for them."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio


class OpenCalls:
    """The calls that have not ended."""

    def __init__(self) -> None:
        self._count = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def begin(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Count a call until it ends."""
        self._count += 1
        self._idle.clear()
        end: Any = self._end  # The stubs declare a type that no function has.
        context.add_done_callback(end)

    async def wait_until_idle(self) -> None:
        """Wait until each call has ended and its response is sent."""
        await self._idle.wait()

    def _end(self, _: object) -> None:
        self._count -= 1
        if not self._count:
            self._idle.set()
