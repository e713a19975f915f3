# SPDX-License-Identifier: MIT
"""How fast a castore store ingests and materializes small files (bench/castore), compared with
`node_from_path`, which only hashes them, and with cp.

Writes a table to stdout. CPU times include the kernel and depend less on other processes than
elapsed times.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tvix_build.castore import CastoreStore, node_from_path

if TYPE_CHECKING:
    from tvix.castore.protos import castore_pb2

FILES_PER_DIRECTORY = 100


class Times(NamedTuple):
    """Seconds of one run."""

    elapsed: float
    cpu: float


def write_tree(root: Path, count: int) -> None:
    """Write files of 100 to 4096 random bytes."""
    rng = random.Random(1)
    for i in range(count):
        directory = root / f"{i // FILES_PER_DIRECTORY}"
        if i % FILES_PER_DIRECTORY == 0:
            directory.mkdir(parents=True)
        (directory / f"{i}").write_bytes(rng.randbytes(rng.randrange(100, 4097)))


def timed(run: Callable[[], object]) -> Times:
    """Run a function, and return its times, including those of its child processes."""
    before, begin = _cpu(), time.perf_counter()
    run()
    return Times(time.perf_counter() - begin, _cpu() - before)


def _cpu() -> float:
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def copy(option: str, source: Path, target: Path) -> None:
    """Copy a directory with cp."""
    subprocess.run(["cp", option, source, target], check=True)


def run_all(source: Path, node: castore_pb2.Node, directory: Path) -> dict[str, Times]:
    """Return the times of each operation, with a new store."""
    with CastoreStore(directory / "store") as store:
        operations: dict[str, Callable[[], object]] = {
            "node_from_path": partial(node_from_path, source),
            "ingest, new": partial(store.ingest, source),
            "ingest, stored before": partial(store.ingest, source),
            "cp -a": partial(copy, "-a", source, directory / "copy"),
            "cp -al": partial(copy, "-al", source, directory / "links"),
            "materialize, hard-link": partial(
                store.materialize, node, directory / "out", method="hard-link"
            ),
        }
        return {name: timed(run) for name, run in operations.items()}


def measure(directory: Path, count: int, rounds: int) -> dict[str, list[Times]]:
    """Return the times of each operation, measured in turns."""
    source = directory / "source"
    write_tree(source, count)
    node = node_from_path(source)
    found: dict[str, list[Times]] = {}
    for number in range(rounds):
        # Not removed before the end: ext4 makes files slowly while it passes over the inodes of
        # those that were removed some seconds ago.
        here = directory / f"{number}"
        here.mkdir()
        for name, times in run_all(source, node, here).items():
            found.setdefault(name, []).append(times)
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="bench/castore", description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, help="on the file system to measure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        found = measure(Path(directory), options.files, options.rounds)
    base = {"ingest": "node_from_path", "materialize": "cp -al"}
    print(f"{options.files:,} files, {len(os.sched_getaffinity(0))} CPUs, medians in seconds")
    for name, times in found.items():
        cpu = statistics.median(run.cpu for run in times)
        elapsed = statistics.median(run.elapsed for run in times)
        other = base.get(name.partition(",")[0])
        ratio = ""
        if other:
            ratios = [mine.cpu / its.cpu for mine, its in zip(times, found[other], strict=True)]
            ratio = f"  {statistics.median(ratios):.2f} x the CPU time of {other}"
        print(f"{name:<24} {elapsed:8.2f} elapsed {cpu:8.2f} CPU{ratio}")


if __name__ == "__main__":
    main()
