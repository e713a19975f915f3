# SPDX-License-Identifier: MIT
"""Runs requests and derivations of the command `build` on a server or a Remote Execution engine."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tvix_build.builders import Builder
from tvix_build.castore import CastoreStore
from tvix_build.cli.opening import open_builder
from tvix_build.cli.sandbox import Sandbox

if TYPE_CHECKING:
    import grpc

    from tvix_build.builders.reapi.address import Address as ReapiAddress
    from tvix_build.proxy.shared.addresses import Address


@dataclass(frozen=True)
class Remote(Sandbox):
    """The options of a build elsewhere. Its only limits are those of time and
    the log, and it keeps no failed builds.

    Attributes:
        address: the address of the server or engine.
        credentials: the TLS credentials, or None.
        properties: name, value and constraint of each platform property.
        cache: whether a cached result is returned.
    """

    address: Address | ReapiAddress
    credentials: grpc.ChannelCredentials | None
    properties: list[tuple[str, str, str | None]]
    cache: bool

    def open_builder(self, castore: CastoreStore) -> AbstractContextManager[Builder]:
        """Return the builder."""
        return open_builder(
            self.address,
            castore,
            limits=self.limits,
            timeout=self.timeout,
            credentials=self.credentials,
            properties=self.properties,
            cache=self.cache,
        )
