# SPDX-License-Identifier: MIT
"""Parquet, DuckDB, polars and Spark (bench/columnar): do they all say the same of each record, and
what do they cost?

nixpkgs' requests, again and again until they are a gigabyte, are Parquet files. The command line,
DuckDB, polars and Spark each write what they find; the results must be the same, record by record.
Then DuckDB reads the column alone, and checks it, in turns; and the engine checks the same messages
alone, in DuckDB, and in Spark. Times are CPU seconds, of one thread each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import duckdb
import polars
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import tvix_build.duckdb
import tvix_build.polars
import tvix_build.spark
from bench import machine, program
from bench.corpora import ROOT
from bench.spark import engine_seconds, session, watched
from bench.tables import GIGABYTE, Tables, tables

RESULTS = ROOT / "bench" / "results" / "columnar.md"
ROUNDS = 7
MOST = 1.5
"""How much a query in DuckDB should take at most, where reading the column takes 1."""
LEAST = 0.8
"""How fast the engine should be at least inside another one, where alone it is 1."""
COLUMNS = ["id", "valid", "canonical", "digest", "violations"]
READ = "SELECT sum(octet_length(request)) FROM '{}'"
NOTHING = "SELECT count_if(nothing(request)) FROM '{}'"
CHECK = "SELECT count_if(tvix_valid(request)) FROM '{}'"
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "4294967296"}


# ---- the same results


def by_command_line(source: Tables, target: Path) -> None:
    """`tvix-build validate`, which numbers records file by file."""
    command = [sys.executable, "-m", "tvix_build", "validate", "--column", "request"]
    said = target.with_suffix(".said.parquet")
    subprocess.run(
        [*command, *map(str, source.paths), "--output", str(said)],
        stdout=subprocess.DEVNULL,
        check=False,  # 1, as some are invalid
    )
    found = pq.read_table(said)
    file = pc.index_in(found["source"], pa.array(map(str, source.paths)))
    id = pc.add(pc.multiply(file.cast(pa.int64()), source.records), found["index"])
    pq.write_table(found.append_column("id", id), target)


def by_duckdb(source: Tables, target: Path) -> None:
    """A query that writes what it finds."""
    with duckdb.connect() as connection:
        tvix_build.duckdb.register(connection)
        connection.execute(
            f"COPY (SELECT id, unnest(tvix_check(request)) FROM '{source.directory}/*.parquet') "
            f"TO '{target}'"
        )


def by_polars(source: Tables, target: Path) -> None:
    """An expression, file by file."""
    check = tvix_build.polars.TvixNamespace(polars.col("request")).check().alias("report")
    frames = [polars.read_parquet(path).select("id", check) for path in source.paths]
    polars.concat(frames).unnest("report").write_parquet(target)


def by_spark(source: Tables, target: Path) -> None:
    """A job on two cores."""
    with session(2) as spark:
        requests = spark.read.parquet(str(source.directory))
        tvix_build.spark.check(requests).write.parquet(str(target))


def comparable(found: Any) -> Any:
    """Results in the order of the records, in types that all ways have."""
    texts = [("code", pa.string()), ("path", pa.string()), ("message", pa.string())]
    types = [pa.int64(), pa.bool_(), pa.bool_(), pa.binary(), pa.list_(pa.struct(texts))]
    fields = [pa.field(*both) for both in zip(COLUMNS, types, strict=True)]
    return found.select(COLUMNS).sort_by("id").cast(pa.schema(fields))


WAYS = {
    "`tvix-build validate`": by_command_line,
    "DuckDB": by_duckdb,
    "polars": by_polars,
    "Spark": by_spark,
}


def compare(source: Tables) -> dict[str, str]:
    """Of each way, which records it says something else of than the engine alone, if any."""
    alone = []
    for path in source.paths:
        table = pq.read_table(path)
        reports = pa.table(tvix_build.check_batch(table["request"]))
        alone.append(reports.append_column("id", table["id"]))
    expected = comparable(pa.concat_tables(alone))
    found = {}
    for name, way in WAYS.items():
        with tempfile.TemporaryDirectory() as directory:
            target = Path(directory, "results.parquet")
            way(source, target)
            found[name] = _difference(comparable(pq.read_table(target)), expected)
        _say(f"{name}: {found[name] or 'the same'}")
    return found


def _difference(said: Any, expected: Any) -> str:
    """What differs, "" if nothing."""
    if len(said) != len(expected):
        return f"{len(said):,} records"
    for column in COLUMNS:
        if not said[column].combine_chunks().equals(expected[column].combine_chunks()):
            return f"another {column}"
    return ""


# ---- what it costs


def time_duckdb(path: str) -> dict[str, list[float]]:
    """CPU seconds of reading, of a function that does nothing, of checking, and of the engine in
    the latter, round by round."""
    found: dict[str, list[float]] = {"read": [], "nothing": [], "check": [], "engine": []}
    with duckdb.connect() as connection:
        tvix_build.duckdb.register(connection)
        connection.create_function(
            "nothing",
            lambda messages: pa.repeat(True, len(messages)),
            ["BLOB"],
            "BOOLEAN",
            type="arrow",
        )
        connection.execute("SET threads = 1; SET enable_progress_bar = false")
        for _ in range(1 + ROUNDS):
            with watched(tvix_build.duckdb) as engine:
                for name, query in (("read", READ), ("nothing", NOTHING), ("check", CHECK)):
                    begin = time.process_time()
                    connection.execute(query.format(path)).fetchall()
                    found[name].append(time.process_time() - begin)
            found["engine"].append(engine.seconds)
    return {name: seconds[1:] for name, seconds in found.items()}


def duckdb_elsewhere(path: str, variables: dict[str, str]) -> dict[str, list[float]]:
    """The same in a process of its own with environment variables."""
    script = f"import json, bench.columnar as c; print(json.dumps(c.time_duckdb({path!r})))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found


def time_engine(source: Tables) -> float:
    """CPU seconds of the engine alone, with all messages in memory, in batches as DuckDB's."""
    table = pq.read_table(source.directory, columns=["request"])
    batches = [batch.column(0) for batch in table.to_batches(max_chunksize=2048)]
    seconds = []
    for _ in range(1 + ROUNDS):
        begin = time.thread_time()
        for batch in batches:
            tvix_build.check_batch(batch, threads=1)
        seconds.append(time.thread_time() - begin)
    return statistics.median(seconds[1:])


