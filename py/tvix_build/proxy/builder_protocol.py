# SPDX-License-Identifier: MIT
"""The interface between the proxy and a builder."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

from tvix_build.proxy.shared.services import Service

Metadata: TypeAlias = tuple[tuple[str, "str | bytes"], ...]


class Caller(NamedTuple):
    """Who calls.

    Attributes:
        connection: the address of the connection.
        name: the name that the caller has proved; empty if there is none.
        certificate: the client certificate in PEM; empty if there is none.
    """

    connection: str
    name: str = ""
    certificate: bytes = b""

    @property
    def share(self) -> str:
        """The name under which the caller holds builds and memory: its own, or its connection."""
        return self.name or self.connection


class Updates(Protocol):
    """Where a builder sends a response that is a stream."""

    async def begin(self, initial_metadata: Metadata) -> None:
        """Send the initial metadata, before the first update."""

    async def send(self, update: bytes) -> None:
        """Send an update, as soon as the caller has room for it.

        Raises:
            StatusError: if the update is invalid.
        """


class Call(NamedTuple):
    """A valid request on its way to a builder.

    Attributes:
        request: the canonical encoding of the request.
        digest: the digest of the request, 32 bytes.
        metadata: the metadata for the builder.
        remaining: returns the seconds until the deadline, or None without a deadline.
        caller: who calls.
        updates: where the updates of the response go; None if the response is one message.
    """

    service: Service
    request: bytes
    digest: bytes
    metadata: Metadata
    remaining: Callable[[], float | None]
    caller: Caller
    updates: Updates | None = None


class Response(NamedTuple):
    """The response of a builder, and its initial and trailing metadata. If it was a stream, `data`
    is empty, and the initial metadata is sent."""

    data: bytes
    initial_metadata: Metadata = ()
    trailing_metadata: Metadata = ()


class Builder(Protocol):
    """Handles calls, any number of them concurrently. Cancelling a call cancels its build."""

    async def build(self, call: Call) -> Response:
        """Return the response to a call.

        Raises:
            StatusError: if the call fails.
        """
