# SPDX-License-Identifier: MIT
"""Stores each request before it is built."""

from __future__ import annotations

import asyncio

import grpc

from tvix_build.proxy.builder_protocol import Builder, Call, Response
from tvix_build.proxy.logs import LOG
from tvix_build.proxy.status import status_error
from tvix_build.store import RequestStore


class Recorder:
    """Forwards a call when its request is stored on disk. Requests that arrive during a write are
    written together by the next one."""

    def __init__(self, builder: Builder, store: RequestStore) -> None:
        self._builder = builder
        self._store = store
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def build(self, call: Call) -> Response:
        """Store the request of a call, then forward the call.

        Raises:
            StatusError: if the request cannot be stored, or the builder fails.
        """
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((call.request, done))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        try:
            await done
        except Exception as error:
            LOG.error("store failed", extra={"fields": {"reason": str(error)}})
            raise status_error(
                grpc.StatusCode.INTERNAL,
                "STORE_FAILED",
                "cannot store the request; see the proxy's log",
            ) from None
        return await self._builder.build(call)

    async def _write(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                error = await self._put([request for request, _ in batch])
                for _, done in batch:
                    if done.done():  # The call was cancelled.
                        continue
                    if error is None:
                        done.set_result(None)
                    else:
                        done.set_exception(error)
        finally:
            self._writer = None

    async def _put(self, requests: list[bytes]) -> Exception | None:
        try:
            await asyncio.to_thread(self._store.put_many, requests)
        except Exception as error:
            return error
        return None
