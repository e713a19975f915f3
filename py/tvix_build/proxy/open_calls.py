# SPDX-License-Identifier: MIT
"""The calls that the server has not ended, so that a shutdown can wait for them and end them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NoReturn

import grpc.aio

from tvix_build.proxy.builder_protocol import Metadata
from tvix_build.proxy.status import StatusError

_POLL_SECONDS = 0.005
_QUIET_POLLS = 10
"""Several, as a busy event loop passes a call to its task only after some rounds."""


class OpenCall:
    """A call in its task.

    Attributes:
        task: the task of the call.
        failure: the status with which the proxy ends the call; None if it does not.
        is_reading: whether the task waits for gRPC to read the request.
        on_end: is called when the call has ended.
    """

    __slots__ = ("_aborting", "_context", "failure", "is_reading", "on_end", "task")

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        task: asyncio.Task[None] | None = asyncio.current_task()
        assert task is not None
        self.task: asyncio.Task[None] = task
        self.failure: StatusError | None = None
        self.is_reading: bool = False
        self.on_end: Callable[[], None] | None = None
        self._aborting: asyncio.Task[None] | None = None
        self._context = context

    def end(self, failure: StatusError) -> None:
        """End the call: cancel its task, which handles `failure`. While gRPC reads the request, it
        aborts the call instead, which ends the reading with an AbortError: if the reading were
        cancelled, gRPC would never free a request that arrives then (grpc/grpc#43360)."""
        if self.failure is not None:
            return
        self.failure = failure
        if self.is_reading:
            self._aborting = asyncio.create_task(self._send(failure))
        else:
            self.task.cancel()

    async def abort(self, failure: StatusError, trailing: Metadata) -> NoReturn:
        """Send a status and end the task; after `end`, the status is `failure`."""
        if self._aborting is not None:
            await self._aborting
            raise asyncio.CancelledError
        with cancelled_if_ended():
            await self._context.abort(failure.code, failure.message, trailing)
        raise AssertionError("abort raises")

    async def _send(self, failure: StatusError) -> None:
        with suppress(grpc.aio.AbortError, grpc.aio.InternalError):
            await self._context.abort(failure.code, failure.message, failure.trailing_metadata)


class OpenCalls:
    """The calls that have not ended.

    Attributes:
        refusing: whether the server is shutting down, and accepts no call.
    """

    def __init__(self) -> None:
        self.refusing = False
        self._arrived = 0
        self._calls: dict[OpenCall, None] = {}

    def begin(self, context: grpc.aio.ServicerContext[Any, Any]) -> OpenCall:
        """Count a call until it ends."""
        call = OpenCall(context)
        self._arrived += 1
        self._calls[call] = None
        # Not `context.add_done_callback`: the context would refer to the callback, which refers to
        # the context, and the garbage collector would have to free each call.
        call.task.add_done_callback(partial(self._end, call))
        return call

    def _end(self, call: OpenCall, _: object) -> None:
        del self._calls[call]
        if call.on_end is not None:
            call.on_end()

    def end_all(self, failure: StatusError) -> None:
        """End all calls."""
        for call in [*self._calls]:
            call.end(failure)

    async def wait_until_idle(self) -> None:
        """Wait until each call has ended and its response is sent."""
        while self._calls:
            await asyncio.wait([one.task for one in self._calls])

    async def wait_until_quiet(self, timeout: float) -> None:
        """Wait until no call has arrived for a moment, for at most `timeout` seconds in which the
        event loop is not busy."""
        quiet = 0
        for _ in range(int(timeout / _POLL_SECONDS)):
            arrived = self._arrived
            await asyncio.sleep(_POLL_SECONDS)
            quiet = quiet + 1 if self._arrived == arrived else 0
            if quiet == _QUIET_POLLS:
                return


@contextmanager
def cancelled_if_ended() -> Iterator[None]:
    """Raise asyncio.CancelledError if gRPC has ended the call, before it cancels this task."""
    try:
        yield
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None
