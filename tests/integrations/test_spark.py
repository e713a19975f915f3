# SPDX-License-Identifier: MIT
"""Spark says what the command line says, record by record, whatever becomes of executors."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from threading import Thread
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession

import cli_support
import tvix_build
import tvix_build.duckdb
from few_messages import messages
from spark_support import OPTIONS, cluster, executor_of, variables
from tvix_build._core.report import KindLike, SchemaLike
from tvix_build.spark import __main__ as job
from tvix_build.spark import check, distinct
from vector_files import ROWS
from waiting import LIMIT

pytestmark = [
    pytest.mark.slow,
    # Of pyspark itself, which also leaves sockets to be closed by the garbage collector.
    pytest.mark.filterwarnings("ignore:distutils Version classes:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The distutils package is deprecated:DeprecationWarning"),
    # Batches reach Python as Arrow; pandas is only what mapInArrow demands.
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*socket.socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning"),
]

PAGE = Path(__file__).parents[2] / "docs" / "columnar.md"
RESULTS = ["valid", "canonical", "digest", "violations", "violation_count"]
MESSAGES = [
    *messages(),
    *(row.data for row in ROWS if (row.kind, row.schema) == ("build-request", "tvix.build.v1")),
]


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    with cluster(tmp_path_factory.mktemp("spark") / "home") as session:
        yield session


def table_of(items: Sequence[bytes | None]) -> pa.Table:
    """Messages between columns of keys."""
    return pa.table(
        {
            "id": range(len(items)),
            "request": pa.array(items, pa.binary()),
            "key": [{"name": f"{i}", "parts": [i, None]} for i in range(len(items))],
        }
    )


def written(directory: Path, items: Sequence[bytes | None]) -> Path:
    """A directory of Parquet files, which Spark reads as several partitions."""
    directory.mkdir()
    table = table_of(items)
    for part in range(3):
        pq.write_table(table[part::3] if part else table[::3], directory / f"{part}.parquet")
    return directory


def rows_of(results: DataFrame) -> list[dict[str, Any]]:
    """Results in the order of `id`, as Python's own types."""
    rows = [row.asDict(recursive=True) for row in results.collect()]
    for row in rows:
        row["digest"] = None if row["digest"] is None else bytes(row["digest"])
    return sorted(rows, key=lambda row: row["id"])


def reported(item: bytes, kind: KindLike, schema: SchemaLike) -> dict[str, Any]:
    """What the Python API says of a message."""
    report = tvix_build.check(item, kind=kind, schema=schema)
    violations = [
        {"code": one.code.value, "path": one.path, "message": one.message}
        for one in report.violations
    ]
    values = report.valid, report.canonical, report.digest, violations, report.violation_count
    return dict(zip(RESULTS, values, strict=True))


def test_every_record_as_on_the_command_line(spark: SparkSession, tmp_path: Path) -> None:
    items = [None, *MESSAGES, None]
    directory = written(tmp_path / "requests", items)
    cli_support.run("validate", directory, "--output", tmp_path / "cli.parquet")
    expected = {}
    for row in pq.read_table(tmp_path / "cli.parquet").to_pylist():
        part = int(Path(row.pop("source")).stem)
        assert row.pop("offset") is None
        expected[3 * row.pop("index") + part] = row
    keys = table_of(items).drop_columns("request").to_pylist()
    results = check(spark.read.parquet(str(directory)))
    assert results.columns == ["id", "key", *RESULTS]
    assert rows_of(results) == [{**key, **expected[key["id"]]} for key in keys]
    assert len({row["valid"] for row in expected.values()}) == 2
    assert max(row["violation_count"] for row in expected.values()) > 100


@pytest.mark.parametrize(
    ("kind", "schema"),
    [("build-request", "snix.build.v1"), ("directory", "tvix.build.v1")],
)
def test_kinds_and_schemas(spark: SparkSession, kind: KindLike, schema: SchemaLike) -> None:
    items = [row.data for row in ROWS if (row.kind, row.schema) == (kind, schema)]
    rows = [(i, bytearray(item)) for i, item in enumerate(items)]
    df = spark.createDataFrame(rows, "id int, `a``b.c` binary")
    found = rows_of(check(df, column="a`b.c", kind=kind, schema=schema))
    assert found == [{"id": i, **reported(item, kind, schema)} for i, item in enumerate(items)]
    assert {row["valid"] for row in found} == {True, False}


