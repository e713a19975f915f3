# SPDX-License-Identifier: MIT
"""Attacks on the validating proxy. As a program, this runs each attack on a process of
`tvix-build serve`, beside a client that calls it again and again over a connection of its own, and
prints the memory of the proxy and what the good client noticed.

usage: bazel run //tests:attacks [NAME]...    (default: all)
       bazel run //tests:attacks --port PORT NAME    (attack a proxy until killed)

The attack `unfinished_scrapes` is one on the port of the metrics. `stalled_log` and `shutdown` are
names, too, of what clients of a proxy notice whose log nobody reads, or that shuts down.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import socket
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import grpc.aio

import tvix_build
from cli_support import start
from frames import (
    ACK,
    BEGINNING,
    DATA_FRAME,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    data_frames,
    field,
    frame,
    headers,
    integer,
    message,
    read_frame,
)
from serving import FREE_METRICS, FREE_PORT, METHOD, Builder, response_to, running
from tvix.build.protos.build_pb2 import Build, BuildRequest

REQUEST = tvix_build.build_request(command_args=["a"], outputs=["b"]).SerializeToString()
HELD = tvix_build.build_request(command_args=["held"], outputs=["b"]).SerializeToString()
"""A request whose build does not end."""
SLOW = tvix_build.build_request(command_args=["slow"], outputs=["b"]).SerializeToString()
"""A request whose build takes a second."""
MESSAGE_SIZE = 16 << 20
SECONDS = 10.0
"""How long the good client calls during each attack."""


class Connection(NamedTuple):
    """A connection to a proxy that no library made."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def call(self, stream: int, data: bytes = REQUEST) -> None:
        """Send a call."""
        self.writer.write(frame(HEADERS, END_HEADERS, stream, headers(METHOD)))
        self.writer.write(data_frames(stream, message(data)))


async def connect(port: int) -> Connection:
    """Return a connection with its first bytes sent."""
    connection = Connection(*await asyncio.open_connection("127.0.0.1", port))
    connection.writer.write(BEGINNING)
    return connection


