# SPDX-License-Identifier: MIT
"""Limits of concurrent calls and of concurrent builds."""

from __future__ import annotations

import grpc

from tvix_build.proxy.builder_protocol import Builder, Call, Response
from tvix_build.proxy.shares import Shares
from tvix_build.proxy.status import StatusError, status_error


class BuildLimit:
    """Queues calls above a limit of concurrent builds. The next build is that of the caller with
    the fewest builds.

    Attributes:
        shares: the builds of each caller.
    """

    def __init__(self, builder: Builder, limit: int) -> None:
        self._builder = builder
        self.shares: Shares = Shares(limit)

    async def build(self, call: Call) -> Response:
        """Wait until a build may start, then forward the call."""
        share = call.caller.share
        if not self.shares.try_acquire(share):
            await self.shares.acquire(share)
        try:
            return await self._builder.build(call)
        finally:
            self.shares.release(share)


class CallLimit:
    """Rejects calls above a limit of concurrent calls with RESOURCE_EXHAUSTED: the newest waiting
    call of the caller with the most waiting calls.

    Args:
        builder: the builder.
        limit: the limit of calls.
        shares: that of the builds for which calls wait.
    """

    def __init__(self, builder: Builder, limit: int, shares: Shares) -> None:
        self._builder = builder
        self._shares = shares
        self.limit: int = limit
        self.calls: int = 0

    async def build(self, call: Call) -> Response:
        """Forward a call, or reject it.

        Raises:
            StatusError: if the limit is reached.
        """
        if self.calls >= self.limit and not self._shares.reject(call.caller.share, self._full):
            raise self._full()
        self.calls += 1
        try:
            return await self._builder.build(call)
        finally:
            self.calls -= 1

    def _full(self) -> StatusError:
        return status_error(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "QUEUE_FULL",
            f"the limit of {self.limit} concurrent calls is reached; try again later",
        )
