# SPDX-License-Identifier: MIT
"""Measures how many calls one worker and two workers of the validating proxy complete, with one CPU
and two, as one worker would use more than one. The proxy has no builder, and the client only counts
responses and sends prepared frames, so that most CPU time is that of the proxy. Two workers and the
client compete where there are two CPUs. So this also prints what two workers with a CPU each would
complete, by their CPU time per call.

usage: bazel run //tests:throughput
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import grpc.aio

import tvix_build
from cli_support import start
from frames import (
    ACK,
    BEGINNING,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    SETTINGS,
    data_frames,
    frame,
    headers,
    message,
    unpack_frame,
)
from serving import METHOD

REQUEST = tvix_build.build_request(command_args=["a"], outputs=["b"]).SerializeToString()
CONNECTIONS, STREAMS = 64, 2
TURNS, SECONDS = 10, 2.0
_HEADERS = frame(HEADERS, END_HEADERS, 0, headers(METHOD))
_DATA = data_frames(0, message(REQUEST))
_STREAM = slice(5, 9)
"""The place of the number of the stream in a frame."""


class Turn(NamedTuple):
    """Completed calls per second, and per call the CPU seconds of all processes of the proxy and
    of the client."""

    rate: float
    cpu: float
    client_cpu: float


class Proxy:
    """A proxy with some workers and as many CPUs, until it is closed."""

    def __init__(self, workers: int) -> None:
        self.port = _free_port()
        listen = f"grpc+http://127.0.0.1:{self.port}"
        options = ("--check-only", "--workers", str(workers), "--log-level", "error")
        usable = os.sched_getaffinity(0)
        os.sched_setaffinity(0, sorted(usable)[-workers:])  # A process inherits it.
        self._process = start("serve", "--listen", listen, *options, stderr=subprocess.DEVNULL)
        os.sched_setaffinity(0, usable)

    def cpu_seconds(self) -> float:
        """Return the CPU time of its processes so far."""
        first = Path(f"/proc/{self._process.pid}")
        children = (first / f"task/{first.name}/children").read_text().split()
        return sum(_cpu_seconds(one) for one in (first, *(Path("/proc") / one for one in children)))

    async def wait_until_reachable(self) -> None:
        """Wait until it accepts calls."""
        target = f"127.0.0.1:{self.port}"
        async with grpc.aio.insecure_channel(target) as channel:
            await channel.channel_ready()

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


def _free_port() -> int:
    """Return a port that is free now: the proxy logs no port, as it would also log each call."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _cpu_seconds(process: Path) -> float:
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Caller(asyncio.Protocol):
    """Calls over a connection. Each completed call is followed by another one.

    Attributes:
        completed: the number of completed calls.
    """

    def __init__(self) -> None:
        self.completed = 0
        self._stream = 1
        self._rest = b""
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the first calls."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        transport.write(BEGINNING + b"".join(self._begin() for _ in range(STREAMS)))

    def data_received(self, data: bytes) -> None:
        """Reply to the frames that are complete."""
        data = self._rest + data
        at, replies = 0, []
        while (found := unpack_frame(data, at)) is not None:
            kind, flags, stream, payload, at = found
            if stream and flags & END_STREAM:
                self.completed += 1
                replies.append(self._begin())
            elif kind in (SETTINGS, PING) and not flags & ACK:
                replies.append(frame(kind, ACK, 0, payload if kind == PING else b""))
        self._rest = data[at:]
        self._transport.write(b"".join(replies))

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def _begin(self) -> bytes:
        """Return the frames of the next call."""
        stream = self._stream.to_bytes(4, "big")
        self._stream += 2
        return b"".join(
            part
            for one in (_HEADERS, _DATA)
            for part in (one[: _STREAM.start], stream, one[_STREAM.stop :])
        )


async def turn(proxy: Proxy) -> Turn:
    """Call a proxy for some seconds."""
    loop = asyncio.get_running_loop()
    cpu, own, begin = proxy.cpu_seconds(), time.process_time(), time.monotonic()
    callers = []
    for _ in range(CONNECTIONS):
        _, caller = await loop.create_connection(Caller, "127.0.0.1", proxy.port)
        callers.append(caller)
    await asyncio.sleep(SECONDS)
    cpu, own = proxy.cpu_seconds() - cpu, time.process_time() - own
    seconds, completed = time.monotonic() - begin, sum(one.completed for one in callers)
    for caller in callers:
        caller.close()
    return Turn(completed / seconds, cpu / completed, own / completed)


async def measure() -> dict[int, list[Turn]]:
    """Return the turns by the number of workers."""
    turns: dict[int, list[Turn]] = {1: [], 2: []}
    with ExitStack() as stack:
        proxies = {}
        for workers in turns:
            proxies[workers] = proxy = Proxy(workers)
            stack.callback(proxy.close)
            await proxy.wait_until_reachable()
            await turn(proxy)
        for _ in range(TURNS):
            for workers, proxy in proxies.items():
                turns[workers].append(await turn(proxy))
    return turns


def main() -> None:
    """The program."""
    turns = asyncio.run(measure())
    print("| workers | calls/s | CPU per call | CPU of the client |")
    print("| --: | --: | --: | --: |")
    for workers, found in turns.items():
        rate = statistics.median(one.rate for one in found)
        cpu, client = (
            1e6 * _median_cpu(found),
            1e6 * statistics.median(one.client_cpu for one in found),
        )
        print(f"| {workers} | {rate:,.0f} | {cpu:.0f} µs | {client:.0f} µs |")
    ratios = [two.rate / one.rate for one, two in zip(turns[1], turns[2], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"\ntwo workers relative to one: {middle:.2f} ({low:.2f}-{high:.2f})")
    alone = 2 * _median_cpu(turns[1]) / _median_cpu(turns[2])
    print(f"with a CPU for each worker, by their CPU time: {alone:.2f}")


def _median_cpu(turns: list[Turn]) -> float:
    return statistics.median(one.cpu for one in turns)


if __name__ == "__main__":
    main()
