# SPDX-License-Identifier: MIT
"""Soak test of the validating proxy (bench/soak): does it lose calls or leak memory?

A client calls `tvix-build serve`, which forwards the calls to a builder. Halfway through, the
builder is killed and restarted a little later. The client numbers its calls and retries each one
until it succeeds. In the end, client, proxy and builder must have the same counts, and the proxy
must use as much memory as in the beginning.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import re
import statistics
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from importlib import metadata
from itertools import count, islice
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from bench import corpora, machine, program, servers
from bench.building import DIRECTORY
from bench.corpora import ROOT, Cache, messages_of
from bench.peers.python.rpc import CALL_KEY, SERVICE, Record
from bench.servers import Process

RESULTS = ROOT / "bench" / "results" / "soak.md"
REQUESTS = 2000
CALLS_AT_ONCE = 32
DOWN_SECONDS = 3.0
"""The time without a builder."""
REPEAT_SECONDS = 0.05
"""The delay before the client retries a call."""
MOST_GROWTH = 0.05
"""The limit of the growth of memory from the second quarter to the last one."""


class Client:
    """Calls the proxy without a pause.

    Attributes:
        statuses: the number of calls by status, with retries.
        succeeded: the number of calls that succeeded, without retries.
        wrong: the number of responses that belong to another request.
    """

    def __init__(self, target: str, requests: list[bytes]) -> None:
        self._channel = grpc.aio.insecure_channel(target)
        self._method: Any = self._channel.unary_unary(SERVICE.method)
        self._requests = requests
        self._numbers = count()
        self._stopped = False
        self.statuses: Counter[str] = Counter()
        self.succeeded = 0
        self.wrong = 0

    async def run(self) -> None:
        """Call until stopped, and then until each started call has succeeded."""
        await asyncio.gather(*(self._call() for _ in range(CALLS_AT_ONCE)))
        await self._channel.close()

    def stop(self) -> None:
        """Start no more calls."""
        self._stopped = True

    async def ready(self) -> None:
        """Wait until the proxy is reachable."""
        await asyncio.wait_for(self._channel.channel_ready(), 60)

    async def _call(self) -> None:
        while not self._stopped:
            number = next(self._numbers)
            request = self._requests[number % len(self._requests)]
            response = await self._retry(request, str(number))
            self.succeeded += 1
            self.wrong += request not in response

    async def _retry(self, request: bytes, number: str) -> bytes:
        while True:
            try:
                response: bytes = await self._method(request, metadata=((CALL_KEY, number),))
            except grpc.aio.AioRpcError as error:
                self.statuses[error.code().name] += 1
                await asyncio.sleep(REPEAT_SECONDS)
            else:
                self.statuses["OK"] += 1
                return response


class Soak:
    """One run.

    Attributes:
        resident: the memory of the proxy in bytes, by second.
        rates: the successful calls, by second.
    """

    def __init__(self, seconds: float, corpus: Path) -> None:
        self._seconds = seconds
        self._corpus = corpus
        self._requests = list(messages_of(corpus.read_bytes()))
        self.resident: list[int] = []
        self.rates: list[int] = []

    async def run(self) -> Counts:
        """Run, and return the counts of all sides."""
        record = Path(f"{self._corpus}.built")
        record.unlink(missing_ok=True)
        port, metrics = servers.free_port(), servers.free_port()
        builder = servers.peer("builder", self._corpus, "0")
        proxy = servers.proxy(port, builder.port, "--metrics", f"127.0.0.1:{metrics}")
        try:
            client = Client(f"127.0.0.1:{port}", self._requests)
            await client.ready()
            running = asyncio.create_task(client.run())
            builder = await self._watch(client, proxy, builder)
            client.stop()
            await running
            counted = _counted_by_proxy(metrics)
            status = proxy.terminate()
        finally:
            proxy.kill()
            builder.kill()
        built = Counter(bytes(Record(record).counts))
        del built[0]
        return Counts(
            client.succeeded,
            client.wrong,
            dict(client.statuses),
            counted,
            sum(built.values()),
            sum((times - 1) * calls for times, calls in built.items()),
            status,
        )

    async def _watch(self, client: Client, proxy: Process, builder: Process) -> Process:
        """Observe the proxy each second, and kill the builder halfway through. Return the builder
        that runs at the end."""
        begin = time.monotonic()
        before, killed = 0, False
        for second in count(1):
            await asyncio.sleep(max(0.0, begin + second - time.monotonic()))
            self.resident.append(proxy.resident())
            self.rates.append(client.succeeded - before)
            before = client.succeeded
            if second % 60 == 0:
                _say(f"{second} s, {before:,} calls, {self.resident[-1] >> 20} MiB")
            if second >= self._seconds:
                break
            if not killed and second >= self._seconds / 2:
                killed = True
                builder.kill()
                await asyncio.sleep(DOWN_SECONDS)
                builder = await asyncio.to_thread(
                    servers.peer, "builder", self._corpus, str(builder.port)
                )
        return builder


@dataclass(frozen=True)
class Counts:
    """The counts of all sides.

    Attributes:
        succeeded: calls that the client has a response to.
        wrong: those of them whose response belongs to another request.
        client, proxy: calls by status.
        built: calls that the builder responded to, each counted once.
        again: repeated builds, for calls whose response was lost when the builder was killed.
        status: the exit status of the proxy.
    """

    succeeded: int
    wrong: int
    client: dict[str, int]
    proxy: dict[str, int]
    built: int
    again: int
    status: int

    def faults(self) -> list[str]:
        """Return the differences from the expected counts."""
        expected = [
            ("wrong responses", self.wrong, 0),
            ("calls that the builder responded to", self.built, self.succeeded),
            ("exit status of the proxy", self.status, 0),
        ]
        for name in sorted({*self.client, *self.proxy, "OK"}):
            counts = self.client.get(name, 0), self.proxy.get(name, 0)
            expected.append((f"calls with status {name} at the proxy", counts[1], counts[0]))
        expected.append(("calls with status OK", self.client.get("OK", 0), self.succeeded))
        faults = [
            f"expected {right:,} {name}, found {found:,}"
            for name, found, right in expected
            if found != right
        ]
        if self.again > self.client.get("UNAVAILABLE", 0):
            faults.append(f"expected less than {self.again:,} calls built again")
        return faults


def _corpus() -> Path:
    """Return some requests of nixpkgs, or generated ones if the data is missing."""
    cache = Cache(DIRECTORY / "corpora")
    try:
        return cache.get(f"direct-{REQUESTS}", lambda: islice(corpora.nixpkgs("direct"), REQUESTS))
    except corpora.NoDataError:
        return cache.get(f"tiny-{REQUESTS}", lambda: corpora.tiny(REQUESTS))


def _counted_by_proxy(port: int) -> dict[str, int]:
    """Return the calls by status, from the metrics of the proxy."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        text = response.read().decode()
    lines = re.findall(r'^tvix_build_calls_total\{.*code="(.*?)".*\} (.*)$', text, re.MULTILINE)
    found: Counter[str] = Counter()
    for code, number in lines:
        found[code] += int(float(number))
    return dict(found)