def test_large_batches_and_empty_partitions(spark: SparkSession) -> None:
    """More rows than are checked at once, nulls in some of them only."""
    items = [*messages(), None] * 700 + messages() * 300
    rows = [(i, None if item is None else bytearray(item)) for i, item in enumerate(items)]
    df = spark.createDataFrame(rows, "id int, request binary").coalesce(1)
    found = rows_of(check(df.union(df.limit(0))))
    said = {item: reported(item, "build-request", "tvix.build.v1") for item in messages()}
    null = {"code": "malformed", "path": "", "message": "expected a message, found null"}
    of_null = dict(zip(RESULTS, (False, False, None, [null], 1), strict=True))
    assert [{name: row[name] for name in RESULTS} for row in found] == [
        of_null if item is None else said[item] for item in items
    ]


def test_columns(spark: SparkSession) -> None:
    schemas = {
        "a int": "expected one binary column, found 'a' (int)",
        "a binary, b binary": "expected one binary column, found 'a' (binary), 'b' (binary); "
        "choose one with column",
        "request binary, Valid int": "the column 'Valid' has the name of a result; rename it",
    }
    for schema, reason in schemas.items():
        with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
            check(spark.createDataFrame([], schema))
    df = spark.createDataFrame([], "a int, b binary, c binary")
    for function in (check, distinct):
        with pytest.raises(ValueError, match="'x', found 'a' "):
            function(df, column="x")
        with pytest.raises(ValueError, match="of binary, found int"):
            function(df, column="a")
        with pytest.raises(ValueError, match="derivation"):
            function(df, column="b", kind="derivation")  # type: ignore[arg-type]
    assert check(df, column="b").columns == ["a", "c", *RESULTS]


def test_a_column_of_void_is_a_column_of_nulls(spark: SparkSession) -> None:
    df = spark.createDataFrame([(1,), (2,)], "a int").selectExpr("a", "NULL AS request")
    for column in (None, "request"):
        rows = check(df, column=column).select("a", "valid", "violations.code").collect()
        assert sorted(map(tuple, rows)) == [(1, False, ["malformed"]), (2, False, ["malformed"])]
        (row,) = distinct(df, column=column).collect()
        assert tuple(row) == (None, 2, 0)
    both = df.selectExpr("a", "request", "CAST(NULL AS BINARY) AS other")
    assert "request" in check(both).columns


def test_distinct(spark: SparkSession, tmp_path: Path) -> None:
    """As a dictionary of Python says, and the documented query of DuckDB."""
    unsorted = messages()[2]
    items = [
        *MESSAGES * 2,
        *[b"\x0a\x81\x00t"] * 2,  # is messages()[1], not canonical
        b"\x0a\x81\x80\x00t",
        unsorted,
        tvix_build.canonicalize(unsorted),
        None,
        None,
    ]
    found: dict[bytes | None, list[bytes | None]] = {}
    for item in items:
        digest = None if item is None else tvix_build.check(item).digest
        found.setdefault(digest, []).append(item)
    df = spark.read.parquet(str(written(tmp_path / "requests", items)))
    rows = distinct(df.withColumnRenamed("request", "a`b.c")).collect()
    assert Counter(
        (row.digest and bytes(row.digest), row.records, row.encodings) for row in rows
    ) == Counter((digest, len(some), len(set(some) - {None})) for digest, some in found.items())
    several = sorted(
        (row.digest.hex().upper()[:8], row.records, row.encodings)
        for row in rows
        if row.digest and row.encodings > 1
    )
    (query,) = re.findall(
        r'^>>> connection\.sql\("""\n(.*?)^\.\.\. """\)', PAGE.read_text(), re.DOTALL | re.M
    )
    with duckdb.connect() as connection:
        tvix_build.duckdb.register(connection)
        connection.register("requests", table_of(items))
        assert sorted(connection.sql(query.replace("... ", "")).fetchall()) == several
    assert ("904E72DB", 5, 3) in several


