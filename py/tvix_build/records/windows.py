# SPDX-License-Identifier: MIT
"""Windows of a stream: the pieces that are in memory.

A window grows only for a record that is larger than the window.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

from tvix_build.records.errors import InputError
from tvix_build.records.streams import ByteStream

WINDOW = 1 << 21  # A few windows fit in the last-level cache; smaller ones take more CPU time.
MOST_WINDOWS = 16  # kept for reuse
RECORD_LIMIT = (1 << 31) - 1  # bytes, protobuf's own limit
PREFIX_LIMIT = 5  # bytes of a length prefix
BLANK = re.compile(rb"[ \t\r\n]+")


class Window:
    """The piece of the stream that is in memory: `view()`, which begins at byte `offset`.

    Views stay valid: a buffer is reused only when it has no views.

    Attributes:
        records: the number of records that the reader has found so far.
        ended: whether the end of the stream has been reached.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._buffer = bytearray(WINDOW)
        # Buffers of earlier windows, the oldest first.
        self._others: deque[bytearray] = deque(maxlen=MOST_WINDOWS)
        self._begin = 0
        self._end = 0
        self._error: InputError | None = None
        self.offset: int = 0
        self.records = 0
        self.ended: bool = False

    @property
    def consumed(self) -> int:
        """The number of bytes read from the file so far."""
        return self._stream.consumed

    def view(self) -> memoryview:
        """Return the bytes in memory that have not been skipped."""
        return memoryview(self._buffer)[self._begin : self._end]

    def find_newline(self, begin: int) -> int:
        """Return the offset of the next newline in the view, from `begin` on; -1 if there is
        none."""
        found = self._buffer.find(b"\n", self._begin + begin, self._end)
        return found - self._begin if found >= 0 else -1

    def blank_lines(self) -> int:
        """Return the size of the blank lines at the beginning of the view."""
        blank = BLANK.match(self._buffer, self._begin, self._end)
        if blank is None:
            return 0
        last = self._buffer.rfind(b"\n", self._begin, blank.end())
        return last + 1 - self._begin if last >= 0 else 0

    def skip(self, count: int) -> None:
        """Skip the first `count` bytes."""
        self._begin += count
        self.offset += count

    def reserve(self) -> None:
        """Make room for the whole stream, if its size is known, before anything is read."""
        size = min(self._stream.size, RECORD_LIMIT)
        if size >= len(self._buffer):
            self._move(size + 1)  # The end is found by a read into the last byte.

    def fill(self, needed: int = 0) -> Iterator[None]:
        """Read until the window is full or, if there are new bytes, until the writer pauses.

        Yields None before a wait that may be long: for a pipe whose writer pauses, or to read a
        record that is larger than a window.

        If nothing has been skipped, the window grows. At the end of the stream, `ended` becomes
        true. Damage ends the stream; see `finish`.

        Args:
            needed: the required size of the window, if it is known.
        """
        rest = self._end - self._begin
        if self._begin or rest == len(self._buffer):
            if needed <= rest:
                needed = min(2 * rest, RECORD_LIMIT + PREFIX_LIMIT + 1)
            if needed > WINDOW:
                # Free the other windows for a large record.
                yield None
                self._others.clear()
            self._move(needed)
        old = self._end
        while self._end < len(self._buffer) and not self.ended:
            if not self._stream.ready():
                if self._end > old:
                    return
                yield None
            try:
                with memoryview(self._buffer) as view, view[self._end :] as target:
                    count = self._stream.readinto(target)
            except InputError as error:
                self._error = error
                count = 0
            self._end += count
            self.ended = count == 0

    def finish(self) -> None:
        """Raise the InputError that ended the stream, if any."""
        if self._error is not None:
            raise self._error

    def _move(self, needed: int) -> None:
        """Move the remaining bytes to the beginning of a buffer without views."""
        begin, end = self._begin, self._end
        self._begin, self._end = 0, end - begin
        if needed > WINDOW:
            target = bytearray(needed)
        elif len(self._buffer) == WINDOW and _is_unused(self._buffer):
            self._buffer[: end - begin] = self._buffer[begin:end]
            return
        else:
            target = self._take_unused()
            if len(self._buffer) == WINDOW:
                self._others.append(self._buffer)
        target[: end - begin] = memoryview(self._buffer)[begin:end]
        self._buffer = target

    def _take_unused(self) -> bytearray:
        for i, other in enumerate(self._others):
            if _is_unused(other):
                del self._others[i]
                return other
        return bytearray(WINDOW)


def _is_unused(buffer: bytearray) -> bool:
    """Return whether a buffer has no memoryview, which would forbid changing its size."""
    try:
        buffer.append(buffer.pop())
    except BufferError:
        return False
    return True
