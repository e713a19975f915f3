# SPDX-License-Identifier: MIT
"""Keeps every request in a store before it is built."""

from __future__ import annotations

import asyncio

import grpc

from tvix_build.proxy.builder_protocol import Answer, Builder, Call
from tvix_build.proxy.logs import LOG
from tvix_build.proxy.status import refusal
from tvix_build.store import RequestStore


class Recorded:
    """Passes a call on once its request is on the disk. What comes while the disk is busy is
    written together."""

    def __init__(self, builder: Builder, store: RequestStore) -> None:
        self._builder = builder
        self._store = store
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def build(self, call: Call) -> Answer:
        """Record a call and pass it on."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((call.request, done))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        try:
            await done
        except Exception as error:
            LOG.error("store failed", extra={"fields": {"reason": str(error)}})
            raise refusal(
                grpc.StatusCode.INTERNAL, "STORE_FAILED", "expected to record the request, failed"
            ) from None
        return await self._builder.build(call)

    async def _write(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                error = await self._put([request for request, _ in batch])
                for _, done in batch:
                    if done.done():  # Its caller is gone.
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