def test_an_executor_is_killed(spark: SparkSession) -> None:
    """Its task is done again by another one, and no record is lost or there twice."""

    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(LIMIT)
    address = server.getsockname()

    def wait(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield a batch, then say which process this is. Yield the next ones when the test ends
        the connection, or has no server anymore."""
        for batch in batches:
            yield batch
            if 0 in batch.column("id").to_pylist():
                with suppress(OSError), socket.create_connection(address) as connection:
                    connection.sendall(str(os.getpid()).encode())
                    connection.recv(1)

    items = MESSAGES * 5
    rows = [(i, bytearray(item)) for i, item in enumerate(items)]
    df = spark.createDataFrame(rows, "id int, request binary").repartitionByRange(4, "id")
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "10")
    found: list[dict[str, Any]] = []
    running = Thread(target=lambda: found.extend(rows_of(check(df.mapInArrow(wait, df.schema)))))
    running.start()
    try:
        with server:
            with server.accept()[0] as first:
                os.kill(executor_of(int(first.recv(100))), signal.SIGKILL)
            with server.accept()[0] as second:
                assert int(second.recv(100))
    finally:
        running.join(timeout=LIMIT)
        spark.conf.unset("spark.sql.execution.arrow.maxRecordsPerBatch")
    said = [reported(item, "build-request", "tvix.build.v1") for item in MESSAGES] * 5
    assert found == [{"id": i, **one} for i, one in enumerate(said)]


def run_job(directory: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the job as a process, with Spark in that process."""
    options = [part for name, value in OPTIONS.items() for part in ("--conf", f"{name}={value}")]
    submitted = " ".join(["--master", "local[2]", *map(repr, options), "pyspark-shell"])
    return subprocess.run(
        [sys.executable, "-m", "tvix_build.spark", *map(str, arguments)],
        env={**os.environ, **variables(directory / "home"), "PYSPARK_SUBMIT_ARGS": submitted},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def test_job(tmp_path: Path) -> None:
    """The same summary and exit status as the command line's, and the same results."""
    directory = written(tmp_path / "requests", [*MESSAGES, None])
    done = run_job(tmp_path, directory, tmp_path / "results", "--column", "request")
    command = cli_support.run("validate", directory, "--output", tmp_path / "cli.parquet")
    assert done.returncode == command.status == 1, done.stderr
    summary = [line.split() for line in done.stdout.splitlines()]
    assert (
        summary == [line.split() for line in command.stdout.decode().splitlines()][: len(summary)]
    )
    assert {"records", "valid", "canonical", "invalid", "malformed", "required"} <= {
        name for name, _ in summary
    }
    assert (tmp_path / "results" / "_SUCCESS").exists()
    found = pq.read_table(tmp_path / "results")
    assert found.schema.names == ["id", "key", *RESULTS]
    both = [
        Counter(map(repr, table.select(RESULTS).to_pylist()))
        for table in (found, pq.read_table(tmp_path / "cli.parquet"))
    ]
    assert both[0] == both[1]


def test_exit_status(
    spark: SparkSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(type(spark), "stop", lambda _: None)  # the other tests need it
    directory = str(written(tmp_path / "requests", messages()[:2]))
    target = str(tmp_path / "results")
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes((tmp_path / "requests" / "0.parquet").read_bytes()[:-1])
    assert job.main([directory, target]) == 0
    assert capsys.readouterr() == ("records    2\nvalid      2\ncanonical  2\ninvalid    0\n", "")
    for arguments, reason in {
        (directory, target): "already exists",
        (str(tmp_path / "none"), target + "1"): "Path does not exist",
        (str(damaged), target + "2"): "is not a Parquet file",
        (
            directory,
            target + "3",
            "--column=id",
        ): "expected one column 'id' of binary, found bigint",
    }.items():
        assert job.main([*arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert re.fullmatch(rf"tvix-build: .*{reason}.*\n", err), err
    with pytest.raises(SystemExit) as caught:
        job.main([directory])
    assert caught.value.code == 2


def test_documented(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of docs/columnar.md prints what the page says."""
    (code,) = re.findall(r"^```py\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (printed,) = re.findall(r"^```text\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    items = [b"\x0a\x02sh", b"\x0a\x82\x00sh", b"\x0a\x04true", b"", None]
    (tmp_path / "requests").mkdir()
    pq.write_table(
        pa.table({"id": range(1, 6), "request": pa.array(items, pa.binary())}),
        tmp_path / "requests" / "part-0.parquet",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(type(spark.read), "parquet", _below(tmp_path, type(spark.read).parquet))
    shown = StringIO()
    with redirect_stdout(shown):
        exec(compile(code, str(PAGE), "exec"), {})
    assert shown.getvalue() == printed


def _below(directory: Path, parquet: Any) -> Any:
    """Reads what is in a directory, as Java cannot change to it."""
    return lambda reader, path: parquet(reader, str(directory / path))
