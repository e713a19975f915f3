# SPDX-License-Identifier: MIT
"""Parquet and Arrow files on the command line: they say what a stream of the same messages says."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

import real_data
import tvix_build
from cli_support import SUFFIXES, Result, compressed, decompressed, delimited, make, request, run
from few_messages import messages

NULL = {"code": "malformed", "path": "", "message": "expected a message, found null"}
Write = Callable[[pa.Table, Path], None]


def write_stream(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


def write_arrow(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


def write_parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, use_dictionary=False)


def write_row_groups(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, row_group_size=3)


def write_dictionary(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, row_group_size=1000, data_page_size=1)


def write_feather(table: pa.Table, path: Path) -> None:
    pyarrow.feather.write_feather(table, str(path))


WRITERS: dict[str, Write] = {
    "plain.parquet": write_parquet,
    "groups.parquet": write_row_groups,
    "dictionary.parquet": write_dictionary,
    "x.arrow": write_arrow,
    "stream.arrow": write_stream,
    "x.feather": write_feather,
}
TYPES = {
    "binary": pa.binary(),
    "large": pa.large_binary(),
    "view": pa.binary_view(),
    "dictionary": pa.dictionary(pa.int8(), pa.binary()),
}
MESSAGES = messages() * 3


def expected(items: list[bytes]) -> list[dict[str, Any]]:
    """The results of a stream of the messages."""
    command = ("validate", "--input-format", "binpbs", "--output", "-", "-")
    lines = run(*command, stdin=delimited(items)).lines
    for line in lines:
        del line["source"], line["offset"]
    return lines


def by_source(result: Result) -> dict[str, list[dict[str, Any]]]:
    """The results of each file, without the members that only streams or only tables have."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in result.lines:
        assert line.pop("offset") is None
        found.setdefault(line.pop("source"), []).append(line)
    return found


def write_all(directory: Path, items: Sequence[bytes | None]) -> list[str]:
    """The messages as a column of each type in a table of each format; the names of the files."""
    names = []
    for type_name, type in TYPES.items():
        column = pa.array(items, pa.binary()).cast(type)
        table = pa.table({"key": range(len(column)), "request": column})
        for name, write in WRITERS.items():
            path = directory / f"{type_name}-{name}"
            try:
                write(table, path)
            except pa.ArrowNotImplementedError:  # pyarrow 19 has no views in Parquet.
                assert (type_name, path.suffix) == ("view", ".parquet")
                path.unlink(missing_ok=True)
            else:
                names.append(f"./{path.name}")
    return sorted(names)


def test_tables_say_what_a_stream_says(tmp_path: Path) -> None:
    names = write_all(tmp_path, MESSAGES)
    result = run("validate", "--output", "-", ".", cwd=tmp_path)
    assert (result.status, result.stderr) == (1, "")
    assert by_source(result) == dict.fromkeys(names, expected(MESSAGES))


def test_null_is_a_malformed_record(tmp_path: Path) -> None:
    names = write_all(tmp_path, [None, *MESSAGES[:5], None, *MESSAGES[5:], None])
    result = run("validate", "--output", "-", ".", cwd=tmp_path)
    assert (result.status, result.stderr) == (1, "")
    said = {"valid": False, "canonical": False, "digest": None, "violations": [NULL]}
    others = expected(MESSAGES)
    lines = [said, *others[:5], said, *others[5:], said]
    lines = [{**line, "index": index} for index, line in enumerate(lines)]
    assert by_source(result) == dict.fromkeys(names, lines)
    summary = run("validate", tmp_path / "large-plain.parquet").stdout.decode()
    assert "large-plain.parquet[0]: expected a message, found null" in summary


def test_null_in_a_dictionary(tmp_path: Path) -> None:
    values = pa.array([MESSAGES[0], None], pa.binary())
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 0], pa.int8()), values)
    write_arrow(pa.table({"request": column}), tmp_path / "x.arrow")
    result = run("validate", "--kind", "directory", "--output", "-", tmp_path / "x.arrow")
    assert [line["violations"] == [NULL] for line in result.lines] == [False, True, True, False]


