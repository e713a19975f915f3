# SPDX-License-Identifier: MIT
"""Reads the binary column of Parquet and Arrow files in batches of records, in constant memory.

This module imports pyarrow, an optional extra, so it is imported only to read a table. It keeps the
pages of a few records of a Parquet file, or one record batch of an Arrow file, in memory.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tvix_build._core import arrow
from tvix_build._core.report import NULL, MessageType
from tvix_build.records.batch import BATCH_RECORDS, UNPARSED, Batch
from tvix_build.records.errors import InputError
from tvix_build.records.source import Source
from tvix_build.records.windows import WINDOW

NAMES = {"parquet": "a Parquet file", "arrow": "an Arrow file or stream"}
PAGE_BUFFER = 1 << 18
# The size limit of a dictionary that is not expanded, and the records per batch of a larger one.
DICTIONARY = 1 << 23
DICTIONARY_RECORDS = 1 << 8
ARROW_FILE = b"ARROW1"
STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"


def read_table(source: Source, kind: MessageType) -> Iterator[Batch]:
    """Yield the records in the column of messages of a table. A null is a malformed record.

    Raises:
        InputError: if the table cannot be read.
    """
    if source.path == "-" or source.stream is not None:
        found = "stdin" if source.stream is None else "a stream"
        reason = f"{NAMES[source.format]} cannot be read from {found}"
        raise InputError(reason, source.path)
    with _errors(source, None):
        file = pa.OSFile(source.path)
    with file:
        yield from _read(source, kind, file)


def _read(source: Source, kind: MessageType, file: Any) -> Iterator[Batch]:
    size = source.size() or 0
    batches = _batches(
        source, kind, (_parquet if source.format == "parquet" else _arrow_file)(source, file)
    )
    count = offset = 0
    while True:
        with _errors(source, count or None):
            batch, part = next(batches, (None, 0.0))
        if batch is None:
            return
        offset += sum(batch.ends) - sum(batch.begins)
        count = batch.first + len(batch)
        batch.consumed, batch.unpacked = int(size * part), offset
        yield batch


@contextmanager
def _errors(source: Source, index: int | None) -> Iterator[None]:
    """Convert errors of pyarrow and of files to InputErrors. `index` is the index of the next
    record, or None for the first one."""
    try:
        yield
    except MemoryError:
        raise
    except (InputError, pa.ArrowException, OSError, ValueError) as error:
        number = getattr(error, "errno", None)
        found = (str(error).splitlines() or [type(error).__name__])[0]
        reason = f"expected {NAMES[source.format]}: {found}"
        if number:
            reason = os.strerror(number)
        elif isinstance(error, InputError):
            reason = error.reason
        damage = InputError(reason, source.path)
        damage.index = index
        raise damage from error


Chunks = Iterator[tuple[Any, float]]
"""Arrow arrays or record batches, each with the fraction of the file that has been read."""


def _parquet(source: Source, file: Any) -> Chunks:
    """Yield the row groups in order, a few records at a time."""
    options = {"pre_buffer": False, "buffer_size": PAGE_BUFFER, "page_checksum_verification": True}
    plain = pq.ParquetFile(file, **options)
    metadata, schema = plain.metadata, plain.schema_arrow
    name = _column(source, schema)
    place = [metadata.schema.column(i).path for i in range(metadata.num_columns)].index(name)
    folded = pq.ParquetFile(file, metadata=metadata, read_dictionary=[name], **options)
    rows = expected = 0
    for group in range(metadata.num_row_groups):
        column = metadata.row_group(group).column(place)
        expected += metadata.row_group(group).num_rows
        if rows == expected:
            continue
        small = column.has_dictionary_page and column.total_uncompressed_size <= DICTIONARY
        batches = (folded if small else plain).iter_batches(
            _rows(column, small), row_groups=[group], columns=[name], use_threads=False
        )
        for batch in batches:
            rows += len(batch)
            yield batch.column(name), rows / max(metadata.num_rows, 1)
            if rows == expected:
                break  # pyarrow aborts at the end of an extension type of a dictionary.
        if rows != expected:
            raise InputError(f"expected {expected} rows up to this row group, found {rows}")
    if rows != metadata.num_rows:
        raise InputError(f"expected {metadata.num_rows} rows, found {rows}")


def _rows(column: Any, folded: bool) -> int:
    """Return the number of records of a column chunk to read at a time: about WINDOW bytes."""
    if folded:
        return BATCH_RECORDS
    most = DICTIONARY_RECORDS if column.has_dictionary_page else BATCH_RECORDS
    size = max(int(column.total_uncompressed_size), 1)
    return max(1, min(most, WINDOW * int(column.num_values) // size))


def _arrow_file(source: Source, file: Any) -> Chunks:
    """Yield the record batches of an Arrow file or stream in order."""
    indexed = file.read(len(ARROW_FILE)) == ARROW_FILE
    file.seek(0)
    schema = (pa.ipc.open_file if indexed else pa.ipc.open_stream)(file).schema
    place = schema.get_field_index(_column(source, schema))
    file.seek(0)
    # Other columns are not read.
    options = pa.ipc.IpcReadOptions(included_fields=[place], use_threads=False)
    for batch, part in (_indexed if indexed else _stream)(file, options):
        batch.validate(full=True)  # Otherwise invalid offsets would be used.
        yield batch.column(0), part


def _indexed(file: Any, options: Any) -> Chunks:
    reader = pa.ipc.open_file(file, options=options)
    for i in range(reader.num_record_batches):
        yield reader.get_batch(i), (i + 1) / reader.num_record_batches


def _stream(file: Any, options: Any) -> Chunks:
    """Yield the record batches of a stream, and check its end."""
    size = file.size()
    for batch in pa.ipc.open_stream(file, options=options):
        yield batch, file.tell() / size
    if file.tell() != size:
        raise InputError(f"expected the end of the file, found {size - file.tell()} more bytes")
    if file.read_at(len(STREAM_END), max(size - len(STREAM_END), 0)) != STREAM_END:
        raise InputError("the stream is truncated")


def _column(source: Source, schema: Any) -> str:
    """Return the name of the column of messages: by default the only binary column, or else the
    only column of nulls.

    Raises:
        InputError: if there is no such column, or there are several.
    """
    fields = [schema.field(i) for i in range(len(schema))]
    if source.column is None:
        names = [field.name for field in fields if _is_binary(field.type)]
        names = names or [field.name for field in fields if _is_null(field.type)]
        expected = "one binary column"
    else:
        names = [field.name for field in fields if field.name == source.column]
        expected = f"one column {source.column!r}"
    if len(names) != 1:
        found = ", ".join(f"{field.name!r} ({field.type})" for field in fields) or "no columns"
        hint = "; choose one of them as the column" if len(set(names)) > 1 else ""
        raise InputError(f"expected {expected}, found {found}{hint}")
    found_type = schema.field(names[0]).type
    if not _is_binary(found_type) and not _is_null(found_type):
        raise InputError(f"expected {expected} of binary, found {found_type}")
    return str(names[0])


def _storage(type: Any) -> Any:
    """Return the type of the values, without dictionary and extension."""
    while True:
        if isinstance(type, pa.BaseExtensionType):
            type = type.storage_type
        elif pa.types.is_dictionary(type):
            type = type.value_type
        else:
            return type


def _is_null(type: Any) -> bool:
    return bool(pa.types.is_null(_storage(type)))


def _is_binary(type: Any) -> bool:
    type = _storage(type)
    return bool(
        pa.types.is_binary(type) or pa.types.is_large_binary(type) or pa.types.is_binary_view(type)
    )


def _batches(source: Source, kind: MessageType, chunks: Chunks) -> Iterator[tuple[Batch, float]]:
    """Yield the messages of Arrow arrays without copying them, except for parts with nulls."""
    first = 0
    for chunk, part in chunks:
        if isinstance(chunk, pa.ExtensionArray):
            chunk = chunk.storage
        folded = pa.types.is_dictionary(chunk.type)
        for ranges, reasons in (_ranges_of_dictionary if folded else _ranges_of_array)(chunk):
            batch = Batch(source, kind, *ranges, first, reasons=reasons, _base=None)
            first += len(batch)
            yield batch, part


Ranges: TypeAlias = "tuple[memoryview, array[int], array[int]]"
"""The ranges of messages: a buffer, begins and ends."""


def _ranges_of_array(chunk: Any) -> Iterator[tuple[Ranges, dict[int, str]]]:
    for begin in range(0, len(chunk), BATCH_RECORDS):
        some = chunk[begin : begin + BATCH_RECORDS]
        reasons = _reasons(some)
        if reasons:
            some = some.cast(pa.large_binary()).fill_null(UNPARSED)
        yield _ranges(some), reasons


def _ranges_of_dictionary(chunk: Any) -> Iterator[tuple[Ranges, dict[int, str]]]:
    values = chunk.dictionary
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    values = values.cast(pa.large_binary())
    indices = chunk.indices.cast(pa.int64())
    if values.null_count:
        indices = pc.if_else(values.is_valid().take(indices), indices, None)
    null = len(values)
    if indices.null_count or values.null_count:
        values = pa.concat_arrays(
            [values.fill_null(UNPARSED), pa.repeat(UNPARSED, 1).cast(values.type)]
        )
    buffer, begins, ends = _ranges(values)
    for begin in range(0, len(indices), BATCH_RECORDS):
        some = indices[begin : begin + BATCH_RECORDS]
        reasons = _reasons(some)
        some = some.fill_null(null)
        yield (buffer, _taken(begins, some), _taken(ends, some)), reasons


def _reasons(some: Any) -> dict[int, str]:
    """Return the reason for each null."""
    if not some.null_count:
        return {}
    return dict.fromkeys(pc.indices_nonzero(some.is_null()).to_pylist(), NULL)


def _ranges(some: Any) -> Ranges:
    """Return the ranges of the messages of an array without nulls."""
    # Only dictionaries have several pieces, which have the same buffer.
    pieces = list(arrow.ranges(some))
    begins, ends = array("Q"), array("Q")
    for _, some_begins, some_ends in pieces:
        begins += some_begins
        ends += some_ends
    return memoryview(pieces[0][0] if pieces else b""), begins, ends


def _taken(numbers: array[int], indices: Any) -> array[int]:
    """Return numbers[i] for each of the indices."""
    source = pa.Array.from_buffers(pa.uint64(), len(numbers), [None, pa.py_buffer(numbers)])
    taken = array("Q")
    taken.frombytes(memoryview(source.take(indices).buffers()[1])[: 8 * len(indices)])
    return taken
