# SPDX-License-Identifier: MIT
"""Deduplicates concurrent calls: those with the same request share one build."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeAlias

from tvix_build.proxy.builder_protocol import Builder, Call, Metadata, Response
from tvix_build.proxy.shared.services import Service
from tvix_build.proxy.status import DETAILS_KEY, StatusError

_Key: TypeAlias = "tuple[Service, bytes, bytes, Metadata]"
_AUTHORIZATION = ("authorization", "authorization-bin")


@dataclass(eq=False)
class _Build:
    task: asyncio.Task[Response]
    callers: int = 0


class Deduplicator:
    """Runs one build for all concurrent calls with the same digest of equal callers: those with the
    same client certificate and the same authorization.

    The build has the metadata of the first call and no deadline. A call that is cancelled, or whose
    deadline expires, leaves the build. When the last call has left it, the build is cancelled.

    Args:
        builder: the builder.
        equal: the names of further metadata that must be equal.
        shared: the names of metadata in responses that all calls get; the rest is for the first
            call, whose metadata the builder has received.

    Attributes:
        joined: the number of calls that joined a running build.
    """

    def __init__(
        self, builder: Builder, equal: Collection[str] = (), shared: Collection[str] = ()
    ) -> None:
        self._builder = builder
        self._equal = {*_AUTHORIZATION, *equal}
        self._shared = {DETAILS_KEY, *shared}
        self._builds: dict[_Key, _Build] = {}
        self.joined: int = 0

    async def build(self, call: Call) -> Response:
        """Join the build that is running for this request, or start one."""
        key = self._key(call)
        build = self._builds.get(key)
        if build is None:
            build = self._builds[key] = self._begin(key, call)
            return await self._wait(key, build)
        self.joined += 1
        try:
            response = await self._wait(key, build)
        except StatusError as error:
            raise StatusError(
                error.code,
                error.message,
                self._shareable(error.trailing_metadata),
                error.by,
                error.violations,
            ) from None
        return Response(
            response.data,
            self._shareable(response.initial_metadata),
            self._shareable(response.trailing_metadata),
        )

    async def _wait(self, key: _Key, build: _Build) -> Response:
        build.callers += 1
        try:
            return await asyncio.shield(build.task)
        finally:
            build.callers -= 1
            if not build.callers and not build.task.done():
                self._forget(key, build)  # A new call must not join a cancelled build.
                build.task.cancel()

    def _begin(self, key: _Key, call: Call) -> _Build:
        detached = call._replace(remaining=lambda: None)
        build = _Build(asyncio.create_task(self._builder.build(detached)))

        def done(task: asyncio.Task[Response]) -> None:
            self._forget(key, build)
            if not task.cancelled():
                task.exception()  # Mark it as retrieved, also when no call is left.

        build.task.add_done_callback(done)
        return build

    def _forget(self, key: _Key, build: _Build) -> None:
        if self._builds.get(key) is build:
            del self._builds[key]

    def _key(self, call: Call) -> _Key:
        # A caller must not receive what only another caller is authorized to see.
        equal = tuple(one for one in call.metadata if one[0] in self._equal)
        return call.service, call.digest, call.caller.certificate, equal

    def _shareable(self, metadata: Metadata) -> Metadata:
        return tuple(one for one in metadata if one[0] in self._shared)
