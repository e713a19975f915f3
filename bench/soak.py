# SPDX-License-Identifier: MIT
"""The door at full load for a long time (bench/soak): does it lose calls or grow?

A client asks a door, `tvix-build serve`, which asks a builder. In the middle the builder is killed,
and started again a little later. The client numbers its calls and repeats each one until it is
answered. In the end client, door and builder must have counted the same, and the door must need as
much memory as in the beginning.
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
from bench.building import FOLDER
from bench.corpora import ROOT, Cache, messages_of
from bench.peers.python.rpc import CALL_KEY, SERVICE, Record
from bench.servers import Process

RESULTS = ROOT / "bench" / "results" / "soak.md"
REQUESTS = 2000
CALLS_AT_ONCE = 32
DOWN_SECONDS = 3.0
"""How long there is no builder."""
REPEAT_SECONDS = 0.05
"""How long the client waits before it repeats a call."""
MOST_GROWTH = 0.05
"""How much more memory the last quarter may need than the second one."""


class Client:
    """Asks the door without a pause.

    Attributes:
        statuses: how many calls ended with each status, repeated ones too.
        answered: how many calls were answered, each counted once.
        wrong: how many answers were none to their requests.
    """

    def __init__(self, target: str, requests: list[bytes]) -> None:
        self._channel = grpc.aio.insecure_channel(target)
        self._method: Any = self._channel.unary_unary(SERVICE.method)
        self._requests = requests
        self._numbers = count()
        self._stopped = False
        self.statuses: Counter[str] = Counter()
        self.answered = 0
        self.wrong = 0

    async def run(self) -> None:
        """Ask until stopped; then every call that was begun is answered."""
        await asyncio.gather(*(self._ask() for _ in range(CALLS_AT_ONCE)))
        await self._channel.close()

    def stop(self) -> None:
        """Begin no more calls."""
        self._stopped = True

    async def ready(self) -> None:
        """Wait until the door is there."""
        await asyncio.wait_for(self._channel.channel_ready(), 60)

    async def _ask(self) -> None:
        while not self._stopped:
            number = next(self._numbers)
            request = self._requests[number % len(self._requests)]
            answer = await self._answer(request, str(number))
            self.answered += 1
            self.wrong += request not in answer

    async def _answer(self, request: bytes, number: str) -> bytes:
        while True:
            try:
                answer: bytes = await self._method(request, metadata=((CALL_KEY, number),))
            except grpc.aio.AioRpcError as error:
                self.statuses[error.code().name] += 1
                await asyncio.sleep(REPEAT_SECONDS)
            else:
                self.statuses["OK"] += 1
                return answer


class Soak:
    """One run.

    Attributes:
        resident: memory of the door in bytes, second by second.
        rates: calls answered in each second.
    """

    def __init__(self, seconds: float, corpus: Path) -> None:
        self._seconds = seconds
        self._corpus = corpus
        self._requests = list(messages_of(corpus.read_bytes()))
        self.resident: list[int] = []
        self.rates: list[int] = []

    async def run(self) -> Counts:
        """Do it; what everybody counted."""
        record = Path(f"{self._corpus}.built")
        record.unlink(missing_ok=True)
        port, metrics = servers.free_port(), servers.free_port()
        builder = servers.peer("builder", self._corpus, "0")
        door = servers.door(port, builder.port, "--metrics", f"127.0.0.1:{metrics}")
        try:
            client = Client(f"127.0.0.1:{port}", self._requests)
            await client.ready()
            running = asyncio.create_task(client.run())
            builder = await self._watch(client, door, builder)
            client.stop()
            await running
            counted = _counted_by_door(metrics)
            status = door.terminate()
        finally:
            door.kill()
            builder.kill()
        built = Counter(bytes(Record(record).counts))
        del built[0]
        return Counts(
            client.answered,
            client.wrong,
            dict(client.statuses),
            counted,
            sum(built.values()),
            sum((times - 1) * calls for times, calls in built.items()),
            status,
        )

    async def _watch(self, client: Client, door: Process, builder: Process) -> Process:
        """Look at the door each second; kill the builder in the middle. The builder that is there
        at the end."""
        begin = time.monotonic()
        before, killed = 0, False
        for second in count(1):
            await asyncio.sleep(max(0.0, begin + second - time.monotonic()))
            self.resident.append(door.resident())
            self.rates.append(client.answered - before)
            before = client.answered
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
    """What everybody counted.

    Attributes:
        answered: calls that the client has an answer to.
        wrong: how many of these are none to their requests.
        client, door: statuses.
        built: calls that the builder answered, each counted once.
        again: how often it answered one again, as the first answer was lost when it was killed.
        status: the door's exit status.
    """

    answered: int
    wrong: int
    client: dict[str, int]
    door: dict[str, int]
    built: int
    again: int
    status: int

    def faults(self) -> list[str]:
        """What is not as it must be."""
        expected = [
            ("wrong answers", self.wrong, 0),
            ("calls that the builder answered", self.built, self.answered),
            ("the door's exit status", self.status, 0),
        ]
        for name in sorted({*self.client, *self.door, "OK"}):
            counts = self.client.get(name, 0), self.door.get(name, 0)
            expected.append((f"calls with status {name} at the door", counts[1], counts[0]))
        expected.append(("calls with status OK", self.client.get("OK", 0), self.answered))
        faults = [
            f"expected {right:,} {name}, found {found:,}"
            for name, found, right in expected
            if found != right
        ]
        if self.again > self.client.get("UNAVAILABLE", 0):
            faults.append(f"expected less than {self.again:,} calls built again")
        return faults


def _corpus() -> Path:
    """Some of nixpkgs' requests; where there are none, made-up ones."""
    cache = Cache(FOLDER / "corpora")
    try:
        return cache.get(f"direct-{REQUESTS}", lambda: islice(corpora.nixpkgs("direct"), REQUESTS))
    except corpora.NoDataError:
        return cache.get(f"tiny-{REQUESTS}", lambda: corpora.tiny(REQUESTS))


