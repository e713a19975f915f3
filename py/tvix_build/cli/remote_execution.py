# SPDX-License-Identifier: MIT
"""Runs requests and derivations of the command `build` on a Remote Execution engine."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tvix_build.builders import Builder
from tvix_build.castore import CastoreStore
from tvix_build.cli.opening import open_engine
from tvix_build.cli.sandbox import Sandbox

if TYPE_CHECKING:
    import grpc


@dataclass(frozen=True)
class RemoteExecution(Sandbox):
    """The options of a build on an engine. It has no limits, and keeps no failed builds.

    Attributes:
        address: the address of the engine.
        credentials: the TLS credentials, or None.
        properties: name, value and constraint of each platform property.
        cache: whether a cached result is returned.
    """

    address: str
    credentials: grpc.ChannelCredentials | None
    properties: list[tuple[str, str, str | None]]
    cache: bool

    def open_builder(self, castore: CastoreStore) -> AbstractContextManager[Builder]:
        """Return the builder."""
        return open_engine(
            self.address,
            castore,
            credentials=self.credentials,
            properties=self.properties,
            cache=self.cache,
            timeout=self.timeout,
        )
