# SPDX-License-Identifier: MIT
"""What the job in Spark costs (bench/scale), on this machine and, by a model, on a cluster.

nixpkgs' requests, again and again until they have the requested number of bytes, are Parquet files.
Each stage is timed alone: reading the column, the engine, writing results. Then the job runs with
one core on a gigabyte and on three, of which the model is made; the model says what it takes with
two cores, and for ten gigabytes, and the job runs so, too. At last a cluster of 1,000 cores is
simulated.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from importlib import metadata

import pyarrow as pa
import pyarrow.parquet as pq

import tvix_build
from bench import cluster, machine, program
from bench.cluster import BILLION, Job, Model, Prices, Run, Store, Stragglers, fitted
from bench.corpora import ROOT
from bench.tables import GIGABYTE, Tables, tables

RESULTS = ROOT / "bench" / "results" / "scale.md"
CORES = 1000
TASK = 128 << 20
"""Bytes of Parquet that Spark gives to one task, where files are as large or larger."""
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of Linux


def stages(source: Tables) -> dict[str, float]:
    """CPU seconds of each stage for all messages, one thread."""
    spent = {"reading the column": 0.0, "the engine": 0.0, "writing results": 0.0}

    def step(name: str, begin: float) -> float:
        end = time.process_time()
        spent[name] += end - begin
        return end

    sink = source.directory / "stages"
    schema = pa.schema([pa.field("id", pa.int64()), *pa.schema(tvix_build.check_batch([]))])
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for path in source.paths:
            file = pq.ParquetFile(path)
            begin = time.process_time()
            for batch in file.iter_batches(4096, use_threads=False):
                begin = step("reading the column", begin)
                reports = tvix_build.check_batch(batch.column("request"), threads=1)
                begin = step("the engine", begin)
                found = pa.record_batch(reports)
                rows = [batch.column("id"), *found.columns]
                writer.write_batch(pa.RecordBatch.from_arrays(rows, schema=schema))
                begin = step("writing results", begin)
    sink.unlink()
    return spent


def run(source: Tables, cores: int) -> Run:
    """The job as a process, and all that it starts."""
    # What loses its parent becomes a child of this process, which so learns what it took.
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    options = f"--master local[{cores}] --driver-memory 2g --conf spark.ui.enabled=false"
    variables = {"PYSPARK_SUBMIT_ARGS": f"{options} pyspark-shell", "SPARK_LOCAL_IP": "127.0.0.1"}
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "tvix_build.spark", str(source.directory)]
        before, begin = _children(), time.monotonic()
        done = subprocess.run(
            [*command, f"{directory}/results"],
            env={**os.environ, **variables, "PYSPARK_PYTHON": sys.executable},
            capture_output=True,
            text=True,
            check=False,
        )
        taken = time.monotonic() - begin
        if done.returncode not in (0, 1):
            raise RuntimeError(done.stderr)
        _wait_for_all()
    found = Run(source.bytes, cores, taken, _children() - before)
    _say(f"{found.size / GIGABYTE:.1f} GB, {cores} cores: {taken:.1f} s, {found.cpu:.1f} s of CPU")
    return found


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _wait_for_all() -> None:
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        one, more: runs on one core, of which the model is made.
        checked: the other runs.
        stages: CPU seconds of each stage for the messages of `one`.
        records: messages of `one`.
        packed: their bytes as Parquet.
    """

    one: Run
    more: Run
    checked: list[Run]
    stages: dict[str, float]
    records: int
    packed: int


def measure(size: int, large: int) -> Measured:
    """Measure all; `large` may be 0."""
    with tables(size) as source:
        spent = stages(source)
        one, two = run(source, 1), run(source, 2)
        records, packed = source.records * source.files, source.packed
    with tables(3 * size) as source:
        more = run(source, 1)
    checked = [two]
    if large:
        with tables(large) as source:
            checked += [run(source, 1), run(source, 2)]
    return Measured(one, more, checked, spent, records, packed)


_HEAD = """<!-- SPDX-License-Identifier: MIT -->
<!-- Written by bench/scale. Do not edit. -->
# Cost of the job in Spark

[Method](../README.md#tables), [conclusions](../../docs/scale.md).

## Stages

Requests of nixpkgs, one thread: {size:.2f} GB in {records:,} records of {mean:,.0f} bytes on
average, or {packed:.2f} GB as Parquet with zstd. Throughput is GB of messages per CPU second.
"""


def report(found: Measured, options: argparse.Namespace) -> str:
    """The page."""
    model = fitted(found.one, found.more)
    size = found.one.size
    lines = [
        _HEAD.format(
            size=size / GIGABYTE,
            records=found.records,
            mean=size / found.records,
            packed=found.packed / GIGABYTE,
        ),
        "| stage | GB/s per core |",
        "| --- | --: |",
        *(f"| {name} | {size / GIGABYTE / spent:.2f} |" for name, spent in found.stages.items()),
        f"| all three stages | {size / GIGABYTE / sum(found.stages.values()):.2f} |",
        f"| the job in Spark, from Parquet to Parquet | {1 / model.byte / GIGABYTE:.2f} |",
        "",
        f"The engine takes {found.stages['the engine'] / (size * model.byte):.0%} of the CPU time "
        f"of the job. The job also takes a constant {model.start:.1f} s of CPU time.",
        "\n## The model against this machine\n",
        "The model is a line through the first two runs.\n",
        "| GB | cores | CPU seconds | predicted | error | seconds |",
        "| --: | --: | --: | --: | --: | --: |",
        *(_run_row(one, model) for one in (found.one, found.more, *found.checked)),
        *_cluster_lines(found, model, options),
        "",
        f"{machine.cpu()}, {os.cpu_count()} CPUs; load average of the machine "
        f"{machine.busy():.1f}. Spark {metadata.version('pyspark')}, pyarrow "
        f"{metadata.version('pyarrow')}, Python {platform.python_version()}.",
    ]
    return "\n".join(lines) + "\n"


