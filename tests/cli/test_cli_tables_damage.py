# SPDX-License-Identifier: MIT
"""Parquet and Arrow files that are damaged or hold something else, and tables that cannot be
written: clear errors, no half file, no memory out of proportion."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli_support import delimited, digest, encoded, make, request, run, run_process, start
from process_support import MEGABYTE, MEMORY, end_at_every_line, peak
from waiting import LIMIT

pytestmark = pytest.mark.slow

REQUESTS = [request(number) for number in range(6)]
ITEMS = list(map(encoded, REQUESTS))
DIGESTS = list(map(digest, REQUESTS))
FORMATS = ["parquet", "arrow", "stream"]


def table_bytes(format: str) -> bytes:
    """A small table of two record batches or row groups."""
    table = pa.table({"request": ITEMS})
    sink = pa.BufferOutputStream()
    if format == "parquet":
        options = {"use_dictionary": False, "compression": "none", "write_page_checksum": True}
        pq.write_table(table, sink, row_group_size=3, **options)
    else:
        new = pa.ipc.new_file if format == "arrow" else pa.ipc.new_stream
        with new(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
    return bytes(sink.getvalue())


def suffix(format: str) -> str:
    return "parquet" if format == "parquet" else "arrow"


@pytest.mark.exhaustive
@pytest.mark.parametrize("format", FORMATS)
def test_truncated_at_every_byte(tmp_path: Path, format: str) -> None:
    data = table_bytes(format)
    for size in range(len(data)):
        (tmp_path / f"{size:05}.{suffix(format)}").write_bytes(data[:size])
    result = run("validate", "--output", "-", ".", cwd=tmp_path)
    assert result.status == 2
    complaints = dict(line.split(": ", 2)[1:] for line in result.stderr.splitlines())
    assert sorted(place.partition("[")[0] for place in complaints) == [
        f"./{size:05}.{suffix(format)}" for size in range(len(data))
    ]
    assert all(
        "expected " in said or said == "the stream is truncated" for said in complaints.values()
    )
    for said in result.lines:  # Of a stream the beginning can be read.
        assert said["digest"] == DIGESTS[said["index"]]
    assert bool(result.lines) == (format == "stream")


@pytest.mark.parametrize("format", FORMATS)
def test_flipped_bytes_are_no_crash(tmp_path: Path, format: str) -> None:
    data = table_bytes(format)
    choose = random.Random(1)
    for place in range(len(data)):
        flipped = bytes([data[place] ^ choose.randrange(1, 256)])
        path = tmp_path / f"{place:05}.{suffix(format)}"
        path.write_bytes(data[:place] + flipped + data[place + 1 :])
    result = run("validate", "--output", "-", ".", cwd=tmp_path)
    assert result.status == 2
    if format == "parquet":  # Its pages have checksums.
        assert {said["digest"] for said in result.lines if said["valid"]} <= set(DIGESTS)


def test_damage_says_where(tmp_path: Path) -> None:
    data = bytearray(table_bytes("parquet"))
    data[data.index(ITEMS[4])] ^= 1
    path = tmp_path / "x.parquet"
    path.write_bytes(data)
    result = run("validate", "--output", "-", path)
    assert (result.status, [said["digest"] for said in result.lines]) == (2, DIGESTS[:3])
    assert result.stderr.startswith(f"tvix-build: {path}[3]: expected a Parquet file: ")
    for command in (("convert", path, tmp_path / "x.binpbs"), ("digest", path), ("show", path)):
        assert run(*command).status == 2
    assert list(tmp_path.iterdir()) == [path]


def test_something_else(tmp_path: Path) -> None:
    beginnings = [b"", b"x", delimited(ITEMS), b"PAR1", b"ARROW1\0\0", b"FEA1xFEA1"]
    for name in ("parquet", "arrow", "feather"):
        for i, data in enumerate(beginnings):
            (tmp_path / f"{name}{i}.{name}").write_bytes(data)
    result = run("validate", ".", cwd=tmp_path)
    assert result.status == 2
    lines = result.stderr.splitlines()
    assert len(lines) == 3 * len(beginnings)
    for line in lines:
        _, place, reason, _ = line.split(": ", 3)
        what = "a Parquet file" if place.endswith("parquet") else "an Arrow file or stream"
        assert reason == f"expected {what}"


COLUMNS = [
    ({}, "expected one binary column, found no columns", "expected one column 'b', found no"),
    (
        {"a": ["x"]},
        "expected one binary column, found 'a' (string)",
        "expected one column 'b', found 'a' (string)",
    ),
    (
        {"a": [b""], "b": [1], "c": [b""]},
        "expected one binary column, found 'a' (binary), 'b' (int64), 'c' (binary); choose one of "
        "them as the column",
        "expected one column 'b' of binary, found int64",
    ),
    (
        {"a": [{"b": b""}]},
        "expected one binary column, found 'a' (struct<b: binary>)",
        "expected one column 'b', found 'a' (struct<b: binary>)",
    ),
]


@pytest.mark.parametrize("options", [(), ("--column", "b")])
def test_columns(tmp_path: Path, options: tuple[str, ...]) -> None:
    for i, (columns, *_) in enumerate(COLUMNS):
        table = pa.table(columns)
        pq.write_table(table, tmp_path / f"{i}.parquet")
        with pa.ipc.new_file(tmp_path / f"{i}.arrow", table.schema) as writer:
            writer.write_table(table)
    result = run("validate", *options, ".", cwd=tmp_path)
    assert result.status == 2
    for i, (_, *reasons) in enumerate(COLUMNS):
        for name in (f"{i}.parquet", f"{i}.arrow"):
            said = f"tvix-build: ./{name}: {reasons[bool(options)]}"
            assert said in result.stderr


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    table = pa.table([pa.array([b"a"]), pa.array([b"b"])], names=["a", "a"])
    pq.write_table(table, path)
    for options in ((), ("--column", "a")):
        result = run("validate", *options, path)
        assert result.status == 2
        assert "found 'a' (binary), 'a' (binary)\n" in result.stderr


def test_unreadable(tmp_path: Path) -> None:
    result = run("validate", tmp_path / "missing.parquet")
    assert result.stderr == (f"tvix-build: {tmp_path}/missing.parquet: No such file or directory\n")
    result = run("validate", "--input-format", "parquet", "-")
    assert (result.status, result.stderr) == (
        2,
        "tvix-build: -: a Parquet file cannot be read from stdin\n",
    )
    (tmp_path / "x.parquet.gz").touch()
    for command in (("validate", "x.parquet.gz"), ("convert", "x.binpbs", "x.arrow.zst")):
        result = run(*command, cwd=tmp_path)
        assert result.status == 2
        assert "file cannot be compressed, because it has internal compression" in result.stderr
    (tmp_path / "x.parquet.gz").unlink()
    make(tmp_path, "x.binpbs", REQUESTS)
    result = run("validate", "--output", "x.parquet.gz", "x.binpbs", cwd=tmp_path)
    assert (result.status, os.listdir(tmp_path)) == (2, ["x.binpbs"])


def test_convert_refuses_what_is_no_message(tmp_path: Path) -> None:
    pq.write_table(pa.table({"request": [ITEMS[0], None, None]}), tmp_path / "x.parquet")
    result = run("convert", "x.parquet", "x.binpbs", cwd=tmp_path)
    assert (result.status, result.stdout) == (1, b"")
    assert result.stderr == (
        "tvix-build: x.parquet[1]: expected a message, found null\n"
        "tvix-build: x.parquet[2]: expected a message, found null\n"
        "tvix-build: 2 records cannot be converted to binpbs; the output was not written\n"
    )
    assert os.listdir(tmp_path) == ["x.parquet"]
    (tmp_path / "x.ndjson").write_text("{}\n[]\n")
    result = run("convert", "x.ndjson", "x.binpbs", cwd=tmp_path)
    assert result.status == 1
    assert "x.ndjson[1] at byte 3: expected a BuildRequest in proto3 JSON" in result.stderr
    for target, reason in (("x.binpb", "expected one record for a .binpb file, found several"),):
        result = run("convert", "x.parquet", target, cwd=tmp_path)
        assert result.status == 2
        assert reason in result.stderr.replace("\n", " ")
    assert sorted(os.listdir(tmp_path)) == ["x.ndjson", "x.parquet"]


@pytest.mark.parametrize(
    ("command", "format"),
    [("validate", "parquet"), ("convert", "arrow"), ("canonicalize", "parquet")],
)
def test_full_device(tmp_path: Path, command: str, format: str) -> None:
    make(tmp_path, "x.binpbs", REQUESTS)
    full = tmp_path / f"full.{format}"
    full.symlink_to("/dev/full")
    option = ("--output",) if command == "validate" else ()
    result = run(command, "x.binpbs", *option, full, cwd=tmp_path)
    assert (result.status, result.stderr) == (2, f"tvix-build: {full}: No space left on device\n")


def test_nobody_reads_stdout(tmp_path: Path) -> None:
    make(tmp_path, "x.binpbs", [request(command_args=[os.urandom(MEGABYTE).hex()])] * 3)
    process = start("convert", "x.binpbs", "-", "--output-format", "parquet", cwd=tmp_path)
    assert process.stdout
    assert process.stderr
    assert process.stdout.read(10)[:4] == b"PAR1"
    process.stdout.close()
    process.stdout = None
    assert process.wait(timeout=LIMIT) == 128 + signal.SIGPIPE
    assert process.communicate(timeout=LIMIT)[1] == b""


@pytest.mark.exhaustive
def test_signal_at_every_line(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    make(tmp_path / "in", "x.binpbs", REQUESTS[:1])
    assert end_at_every_line(tmp_path, "convert", "in/x.binpbs", "out/x.parquet") > 50


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules, directory = tmp_path / "modules", tmp_path / "directory"
    modules.mkdir()
    directory.mkdir()
    (modules / "pyarrow.py").write_text("raise ModuleNotFoundError(name='pyarrow')\n")
    monkeypatch.syspath_prepend(modules)  # The process has this one's path.
    make(directory, "x.binpbs", REQUESTS)
    (directory / "x.arrow").touch()
    for command, suffix in (
        (("convert", "x.binpbs", "x.parquet"), ".parquet"),
        (("validate", "x.arrow"), ".arrow"),
        (("validate", "x.binpbs", "--output", "y.parquet"), ".parquet"),
    ):
        result = run_process(*command, cwd=directory)
        assert (result.status, result.stderr) == (
            2,
            f"Error: a {suffix} file needs pyarrow: pip install 'tvix-build[arrow]'\n",
        )
    assert sorted(os.listdir(directory)) == ["x.arrow", "x.binpbs"]


# pyarrow itself, and a row group where one is written.
TABLE_MEMORY = MEMORY + 150 * MEGABYTE


@pytest.mark.exhaustive
@pytest.mark.parametrize(("dictionary", "different"), [(False, 300), (True, 300), (True, 700)])
def test_memory_of_a_large_row_group(tmp_path: Path, dictionary: bool, different: int) -> None:
    """The dictionary is all there is, or is full after a while."""
    filler = "x" * 3000
    items = [encoded(request(number, command_args=[filler])) for number in range(different)]
    batch = pa.record_batch([items], names=["request"])
    path, output = tmp_path / "x.parquet", str(tmp_path / "out.parquet")
    table = pa.Table.from_batches([batch] * (120_000 // different))
    pq.write_table(table, path, use_dictionary=dictionary, compression="zstd")
    assert pq.ParquetFile(path).metadata.num_row_groups == 1
    assert peak(["validate", "--output", output, str(path)], b"", 0) < TABLE_MEMORY


@pytest.mark.exhaustive
def test_memory_of_what_is_converted(tmp_path: Path) -> None:
    item = encoded(request(command_args=["x" * MEGABYTE]))
    command = ["convert", "--input-format", "binpbs", "-", str(tmp_path / "x.parquet")]
    assert peak(command, delimited([item]), 400) < TABLE_MEMORY


@pytest.mark.exhaustive
def test_memory_of_a_dictionary(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    item = encoded(request(command_args=["x" * MEGABYTE]))
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 4000, pa.int32()), pa.array([item]))
    pq.write_table(pa.table({"request": column}), path)
    assert peak(["validate", str(path)], b"", 0) < TABLE_MEMORY
