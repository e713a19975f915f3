# SPDX-License-Identifier: MIT
"""The SQL functions in DuckDB say what the Python API says of the same messages."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import real_data
import tvix_build
import tvix_build.duckdb
from bench.corpora import messages_of
from few_messages import later_messages, messages
from tvix_build import ValidationError
from tvix_build._core.report import KindLike, SchemaLike
from waiting import LIMIT

NAMES = ("valid", "canonical", "digest", "violations", "check", "canonicalize")


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as made:
        tvix_build.duckdb.register(made)
        yield made


def expected(
    item: bytes | None, kind: KindLike, schema: SchemaLike = "tvix.build.v1"
) -> tuple[Any, ...]:
    """What the functions give for a message."""
    if item is None:
        return (None,) * len(NAMES)
    report = tvix_build.check(item, kind=kind, schema=schema)
    violations = [
        {"code": one.code.value, "path": one.path, "message": one.message}
        for one in report.violations
    ]
    values = (report.valid, report.canonical, report.digest, violations)
    try:
        encoding = tvix_build.canonicalize(item, kind=kind, schema=schema)
    except ValidationError:
        encoding = None
    return (*values, dict(zip(NAMES, values, strict=False)), encoding)


def query(connection: duckdb.DuckDBPyConnection, items: list[bytes | None], prefix: str) -> Any:
    """What the functions say of messages."""
    column = pa.array(items, pa.binary())
    connection.register("messages", pa.table({"i": range(len(items)), "request": column}))
    columns = ", ".join(f"{prefix}{name}(request)" for name in NAMES)
    return connection.sql(f"SELECT {columns} FROM messages ORDER BY i").fetchall()


@pytest.mark.parametrize(
    "items",
    [
        [],
        [None],
        [None, None, *messages(), None],
        messages(),
        messages()[:1],
        [b""],
        [*messages(), None] * 500,  # several vectors
    ],
    ids=len,
)
def test_every_function(connection: duckdb.DuckDBPyConnection, items: list[bytes | None]) -> None:
    assert query(connection, items, "tvix_") == [expected(item, "build-request") for item in items]


def test_the_null_type_is_a_column_of_nulls(connection: duckdb.DuckDBPyConnection) -> None:
    connection.register("nulls", pa.table({"request": pa.nulls(3)}))
    columns = ", ".join(f"tvix_{name}(request)" for name in NAMES)
    for source in ("nulls", "(SELECT NULL AS request FROM nulls)"):
        assert connection.sql(f"SELECT {columns} FROM {source}").fetchall() == [(None,) * 6] * 3


@pytest.mark.parametrize("before", [1, 2, 63, 2047, 2048])
def test_nulls_before_other_rows(connection: duckdb.DuckDBPyConnection, before: int) -> None:
    """Before DuckDB 1.3, a digest was that of the row before."""
    items = [None] * before + [messages()[0], None, messages()[1]]
    found = query(connection, items, "tvix_")
    assert [row[2] for row in found] == [item and tvix_build.digest(item) for item in items]


@pytest.mark.parametrize(
    ("version", "good"),
    [
        *((version, False) for version in ("0.10.3", "1.1.3", "1.2.2", "1.2.3.dev4")),
        *((version, True) for version in ("1.3.0", "1.3.0.dev7", "1.10.0", "2.0.1", "10.0.0")),
    ],
)
def test_old_versions_are_refused(
    connection: duckdb.DuckDBPyConnection,
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    good: bool,
) -> None:
    monkeypatch.setattr(duckdb, "__version__", version)
    if good:
        tvix_build.duckdb.register(connection, prefix="more_")
        return
    with pytest.raises(ImportError, match=rf"expected DuckDB 1\.3 or later, found {version}, "):
        tvix_build.duckdb.register(connection, prefix="more_")
    with pytest.raises(duckdb.Error, match="more_valid"):
        connection.sql("SELECT more_valid(''::BLOB)")


def test_the_extra_requires_the_version_that_is_checked() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    (found,) = re.findall(r'^duckdb = \["duckdb>=([0-9.]+)"', project, re.M)
    assert tuple(map(int, found.split("."))) == tvix_build.duckdb._LEAST


def test_kinds(connection: duckdb.DuckDBPyConnection) -> None:
    tvix_build.duckdb.register(connection, kind="directory", prefix="directory_")
    items = [b"", b"\x0a\x00", None, b"\xff"]
    assert query(connection, items, "directory_") == [expected(item, "directory") for item in items]
    assert query(connection, items, "tvix_") == [expected(item, "build-request") for item in items]
    with pytest.raises(ValueError, match="derivation"):
        tvix_build.duckdb.register(connection, kind="derivation")  # type: ignore[arg-type]
    with pytest.raises(duckdb.Error):
        tvix_build.duckdb.register(connection)


def test_schemas(connection: duckdb.DuckDBPyConnection) -> None:
    for name in (tvix_build.Schema.SNIX_BUILD_V1, tvix_build.Schema.TVIX_BUILD_V1_2024):
        prefix = f"of_{name[:4]}_"
        tvix_build.duckdb.register(connection, prefix=prefix, schema=name)
        for items in (later_messages(), messages()):
            found = query(connection, [*items, None], prefix)
            assert found == [expected(item, "build-request", name) for item in [*items, None]]
    schema = tvix_build.Schema.SNIX_BUILD_V1
    tvix_build.duckdb.register(connection, kind="build", prefix="response_", schema=schema)
    items = [b"", b"\x0a\x02\x12\x00", b"\x0a\x00"]
    found = query(connection, [*items], "response_")
    assert found == [expected(item, "build", schema) for item in items]
    with pytest.raises(ValueError, match=r"tvix\.build\.v2"):
        tvix_build.duckdb.register(connection, prefix="other_", schema="tvix.build.v2")  # type: ignore[arg-type]
    with pytest.raises(duckdb.Error, match="other_valid"):
        connection.sql("SELECT other_valid(''::BLOB)")


def test_types(connection: duckdb.DuckDBPyConnection) -> None:
    columns = ", ".join(f"tvix_{name}(''::BLOB) AS {name}" for name in NAMES)
    described = connection.sql(f"DESCRIBE SELECT {columns}").fetchall()
    types = {name: type.replace('"', "") for name, type, *_ in described}
    violations = "STRUCT(code VARCHAR, path VARCHAR, message VARCHAR)[]"
    assert types == {
        "valid": "BOOLEAN",
        "canonical": "BOOLEAN",
        "digest": "BLOB",
        "violations": violations,
        "check": (
            f"STRUCT(valid BOOLEAN, canonical BOOLEAN, digest BLOB, violations {violations})"
        ),
        "canonicalize": "BLOB",
    }


@pytest.mark.parametrize("threads", [1, 4])
def test_parquet_in_threads(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, threads: int
) -> None:
    items = messages() * 2000
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"request": items}), path, row_group_size=1500)
    connection.execute(f"SET threads = {threads}")
    counts = connection.sql(
        f"SELECT count(*), count_if(tvix_valid(request)), count(tvix_digest(request)), "
        f"count(DISTINCT tvix_digest(request)) FROM '{path}' WHERE octet_length(request) >= 0"
    ).fetchall()
    reports = tvix_build.check_batch(messages())
    digests = [report.digest for report in reports if report.digest]
    expected_counts = (len(items), 2000 * reports.valid_count, 2000 * len(digests))
    assert counts == [(*expected_counts, len(set(digests)))]


def test_real_requests(connection: duckdb.DuckDBPyConnection) -> None:
    items = list(messages_of(real_data.read("closure.binpbs")))[:1000]
    table = query(connection, [*items], "tvix_")
    reports = tvix_build.check_batch(items)
    assert [row[2] for row in table] == [report.digest for report in reports]
    assert [row[0] for row in table] == list(reports.valid)
    assert reports.valid_count < len(items)


@pytest.mark.slow
def test_in_a_process_of_its_own() -> None:
    """Importing the package imports neither; at the end nothing is left over."""
    script = f"""