def extension(storage: pa.Array) -> pa.ExtensionArray:
    return pa.ExtensionArray.from_storage(pa.opaque(storage.type, "request", "tvix"), storage)


def test_files_take_the_types_that_batches_take(tmp_path: Path) -> None:
    plain = pa.array(MESSAGES)
    places = pa.array([MESSAGES.index(item) for item in MESSAGES], pa.int32())
    columns = {
        "extension": extension(plain),
        "extension of a dictionary": extension(plain.dictionary_encode()),
        "dictionary of an extension": pa.DictionaryArray.from_arrays(places, extension(plain)),
    }
    for name, column in columns.items():
        assert list(tvix_build.check_batch(column)) == list(tvix_build.check_batch(MESSAGES))
        table = pa.table({"key": range(len(column)), "request": column})
        for kind, write in WRITERS.items():
            if name == "dictionary of an extension" and kind.endswith(".parquet"):
                continue  # pyarrow does not write it.
            write(table, tmp_path / f"{name}-{kind}")
    result = run("validate", "--output", "-", ".", cwd=tmp_path)
    assert (result.status, result.stderr) == (1, "")
    found = by_source(result)
    assert len(found) == 3 * len(WRITERS) - 3
    for lines in found.values():
        assert lines == expected(MESSAGES)


@pytest.mark.parametrize("rows", [0, 4])
def test_the_null_type_is_a_column_of_nulls(tmp_path: Path, rows: int) -> None:
    # Of some of these columns, pyarrow 19 crashes when it writes Feather.
    writers = {name: write for name, write in WRITERS.items() if write is not write_feather}
    for type_name, column in {
        "null": pa.nulls(rows),
        "extension": extension(pa.nulls(rows)),
        "dictionary": pa.DictionaryArray.from_arrays(pa.nulls(rows, pa.int8()), pa.nulls(0)),
    }.items():
        table = pa.table({"key": pa.array(range(rows), pa.int64()), "request": column})
        for name, write in writers.items():
            write(table, tmp_path / f"{type_name}-{name}")
    for column_name in ([], ["--column", "request"]):
        result = run("validate", "--output", "-", *column_name, ".", cwd=tmp_path)
        assert (result.status, result.stderr) == (int(rows > 0), "")
        said = {"valid": False, "canonical": False, "digest": None, "violations": [NULL]}
        found = by_source(result)
        assert len(found) == (3 * len(writers) if rows else 0)
        for lines in found.values():
            assert lines == [{**said, "index": i} for i in range(rows)]


def test_a_column_of_nulls_is_not_the_messages_where_there_are_some(tmp_path: Path) -> None:
    table = pa.table({"note": pa.nulls(len(MESSAGES)), "request": MESSAGES})
    write_parquet(table, tmp_path / "x.parquet")
    result = run("validate", "--output", "-", "x.parquet", cwd=tmp_path)
    assert by_source(result) == {"x.parquet": expected(MESSAGES)}
    write_parquet(pa.table({"a": pa.nulls(1), "b": pa.nulls(1)}), tmp_path / "y.parquet")
    result = run("validate", "y.parquet", cwd=tmp_path)
    assert result.status == 2
    assert "'a' (null), 'b' (null); choose one of them as the column" in result.stderr


@pytest.mark.parametrize(
    ("table", "suffix"),
    [*(("x.parquet", suffix) for suffix in SUFFIXES), ("x.arrow", ""), ("x.feather", ".zst")],
)
def test_convert_there_and_back(tmp_path: Path, table: str, suffix: str) -> None:
    stream = delimited(MESSAGES)
    (tmp_path / f"in.binpbs{suffix}").write_bytes(compressed(stream, suffix))
    for arguments in ((f"in.binpbs{suffix}", table), (table, f"out.binpbs{suffix}")):
        result = run("convert", *arguments, cwd=tmp_path)
        assert (result.status, result.stdout, result.stderr) == (0, b"", "")
    assert decompressed((tmp_path / f"out.binpbs{suffix}").read_bytes(), suffix) == stream
    piped = run("convert", table, "-", "--output-format", "binpbs", cwd=tmp_path)
    assert piped.stdout == stream


