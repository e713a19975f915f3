# SPDX-License-Identifier: MIT
"""Reports as Arrow tables: what they hold, for every library, and who owns the memory."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import duckdb
import nanoarrow
import pandas
import polars
import pyarrow as pa
import pytest

import tvix_build
from few_messages import messages
from tvix_build import BatchReport
from waiting import LIMIT


def rows(report: BatchReport) -> list[dict[str, Any]]:
    """What a table of the report has to hold."""
    return [
        {
            "valid": one.valid,
            "canonical": one.canonical,
            "digest": one.digest,
            "violations": [
                {"code": v.code.value, "path": v.path, "message": v.message} for v in one.violations
            ],
        }
        for one in report
    ]


VIOLATION = pa.struct(
    [pa.field(name, pa.utf8(), nullable=False) for name in ("code", "path", "message")]
)
SCHEMA = pa.schema(
    [
        pa.field("valid", pa.bool_(), nullable=False),
        pa.field("canonical", pa.bool_(), nullable=False),
        pa.field("digest", pa.binary(32)),
        pa.field(
            "violations", pa.list_(pa.field("item", VIOLATION, nullable=False)), nullable=False
        ),
    ]
)


def many_violations() -> bytes:
    """More violations than are kept."""
    request = tvix_build.build_request(command_args=["true"])
    request.outputs.extend(f"{i:03}/" for i in range(150))
    return request.SerializeToString()


BATCHES: list[list[bytes]] = [
    [],
    messages()[:1],
    messages(),
    messages() * 100,
    [messages()[0]] * 8,
    [b"", *messages()[:2] * 10, many_violations(), many_violations(), b"\x0a"],
]


@pytest.fixture(params=BATCHES, ids=len)
def report(request: pytest.FixtureRequest) -> BatchReport:
    return tvix_build.check_batch(request.param)


def test_table(report: BatchReport) -> None:
    expected = rows(report)
    for made in (
        pa.table(report),
        pa.record_batch(report),
        pa.RecordBatchReader.from_stream(report),
    ):
        table = pa.table(made)
        table.validate(full=True)
        assert table.schema == SCHEMA == pa.schema(report)
        assert table.to_pylist() == expected
        assert table["digest"].null_count == sum(row["digest"] is None for row in expected)
    assert pa.array(report).to_pylist() == expected


def test_table_of_other_libraries(report: BatchReport) -> None:
    expected = rows(report)
    assert polars.DataFrame(report).to_dicts() == expected
    names = ", ".join(SCHEMA.names)
    assert duckdb.sql(f"select {names} from report").to_arrow_table().to_pylist() == expected
    assert nanoarrow.Array(report).to_pylist() == expected
    frame = pandas.DataFrame.from_arrow(report) if hasattr(pandas.DataFrame, "from_arrow") else None
    assert frame is None or frame["valid"].to_list() == list(report.valid)


def test_table_of_kinds() -> None:
    report = tvix_build.check_batch([b"", b"\x0a\x00"], kind="directory")
    table = pa.table(report)
    assert table.to_pylist() == rows(report)
    assert table["violations"][1][0]["path"].as_py() == "directories[0].name"


def test_table_outlives_the_report() -> None:
    report = tvix_build.check_batch(messages() * 50)
    expected = rows(report)
    table = pa.table(report)
    column = pa.record_batch(report).column(2)
    reader = pa.RecordBatchReader.from_stream(report)
    del report
    gc.collect()
    tvix_build.check_batch([b"\x0a"] * 1000)
    assert table.to_pylist() == expected == reader.read_all().to_pylist()
    assert column.to_pylist() == [row["digest"] for row in expected]


def test_stream_ends_and_says_its_schema_again() -> None:
    stream = nanoarrow.c_array_stream(tvix_build.check_batch(messages()))
    assert len(list(stream)) == 1
    assert list(stream) == []
    assert stream.get_schema().n_children == 4


def in_use() -> int:
    """Bytes that malloc has handed out, in this process."""

    class Mallinfo(ctypes.Structure):
        _fields_ = tuple(
            (name, ctypes.c_size_t)
            for name in (
                *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
                *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
            )
        )

    function = ctypes.CDLL(None).mallinfo2
    function.restype = Mallinfo
    gc.collect()
    found = function()
    return int(found.uordblks + found.hblkhd)


REPORT = tvix_build.check_batch(messages() * 1000)


def consumed() -> None:
    pa.table(REPORT)
    pa.record_batch(REPORT)


def taken_apart() -> None:
    kept = nanoarrow.c_array(REPORT).child(2)
    assert kept.length == len(REPORT)


def not_consumed() -> None:
    REPORT.__arrow_c_schema__()
    REPORT.__arrow_c_array__()
    REPORT.__arrow_c_stream__()


def checked() -> None:
    for items in (pa.array(messages() * 100), pa.chunked_array([messages() * 100] * 2)):
        tvix_build.check_batch(items, threads=1)  # Contexts are kept, one a thread.


def refused() -> None:
    for items in (pa.array([b"", None] * 400), pa.chunked_array([[b""] * 900, [None]])):
        with pytest.raises(ValueError, match="null"):
            tvix_build.check_batch(items)
    with pytest.raises(TypeError, match="struct"):
        tvix_build.check_batch(REPORT)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33")
@pytest.mark.parametrize("use", [consumed, taken_apart, not_consumed, checked, refused])
def test_nothing_leaks(use: Callable[[], None]) -> None:
    for _ in range(3):
        use()
    before = in_use()
    for _ in range(20):
        use()
    # A column of the report alone is larger.
    assert in_use() - before < 200_000


SCRIPTS = {
    "import": "assert 'tvix_build._core.arrow' not in sys.modules",
    "no Arrow library": (
        "report = tvix_build.check_batch([b''])\n"
        "assert len(report.__arrow_c_array__()) == 2\n"
        "report.__arrow_c_stream__()\n"
        "assert not {'pyarrow', 'nanoarrow', 'polars', 'numpy'} & set(sys.modules)"
    ),
    "at exit": "kept = tvix_build.check_batch([b''] * 9).__arrow_c_array__()",
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_in_a_process_of_its_own(script: str) -> None:
    path = f"import sys; sys.path[:] = {sys.path!r}"
    subprocess.run(
        [sys.executable, "-c", f"{path}\nimport tvix_build\n{script}"], check=True, timeout=LIMIT
    )
