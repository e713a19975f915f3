# SPDX-License-Identifier: MIT
"""Runs the proxy until a signal, or the process that started it as a worker, stops it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Protocol

from tvix_build.proxy.builder_protocol import Builder
from tvix_build.proxy.logs import LOG
from tvix_build.proxy.server import Options, Server
from tvix_build.proxy.systemd import notify


class Control(Protocol):
    """Stops a server, and gets its state."""

    async def begin(self, stops: asyncio.Queue[str]) -> None:
        """Put the reason to stop into a queue, and another one to end all calls."""

    def listening(self, server: Server, reload: Callable[[], None]) -> None:
        """Note that the server accepts calls. From now on, `reload` may be called."""

    def draining(self, reason: str, grace: float) -> None:
        """Note that the server accepts no more calls."""

    def stopped(self) -> None:
        """Note that all calls have ended."""


class Signals:
    """Stops a server at SIGTERM and SIGINT, and reloads it at SIGHUP. The log and systemd get its
    state."""

    async def begin(self, stops: asyncio.Queue[str]) -> None:
        """Handle the signals that stop the server."""
        handle_stops(stops)

    def listening(self, server: Server, reload: Callable[[], None]) -> None:
        """Log the addresses, and handle SIGHUP."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
        log_listening(server.addresses, server.metrics_port, max_connections=server.max_connections)

    def draining(self, reason: str, grace: float) -> None:
        """Log the signal."""
        log_draining(reason, grace)

    def stopped(self) -> None:
        """Log the end."""
        LOG.info("stopped")


def handle_stops(stops: asyncio.Queue[str]) -> None:
    """Put the names of signals that stop the process into a queue."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stops.put_nowait, number.name)


def log_listening(addresses: list[str], metrics_port: int | None, **fields: object) -> None:
    """Tell the log and systemd that calls are accepted."""
    if metrics_port is not None:
        fields["metrics_port"] = metrics_port
    LOG.info("listening", extra={"fields": {"addresses": addresses, **fields}})
    notify("READY=1")


def log_draining(reason: str, grace: float) -> None:
    """Tell the log and systemd that no more calls are accepted."""
    notify("STOPPING=1")
    LOG.info("draining", extra={"fields": {"signal": reason, "grace_seconds": grace}})


async def run(
    options: Options,
    grace: float,
    builder: Builder | None = None,
    read_options: Callable[[], Options] | None = None,
    control: Control | None = None,
    on_end: Callable[[], None] = lambda: None,
) -> None:
    """Serve until `control` says to stop, then wait up to `grace` seconds for the running calls. If
    it says so again, they are cancelled. It can reload the options that `read_options` returns.

    Args:
        control: by default, signals.
        builder: as for `Server`.
        on_end: is called when all calls have ended, before resources are released.

    Raises:
        ServeError, StoreError: as `Server.start`.
    """
    server = Server(options, builder)
    control = control or Signals()
    stops: asyncio.Queue[str] = asyncio.Queue()
    await control.begin(stops)
    await server.start()
    try:
        control.listening(server, lambda: _reload(server, read_options))
        reason = await stops.get()
        control.draining(reason, grace)
        closing = asyncio.create_task(server.close(grace))
        again = asyncio.create_task(stops.get())
        await asyncio.wait([closing, again], return_when=asyncio.FIRST_COMPLETED)
        if not closing.done():
            await server.close(None)
        await closing
        again.cancel()
        on_end()
    finally:
        await server.free()
    control.stopped()


def _reload(server: Server, read_options: Callable[[], Options] | None) -> None:
    if read_options is None:
        return
    try:
        server.reload(read_options())
    except Exception as error:  # The old options stay in use.
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        LOG.error("not reloaded", extra={"fields": {"reason": message}})
    else:
        LOG.info("reloaded")