def time_spark(source: Tables) -> float:
    """CPU seconds of the engine inside Spark."""
    seconds = []
    with session(1) as spark:
        for _ in range(3):
            with tempfile.TemporaryDirectory() as directory:
                seconds.append(engine_seconds(spark, source.directory, Path(directory)))
    return statistics.median(seconds)


# ---- the report

_HEAD = """<!-- SPDX-License-Identifier: MIT -->
<!-- Written by bench/columnar. Do not edit. -->
# Parquet, DuckDB, polars and Spark

The requests of nixpkgs (direct and closure), repeated {files} times: {records:,} records,
{size:.2f} GB, or {packed:.2f} GB as Parquet. [Method](../README.md#tables).
"""


def report(source: Tables, differences: dict[str, str]) -> tuple[str, bool]:
    """The page, and whether all results are the same."""
    path = f"{source.directory}/*.parquet"
    alone = time_engine(source)
    plain = duckdb_elsewhere(path, {})
    tuned = duckdb_elsewhere(path, MALLOC)
    in_spark = time_spark(source)
    size = source.bytes / GIGABYTE
    lines = [
        _HEAD.format(
            files=source.files,
            records=source.files * source.records,
            size=size,
            packed=source.packed / GIGABYTE,
        ),
        "## The same results for each record\n",
        "`valid`, `canonical`, `digest` and `violations`, compared with the results of the engine "
        "alone.\n",
        "| | |",
        "| --- | --- |",
        *(f"| {name} | {'✗ ' + found if found else '✓'} |" for name, found in differences.items()),
        "\n## A query in DuckDB\n",
        "`SELECT count_if(tvix_valid(request))` compared with `SELECT sum(octet_length(request))`, "
        f"run in turns in one thread: CPU seconds, medians of {ROUNDS} runs. ✓ at most {MOST:g} "
        "times as long, ✗ longer.\n",
        "| | reading | no-op function | checking | checking / reading |",
        "| --- | --: | --: | --: | --: |",
        _duckdb_row("default settings", plain),
        _duckdb_row("glibc keeps freed memory", tuned),
        "",
        f"The engine alone takes {alone:.2f} s for these messages. A query that got its messages "
        f"at no cost would therefore still take {_floor(plain, alone):.2f} times as long as "
        "reading. The remaining time is that of a no-op function: DuckDB copies each vector into "
        "Arrow, in newly allocated pages, unless `MALLOC_MMAP_THRESHOLD_=1073741824 "
        "MALLOC_TRIM_THRESHOLD_=4294967296` make glibc keep freed memory.",
        "\n## The engine in DuckDB and Spark\n",
        f"Throughput of the calls of the engine, by CPU seconds. ✓ at least {LEAST:.0%} of the "
        "throughput alone, ✗ less.\n",
        "| | GB/s | |",
        "| --- | --: | --: |",
        f"| alone | {size / alone:.2f} | |",
        _share_row("DuckDB", size, alone, statistics.median(plain["engine"])),
        _share_row("Spark", size, alone, in_spark),
        "",
        f"{machine.cpu()}; load average of the machine {machine.busy():.1f}. DuckDB "
        f"{metadata.version('duckdb')}, polars {metadata.version('polars')}, pyarrow "
        f"{metadata.version('pyarrow')}, Spark {metadata.version('pyspark')}, Python "
        f"{platform.python_version()}.",
    ]
    return "\n".join(lines) + "\n", not any(differences.values())


def _ratio(times: dict[str, list[float]]) -> float:
    both = zip(times["read"], times["check"], strict=True)
    return statistics.median(check / read for read, check in both)


def _floor(times: dict[str, list[float]], alone: float) -> float:
    return 1 + alone / statistics.median(times["read"])


def _duckdb_row(name: str, times: dict[str, list[float]]) -> str:
    ratio = _ratio(times)
    cells = [f"{statistics.median(times[key]):.2f}" for key in ("read", "nothing", "check")]
    return f"| {name} | {' | '.join(cells)} | **{ratio:.2f}** {'✓' if ratio <= MOST else '✗'} |"


def _share_row(name: str, size: float, alone: float, inside: float) -> str:
    mark = "✓" if alone / inside >= LEAST else "✗"
    return f"| in {name} | {size / inside:.2f} | **{alone / inside:.0%}** {mark} |"


def _say(text: str) -> None:
    print(f"bench/columnar: {text}", file=sys.stderr, flush=True)


def _make(options: argparse.Namespace) -> tuple[str, bool]:
    with tables(int(options.gigabytes * GIGABYTE)) as source:
        return report(source, compare(source))


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="bench/columnar", description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="how many (%(default)s)")
    return program.run(parser, RESULTS, _make)


if __name__ == "__main__":
    sys.exit(main())
