# SPDX-License-Identifier: MIT
"""What the door costs (bench/load): calls through it against calls of the least that grpcio can do.

Two pairs of servers, asked by one client over loopback: `echo` and the door with its builder in its
own process; a proxy of a dozen lines and `tvix-build serve`, both before one echo. Each turn asks
one server some hundred requests, so that what disturbs the machine disturbs all alike.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from bench import corpora, machine, program, servers
from bench.building import FOLDER
from bench.corpora import ROOT, Cache
from bench.peers.python.rpc import SERVICE, answers
from bench.servers import Process

RESULTS = ROOT / "bench" / "results" / "load.md"
REQUESTS = 2000
CALLS_A_TURN = 400
MOST = 1.15
"""What a call through the door may cost, where the bare server's costs 1."""
LOADS = (1, 16)
"""Calls at once."""


@dataclass
class Turns:
    """What was measured of one server under one load.

    Attributes:
        rates: calls a second, turn by turn.
        cpu: CPU seconds of the server a call, turn by turn.
        latencies: seconds, of all calls.
    """

    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def percentile(self, part: float) -> float:
        """A latency in seconds."""
        return sorted(self.latencies)[int(part * (len(self.latencies) - 1))]


class Peer:
    """A server that is asked, and what was found.

    Args:
        name: what the report calls it.
        process: that which is measured.
        expected: the answers that it must give.
    """

    def __init__(self, name: str, process: Process, expected: dict[bytes, bytes]) -> None:
        self.name = name
        self.turns = {load: Turns() for load in LOADS}
        self._process = process
        self._expected = expected
        self._requests = list(expected)
        self._next = 0
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{process.port}")
        self._method: Any = self._channel.unary_unary(SERVICE.method)

    async def ready(self) -> None:
        """Wait until it serves."""
        await asyncio.wait_for(self._channel.channel_ready(), 60)

    async def turn(self, load: int) -> None:
        """Ask it some requests, so many at once."""
        begin = self._next
        self._next = (begin + CALLS_A_TURN) % len(self._requests)
        requests = iter(self._requests[begin : begin + CALLS_A_TURN])
        turns = self.turns[load]
        cpu, start = self._process.cpu_seconds(), time.perf_counter()
        await asyncio.gather(*(self._ask(requests, turns.latencies) for _ in range(load)))
        turns.rates.append(CALLS_A_TURN / (time.perf_counter() - start))
        turns.cpu.append((self._process.cpu_seconds() - cpu) / CALLS_A_TURN)

    async def _ask(self, requests: Iterable[bytes], latencies: list[float]) -> None:
        for request in requests:
            start = time.perf_counter()
            answer = await self._method(request)
            latencies.append(time.perf_counter() - start)
            if answer != self._expected[request]:
                raise AssertionError(f"{self.name}: another answer than the expected one")

    async def close(self) -> None:
        """End it."""
        await self._channel.close()
        self._process.kill()


@dataclass(frozen=True)
class Pair:
    """A bare server and the door in its place."""

    title: str
    bare: Peer
    door: Peer

    def ratios(self, load: int) -> list[float]:
        """How many times as long the door takes, turn by turn."""
        return [
            bare / door
            for bare, door in zip(
                self.bare.turns[load].rates, self.door.turns[load].rates, strict=True
            )
        ]

    def cpu_ratio(self, load: int) -> float:
        """How many times as much CPU time the door takes."""
        return sum(self.door.turns[load].cpu) / sum(self.bare.turns[load].cpu)


