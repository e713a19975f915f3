# SPDX-License-Identifier: MIT
"""Limits of concurrent calls and of concurrent builds."""

from __future__ import annotations

import asyncio

import grpc

from tvix_build.proxy.builder_protocol import Builder, Call, Response
from tvix_build.proxy.status import status_error


class CallLimit:
    """Rejects calls above a limit of concurrent calls with RESOURCE_EXHAUSTED."""

    def __init__(self, builder: Builder, limit: int) -> None:
        self._builder = builder
        self._limit = limit
        self.calls: int = 0

    async def build(self, call: Call) -> Response:
        """Forward a call, or reject it.

        Raises:
            StatusError: if the limit is reached.
        """
        if self.calls >= self._limit:
            raise status_error(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "QUEUE_FULL",
                f"the limit of {self._limit} concurrent calls is reached; try again later",
            )
        self.calls += 1
        try:
            return await self._builder.build(call)
        finally:
            self.calls -= 1


class BuildLimit:
    """Queues calls above a limit of concurrent builds, first in, first out."""

    def __init__(self, builder: Builder, limit: int) -> None:
        self._builder = builder
        self._slots = asyncio.Semaphore(limit)
        self.builds: int = 0
        self.waiting: int = 0

    async def build(self, call: Call) -> Response:
        """Wait until a build may start, then forward the call."""
        self.waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self.waiting -= 1
        self.builds += 1
        try:
            return await self._builder.build(call)
        finally:
            self.builds -= 1
            self._slots.release()