def own_channel(port: int) -> grpc.aio.Channel:
    """Return a channel with a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options)


async def references(port: int) -> None:
    """Send 1,000 calls whose headers refer to one large header of the first."""
    reader, writer = await connect(port)
    large = headers(METHOD, ()) + field(b"x", bytes(3900).replace(b"\0", b"a"), 0x40)
    again = headers(METHOD, ()) + integer(62, 7, 0x80) * 3
    for number in range(1000):
        block = again if number else large
        writer.write(frame(HEADERS, END_HEADERS, 2 * number + 1, block))
        writer.write(data_frames(2 * number + 1, message(HELD)))
    await _drain(reader, writer)


async def resets(port: int) -> None:
    """Start 20,000 calls, and reset each at once."""
    reader, writer = await connect(port)
    block = headers(METHOD)
    for number in range(20_000):
        stream = 2 * number + 1
        writer.write(frame(HEADERS, END_HEADERS, stream, block))
        writer.write(frame(RST_STREAM, 0, stream, bytes(4)))
        if number % 100 == 0:
            await writer.drain()
    await _drain(reader, writer)


async def invalid(port: int) -> None:
    """Send invalid requests over four connections without a pause."""

    async def flood() -> None:
        async with own_channel(port) as channel:
            method: Any = channel.unary_unary(METHOD)
            while True:
                await asyncio.gather(*(method(b"\x08") for _ in range(100)), return_exceptions=True)

    await asyncio.gather(*(flood() for _ in range(4)))


async def compressed(port: int) -> None:
    """Send 64 compressed messages that are 16 MiB decompressed, and never end the calls."""
    reader, writer = await connect(port)
    packer = zlib.compressobj(9, wbits=31)
    data = packer.compress(bytes(MESSAGE_SIZE)) + packer.flush()
    block = headers(METHOD, [(b"grpc-encoding", b"gzip")])
    for number in range(64):
        writer.write(frame(HEADERS, END_HEADERS, 2 * number + 1, block))
        writer.write(data_frames(2 * number + 1, message(data, compressed=True), end=False))
    await _drain(reader, writer)


class _Windows:
    """The windows of a server, which a client must not exceed."""

    def __init__(self, streams: int) -> None:
        self._initial = 65535
        self.connection = self._initial
        self.streams = [self._initial] * streams

    async def follow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read until the connection is closed."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                kind, flags, stream, payload = await read_frame(reader)
                if kind == WINDOW_UPDATE and stream:
                    self.streams[stream // 2] += int.from_bytes(payload, "big")
                elif kind == WINDOW_UPDATE:
                    self.connection += int.from_bytes(payload, "big")
                elif kind == SETTINGS and not flags & ACK:
                    for at in range(0, len(payload), 6):
                        if payload[at : at + 2] == b"\0\4":
                            self._set_initial(int.from_bytes(payload[at + 2 : at + 6], "big"))
                    writer.write(frame(SETTINGS, ACK, 0))
                elif kind == PING and not flags & ACK:
                    writer.write(frame(PING, ACK, 0, payload))

    def _set_initial(self, size: int) -> None:
        self.streams = [one + size - self._initial for one in self.streams]
        self._initial = size


async def uploads(port: int) -> None:
    """Send all but the last byte of 40 messages of 16 MiB."""
    streams = 40
    reader, writer = await connect(port)
    for number in range(streams):
        writer.write(frame(HEADERS, END_HEADERS, 2 * number + 1, headers(METHOD)))
    windows = _Windows(streams)
    reading = asyncio.create_task(windows.follow(reader, writer))
    body = message(bytes(MESSAGE_SIZE - 1), MESSAGE_SIZE)
    sent = [0] * streams
    while not reading.done():
        await asyncio.sleep(0.001)
        for number in range(streams):
            rest = len(body) - sent[number]
            size = min(windows.connection, windows.streams[number], rest, 1 << 14)
            if size > 0:
                piece = body[sent[number] : sent[number] + size]
                writer.write(frame(DATA_FRAME, 0, 2 * number + 1, piece))
                sent[number] += size
                windows.streams[number] -= size
                windows.connection -= size
        with suppress(ConnectionError):
            await writer.drain()


async def places(port: int) -> None:
    """Have 1,400 calls in progress over 14 connections, whose builds take a second."""

    async def flood() -> None:
        connection = await connect(port)
        streams = itertools.count(1, 2)
        for _ in range(100):
            connection.call(next(streams), SLOW)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                kind, flags, stream, _ = await read_frame(connection.reader)
                if stream and kind in (HEADERS, RST_STREAM) and flags & END_STREAM:
                    connection.call(next(streams), SLOW)

    await asyncio.gather(*(flood() for _ in range(14)))


async def idle_connections(port: int) -> None:
    """Open 1,500 connections and send nothing."""
    sockets = []
    try:
        for _ in range(1500):
            sockets.append(socket.create_connection(("127.0.0.1", port)))
            await asyncio.sleep(0)
        await asyncio.Event().wait()
    finally:
        for one in sockets:
            one.close()


async def unfinished_scrapes(port: int) -> None:
    """Send the first line of 500 requests to the server of the metrics, again and again."""
    while True:
        opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(500)]
        for _, writer in opened:
            writer.write(b"GET /metrics HTTP/1.1\r\n")
        with suppress(ConnectionError):
            await opened[-1][0].read()
        for _, writer in opened:
            writer.close()


async def _drain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send everything, and read until the connection is closed."""
    with suppress(ConnectionError):
        await writer.drain()
        while await reader.read(1 << 16):
            pass


ATTACKS: dict[str, Callable[[int], Coroutine[Any, Any, None]]] = {
    "references": references,
    "resets": resets,
    "invalid": invalid,
    "compressed": compressed,
    "uploads": uploads,
    "places": places,
    "idle_connections": idle_connections,
    "unfinished_scrapes": unfinished_scrapes,
}


@dataclass
class Good:
    """What a good client noticed."""

    succeeded: int = 0
    failed: int = 0
    slowest: float = 0.0

    async def run(self, port: int, seconds: float) -> None:
        """Call the proxy, with a new connection for each call."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begin = time.monotonic()
            async with own_channel(port) as channel:
                method: Any = channel.unary_unary(METHOD)
                try:
                    await method(REQUEST, timeout=30)
                    self.succeeded += 1
                except grpc.aio.AioRpcError:
                    self.failed += 1
            self.slowest = max(self.slowest, time.monotonic() - begin)
            await asyncio.sleep(0.02)


async def build(request: BuildRequest, _context: Any) -> Build:
    """Return the response to a request: late to SLOW, never to HELD."""
    if request.command_args[0] == "slow":
        await asyncio.sleep(1)
    if request.command_args[0] == "held":
        await asyncio.Event().wait()
    return response_to(request)


def memory(process: int, name: str) -> float:
    """Return the memory of a process in MB: VmRSS or VmHWM, its peak."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text(), re.M)
    assert found
    return int(found[1]) / 1000


