# SPDX-License-Identifier: MIT
"""Receives requests within limits of memory and time."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import grpc
import grpc.aio

from tvix_build.proxy.shared.channels import Memory
from tvix_build.proxy.shares import Shares
from tvix_build.proxy.status import StatusError, status_error

_Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
_PATIENCE = 0.5
"""The seconds that a call waits for memory before uploads of other callers are ended for it."""


class _Upload:
    """A request that arrives, in the task of its call."""

    def __init__(self, caller: str) -> None:
        self.caller = caller
        self.failure: StatusError | None = None
        self._task = asyncio.current_task()

    def end(self, failure: StatusError) -> None:
        """End the call."""
        assert self._task
        if self.failure is None:
            self.failure = failure
            self._task.cancel()


class Receiver:
    """Receives requests. gRPC reads a message only when it is asked for, and until then only the
    first 64 KiB of a call.

    Args:
        memory: the limits.
        max_message_size: the limit of one message, which gRPC enforces.

    Attributes:
        bytes: what the callers hold.
    """

    def __init__(self, memory: Memory, max_message_size: int) -> None:
        self._timeout = memory.upload_timeout
        self._size = max_message_size
        self.bytes = Shares(memory.max_buffered)
        self._uploads: dict[_Upload, None] = {}

    async def receive(self, context: _Context, caller: str) -> bytes:
        """Return the request of a call. The caller holds its bytes until the call has ended.

        Raises:
            StatusError: if the request does not arrive in time, or memory is short.
        """
        upload = _Upload(caller)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._timeout, self._expire, upload)
        try:
            if not self.bytes.try_acquire(caller, self._size):
                await self._wait(upload)
            self._uploads[upload] = None
            try:
                data: Any = await context.read()
            finally:
                del self._uploads[upload]
                self.bytes.release(caller, self._size)
        except asyncio.CancelledError:
            if upload.failure is None:
                raise
            raise upload.failure from None
        finally:
            timer.cancel()
        if data is grpc.aio.EOF:
            raise status_error(
                grpc.StatusCode.INVALID_ARGUMENT, "NO_REQUEST", "expected a request, found none"
            )
        self.hold(context, caller, len(data))
        request: bytes = data
        return request

    def hold(self, context: _Context, caller: str, size: int) -> None:
        """Count the bytes of a message until the call has ended."""
        self.bytes.add(caller, size)
        release: Any = lambda _: self.bytes.release(caller, size)  # noqa: E731 - of a wrong type
        context.add_done_callback(release)

    def _expire(self, upload: _Upload) -> None:
        upload.end(
            status_error(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                "UPLOAD_TIMEOUT",
                f"the request did not arrive within {self._timeout:g} seconds",
            )
        )

    async def _wait(self, upload: _Upload) -> None:
        pressing = asyncio.create_task(self._press(upload))
        try:
            await self.bytes.acquire(upload.caller, self._size)
        finally:
            pressing.cancel()

    async def _press(self, upload: _Upload) -> None:
        while True:
            await asyncio.sleep(_PATIENCE)
            self._make_room(upload)

    def _make_room(self, waiting: _Upload) -> None:
        """End an upload: the oldest of the caller that holds most, or the waiting one, if no caller
        holds more than the waiting one would."""
        most = max(self._uploads, key=lambda one: self.bytes.of(one.caller), default=waiting)
        share = self.bytes.of(waiting.caller) + self._size
        found = most if self.bytes.of(most.caller) > share else waiting
        found.end(
            status_error(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "MEMORY_FULL",
                f"the limit of {self.bytes.capacity} bytes of messages is reached; try again later",
            )
        )