def test_converted_table(tmp_path: Path) -> None:
    make(tmp_path, "in.ndjson", [request(number) for number in range(3)])
    for options, name in (
        ((), "request"),
        (("--kind", "build"), "build"),
        (("--kind", "directory"), "directory"),
        (("--column", "a b"), "a b"),
    ):
        command = ("convert", *options, "--output-format", "parquet", "--input-format", "binpbs")
        written = run(*command, "-", "-", stdin=delimited(MESSAGES)).stdout
        table = pq.read_table(pa.BufferReader(written))
        assert table.schema == pa.schema([pa.field(name, pa.binary(), nullable=False)])
        assert table[name].to_pylist() == MESSAGES
    assert run("convert", "in.ndjson", "out.parquet", cwd=tmp_path).status == 0
    assert run("convert", "out.parquet", "out.arrow", cwd=tmp_path).status == 0
    assert run("convert", "out.arrow", "out.binpbs", cwd=tmp_path).status == 0
    direct = run("canonicalize", "in.ndjson", "-", "--output-format", "binpbs", cwd=tmp_path)
    assert (tmp_path / "out.binpbs").read_bytes() == direct.stdout


def test_convert_to_another_schema(tmp_path: Path) -> None:
    data = request(outputs=[], inputs=[]).SerializeToString(deterministic=True)
    later = tvix_build.convert(data, to="snix.build.v1")
    for rows, status in (([data] * 3, 0), ([data, None], 1)):
        write_parquet(pa.table({"request": pa.array(rows, pa.binary())}), tmp_path / "in.parquet")
        command = ("convert", "--to", "snix.build.v1", "in.parquet", f"{status}.arrow")
        result = run(*command, cwd=tmp_path)
        assert result.status == status
    assert "in.parquet[1]: malformed: expected a message, found null\n" in result.stderr
    with pa.ipc.open_file(tmp_path / "0.arrow") as file:
        assert file.read_all()["request"].to_pylist() == [later] * 3
    assert not (tmp_path / "1.arrow").exists()


def test_row_groups_are_small(tmp_path: Path) -> None:
    make(tmp_path, "in.binpbs", [request(command_args=["x" * (1 << 20)])] * 100)
    assert run("convert", "in.binpbs", "out.parquet", cwd=tmp_path).status == 0
    metadata = pq.ParquetFile(tmp_path / "out.parquet").metadata
    groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert (sum(groups), len(groups)) == (100, 4)
    assert max(groups) < 40


def test_dataset(tmp_path: Path) -> None:
    directory = tmp_path / "requests.parquet"
    for part, items in (("day=1", MESSAGES[:5]), ("day=2", MESSAGES[5:])):
        (directory / part).mkdir(parents=True)
        pq.write_table(pa.table({"request": items}), directory / part / "part-0.snappy.parquet")
    (directory / "_temporary").mkdir()
    for name in ("_SUCCESS", "_temporary/part-0.parquet", ".part-0.parquet", "_metadata.parquet"):
        (directory / name).write_bytes(b"unfinished")
    result = run("validate", "--output", "-", directory)
    assert (result.status, result.stderr) == (1, "")
    found = [line for lines in by_source(result).values() for line in lines]
    others = expected(MESSAGES)
    assert [line.pop("index") for line in found] == [*range(5), *range(len(MESSAGES) - 5)]
    assert [line.pop("index") for line in others] == [*range(len(MESSAGES))]
    assert found == others
    assert run("convert", directory, "-", "--output-format", "binpbs").stdout == delimited(MESSAGES)


