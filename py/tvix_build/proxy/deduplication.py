# SPDX-License-Identifier: MIT
"""Calls in flight that ask for the same build share one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TypeAlias

from tvix_build.proxy.builder_protocol import Answer, Builder, Call
from tvix_build.proxy.shared.services import Service

_Key: TypeAlias = "tuple[Service, bytes, tuple[str | bytes, ...]]"


@dataclass(eq=False)
class _Build:
    task: asyncio.Task[Answer]
    callers: int = 0


class Shared:
    """Builds once for all callers with one digest (and one `authorization`) at the same time.

    The build has no deadline and the first caller's metadata. Callers leave it when they are
    cancelled, by their deadlines too; the last one to leave cancels it.
    """

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._builds: dict[_Key, _Build] = {}
        self.joined = 0

    async def build(self, call: Call) -> Answer:
        """Join a build or begin one."""
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
                self._forget(key, build)  # Nobody must join what is cancelled.
                build.task.cancel()

    def _begin(self, key: _Key, call: Call) -> _Build:
        alone = call._replace(remaining=lambda: None)
        build = _Build(asyncio.create_task(self._builder.build(alone)))

        def done(task: asyncio.Task[Answer]) -> None:
            self._forget(key, build)
            if not task.cancelled():
                task.exception()  # Seen, also if nobody waits any more.

        build.task.add_done_callback(done)
        return build

    def _forget(self, key: _Key, build: _Build) -> None:
        if self._builds.get(key) is build:
            del self._builds[key]


def _key(call: Call) -> _Key:
    # What one caller may see is not for another, as far as metadata says who that is.
    authorization = tuple(value for name, value in call.metadata if name == "authorization")
    return call.service, call.digest, authorization