def report(soak: Soak, counts: Counts) -> tuple[str, bool]:
    """Return the page, and whether all counts are as expected."""
    quarter = len(soak.resident) // 4
    early, late = (
        statistics.median(soak.resident[first : first + quarter])
        for first in (quarter, 3 * quarter)
    )
    growth = late / early - 1
    faults = counts.faults()
    if growth > MOST_GROWTH:
        faults.append(f"expected no growth in memory, found {growth:.1%}")
    unavailable = counts.client.get("UNAVAILABLE", 0)
    rates = [rate for rate in soak.rates if rate]
    lines = [
        _HEAD.format(
            minutes=f"{len(soak.rates) / 60:.1f}",
            at_once=CALLS_AT_ONCE,
            down=DOWN_SECONDS,
        ),
        "| | |",
        "| --- | --: |",
        f"| calls that the client has a response to | {counts.succeeded:,} |",
        f"| calls that the proxy counted as OK | {counts.proxy.get('OK', 0):,} |",
        f"| calls that the builder responded to | {counts.built:,} |",
        f"| calls UNAVAILABLE while the builder was down, counted by client | {unavailable:,} |",
        f"| the same, counted by proxy | {counts.proxy.get('UNAVAILABLE', 0):,} |",
        f"| calls whose response was lost with the builder, built again | {counts.again:,} |",
        f"| calls per second, median (minimum-maximum of seconds with successful calls) | "
        f"{statistics.median(rates):,.0f} ({min(rates):,}-{max(rates):,}) |",
        f"| memory of the proxy, second quarter, MiB | {early / (1 << 20):.1f} |",
        f"| memory of the proxy, last quarter, MiB | {late / (1 << 20):.1f} ({growth:+.1%}) |",
        "",
        "✓ No call is lost, and memory does not grow."
        if not faults
        else "✗ " + "; ".join(faults) + ".",
        "",
        f"{machine.cpu()}, {len(os.sched_getaffinity(0))} CPUs, shared by client, proxy and "
        f"builder; grpcio {metadata.version('grpcio')}, Python {platform.python_version()}.",
    ]
    return "\n".join(lines) + "\n", not faults


_HEAD = """<!-- SPDX-License-Identifier: MIT -->
<!-- Written by bench/soak. Do not edit. -->
# Soak test of the validating proxy

{minutes} minutes at full load: a client with {at_once} concurrent calls calls `tvix-build serve`,
which forwards the calls to a builder. Halfway through, the builder is killed, and restarted after
{down:.0f} s. The client retries calls that were UNAVAILABLE.
[How it is measured](../README.md#the-validating-proxy).
"""


def _say(text: str) -> None:
    print(f"bench/soak: {text}", file=sys.stderr, flush=True)


def _make(options: argparse.Namespace) -> tuple[str, bool]:
    soak = Soak(60 * options.minutes, _corpus())
    return report(soak, asyncio.run(soak.run()))


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="bench/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="duration (%(default)s)")
    return program.run(parser, RESULTS, _make)


if __name__ == "__main__":
    sys.exit(main())
