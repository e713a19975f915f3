# SPDX-License-Identifier: MIT
"""The cost of the validating proxy (bench/load), compared with bare servers of grpcio.

One client calls two pairs of servers over loopback. The first pair is a server that looks responses
up, and the validating proxy with such a builder in its process. The second is a proxy of a dozen
lines and `tvix-build serve`, both in front of one server that looks responses up. A turn sends some
hundred requests to one server; the turns alternate, so that disturbances affect all servers alike.
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
from bench.building import DIRECTORY
from bench.corpora import ROOT, Cache
from bench.peers.python.rpc import SERVICE, responses
from bench.servers import Process

RESULTS = ROOT / "bench" / "results" / "load.md"
REQUESTS = 2000
CALLS_A_TURN = 400
MOST = 1.15
"""The limit of the cost of a call, relative to the bare server."""
LOADS = (1, 16)
"""Concurrent calls."""


@dataclass
class Turns:
    """The measurements of one server under one load.

    Attributes:
        rates: calls per second, by turn.
        cpu: CPU seconds of the server per call, by turn.
        latencies: the seconds of each call.
    """

    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def percentile(self, part: float) -> float:
        """Return a percentile of the latencies in seconds."""
        return sorted(self.latencies)[int(part * (len(self.latencies) - 1))]


class Peer:
    """A server and its measurements.

    Args:
        name: its name in the report.
        process: the measured process.
        expected: the expected response to each request.
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
        """Send the requests of a turn, `load` of them concurrently."""
        begin = self._next
        self._next = (begin + CALLS_A_TURN) % len(self._requests)
        requests = iter(self._requests[begin : begin + CALLS_A_TURN])
        turns = self.turns[load]
        cpu, start = self._process.cpu_seconds(), time.perf_counter()
        await asyncio.gather(*(self._call(requests, turns.latencies) for _ in range(load)))
        turns.rates.append(CALLS_A_TURN / (time.perf_counter() - start))
        turns.cpu.append((self._process.cpu_seconds() - cpu) / CALLS_A_TURN)

    async def _call(self, requests: Iterable[bytes], latencies: list[float]) -> None:
        for request in requests:
            start = time.perf_counter()
            response = await self._method(request)
            latencies.append(time.perf_counter() - start)
            if response != self._expected[request]:
                raise AssertionError(f"{self.name}: unexpected response")

    async def close(self) -> None:
        """Close the connection and kill the server."""
        await self._channel.close()
        self._process.kill()


@dataclass(frozen=True)
class Pair:
    """A bare server and the validating one in its place."""

    title: str
    bare: Peer
    validating: Peer

    def ratios(self, load: int) -> list[float]:
        """Return the time of the validating server relative to the bare one, by turn."""
        return [
            bare / validating
            for bare, validating in zip(
                self.bare.turns[load].rates, self.validating.turns[load].rates, strict=True
            )
        ]

    def cpu_ratio(self, load: int) -> float:
        """Return the CPU time of the validating server relative to the bare one."""
        return sum(self.validating.turns[load].cpu) / sum(self.bare.turns[load].cpu)


async def measure(rounds: int) -> list[Pair]:
    """Measure both pairs."""
    corpus = _corpus()
    expected = responses(corpus)
    # The client shares a CPU with the server behind a proxy. The measured server has its own CPU.
    client, server = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {client})
    end = servers.peer("lookup", corpus, cpu=client)
    processes = [
        servers.peer("lookup", corpus, cpu=server),
        servers.peer("validate", corpus, cpu=server),
        servers.peer("forward", corpus, f"127.0.0.1:{end.port}", cpu=server),
        servers.proxy(end.port, "--metrics", "127.0.0.1:0", cpu=server),
    ]
    names = [
        "bare server",
        "validating server",
        "bare proxy",
        "validating proxy (`tvix-build serve`)",
    ]
    peers = [Peer(name, one, expected) for name, one in zip(names, processes, strict=True)]
    try:
        for peer in peers:
            await peer.ready()
            for load in LOADS:
                await peer.turn(load)
                peer.turns[load] = Turns()
        for number in range(rounds):
            for load in LOADS:
                # Alternate the order, so that being first is no advantage.
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
    return Cache(DIRECTORY / "corpora").get(
        f"direct-{REQUESTS}", lambda: islice(corpora.nixpkgs("direct"), REQUESTS)
    )


def report(pairs: Sequence[Pair], busy: float) -> str:
    """Return the page; `busy` is the load average of the machine before the run."""
    lines = [_HEAD]
    for load in LOADS:
        lines += [
            f"## {load} concurrent call{'s' if load > 1 else ''}\n",
            "| | calls/s | p50 | p99 | CPU per call |",
            "| --- | --: | --: | --: | --: |",
        ]
        for pair in pairs:
            lines += [_row(peer, load) for peer in (pair.bare, pair.validating)]
        lines.append("")
    lines += [
        "## Cost of validation\n",
        f"Relative to the bare server: the median time of the turns (quartiles), and the CPU time. "
        f"✓ at most {MOST:g}, ✗ more.\n",
        "| | concurrent calls | time | CPU time |",
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
        f"{machine.cpu()}: one CPU for the measured server, one for the client and the server "
        f"behind a proxy; {len(pairs[0].bare.turns[1].rates)} turns of {CALLS_A_TURN} calls each; "
        f"grpcio {metadata.version('grpcio')}, Python {platform.python_version()}. Load average "
        f"of the machine before the run: {busy:.1f}.",
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
# Cost of the validating proxy

A client calls bare grpcio servers and validating ones over loopback. A validating server returns
the same responses, validates requests and responses, and counts the calls. The requests are those
of nixpkgs (direct). [How it is measured](../README.md#the-validating-proxy).
"""


def _make(options: argparse.Namespace) -> tuple[str, bool]:
    busy = machine.busy()
    return report(asyncio.run(measure(options.rounds)), busy), True


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="bench/load", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="turns of each server (%(default)s)")
    return program.run(parser, RESULTS, _make)


if __name__ == "__main__":
    sys.exit(main())
