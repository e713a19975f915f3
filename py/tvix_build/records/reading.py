# SPDX-License-Identifier: MIT
"""Cuts a stream of bytes into batches of records, in constant memory.

Knows how records lie in each format, not what makes one valid. A window of the stream is kept,
or a few where batches are used while the next are read; it grows only for a record that is larger.
"""

from __future__ import annotations

import re
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

from tvix_build import Report, Violation, ViolationCode
from tvix_build._core.engine import split_delimited
from tvix_build._core.report import MessageType
from tvix_build.cli.extras import extra
from tvix_build.records.protobuf import TextError, parse_text
from tvix_build.records.sources import Source
from tvix_build.records.streams import ByteStream, InputError

WINDOW = 1 << 20  # A few of them fit the last level of cache, where they are read and checked.
TEXT_BATCH = 1 << 20
BATCH_RECORDS = 1 << 11  # so few that all their violations fit memory
RECORD_LIMIT = (1 << 31) - 1  # bytes, protobuf's own limit
PREFIX_LIMIT = 5  # bytes of a length prefix
BLANK = re.compile(rb"[ \t\r\n]+")
UNPARSED = b"\xff"  # decodes as no message, so that the engine counts it as malformed


@dataclass
class Batch:
    """Some records of one source: record i is buffer[begins[i]:ends[i]].

    Valid until the next batch is asked for, or as many more as `open_records` was told.

    Attributes:
        first: index of record 0 in the source.
        base: byte of the uncompressed source at which the buffer begins; None in a table.
        text_offsets: the same for each record, where the buffer is not a part of the source.
        reasons: why a text or a null is no message, by i; the engine sees UNPARSED instead.
    """

    buffer: memoryview
    begins: array[int]
    ends: array[int]
    first: int
    base: int | None = 0
    text_offsets: list[int] | None = None
    reasons: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.begins)

    def offset(self, i: int) -> int | None:
        """The byte of the uncompressed source at which record i begins, prefix included."""
        if self.text_offsets is not None:
            return self.text_offsets[i]
        return None if self.base is None else self.base + (self.ends[i - 1] if i else 0)

    def place(self, source: Source, i: int) -> str:
        """Where record i is, for people."""
        return source.place(self.first + i, self.offset(i))

    def only(self, i: int) -> Batch:
        """A batch of record i alone."""
        here = slice(i, i + 1)
        offset = self.offset(i)
        return Batch(
            self.buffer,
            self.begins[here],
            self.ends[here],
            self.first + i,
            None,
            None if offset is None else [offset],
            {0: self.reasons[i]} if i in self.reasons else {},
        )

    def record(self, i: int) -> bytes:
        """The message of record i."""
        return bytes(self.buffer[self.begins[i] : self.ends[i]])

    def report(self, i: int, report: Report) -> Report:
        """What to say of record i, of which the engine says `report`."""
        if i not in self.reasons:
            return report
        violation = Violation(ViolationCode.MALFORMED, "", self.reasons[i])
        return Report(False, False, None, (violation,), 1)


@dataclass
class Progress:
    """How far a source has been read: bytes of the file, and of what it unpacks to."""

    consumed: int = 0
    offset: int = 0


def _nothing() -> None:
    """What needs doing before a wait, for most."""


@contextmanager
def open_records(
    source: Source, kind: MessageType, ahead: int = 0, before_wait: Callable[[], None] = _nothing
) -> Iterator[Iterator[tuple[Batch, Progress]]]:
    """Open a source as batches of records; of one with an index, a batch of that record.

    Args:
        source: what to open.
        kind: what its records are; only texts need it.
        ahead: how many batches more than the last one stay valid until `before_wait` is called.
        before_wait: called before a read that may take long: from a pipe whose writer pauses, or
            of a record that is larger than a window. No batch is in use after it.

    Raises:
        InputError: from here and from the iterator, with path, record and byte; all whole
            records before the damage have been yielded then.
    """
    if source.is_table:
        with extra("arrow"):
            from tvix_build.records.table_input import open_table
        with open_table(source) as batches:
            yield _selected(batches, source)
        return
    stream = _open(source)
    try:
        yield _selected(_read(Window(stream, ahead, before_wait), source, kind), source)
    finally:
        stream.close()