class Victim:
    """A process of the proxy with a limit of file descriptors, until it is killed.

    Attributes:
        process: the process, whose log nobody reads.
        port, metrics: its ports.
    """

    def __init__(self, upstream: str) -> None:
        options = ("--upstream", upstream, *FREE_METRICS)
        self.process = start("serve", "--listen", FREE_PORT, *options)
        assert self.process.stderr
        first = json.loads(self.process.stderr.readline())
        self.port = int(first["addresses"][0].rpartition(":")[2])
        self.metrics: int = first["metrics_port"]

    def attack(self, name: str) -> subprocess.Popen[bytes]:
        """Start an attack."""
        port = self.metrics if name == "unfinished_scrapes" else self.port
        return subprocess.Popen([sys.executable, __file__, "--port", str(port), name])

    def read_log(self) -> asyncio.Future[bytes]:
        """Read the log until the end."""
        assert self.process.stderr
        return asyncio.get_running_loop().run_in_executor(None, self.process.stderr.read)

    def threads(self) -> int:
        """Return the number of threads."""
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))

    def descriptors(self) -> int:
        """Return the number of file descriptors."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()


async def measure(name: str) -> str:
    """Run an attack on a proxy, and return a row of the table."""
    async with running(Builder(build)) as upstream:
        victim = Victim(upstream)
        try:
            log = victim.read_log()
            await Good().run(victim.port, 1.0)
            before = memory(victim.process.pid, "VmRSS")
            attack = victim.attack(name)
            good = Good()
            await good.run(victim.port, SECONDS)
            counts = f"{victim.threads()} | {victim.descriptors()}"
            attack.kill()
            attack.wait()
            peak = memory(victim.process.pid, "VmHWM")
        finally:
            victim.kill()
        await log
    return (
        f"| {name} | {before:.0f} | {peak:.0f} | {good.succeeded} | {good.failed} "
        f"| {good.slowest:.2f} | {counts} |"
    )


async def stalled_log() -> str:
    """Return what a good client notices of a proxy whose log nobody reads, and how long the proxy
    takes to shut down."""
    async with running(Builder(build)) as upstream:
        victim = Victim(upstream)
        attack = victim.attack("invalid")
        good = Good()
        await good.run(victim.port, SECONDS)
        attack.kill()
        attack.wait()
        begin = time.monotonic()
        victim.process.terminate()
        status = await asyncio.to_thread(victim.process.wait)
    return (
        f"stalled log: {good.succeeded} good calls, {good.failed} failed, slowest "
        f"{good.slowest:.2f} s; status {status} {time.monotonic() - begin:.1f} s after SIGTERM"
    )


async def shutdown() -> str:
    """Return the statuses of calls over 20 connections during eight shutdowns, in each of which
    each connection has 16 calls."""
    found: Counter[str] = Counter()

    async def call(method: Any) -> None:
        while True:
            try:
                await method(REQUEST)
            except grpc.aio.AioRpcError as error:
                found[error.code().name] += 1
                return

    async with running(Builder(build)) as upstream:
        for _ in range(8):
            victim = Victim(upstream)
            log = victim.read_log()
            async with AsyncExitStack() as stack:
                calls = []
                for _ in range(20):
                    channel = await stack.enter_async_context(own_channel(victim.port))
                    method: Any = channel.unary_unary(METHOD)
                    calls += [asyncio.create_task(call(method)) for _ in range(16)]
                await asyncio.sleep(1)
                victim.process.terminate()
                await asyncio.gather(*calls)
            await asyncio.to_thread(victim.process.wait)
            await log
    return f"shutdown: {dict(found)}"


def main() -> None:
    if sys.argv[1:2] == ["--port"]:
        asyncio.run(ATTACKS[sys.argv[3]](int(sys.argv[2])))
        return
    others = {"stalled_log": stalled_log, "shutdown": shutdown}
    print(
        "| attack | MB before | MB at most | good calls | failed | slowest, s | threads | files |"
    )
    print("| --- | --: | --: | --: | --: | --: | --: | --: |")
    for name in sys.argv[1:] or [*ATTACKS, *others]:
        print(asyncio.run(others[name]() if name in others else measure(name)), flush=True)


if __name__ == "__main__":
    main()
