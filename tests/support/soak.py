# SPDX-License-Identifier: MIT
"""Soak test of the validating proxy under attack: all attacks of `attacks` in turn, on one process,
beside good clients. Every good call must succeed, its request must be built once, and the
memory, the threads and the file descriptors of the proxy must not grow.

usage: bazel run //tests:soak -- [MINUTES]    (default: 30)
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import sys
import time
from collections import Counter
from typing import Any

import grpc
import grpc.aio

import tvix_build
from attacks import ATTACKS, Victim, build, memory, own_channel
from serving import METHOD, Builder, running
from tvix.build.protos.build_pb2 import Build, BuildRequest

CLIENTS = 4
TURN_SECONDS, REST_SECONDS = 10.0, 2.0
CALL_SECONDS = 120.0
"""The limit of a good call. Attacks that exhaust the CPU delay it."""
MOST_GROWTH = 0.1


class Soak:
    """One run.

    Attributes:
        succeeded: the number of good calls with the right response.
        failed: the statuses of other good calls.
        slowest: the longest good call, in seconds.
        built: how often the builder got each good request.
        samples: the memory in MB, the threads and the descriptors of the proxy, by second.
    """

    def __init__(self) -> None:
        self.succeeded = 0
        self.failed: Counter[str] = Counter()
        self.slowest = 0.0
        self.built: Counter[str] = Counter()
        self.samples: list[tuple[float, int, int]] = []
        self._numbers = itertools.count()
        self._stopped = False

    async def run(self, seconds: float) -> int:
        """Run, and return the exit status of the proxy."""
        async with running(Builder(self._build)) as upstream:
            victim = Victim(upstream)
            try:
                log = victim.read_log()
                clients = [asyncio.create_task(self._call(victim.port)) for _ in range(CLIENTS)]
                watching = asyncio.create_task(self._watch(victim))
                await self._attack(victim, time.monotonic() + seconds)
                self._stopped = True
                await asyncio.gather(*clients)
                watching.cancel()
                victim.process.terminate()
                return await asyncio.to_thread(victim.process.wait)
            finally:
                victim.kill()
                await log

    async def _build(self, request: BuildRequest, context: Any) -> Build:
        if request.command_args[0] == "good":
            self.built[request.command_args[1]] += 1
        return await build(request, context)

    async def _attack(self, victim: Victim, end: float) -> None:
        for name in itertools.cycle(ATTACKS):
            if time.monotonic() > end:
                return
            attack = victim.attack(name)
            await asyncio.sleep(TURN_SECONDS)
            attack.kill()
            attack.wait()
            await asyncio.sleep(REST_SECONDS)
            resident, threads, descriptors = self.samples[-1]
            print(
                f"{name}: {self.succeeded} succeeded, {dict(self.failed)} failed, slowest "
                f"{self.slowest:.1f} s, {resident:.0f} MB, {threads} threads, {descriptors} files",
                flush=True,
            )

    async def _watch(self, victim: Victim) -> None:
        while True:
            resident = memory(victim.process.pid, "VmRSS")
            self.samples.append((resident, victim.threads(), victim.descriptors()))
            await asyncio.sleep(1)

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

    def growths(self) -> list[float]:
        """Return the growth of memory, threads and descriptors from the second quarter to the last
        one, as parts."""
        quarter = len(self.samples) // 4
        early, late = self.samples[quarter : 2 * quarter], self.samples[3 * quarter :]
        return [
            statistics.median(last) / statistics.median(first) - 1
            for first, last in zip(zip(*early, strict=True), zip(*late, strict=True), strict=True)
        ]


def main() -> int:
    """The program."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    soak = Soak()
    status = asyncio.run(soak.run(60 * minutes))
    again = sum(count > 1 for count in soak.built.values())
    growths = soak.growths()
    resident = [one[0] for one in soak.samples]
    print(
        f"{minutes:g} minutes: {soak.succeeded} good calls succeeded, {dict(soak.failed)} failed, "
        f"slowest {soak.slowest:.1f} s; {len(soak.built)} requests built, {again} again; "
        f"median {statistics.median(resident):.0f} MB, at most {max(resident):.0f} MB; growth of "
        f"memory, threads and files {', '.join(f'{one:+.1%}' for one in growths)}; status {status}"
    )
    lost = soak.failed or again or len(soak.built) != soak.succeeded or status
    return int(bool(lost or max(growths) > MOST_GROWTH))


if __name__ == "__main__":
    sys.exit(main())