@contextmanager
def open_lines(source: Source) -> Iterator[Iterator[tuple[int, memoryview]]]:
    """Open a source as lines that are not blank: the byte each begins at, and what it says, which
    is valid until the next one is asked for.

    Raises:
        InputError: from here and from the iterator.
    """
    stream = _open(source)
    try:
        yield filter(None, _lines(Window(stream, 0, _nothing)))
    finally:
        stream.close()


def _open(source: Source) -> ByteStream:
    try:
        return ByteStream(source.path, source.compression)
    except InputError as error:
        error.path = source.path
        raise


def _read(window: Window, source: Source, kind: MessageType) -> Iterator[tuple[Batch, Progress]]:
    parse = partial(parse_text, format_name=source.format, kind=kind)
    if source.format == "binpbs":
        batches = _delimited(window)
    elif source.format == "ndjson":
        batches = _texts(_lines(window), parse)
    elif source.format == "binpb":
        batches = _message(window)
    else:
        batches = _texts(_whole(window), parse)
    count = 0
    try:
        for batch in batches:
            count = batch.first + len(batch)
            yield batch, Progress(window.consumed, window.offset)
    except InputError as error:
        error.path = source.path
        if source.many:
            error.index, error.offset = count, window.offset
        raise


def _selected(
    batches: Iterator[tuple[Batch, Progress]], source: Source
) -> Iterator[tuple[Batch, Progress]]:
    """All batches, or of a source with an index that record."""
    if source.index is None:
        yield from batches
        return
    count = 0
    for batch, progress in batches:
        count = batch.first + len(batch)
        if source.index < count:
            yield batch.only(source.index - batch.first), progress
            return
    raise InputError(f"expected a record {source.index}, found {count} records", source.path)


class Window:
    """The piece of the stream that is in memory: `view()`, which begins at byte `offset`.

    Args:
        stream, ahead, before_wait: as for `open_records`.
    """

    def __init__(self, stream: ByteStream, ahead: int, before_wait: Callable[[], None]) -> None:
        self._stream = stream
        self._before_wait = before_wait
        self._buffer = bytearray(WINDOW)
        # Those of the windows before, which batches may use, the oldest first; empty ones are
        # made when needed.
        self._others = deque([bytearray()] * ahead)
        self._begin = 0
        self._end = 0
        self._error: InputError | None = None
        self.offset = 0
        self.ended = False

    @property
    def consumed(self) -> int:
        """Bytes of the file read so far, as they are in the file."""
        return self._stream.consumed

    def view(self) -> memoryview:
        """What is in memory and not skipped."""
        return memoryview(self._buffer)[self._begin : self._end]

    def find_newline(self, begin: int) -> int:
        """Where in the view, from `begin` on, the next newline is; -1 for none."""
        found = self._buffer.find(b"\n", self._begin + begin, self._end)
        return found - self._begin if found >= 0 else -1

    def blank_lines(self) -> int:
        """How many bytes of the view are blank lines at its beginning."""
        blank = BLANK.match(self._buffer, self._begin, self._end)
        if blank is None:
            return 0
        last = self._buffer.rfind(b"\n", self._begin, blank.end())
        return last + 1 - self._begin if last >= 0 else 0

    def skip(self, count: int) -> None:
        """Be done with the first `count` bytes."""
        self._begin += count
        self.offset += count

    def fill(self, needed: int = 0) -> None:
        """Read on until the window is full or, with something new in it, the writer pauses.

        Nothing skipped makes it larger. Sets `ended` where nothing follows. Damage ends the stream;
        see `finish`.

        Args:
            needed: how large the window must become, where that is known.
        """
        self._make_room(needed)
        view = memoryview(self._buffer)
        old = self._end
        while self._end < len(view) and not self.ended:
            if not self._stream.ready():
                if self._end > old:
                    return
                self._before_wait()
            try:
                count = self._stream.readinto(view[self._end :])
            except InputError as error:
                self._error = error
                count = 0
            self._end += count
            self.ended = count == 0

    def finish(self) -> None:
        """Raise the InputError that ended the stream, if one did."""
        if self._error is not None:
            raise self._error

    def _make_room(self, needed: int) -> None:
        """Move what is left to the beginning of a buffer that no batch uses."""
        rest = self.view()
        if not self._begin and len(rest) < len(self._buffer):
            return
        if needed <= len(rest):
            needed = min(2 * len(rest), RECORD_LIMIT + PREFIX_LIMIT + 1)
        if needed > WINDOW:
            # So large a record is alone in memory.
            self._before_wait()
            self._others = deque([bytearray()] * len(self._others))
            target = bytearray(needed)
        else:
            self._others.append(self._buffer)
            target = self._others.popleft()
            if len(target) != WINDOW:
                target = bytearray(WINDOW)
        memoryview(target)[: len(rest)] = rest
        self._buffer, self._begin, self._end = target, 0, len(rest)