def _run_row(one: Run, model: Model) -> str:
    said = model.cpu(one.size)
    return (
        f"| {one.size / GIGABYTE:.2f} | {one.cores} | {one.cpu:.1f} | {said:.1f} | "
        f"{one.cpu / said - 1:+.0%} | {one.seconds:.1f} |"
    )


def billion(found: Measured, model: Model, options: argparse.Namespace) -> Job:
    """The job of a billion such requests, with files of TASK bytes."""
    size = BILLION * found.one.size / found.records
    packed = BILLION * found.packed / found.records
    return Job(
        size=size,
        packed=packed,
        task=TASK * size / packed,
        rate=1 / model.byte,
        task_seconds=options.task_seconds,
        start_seconds=options.start_seconds,
    )


def _cluster_lines(found: Measured, model: Model, options: argparse.Namespace) -> list[str]:
    job = billion(found, model, options)
    store = Store(options.bandwidth * GIGABYTE, options.gets, options.task_gets)
    prices = Prices(options.core_hour, options.thousand_gets, options.thousand_puts)
    taken = {}
    slow = Stragglers(0.01, 5.0)
    again = replace(slow, speculative=1.5)
    small = replace(job, task=job.task / 8)
    narrow = replace(store, bandwidth=store.bandwidth / 10)
    unlimited = replace(store, bandwidth=float("inf"), gets=float("inf"))
    for name, of, through, how in (
        ("equal tasks", job, store, Stragglers()),
        ("equal tasks, unlimited store", job, unlimited, Stragglers()),
        ("1 % of the tasks take 5 times as long", job, store, slow),
        ("the same, speculative copies after 1.5 times the usual time", job, store, again),
        ("the same, tasks an eighth as large", small, store, again),
        ("equal tasks, store with a tenth of the bandwidth", job, narrow, Stragglers()),
    ):
        seconds = cluster.simulate(of, through, options.cores, how)
        taken[name] = (of, seconds, cluster.dollars(of, through, prices, options.cores, seconds))
    return [
        f"\n## A billion requests on {options.cores:,} cores, simulated\n",
        f"{job.size / 1e12:.1f} TB of messages, {job.packed / 1e12:.2f} TB of Parquet in "
        f"{job.tasks:,} tasks. Assumptions, which are options of the command: each task takes "
        f"{options.task_seconds:g} s and the job {options.start_seconds:g} s in addition; the "
        f"store delivers {options.bandwidth:g} GB/s and {options.gets:,.0f} responses per second, "
        f"and a task makes {options.task_gets} requests; a core costs ${options.core_hour:g} per "
        f"hour, 1,000 reads ${options.thousand_gets:g}, 1,000 writes "
        f"${options.thousand_puts:g}.\n",
        "| limit | seconds, if it were the only limit |",
        "| --- | --: |",
        *(
            f"| {name} | {bound:,.0f} |"
            for name, bound in cluster.bounds(job, store, options.cores).items()
        ),
        "",
        "| scenario | tasks | seconds | core utilization | $ |",
        "| --- | --: | --: | --: | --: |",
        *(
            f"| {name} | {of.tasks:,} | {seconds:,.0f} | "
            f"{of.core_seconds / options.cores / seconds:.0%} | {cost:,.2f} |"
            for name, (of, seconds, cost) in taken.items()
        ),
    ]


def _say(text: str) -> None:
    print(f"bench/scale: {text}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench/scale", description=__doc__)
    numbers = {
        "gigabytes": (1.0, "gigabytes of messages for the runs on one and two cores"),
        "large": (10.0, "gigabytes of messages for the large runs; 0 for no such runs"),
        "bandwidth": (10.0, "bandwidth of the store in GB/s"),
        "gets": (5500.0, "responses per second of the store"),
        "task-seconds": (0.1, "additional seconds of each task"),
        "start-seconds": (30.0, "additional seconds of the job"),
        "core-hour": (0.05, "dollars per hour for a core with its memory"),
        "thousand-gets": (0.0004, "dollars for 1,000 reads"),
        "thousand-puts": (0.005, "dollars for 1,000 writes"),
    }
    for name, (usual, text) in numbers.items():
        parser.add_argument(f"--{name}", type=float, default=usual, help=f"{text} (%(default)s)")
    parser.add_argument(
        "--cores", type=int, default=CORES, help="cores of the cluster (%(default)s)"
    )
    parser.add_argument("--task-gets", type=int, default=8, help="reads per task (%(default)s)")
    return parser


def _make(options: argparse.Namespace) -> tuple[str, bool]:
    found = measure(int(options.gigabytes * GIGABYTE), int(options.large * GIGABYTE))
    return report(found, options), True


def main() -> int:
    """The program."""
    return program.run(_parser(), RESULTS, _make)


if __name__ == "__main__":
    sys.exit(main())
