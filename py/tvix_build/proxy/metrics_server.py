# SPDX-License-Identifier: MIT
"""Serves metrics over HTTP, within limits of time and connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from tvix_build.proxy.listening import ServeError

_SECONDS = 10.0
"""How long a request and its response may take."""
_CONNECTIONS = 32
"""The limit of connections; a further one ends the oldest one."""
_HEAD_SIZE = 1 << 14
"""The limit of the head of a request, in bytes."""


class MetricsServer:
    """Responds to each GET request with the metrics of a registry, and closes the connection.

    Args:
        registry: the registry.
        update: is awaited before each response.
        timeout: how long a request and its response may take, in seconds.

    Attributes:
        port: the bound port.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        update: Callable[[], Awaitable[None]] | None = None,
        timeout: float = _SECONDS,
    ) -> None:
        self._registry = registry
        self._update = update
        self._timeout = timeout
        self._connections: dict[asyncio.Task[None], None] = {}
        self._server: asyncio.Server | None = None
        self.port: int = 0

    async def start(self, host: str, port: int) -> None:
        """Start to serve.

        Raises:
            ServeError: if the address cannot be bound.
        """
        try:
            self._server = await asyncio.start_server(self._accept, host, port, limit=_HEAD_SIZE)
        except OSError as error:
            raise ServeError(f"metrics at {host}:{port}: {error.strerror or error}") from None
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Close all connections."""
        if self._server is not None:
            self._server.close()
        for one in self._connections:
            one.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= _CONNECTIONS:
            oldest = next(iter(self._connections))
            del self._connections[oldest]
            oldest.cancel()
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections[task] = None

        # Also if the task is cancelled before it starts. A client that does not read must not keep
        # the response.
        def end(_: object) -> None:
            self._connections.pop(task, None)
            writer.transport.abort()

        task.add_done_callback(end)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(
            asyncio.TimeoutError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
            ConnectionError,
        ):
            await asyncio.wait_for(self._respond(reader, writer), self._timeout)

    async def _respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request, *fields = head.split("\r\n")
        method = request.partition(" ")[0]
        if method not in ("GET", "HEAD"):
            status, kind, body = "405 Method Not Allowed", "text/plain", b""
        else:
            accepted = [
                value.strip()
                for name, _, value in (field.partition(":") for field in fields)
                if name.lower() == "accept"
            ]
            if self._update is not None:
                await self._update()
            encode, kind = choose_encoder(",".join(accepted))
            status, body = "200 OK", encode(self._registry)
        lines = [
            f"HTTP/1.1 {status}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        if method != "HEAD":
            writer.write(body)
        await writer.drain()
        # Until the client has read everything and closes the connection.
        writer.write_eof()
        while await reader.read(_HEAD_SIZE):
            pass
