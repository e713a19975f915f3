# SPDX-License-Identifier: MIT
"""Receives requests within limits of memory and time."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, TypeAlias

import grpc
import grpc.aio

from tvix_build.proxy.open_calls import OpenCall
from tvix_build.proxy.shared.channels import Memory
from tvix_build.proxy.shares import Shares
from tvix_build.proxy.status import StatusError, status_error

_Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
_PATIENCE = 0.5
"""The seconds that a call waits for memory before uploads of other callers are ended for it."""


class Receiver:
    """Receives requests. gRPC reads a message only on demand, and until then only the
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
        self.bytes: Shares = Shares(memory.max_buffered)
        self._uploads: dict[OpenCall, tuple[str, float]] = {}
        self._waiting: set[OpenCall] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def receive(self, call: OpenCall, context: _Context, caller: str) -> bytes:
        """Return the request of a call. The caller holds its bytes until the call has ended. If the
        request does not arrive in time, or memory is short, this ends the call.

        Raises:
            StatusError: if the call has no request.
            CancelledError, AbortError: if the call is ended.
        """
        loop = asyncio.get_running_loop()
        self._uploads[call] = caller, loop.time() + self._timeout
        if self._timer is None:
            self._timer = loop.call_later(self._timeout, self._expire)
        try:
            if not self.bytes.try_acquire(caller, self._size):
                await self._wait(call, caller)
            data: Any = b""
            try:
                call.is_reading = True
                read: Any = await context.read()
                if call.failure is not None:  # It was ended when the request had just arrived.
                    raise asyncio.CancelledError
                data = read
            finally:
                call.is_reading = False
                self.bytes.release(caller, self._size - len(data or b""))
        finally:
            del self._uploads[call]
        if data is grpc.aio.EOF:
            raise status_error(
                grpc.StatusCode.INVALID_ARGUMENT, "NO_REQUEST", "expected a request, found none"
            )
        request: bytes = data
        call.on_end = partial(self.bytes.release, caller, len(request))
        return request

    def resize(self, memory: Memory) -> None:
        """Use other limits for the next requests."""
        self._timeout = memory.upload_timeout
        self.bytes.resize(max(memory.max_buffered, self._size))

    def hold(self, call: OpenCall, caller: str, request: bytes, response: bytes) -> None:
        """Count also the bytes of the response until the call has ended."""
        self.bytes.add(caller, len(response))
        call.on_end = partial(self.bytes.release, caller, len(request) + len(response))

    def _expire(self) -> None:
        """End the uploads whose time is over."""
        loop = asyncio.get_running_loop()
        self._timer = None
        for call, (_, deadline) in [*self._uploads.items()]:
            if deadline > loop.time():
                self._timer = loop.call_at(deadline, self._expire)
                return
            call.end(self._full() if call in self._waiting else self._late())

    def _late(self) -> StatusError:
        return status_error(
            grpc.StatusCode.DEADLINE_EXCEEDED,
            "UPLOAD_TIMEOUT",
            f"the request did not arrive within {self._timeout:g} seconds",
        )

    def _full(self) -> StatusError:
        return status_error(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "MEMORY_FULL",
            f"the limit of {self.bytes.capacity} bytes of messages is reached; try again later",
        )

    async def _wait(self, call: OpenCall, caller: str) -> None:
        pressing = asyncio.create_task(self._press(call, caller))
        self._waiting.add(call)
        try:
            await self.bytes.acquire(caller, self._size, lambda: self._waiting.discard(call))
        finally:
            self._waiting.discard(call)
            pressing.cancel()

    async def _press(self, call: OpenCall, caller: str) -> None:
        await asyncio.sleep(_PATIENCE)
        while call in self._waiting:
            self._make_room(call, caller)
            await asyncio.sleep(_PATIENCE)

    def _make_room(self, waiting: OpenCall, caller: str) -> None:
        """End the oldest upload of the caller that holds most, or the waiting one, if no caller
        holds more than the waiting one would. Requests that have arrived are not ended."""
        most = self.bytes.of(caller) + self._size
        if self.bytes.most() <= most:
            waiting.end(self._full())
            return
        found = None
        for upload, (other, _) in self._uploads.items():
            if upload not in self._waiting and self.bytes.of(other) > most:
                found, most = upload, self.bytes.of(other)
        if found is not None:
            found.end(self._full())
