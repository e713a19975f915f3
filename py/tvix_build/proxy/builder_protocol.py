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


class Call(NamedTuple):
    """A valid request on its way to a builder.

    Attributes:
        request: the canonical encoding of the request.
        digest: the digest of the request, 32 bytes.
        metadata: the metadata for the builder.
        remaining: returns the seconds until the deadline, or None without a deadline.
        caller: who calls.
    """

    service: Service
    request: bytes
    digest: bytes
    metadata: Metadata
    remaining: Callable[[], float | None]
    caller: Caller


class Response(NamedTuple):
    """The response of a builder, and its initial and trailing metadata."""

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