def _counted_by_door(port: int) -> dict[str, int]:
    """Calls by status."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    lines = re.findall(r'^tvix_build_calls_total\{.*code="(.*?)".*\} (.*)$', text, re.MULTILINE)
    found: Counter[str] = Counter()
    for code, number in lines:
        found[code] += int(float(number))
    return dict(found)


def report(soak: Soak, counts: Counts) -> tuple[str, bool]:
    """The page, and whether all is as it must be."""
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
        f"| calls that the client has an answer to | {counts.answered:,} |",
        f"| calls that the door counted as OK | {counts.door.get('OK', 0):,} |",
        f"| calls that the builder answered | {counts.built:,} |",
        f"| calls UNAVAILABLE while the builder was away, by the client | {unavailable:,} |",
        f"| the same, by the door | {counts.door.get('UNAVAILABLE', 0):,} |",
        f"| calls whose answer the kill took, built again | {counts.again:,} |",
        f"| calls a second, median (least-most where any was answered) | "
        f"{statistics.median(rates):,.0f} ({min(rates):,}-{max(rates):,}) |",
        f"| the door's memory in the second quarter, MiB | {early / (1 << 20):.1f} |",
        f"| the door's memory in the last quarter, MiB | {late / (1 << 20):.1f} ({growth:+.1%}) |",
        "",
        "✓ Nothing is lost, and nothing grows." if not faults else "✗ " + "; ".join(faults) + ".",
        "",
        f"{machine.cpu()}, {len(os.sched_getaffinity(0))} CPUs, which client, door and builder "
        f"share; grpcio {metadata.version('grpcio')}, Python {platform.python_version()}.",
    ]
    return "\n".join(lines) + "\n", not faults


_HEAD = """<!-- SPDX-License-Identifier: MIT -->
<!-- Written by bench/soak. Do not edit. -->
# The door for a long time

{minutes} minutes at full load: a client with {at_once} calls at once asks `tvix-build serve`, which
asks a builder. In the middle the builder is killed, and started again after {down:.0f} s. The
client repeats what was UNAVAILABLE. [How it is measured](../README.md#the-door).
"""


def _say(text: str) -> None:
    print(f"bench/soak: {text}", file=sys.stderr, flush=True)


def _make(options: argparse.Namespace) -> tuple[str, bool]:
    soak = Soak(60 * options.minutes, _corpus())
    return report(soak, asyncio.run(soak.run()))


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="bench/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (%(default)s)")
    return program.run(parser, RESULTS, _make)


if __name__ == "__main__":
    sys.exit(main())
