# SPDX-License-Identifier: MIT
"""Deduplicates concurrent calls: those with the same request share one build."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TypeAlias

from tvix_build.proxy.builder_protocol import Builder, Call, Response
from tvix_build.proxy.shared.services import Service

_Key: TypeAlias = "tuple[Service, bytes, tuple[str | bytes, ...]]"


@dataclass(eq=False)
class _Build:
    task: asyncio.Task[Response]
    callers: int = 0


class Deduplicator:
    """Runs one build for all concurrent calls with the same digest and the same `authorization`.

    The build has the metadata of the first call and no deadline. A call that is cancelled, or whose
    deadline expires, leaves the build. When the last call has left it, the build is cancelled.
    """

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._builds: dict[_Key, _Build] = {}
        self.joined: int = 0

    async def build(self, call: Call) -> Response:
        """Join the build that is running for this request, or start one."""
        key = _key(call)
        build = self._builds.get(key)
        if build is None:
            build = self._builds[key] = self._begin(key, call)
        else:
            self.joined += 1
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


def _key(call: Call) -> _Key:
    # A caller must not receive what only another caller is authorized to see.
    authorization = tuple(value for name, value in call.metadata if name == "authorization")
    return call.service, call.digest, authorization
