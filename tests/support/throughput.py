# SPDX-License-Identifier: MIT
"""Measures how many calls one worker and two workers of the validating proxy complete. The proxy
has no builder, and the client sends prepared frames, so that most CPU time is that of the proxy.

usage: bazel run //tests:throughput
"""

from __future__ import annotations

import asyncio
import itertools
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
    read_frame,
)
from serving import METHOD

REQUEST = tvix_build.build_request(command_args=["a"], outputs=["b"]).SerializeToString()
CONNECTIONS, STREAMS = 64, 2
TURNS, SECONDS = 10, 2.0


class Turn(NamedTuple):
    """Completed calls per second, and CPU seconds of all processes of the proxy per call."""

    rate: float
    cpu: float


class Proxy:
    """A proxy with some workers, until it is closed."""

    def __init__(self, workers: int) -> None:
        self.port = _free_port()
        listen = f"grpc+http://127.0.0.1:{self.port}"
        options = ("--check-only", "--workers", str(workers), "--log-level", "error")
        self._process = start("serve", "--listen", listen, *options, stderr=subprocess.DEVNULL)

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


async def call(port: int, completed: list[int]) -> None:
    """Call over a connection until cancelled, and count the completed calls."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    streams = itertools.count(1, 2)
    block = headers(METHOD)

    def begin() -> None:
        stream = next(streams)
        writer.write(frame(HEADERS, END_HEADERS, stream, block))
        writer.write(data_frames(stream, message(REQUEST)))

    writer.write(BEGINNING)
    for _ in range(STREAMS):
        begin()
    try:
        while True:
            kind, flags, stream, payload = await read_frame(reader)
            if stream and flags & END_STREAM:
                completed[0] += 1
                begin()
            elif kind in (SETTINGS, PING) and not flags & ACK:
                writer.write(frame(kind, ACK, 0, payload if kind == PING else b""))
    finally:
        writer.close()


async def turn(proxy: Proxy) -> Turn:
    """Call a proxy for some seconds."""
    completed = [0]
    before, begin = proxy.cpu_seconds(), time.monotonic()
    calling = [asyncio.create_task(call(proxy.port, completed)) for _ in range(CONNECTIONS)]
    await asyncio.sleep(SECONDS)
    cpu, seconds = proxy.cpu_seconds() - before, time.monotonic() - begin
    for one in calling:
        one.cancel()
    await asyncio.gather(*calling, return_exceptions=True)
    return Turn(completed[0] / seconds, cpu / completed[0])


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
    print("| workers | calls/s | CPU per call |")
    print("| --: | --: | --: |")
    for workers, found in turns.items():
        rate = statistics.median(one.rate for one in found)
        cpu = 1e6 * statistics.median(one.cpu for one in found)
        print(f"| {workers} | {rate:,.0f} | {cpu:.0f} µs |")
    ratios = [two.rate / one.rate for one, two in zip(turns[1], turns[2], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"\ntwo workers relative to one: {middle:.2f} ({low:.2f}-{high:.2f})")


if __name__ == "__main__":
    main()