async def measure(rounds: int) -> list[Pair]:
    """Measure both pairs."""
    corpus = _corpus()
    expected = answers(corpus)
    # The client, and what is behind a proxy, share a CPU; what is measured has one for itself.
    client, server = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {client})
    end = servers.peer("echo", corpus, cpu=client)
    processes = [
        servers.peer("echo", corpus, cpu=server),
        servers.peer("door", corpus, cpu=server),
        servers.peer("proxy", corpus, f"127.0.0.1:{end.port}", cpu=server),
        servers.door(servers.free_port(), end.port, "--metrics", "127.0.0.1:0", cpu=server),
    ]
    names = ["bare server", "door", "bare proxy", "door (`tvix-build serve`)"]
    peers = [Peer(name, one, expected) for name, one in zip(names, processes, strict=True)]
    try:
        for peer in peers:
            await peer.ready()
            for load in LOADS:
                await peer.turn(load)
                peer.turns[load] = Turns()
        for number in range(rounds):
            for load in LOADS:
                # Who is first has no advantage.
                for peer in peers if number % 2 else reversed(peers):
                    await peer.turn(load)
    finally:
        for peer in peers:
            await peer.close()
        end.kill()
    return [
        Pair("the builder in the same process", *peers[:2]),
        Pair("the builder behind another connection", *peers[2:]),
    ]


def _corpus() -> Path:
    return Cache(FOLDER / "corpora").get(
        f"direct-{REQUESTS}", lambda: islice(corpora.nixpkgs("direct"), REQUESTS)
    )


def report(pairs: Sequence[Pair], busy: float) -> str:
    """The page; `busy` is the machine's load average before."""
    lines = [_HEAD]
    for load in LOADS:
        lines += [
            f"## {load} call{'s' if load > 1 else ''} at once\n",
            "| | calls/s | p50 | p99 | CPU a call |",
            "| --- | --: | --: | --: | --: |",
        ]
        for pair in pairs:
            lines += [_row(peer, load) for peer in (pair.bare, pair.door)]
        lines.append("")
    lines += [
        "## What the door costs\n",
        f"Times as much as the bare one: the median of the turns (quartiles), and CPU time. ✓ at "
        f"most {MOST:g}, ✗ more.\n",
        "| | calls at once | time | CPU time |",
        "| --- | --: | --: | --: |",
    ]
    for pair in pairs:
        for load in LOADS:
            low, middle, high = statistics.quantiles(pair.ratios(load), n=4)
            cells = f"**{middle:.2f}** ({low:.2f}-{high:.2f}) {_mark(middle)}"
            cpu = pair.cpu_ratio(load)
            lines.append(f"| {pair.title} | {load} | {cells} | {cpu:.2f} {_mark(cpu)} |")
    lines += [
        "",
        f"{machine.cpu()}: one CPU for the server, one for the client and what is behind a proxy; "
        f"{len(pairs[0].bare.turns[1].rates)} turns of {CALLS_A_TURN} calls each; grpcio "
        f"{metadata.version('grpcio')}, Python {platform.python_version()}. What else ran on the "
        f"machine: a load average of {busy:.1f} at the beginning.",
    ]
    return "\n".join(lines) + "\n"


def _row(peer: Peer, load: int) -> str:
    turns = peer.turns[load]
    p50, p99 = (f"{1e6 * turns.percentile(part):,.0f} µs" for part in (0.5, 0.99))
    cpu = f"{1e6 * sum(turns.cpu) / len(turns.cpu):,.0f} µs"
    return f"| {peer.name} | {statistics.median(turns.rates):,.0f} | {p50} | {p99} | {cpu} |"


def _mark(ratio: float) -> str:
    return "✓" if ratio <= MOST else "✗"


_HEAD = """<!-- SPDX-License-Identifier: MIT -->
<!-- Written by bench/load. Do not edit. -->
# What the door costs

A client over loopback asks a bare grpcio server, and the door, which gives the same answers, checks
requests and answers, and counts. The requests are nixpkgs', direct.
[How it is measured](../README.md#the-door).
"""


def _make(options: argparse.Namespace) -> tuple[str, bool]:
    busy = machine.busy()
    return report(asyncio.run(measure(options.rounds)), busy), True


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="bench/load", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="turns of each (%(default)s)")
    return program.run(parser, RESULTS, _make)


if __name__ == "__main__":
    sys.exit(main())
