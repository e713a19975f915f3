# SPDX-License-Identifier: MIT
"""Reads files in batches of records, in constant memory.

It finds the records of each format, and does not check them.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain

from tvix_build._core.engine import split_delimited
from tvix_build._core.report import MessageType
from tvix_build.records.batch import BATCH_RECORDS, UNPARSED, Batch
from tvix_build.records.errors import InputError, needed_for
from tvix_build.records.protobuf import TextError, parse_text
from tvix_build.records.source import Source
from tvix_build.records.streams import ByteStream
from tvix_build.records.windows import PREFIX_LIMIT, RECORD_LIMIT, Window

TEXT_BATCH = 1 << 20


def read_source(source: Source, kind: MessageType) -> Iterator[Batch | None]:
    """Yield the records of a source in batches. If the source has an index, yield a batch with that
    record only. None is yielded before a wait that may be long.

    Args:
        source: the source to read.
        kind: the type of the records, which only texts need.

    Raises:
        InputError: with the path, record and offset, after all complete records before the damage
            have been yielded.
        MissingPackageError: if the format needs a package that is missing.
    """
    if source.is_table:
        with needed_for(f"a .{source.format} file", "'tvix-build[arrow]'"):
            from tvix_build.records.table_input import read_table
        batches: Iterator[Batch | None] = read_table(source, kind)
    else:
        batches = _read_stream(source, kind)
    return batches if source.index is None else _select(batches, source.index, source.path)


def read_messages(source: Source, kind: MessageType) -> Iterator[Batch]:
    """Yield the batches of `read_source`, without None."""
    return (batch for batch in read_source(source, kind) if batch is not None)


def read_lines(source: Source) -> Iterator[tuple[int, memoryview]]:
    """Yield the offset and the bytes of each line of a source that is not blank.

    Raises:
        InputError: if the source cannot be read.
    """
    with _open_window(source) as window:
        yield from filter(None, _lines(window))


def _read_stream(source: Source, kind: MessageType) -> Iterator[Batch | None]:
    with _open_window(source) as window:
        if source.format == "binpbs":
            yield from _delimited(window, source, kind)
        elif source.format == "binpb":
            yield from _message(window, source, kind)
        else:
            texts = _lines(window) if source.format == "ndjson" else _whole(window)
            yield from _texts(texts, window, source, kind)


@contextmanager
def _open_window(source: Source) -> Iterator[Window]:
    """Open a source, and add its path and the position to each InputError."""
    window = None
    try:
        stream = ByteStream(source)
        try:
            window = Window(stream)
            yield window
        finally:
            stream.close()
    except InputError as error:
        error.path = source.path
        if window is not None and source.many:
            error.index, error.offset = window.records, window.offset
        raise


def _select(batches: Iterator[Batch | None], index: int, path: str) -> Iterator[Batch | None]:
    """Yield a batch with the record at an index."""
    count = 0
    for batch in batches:
        if batch is not None:
            count = batch.first + len(batch)
            if index < count:
                yield batch.only(index - batch.first)
                return
    raise InputError(f"expected record {index}, found only {count} records", path)


def _delimited(window: Window, source: Source, kind: MessageType) -> Iterator[Batch | None]:
    """Yield batches of records with length prefixes."""
    needed = 0
    while not window.ended:
        yield from window.fill(needed)
        count = BATCH_RECORDS
        while count == BATCH_RECORDS:  # After fewer records, the next one is incomplete.
            view = window.view()
            split = split_delimited(view, BATCH_RECORDS)
            count = len(split.begins)
            if not count:
                break
            first, offset = window.records, window.offset
            window.records += count
            yield Batch(
                *(source, kind, view, split.begins, split.ends, first),
                consumed=window.consumed,
                unpacked=offset,
                _base=offset,
            )
            window.skip(split.consumed)
        if split.error is not None:
            raise InputError(split.error)
        view = window.view()
        prefix, length = _length(view)
        needed = prefix + length
        rest = len(view)
        view.release()  # so that its buffer can be reused
    window.finish()
    if not rest:
        return
    if not prefix:
        raise InputError(
            f"expected a length prefix, found the end of the file after {rest} bytes of it"
        )
    found = rest - prefix
    raise InputError(
        f"expected a message of {length} bytes, found the end of the file after {found}"
    )


def _length(data: memoryview) -> tuple[int, int]:
    """Return the size and the value of the length prefix of data; zeros if it is incomplete."""
    length = 0
    for i, byte in enumerate(data[:PREFIX_LIMIT]):
        length |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return i + 1, length
    return 0, 0


def _message(window: Window, source: Source, kind: MessageType) -> Iterator[Batch | None]:
    """Yield a batch of the whole stream as one message."""
    for item in _whole(window):
        if item is None:
            yield None
            continue
        data = item[1]
        ranges = array("Q", [0]), array("Q", [len(data)])
        yield Batch(source, kind, data, *ranges, 0, consumed=window.consumed)


def _whole(window: Window) -> Iterator[tuple[int, memoryview] | None]:
    """Yield the offset and the bytes of the whole stream as one record. None before a wait."""
    window.reserve()
    while not window.ended:
        yield from window.fill()
        if len(window.view()) > RECORD_LIMIT:
            raise InputError(f"expected a message of at most {RECORD_LIMIT} bytes, found more")
    window.finish()
    yield 0, window.view()


def _lines(window: Window) -> Iterator[tuple[int, memoryview] | None]:
    """Yield the offsets and the bytes of lines that are not blank. None before each read, which may
    wait or fail."""
    searched = 0
    while not window.ended:
        yield None
        yield from window.fill()
        while True:
            if blank := window.blank_lines():
                window.skip(blank)
                searched = 0
            end = window.find_newline(searched)
            if end < 0:
                break
            yield window.offset, window.view()[:end]
            window.skip(end + 1)
            searched = 0
        searched = len(window.view())
        if searched > RECORD_LIMIT:
            raise InputError(f"expected a line of at most {RECORD_LIMIT} bytes, found more")
    yield None
    window.finish()
    rest = window.view()
    if bytes(rest).strip(b" \t\r"):
        yield window.offset, rest


def _texts(
    texts: Iterator[tuple[int, memoryview] | None],
    window: Window,
    source: Source,
    kind: MessageType,
) -> Iterator[Batch | None]:
    """Yield batches of parsed texts. A batch ends at each None."""
    parse = partial(parse_text, format_name=source.format, kind=kind)
    batch, data, offsets = _text_batch(source, kind, 0)
    for item in chain(texts, [None]):
        if item is not None:
            offsets.append(item[0])
            _add_text(batch, data, item[1], parse)
        full = len(data) >= TEXT_BATCH or len(batch) >= BATCH_RECORDS
        if offsets and (item is None or full):
            batch.buffer = memoryview(data)
            batch.consumed, batch.unpacked = window.consumed, window.offset
            window.records += len(batch)
            yield batch
            batch, data, offsets = _text_batch(source, kind, window.records)
        if item is None:
            yield None


def _text_batch(
    source: Source, kind: MessageType, first: int
) -> tuple[Batch, bytearray, list[int]]:
    """Return an empty batch, its future buffer and its offsets."""
    offsets: list[int] = []
    batch = Batch(source, kind, memoryview(b""), array("Q"), array("Q"), first, _offsets=offsets)
    return batch, bytearray(), offsets


def _add_text(
    batch: Batch, data: bytearray, text: memoryview, parse: Callable[[bytes], bytes]
) -> None:
    try:
        message = parse(bytes(text))
    except TextError as error:
        batch.reasons[len(batch)] = str(error)
        message = UNPARSED
    batch.begins.append(len(data))
    data += message
    batch.ends.append(len(data))
