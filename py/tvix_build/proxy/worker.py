# SPDX-License-Identifier: MIT
"""One of several processes that listen on the same ports. The process that started it sends lines
over a connection, and gets JSON lines."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from tvix_build.proxy.server import Options, Server
from tvix_build.proxy.shared.addresses import parse
from tvix_build.proxy.worker_metrics import describe

STOP, RELOAD, METRICS = "stop", "reload", "metrics"
"""What the lines say. A second STOP ends all calls."""
_VARIABLE = "TVIX_BUILD_WORKER"


@dataclass(frozen=True)
class Place:
    """The place of a worker among the others.

    Attributes:
        number: its number, from 0.
        count: the number of workers.
        addresses: the addresses that all listen on, with their ports.
        connection: the file descriptor of the connection to the process that started it.
    """

    number: int
    count: int
    addresses: list[str]
    connection: int

    def environment(self) -> dict[str, str]:
        """Return the environment in which the worker starts."""
        kept = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
        return {**kept, _VARIABLE: json.dumps(asdict(self))}

    def share(self, options: Options) -> Options:
        """Return the options of this worker, which has its part of the limits of the proxy."""
        connections, memory = options.connections, options.memory
        return replace(
            options,
            listen=[parse(one) for one in self.addresses],
            max_builds=self._part(options.max_builds),
            max_queue=self._part(options.max_queue),
            max_castore_calls=self._part(options.max_castore_calls),
            connections=replace(
                connections, max_connections=self._part(connections.max_connections)
            ),
            memory=replace(memory, max_buffered=self._part(memory.max_buffered)),
            is_worker=True,
        )

    def sharing(self, read_options: Callable[[], Options]) -> Callable[[], Options]:
        """Return a function that reads the options of this worker."""
        return lambda: self.share(read_options())

    def _part(self, limit: int) -> int:
        return -(-limit // self.count)


def take_place() -> Place | None:
    """Return the place of this process, once; None if it is no worker."""
    value = os.environ.pop(_VARIABLE, None)
    return None if value is None else Place(**json.loads(value))


class Worker:
    """Obeys the process that started this one, and stops when that process ends."""

    def __init__(self, place: Place) -> None:
        self._connection = socket.socket(fileno=place.connection)
        self._reading: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._server: Server | None = None
        self._reload: Callable[[], None] = lambda: None

    async def begin(self, stops: asyncio.Queue[str]) -> None:
        """Read the connection. Signals are for the other process."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # Builds would inherit SIG_IGN.
            signal.signal(number, lambda *_: None)
        reader, self._writer = await asyncio.open_connection(sock=self._connection)
        self._reading = asyncio.create_task(self._read(reader, stops))

    def listening(self, server: Server, reload: Callable[[], None]) -> None:
        """Tell the other process."""
        self._server, self._reload = server, reload
        self._send({"max_connections": server.max_connections})

    def draining(self, reason: str, grace: float) -> None:
        """Nothing: the other process knows."""

    def stopped(self) -> None:
        """Close the connection."""
        assert self._writer
        assert self._reading
        self._reading.cancel()
        self._writer.close()

    async def _read(self, reader: asyncio.StreamReader, stops: asyncio.Queue[str]) -> None:
        try:
            async for line in reader:
                self._obey(line.decode().strip(), stops)
        except ConnectionError:
            pass
        finally:
            stops.put_nowait("the other process has ended")

    def _obey(self, command: str, stops: asyncio.Queue[str]) -> None:
        if command == STOP:
            stops.put_nowait(command)
        elif command == RELOAD:
            self._reload()
        elif command == METRICS:
            metrics = self._server.metrics if self._server else None
            self._send({"metrics": describe(metrics.collect() if metrics else [])})

    def _send(self, message: object) -> None:
        assert self._writer
        self._writer.write(json.dumps(message).encode() + b"\n")
