# SPDX-License-Identifier: MIT
"""Writes Parquet and Arrow files: a column of messages, or what a validation found.

Imports pyarrow, an optional extra, so it is imported when a table is written and not before.
In memory is what becomes the next row group.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tvix_build._core.batch import BatchReport, check_batch
from tvix_build._core.report import Report
from tvix_build._core.text import well_formed
from tvix_build.records.batch import Batch
from tvix_build.records.errors import OutputError
from tvix_build.records.output import Output

ROW_GROUP = 1 << 25  # bytes of rows, uncompressed
ROW_GROUP_ROWS = 1 << 17
BINARY_LIMIT = (1 << 31) - 1  # bytes in one Arrow array of binary

REPORT = pa.schema(check_batch([]))
RESULTS = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("index", pa.int64(), nullable=False),
        pa.field("offset", pa.int64()),
        *REPORT,
        pa.field("violation_count", pa.int64(), nullable=False),
    ]
)


def message_schema(column: str) -> Any:
    """Return the schema of a table of messages."""
    return pa.schema([pa.field(column, pa.binary(), nullable=False)])


def message_rows(messages: list[bytes], schema: Any) -> Any:
    """Return messages as rows."""
    fits = sum(map(len, messages)) <= BINARY_LIMIT
    pieces = [messages] if fits else [[message] for message in messages]
    return pa.table([pa.chunked_array(map(_binary, pieces), pa.binary())], schema=schema)


# Not pa.array, which imports pandas if it is installed.


def _binary(messages: list[bytes]) -> Any:
    offsets = array("i", accumulate(map(len, messages), initial=0))
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(messages))]
    return pa.Array.from_buffers(pa.binary(), len(messages), buffers)


def _integers(numbers: Iterable[int]) -> Any:
    numbers = array("q", numbers)
    return pa.Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(numbers)])


def result_rows(
    batch: Batch, reports: BatchReport, on_invalid: Callable[[int, Report], object]
) -> Any:
    """Return the results of each record of a batch, as rows of RESULTS."""
    count = len(batch)
    offsets = [offset for i in range(count) if (offset := batch.offset(i)) is not None]
    violation_counts = [0] * count
    for i in reports.invalid:
        report = batch.report(i, reports[i])
        on_invalid(i, report)
        violation_counts[i] = report.violation_count
    said = pa.record_batch(reports)
    if batch.reasons:
        rows = [_row(batch.report(i, report)) for i, report in enumerate(reports)]
        said = pa.RecordBatch.from_pylist(rows, REPORT)
    columns = [
        pa.repeat(well_formed(batch.path), count),
        _integers(range(batch.first, batch.first + count)),
        _integers(offsets) if offsets else pa.nulls(count, pa.int64()),
        *said.columns,
        _integers(violation_counts),
    ]
    return pa.table(columns, schema=RESULTS)


def _row(report: Report) -> dict[str, Any]:
    return {
        "valid": report.valid,
        "canonical": report.canonical,
        "digest": report.digest,
        "violations": [
            {"code": one.code.value, "path": one.path, "message": one.message}
            for one in report.violations
        ],
    }


class TableOutput:
    """Writes tables to an Output, in order. A context manager, to be left before that of the
    Output.

    Args:
        output: the file to write.
        format_name: `parquet` or `arrow`.
        schema: the schema of all tables.

    Raises:
        OutputError: on entering, on leaving and from `write`, if the file cannot be written.
    """

    def __init__(self, output: Output, format_name: str, schema: Any) -> None:
        self._output = output
        self._sink = _Sink(output)
        self._schema = schema
        self._waiting: list[Any] = []
        self._bytes = self._count = 0
        with self._errors():
            self._writer = _writer(self._sink, format_name, schema)

    def write(self, rows: Any) -> None:
        """Write a table, whose buffers must not change afterwards."""
        self._waiting.append(rows)
        self._bytes += rows.nbytes
        self._count += len(rows)
        if self._bytes >= ROW_GROUP or self._count >= ROW_GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            with self._errors():
                self._writer.write_table(pa.concat_tables(self._waiting), self._count)
        self._waiting = []
        self._bytes = self._count = 0

    def __enter__(self) -> TableOutput:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
                with self._errors():
                    self._writer.close()
        finally:
            self._sink.discarding = True  # A garbage-collected writer writes its end.
            with suppress(Exception):
                self._writer.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except MemoryError:
            raise
        except pa.ArrowException as error:
            raise OutputError(None, str(error).splitlines()[0], self._output.name) from error


def _writer(sink: _Sink, format_name: str, schema: Any) -> Any:
    if format_name == "arrow":
        return pa.ipc.new_file(sink, schema, options=pa.ipc.IpcWriteOptions(compression="zstd"))
    # Messages are rarely equal, and nobody searches for their first bytes.
    plain = pa.binary() not in schema.types
    return pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        use_dictionary=plain,
        write_statistics=plain,
        write_page_checksum=True,
    )


class _Sink:
    """An Output as a file object for pyarrow."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self.closed = False
        self.discarding = False

    def write(self, data: bytes) -> int:
        if not self.discarding:
            self._output.write(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing, because nothing is buffered."""

    def close(self) -> None:
        self.closed = True
