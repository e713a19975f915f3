# SPDX-License-Identifier: MIT
"""How many calls there may be at once, and how many of them build."""

from __future__ import annotations

import asyncio

import grpc

from tvix_build.proxy.builder_protocol import Answer, Builder, Call
from tvix_build.proxy.status import refusal


class CallLimit:
    """Refuses calls beyond a number at once: RESOURCE_EXHAUSTED."""

    def __init__(self, builder: Builder, most: int) -> None:
        self._builder = builder
        self._most = most
        self.calls = 0

    async def build(self, call: Call) -> Answer:
        """Pass a call on, or refuse it."""
        if self.calls >= self._most:
            raise refusal(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "QUEUE_FULL",
                f"expected less than {self._most} calls at once, found as many",
            )
        self.calls += 1
        try:
            return await self._builder.build(call)
        finally:
            self.calls -= 1


class BuildLimit:
    """Has calls beyond a number wait for their turn, in order."""

    def __init__(self, builder: Builder, most: int) -> None:
        self._builder = builder
        self._turns = asyncio.Semaphore(most)
        self.builds = 0
        self.waiting = 0

    async def build(self, call: Call) -> Answer:
        """Pass a call on when it is its turn."""
        self.waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self.waiting -= 1
        self.builds += 1
        try:
            return await self._builder.build(call)
        finally:
            self.builds -= 1
            self._turns.release()