def _delimited(window: Window) -> Iterator[Batch]:
    """Records that each follow their length, a varint."""
    first = needed = 0
    while not window.ended:
        window.fill(needed)
        while True:
            view = window.view()
            split = split_delimited(view, BATCH_RECORDS)
            if not split.begins:
                break
            yield Batch(view, split.begins, split.ends, first, window.offset)
            first += len(split.begins)
            window.skip(split.consumed)
        if split.error is not None:
            raise InputError(split.error)
        prefix, length = _length(view)
        needed = prefix + length
    window.finish()
    if not view:
        return
    if not prefix:
        raise InputError(f"expected a length prefix, found the end after {len(view)} bytes of it")
    found = len(view) - prefix
    raise InputError(f"expected a message of {length} bytes, found the end after {found} of them")


def _length(data: memoryview) -> tuple[int, int]:
    """The length prefix at the beginning: its own size and what it says; zeros if it is cut off."""
    length = 0
    for i, byte in enumerate(data[:PREFIX_LIMIT]):
        length |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return i + 1, length
    return 0, 0


def _message(window: Window) -> Iterator[Batch]:
    """The whole stream as one message."""
    for _, data in _whole(window):
        yield Batch(data, array("Q", [0]), array("Q", [len(data)]), 0)


def _whole(window: Window) -> Iterator[tuple[int, memoryview]]:
    """The whole stream as one record: its offset and its bytes."""
    while not window.ended:
        window.fill()
        if len(window.view()) > RECORD_LIMIT:
            raise InputError(f"expected a message of at most {RECORD_LIMIT} bytes, found more")
    window.finish()
    yield 0, window.view()


def _lines(window: Window) -> Iterator[tuple[int, memoryview] | None]:
    """Lines that are not blank: their offsets and their bytes. None before each read, which may
    take long or fail."""
    searched = 0
    while not window.ended:
        yield None
        window.fill()
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
    texts: Iterator[tuple[int, memoryview] | None], parse: Callable[[bytes], bytes]
) -> Iterator[Batch]:
    """Texts as batches of the messages they say; one ends at each None."""
    batch, data, offsets = _text_batch(0)
    for item in chain(texts, [None]):
        if item is not None:
            offsets.append(item[0])
            _add_text(batch, data, item[1], parse)
        full = len(data) >= TEXT_BATCH or len(batch) >= BATCH_RECORDS
        if offsets and (item is None or full):
            batch.buffer = memoryview(data)
            yield batch
            batch, data, offsets = _text_batch(batch.first + len(batch))


def _text_batch(first: int) -> tuple[Batch, bytearray, list[int]]:
    """An empty batch, and what its buffer and its offsets will be."""
    offsets: list[int] = []
    return Batch(memoryview(b""), array("Q"), array("Q"), first, 0, offsets), bytearray(), offsets


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
