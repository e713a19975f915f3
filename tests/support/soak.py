# SPDX-License-Identifier: MIT
"""Soak test of the validating proxy under attack: all attacks of `attacks` in turn, on one process,
beside good clients. Every good call must succeed, its request must be built once, and the
memory, the threads and the file descriptors of the proxy must be level and bounded.

During an attack, the memory depends on the messages that have just arrived; what the proxy does not
release shows when no attack runs. So there is a pause after each attack, and of each round of all
attacks, the least memory at the end of a pause counts. Its median over the rounds of the last
quarter must not exceed that of the second quarter by more than a tenth. Threads and descriptors
count alike, but may be four more, as pools start threads only when all are busy; one left behind by
each round of 30 minutes makes more. At no time may the memory exceed that before the first attack
by more than twice `--max-buffered`: gRPC has a message in pieces until the proxy has it as one.

usage: bazel run //tests:soak -- [MINUTES]    (default: 30; at least four rounds)
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import sys
import time
from collections import Counter
from typing import Any, NamedTuple

import grpc
import grpc.aio

import tvix_build
from attacks import ATTACKS, Victim, build, memory, own_channel
from serving import METHOD, Builder, running
from tvix.build.protos.build_pb2 import Build, BuildRequest
from tvix_build.proxy.shared.channels import Memory

CLIENTS = 4
TURN_SECONDS, PAUSE_SECONDS = 10.0, 2.0
LEAST_ROUNDS = 4
CALL_SECONDS = 120.0
"""The limit of a good call. Attacks that exhaust the CPU delay it."""
MOST_GROWTH = 0.1
MOST_MORE = 4
MOST_BUFFERED = 2 * Memory().max_buffered / 1e6
"""The memory for messages, in MB."""


class Sample(NamedTuple):
    """What the proxy has.

    Attributes:
        resident: its memory in MB.
        threads, descriptors: their numbers.
    """

    resident: float
    threads: int
    descriptors: int

    def __str__(self) -> str:
        return f"{self.resident:.0f} MB, {self.threads} threads, {self.descriptors} files"


class Soak:
    """One run.

    Attributes:
        succeeded: the number of good calls with the right response.
        failed: the statuses of other good calls.
        slowest: the longest good call, in seconds.
        built: how often the builder got each good request.
        rounds: the least of the pauses of each round.
        before: the memory in MB before the first attack.
        most: the largest memory in MB.
    """

    def __init__(self) -> None:
        self.succeeded = 0
        self.failed: Counter[str] = Counter()
        self.slowest = 0.0
        self.built: Counter[str] = Counter()
        self.rounds: list[Sample] = []
        self.before = self.most = 0.0
        self._numbers = itertools.count()
        self._stopped = False

    async def run(self, seconds: float) -> int:
        """Run, and return the exit status of the proxy."""
        async with running(Builder(self._build)) as upstream:
            victim = Victim(upstream)
            try:
                log = victim.read_log()
                clients = [asyncio.create_task(self._call(victim.port)) for _ in range(CLIENTS)]
                await asyncio.sleep(PAUSE_SECONDS)
                self.before = sample(victim).resident
                end = time.monotonic() + seconds
                while time.monotonic() < end or len(self.rounds) < LEAST_ROUNDS:
                    await self._attack(victim)
                self._stopped = True
                await asyncio.gather(*clients)
                self.most = memory(victim.process.pid, "VmHWM")
                victim.process.terminate()
                return await asyncio.to_thread(victim.process.wait)
            finally:
                victim.kill()
                await log

    async def _build(self, request: BuildRequest, context: Any) -> Build:
        if request.command_args[0] == "good":
            self.built[request.command_args[1]] += 1
        return await build(request, context)

    async def _attack(self, victim: Victim) -> None:
        """Run a round of all attacks."""
        pauses = []
        for name in ATTACKS:
            attack = victim.attack(name)
            await asyncio.sleep(TURN_SECONDS)
            attack.kill()
            attack.wait()
            await asyncio.sleep(PAUSE_SECONDS)
            pauses.append(sample(victim))
            print(
                f"{name}: {self.succeeded} succeeded, {dict(self.failed)} failed, slowest "
                f"{self.slowest:.1f} s, {pauses[-1]}",
                flush=True,
            )
        self.rounds.append(Sample(*map(min, zip(*pauses, strict=True))))

    async def _call(self, port: int) -> None:
        while not self._stopped:
            number = str(next(self._numbers))
            request = tvix_build.build_request(command_args=["good", number], outputs=["b"])
            data = request.SerializeToString()
            begin = time.monotonic()
            async with own_channel(port) as channel:
                method: Any = channel.unary_unary(METHOD)
                try:
                    response = await method(data, timeout=CALL_SECONDS)
                except grpc.aio.AioRpcError as error:
                    self.failed[error.code().name] += 1
                else:
                    assert Build.FromString(response).build_request == request
                    self.succeeded += 1
            self.slowest = max(self.slowest, time.monotonic() - begin)
            await asyncio.sleep(0.05)

    def quarters(self) -> tuple[Sample, Sample]:
        """Return the medians over the rounds of the second quarter and of the last one."""
        quarter = len(self.rounds) // 4
        second, last = self.rounds[quarter : 2 * quarter], self.rounds[-quarter:]
        return _medians(second), _medians(last)


def sample(victim: Victim) -> Sample:
    """Return what a proxy has now."""
    resident = memory(victim.process.pid, "VmRSS")
    return Sample(resident, victim.threads(), victim.descriptors())


def _medians(rounds: list[Sample]) -> Sample:
    return Sample(*map(statistics.median, zip(*rounds, strict=True)))


def main() -> int:
    """The program."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    soak = Soak()
    status = asyncio.run(soak.run(60 * minutes))
    again = sum(count > 1 for count in soak.built.values())
    second, last = soak.quarters()
    print(
        f"{minutes:g} minutes: {soak.succeeded} good calls succeeded, {dict(soak.failed)} failed, "
        f"slowest {soak.slowest:.1f} s; {len(soak.built)} requests built, {again} again; "
        f"{soak.before:.0f} MB before, at most {soak.most:.0f} MB; after the attacks of "
        f"{len(soak.rounds)} rounds, {second} in the second quarter, {last} in the last one; "
        f"status {status}"
    )
    lost = soak.failed or again or len(soak.built) != soak.succeeded or status
    level = (
        last.resident <= second.resident * (1 + MOST_GROWTH)
        and last.threads <= second.threads + MOST_MORE
        and last.descriptors <= second.descriptors + MOST_MORE
    )
    bounded = soak.most <= soak.before + MOST_BUFFERED
    return int(bool(lost) or not level or not bounded)


if __name__ == "__main__":
    sys.exit(main())
