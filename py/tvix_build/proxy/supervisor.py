# SPDX-License-Identifier: MIT
"""Runs several processes of the proxy that listen on the same ports.

This process starts no server and no channel of gRPC: its threads would not survive a fork.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any

from tvix_build.proxy.listening import reserve
from tvix_build.proxy.logs import LOG
from tvix_build.proxy.metrics_server import MetricsServer
from tvix_build.proxy.running import handle_stops, log_draining, log_listening
from tvix_build.proxy.shared.addresses import Address
from tvix_build.proxy.worker import METRICS, RELOAD, STOP, Place
from tvix_build.proxy.worker_metrics import Described, WorkerMetrics

_PROGRAM = "import sys; sys.path[:] = {!r}; from tvix_build.__main__ import main; sys.exit(main())"
_LINE_SIZE = 64 << 20
"""The limit of a line of a worker, which has its metrics."""
_METRICS_SECONDS = 5.0
"""How long a worker may take to send its metrics, before the last ones are used."""
_RESTART_SECONDS = 1.0
"""The delay before a worker is replaced that ended before it accepted calls."""
_ENDING_SECONDS = 15.0
"""How long workers may take to end in addition to the delay and the grace period."""


@dataclass(frozen=True)
class Supervised:
    """What the workers do.

    Attributes:
        arguments: the arguments of the program for each worker.
        count: the number of workers.
        listen: the addresses that all listen on.
        metrics: the host and port to serve metrics on; None to serve none.
        grace: how long their running calls may continue, in seconds.
        drain_delay: how long they accept calls after a signal, in seconds.
    """

    arguments: Sequence[str]
    count: int
    listen: Sequence[Address]
    metrics: tuple[str, int] | None
    grace: float
    drain_delay: float


class _Worker:
    """A process, and the connection to it.

    Attributes:
        process: the process.
        ready: the first message, when it accepts calls; None before.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.process = process
        self.ready: dict[str, Any] | None = None
        self._reader = reader
        self._writer = writer
        self._requested: asyncio.Future[Described | None] | None = None

    async def wait_until_ready(self) -> bool:
        """Return whether the process accepts calls; otherwise, it has ended."""
        self.ready = await self._receive()
        return self.ready is not None

    async def wait_until_ended(self) -> int:
        """Receive metrics until the process has ended, and return its exit status."""
        while (message := await self._receive()) is not None:
            assert self._requested
            self._requested.set_result(message["metrics"])
        if self._requested is not None and not self._requested.done():
            self._requested.set_result(None)
        self._writer.close()
        return await self.process.wait()

    async def _receive(self) -> dict[str, Any] | None:
        """Return the next message; None if the process has ended, also within a message."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        message: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
        return message

    def send(self, command: str) -> None:
        """Send a command."""
        self._writer.write(command.encode() + b"\n")

    async def metrics(self) -> Described | None:
        """Return the current metrics; None if the process does not send them. Calls at the same
        time share a request."""
        if self._requested is None or self._requested.done():
            self._requested = asyncio.get_running_loop().create_future()
            self.send(METRICS)
        with suppress(asyncio.TimeoutError):
            return await asyncio.wait_for(asyncio.shield(self._requested), _METRICS_SECONDS)
        return None


class Supervisor:
    """Starts the workers, replaces those that end, and passes signals on to them."""

    def __init__(self, options: Supervised) -> None:
        self._options = options
        self._workers: dict[int, _Worker] = {}
        self._metrics = WorkerMetrics()
        self._addresses: list[str] = []
        self._metrics_port: int | None = None
        self._first = asyncio.Event()
        self._stopping = asyncio.Event()
        self._listening = False
        self._status = 0

    async def run(self) -> int:
        """Run the workers until a signal, and return the exit status: 0 after a shutdown, 1 if a
        worker failed in it, and 2 if the workers cannot start.

        Raises:
            ServeError: if an address cannot be bound.
        """
        stops: asyncio.Queue[str] = asyncio.Queue()
        handle_stops(stops)
        async with AsyncExitStack() as stack:
            for address in self._options.listen:
                text, sockets = reserve(address)
                self._addresses.append(text)
                for one in sockets:
                    stack.callback(one.close)
            await self._serve_metrics(stack)
            stopping = asyncio.create_task(self._stop_at(stops))
            # An error in the options appears once: the first worker starts alone.
            await asyncio.gather(*(self._keep(number) for number in range(self._options.count)))
            stopping.cancel()
        if self._listening:
            LOG.info("stopped")
        return self._status

    async def _serve_metrics(self, stack: AsyncExitStack) -> None:
        if self._options.metrics is None:
            return
        server = MetricsServer(self._metrics.registry, self._update_metrics)
        await server.start(*self._options.metrics)
        self._metrics_port = server.port
        stack.push_async_callback(server.close)

    async def _update_metrics(self) -> None:
        workers = {number: one for number, one in self._workers.items() if one.ready}
        found = await asyncio.gather(*(one.metrics() for one in workers.values()))
        for (number, worker), metrics in zip(workers.items(), found, strict=True):
            if metrics is not None and self._workers.get(number) is worker:
                self._metrics.set(number, metrics)

    async def _stop_at(self, stops: asyncio.Queue[str]) -> None:
        """Stop all workers at the first signal, and end their calls at the next one."""
        log_draining(await stops.get(), self._options.grace)
        self._stop()
        await stops.get()
        self._send(STOP)

    def _stop(self) -> None:
        self._stopping.set()
        self._first.set()
        self._send(STOP)
        limit = self._options.drain_delay + self._options.grace + _ENDING_SECONDS
        asyncio.get_running_loop().call_later(limit, self._kill)

    def _send(self, command: str) -> None:
        for worker in self._workers.values():
            worker.send(command)

    def _kill(self) -> None:
        for number, worker in self._workers.items():
            LOG.error("worker killed", extra={"fields": {"worker": number}})
            with suppress(ProcessLookupError):
                worker.process.kill()

    async def _keep(self, number: int) -> None:
        """Run a worker, and others after it, until the shutdown."""
        if number > 0:
            await self._first.wait()
        while not self._stopping.is_set():
            if not await self._run_one(number):
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), _RESTART_SECONDS)

    async def _run_one(self, number: int) -> bool:
        """Run a worker, and return whether it accepted calls."""
        try:
            worker = await self._start(number)
        except OSError as error:  # There are too many processes or open files, or no memory.
            LOG.error(
                "worker not started", extra={"fields": {"worker": number, "reason": str(error)}}
            )
            if not self._listening:
                self._fail()
            return False
        if await worker.wait_until_ready():
            self._note_ready(number, worker)
        status = await worker.wait_until_ended()
        del self._workers[number]
        self._metrics.end(number)
        if self._stopping.is_set():
            self._status = self._status or int(status != 0)
        elif not self._listening:
            self._fail()
        else:
            fields = {"worker": number, "process": worker.process.pid, "status": status}
            LOG.error("worker ended", extra={"fields": fields})
        return worker.ready is not None

    def _fail(self) -> None:
        self._status = 2
        self._stop()

    async def _start(self, number: int) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            place = Place(number, self._options.count, self._addresses, theirs.fileno())
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-c",
                    _PROGRAM.format(sys.path),
                    *self._options.arguments,
                    env=place.environment(),
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # Signals of a terminal are for this process.
                )
            except OSError:
                ours.close()
                raise
        reader, writer = await asyncio.open_connection(sock=ours, limit=_LINE_SIZE)
        worker = self._workers[number] = _Worker(process, reader, writer)
        if self._stopping.is_set():
            worker.send(STOP)
        return worker

    def _note_ready(self, number: int, worker: _Worker) -> None:
        self._first.set()
        if self._listening:
            fields = {"worker": number, "process": worker.process.pid}
            LOG.info("worker started", extra={"fields": fields})
            return
        workers = [one for one in self._workers.values() if one.ready]
        if len(workers) < self._options.count:
            return
        self._listening = True
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._send, RELOAD)
        log_listening(
            self._addresses,
            self._metrics_port,
            max_connections=sum(one.ready["max_connections"] for one in workers if one.ready),
            workers=[one.process.pid for one in workers],
        )
