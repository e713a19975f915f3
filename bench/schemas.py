# SPDX-License-Identifier: MIT
"""Whether the engine is as fast in a later schema (bench/schemas): the requests of nixpkgs in
tvix.build.v1, and what `tvix_build.convert` makes of them in snix.build.v1.

Both are canonical, so that a digest is BLAKE3 of a message; all are compared.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from blake3 import blake3

import tvix_build
from bench import corpora, machine, program
from bench.building import DIRECTORY, Builder
from bench.corpora import ROOT, Cache
from bench.measure import DisagreementError, Peer, Process, Ratio, Sample, ratio, repetitions
from tvix_build import Schema

RESULTS = ROOT / "bench" / "results" / "schemas.md"
CORPORA = ("direct", "closure")
FIRST, LATER = Schema.TVIX_BUILD_V1, Schema.SNIX_BUILD_V1
TURN = 0.3
"""Seconds."""


def messages(name: str, schema: Schema) -> Iterator[bytes]:
    """Valid requests of nixpkgs in a schema."""
    found = list(corpora.nixpkgs(name))
    valid = tvix_build.check_batch(found).valid
    for i, data in enumerate(found):
        if valid[i]:
            yield tvix_build.convert(data, to=schema)


def measure(rounds: int) -> dict[str, list[Sample]]:
    """For each corpus a sample of each schema, measured in turns."""
    builder = Builder(DIRECTORY)
    builder.build_engine()
    cache = Cache(DIRECTORY / "corpora")
    samples = {}
    for name in CORPORA:
        files = [
            cache.get(f"{name}-in-{schema}", partial(messages, name, schema))
            for schema in (FIRST, LATER)
        ]
        peers = [
            Peer(schema, [str(builder.engine), "CORPUS", "100", f"{schema}.BuildRequest"])
            for schema in (FIRST, LATER)
        ]
        samples[name] = _race(peers, files, rounds)
    return samples


def _race(peers: list[Peer], files: list[Path], rounds: int) -> list[Sample]:
    """As `Race`, but each peer has a corpus of its own."""
    cpu = max(os.sched_getaffinity(0))
    processes: list[Process] = []
    try:
        for peer, file in zip(peers, files, strict=True):
            processes.append(Process(peer, file, cpu))
        first = [process.ask("run 1") for process in processes]
        for peer, file, response in zip(peers, files, first, strict=True):
            expected = _digest(corpora.messages_of(file.read_bytes()))
            if response["valid"] != response["requests"] or response["digest"] != expected:
                raise DisagreementError(f"{peer.name} finds other digests than BLAKE3 of {file}")
        counts = [repetitions(response["seconds"][0], TURN) for response in first]
        seconds: list[list[list[float]]] = [[] for _ in peers]
        for _ in range(rounds):
            for i, process in enumerate(processes):
                seconds[i].append(process.ask(f"run {counts[i]}")["seconds"])
    finally:
        for process in processes:
            process.stop()
    return [
        Sample(
            response["requests"], response["bytes"], taken, response["valid"], response["digest"]
        )
        for response, taken in zip(first, seconds, strict=True)
    ]


def _digest(some: Iterable[bytes]) -> str:
    """What a peer says of canonical messages."""
    return blake3(b"".join(blake3(data).digest() for data in some)).hexdigest()


def report(samples: dict[str, list[Sample]]) -> str:
    """The page."""
    lines = [
        _HEAD,
        f"| corpus | requests | bytes per request, {FIRST} | bytes per request, {LATER} "
        f"| GB/s, {FIRST} | GB/s, {LATER} | ratio |",
        "| --- | --: | --: | --: | --: | --: | --: |",
    ]
    for name, (first, later) in samples.items():
        sizes = [f"{one.bytes / one.requests:,.0f}" for one in (first, later)]
        speeds = [f"{one.bytes / one.seconds / 1e9:.2f}" for one in (first, later)]
        cells = [name, f"{first.requests:,}", *sizes, *speeds, _words(ratio(later, first))]
        lines.append(f"| {' | '.join(cells)} |")
    turns = statistics.median(len(one.rounds) for pair in samples.values() for one in pair)
    lines += [
        "",
        f"{machine.cpu()}, one thread, {turns:.0f} turns of {TURN:g} s for each schema. The load "
        f"average was {machine.busy():.0f} on {os.cpu_count()} CPUs. This affects the GB/s, but "
        "not the ratios, because both schemas were measured in turns.",
    ]
    return "\n".join(lines) + "\n"


def _words(found: Ratio) -> str:
    return f"**{found.median:.2f}** ({found.least:.2f}-{found.greatest:.2f})"


_HEAD = """<!-- SPDX-License-Identifier: MIT -->
<!-- Written by bench/schemas. Do not edit. -->
# A later schema

The C core checks, canonicalizes and hashes the requests of nixpkgs in two schemas: the original
requests, and the results of `tvix_build.convert`. The ratio is that of the throughputs in bytes per
second: the median of the rounds (minimum-maximum). [Method](../README.md#a-later-schema).
"""


def _make(options: argparse.Namespace) -> tuple[str, bool]:
    return report(measure(options.rounds)), True


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="bench/schemas", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="turns of each (%(default)s)")
    return program.run(parser, RESULTS, _make)


if __name__ == "__main__":
    sys.exit(main())