@pytest.mark.parametrize("name", ["out.parquet", "out.arrow"])
def test_results_as_a_table(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.binpbs").write_bytes(delimited([*MESSAGES, b"\x12\x00" * 150]))
    make(tmp_path, "x.ndjson", [request(1)])
    with (tmp_path / "x.ndjson").open("a") as file:
        file.write('{"commandArgs": 1}\n')
    pq.write_table(pa.table({"r": [None, MESSAGES[0]]}), tmp_path / "x.parquet")
    (tmp_path / "\udcff.ndjson").write_text('{"\\ud800": 1}\n')
    sources = ("x.binpbs", "x.ndjson", "x.parquet", "\udcff.ndjson")
    table_run = run("validate", "--output", name, *sources, cwd=tmp_path)
    lines_run = run("validate", "--output", "-", *sources, cwd=tmp_path)
    assert table_run.status == lines_run.status == 1
    assert b"invalid" in table_run.stdout
    read = pq.read_table if name.endswith("parquet") else pyarrow.feather.read_table
    table = read(str(tmp_path / name))
    table.validate(full=True)
    rows = table.to_pylist()
    for row in rows:
        row["digest"] = row["digest"] and row["digest"].hex()
        if row["violation_count"] == len(row["violations"]):
            del row["violation_count"]
    assert rows == lines_run.lines
    assert rows[-1]["source"] == r"\xff.ndjson"
    json.dumps(rows, ensure_ascii=False).encode()  # Fails where there is a lone surrogate.
    assert table.schema.field("digest").type == pa.binary(32)


def test_other_commands_read_tables(tmp_path: Path) -> None:
    items = [request(number).SerializeToString(deterministic=True) for number in range(3)]
    table = pa.table({"key": [b"a", b"b", b"c"], "request": items})
    pq.write_table(table, tmp_path / "x.parquet")
    (tmp_path / "x.binpbs").write_bytes(delimited(items))
    column = ("--column", "request")
    for command in (("digest",), ("show", "--records", "1"), ("store", "add", "store")):
        ours = run(*command, *column, "x.parquet", cwd=tmp_path)
        stream = run(*command, "x.binpbs", cwd=tmp_path)
        assert ours.status == 0
        assert ours.stdout == stream.stdout.replace(b"x.binpbs", b"x.parquet")
        assert ours.stdout
    assert run("diff", *column, "x.parquet[0]", "x.binpbs[0]", cwd=tmp_path).status == 0
    assert run("diff", *column, "x.parquet[0]", "x.parquet[2]", cwd=tmp_path).status == 1
    assert run("canonicalize", *column, "x.parquet", "y.parquet", cwd=tmp_path).status == 0
    assert pq.read_table(tmp_path / "y.parquet").to_pydict() == {"request": items}


def slice_of(name: str, count: int) -> list[bytes]:
    """Some requests of nixpkgs, from all over the file."""
    from bench.corpora import messages_of

    items = list(messages_of(real_data.read(name)))
    return items[:: len(items) // count]


@pytest.mark.parametrize("name", ["direct.binpbs", "closure.binpbs"])
def test_real_requests(tmp_path: Path, name: str) -> None:
    (tmp_path / "in.binpbs").write_bytes(delimited(slice_of(name, 400)))
    for arguments in (
        ("convert", "in.binpbs", "out.parquet"),
        ("validate", "in.binpbs", "--output", "in.ndjson"),
        ("validate", "out.parquet", "--output", "out.ndjson"),
    ):
        assert run(*arguments, cwd=tmp_path).status in (0, 1)
    ours, stream = (
        [json.loads(line) for line in (tmp_path / file).read_text().splitlines()]
        for file in ("out.ndjson", "in.ndjson")
    )
    for line in stream:
        line.update(source="out.parquet", offset=None)
    assert ours == stream
    assert len(ours) >= 400