import sys
sys.path[:] = {sys.path!r}
import tvix_build
assert not {{"duckdb", "polars", "pyarrow"}} & set(sys.modules)
import duckdb
import tvix_build.duckdb
with duckdb.connect() as connection:
    tvix_build.duckdb.register(connection)
    assert connection.sql("SELECT tvix_valid(NULL)").fetchall() == [(None,)]
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_duplicates_as_documented(connection: duckdb.DuckDBPyConnection) -> None:
    """The query of docs/columnar.md finds what a dictionary of Python finds."""
    page = (Path(__file__).parents[2] / "docs" / "columnar.md").read_text()
    (query,) = re.findall(r'^>>> connection\.sql\("""\n(.*?)^\.\.\. """\)', page, re.DOTALL | re.M)
    canonical = messages()[1]
    padded = b"\x0a\x81\x00t"
    unsorted = messages()[2]
    items = [
        *[canonical] * 3,
        *[padded] * 2,
        b"\x0a\x81\x80\x00t",
        unsorted,
        tvix_build.canonicalize(unsorted),
        *[messages()[0]] * 2,
        *[messages()[6]] * 2,  # not canonical, but always the same
        b"",
        b"\xff",
        None,
    ]
    found: dict[bytes, list[bytes]] = {}
    for item in filter(None, items):
        report = tvix_build.check(item)
        if report.digest:
            found.setdefault(report.digest, []).append(item)
    column = pa.array(items, pa.binary())
    connection.register("requests", pa.table({"request": column}))
    rows = connection.sql(query.replace("... ", "")).fetchall()
    assert rows == [
        (digest.hex().upper()[:8], len(some), len(set(some)))
        for digest, some in sorted(found.items(), key=lambda item: -len(item[1]))
        if len(set(some)) > 1
    ]
    assert [row[1:] for row in rows] == [(6, 3), (2, 2)]
