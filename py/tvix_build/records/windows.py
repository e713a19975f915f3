# SPDX-License-Identifier: MIT
"""Windows of a stream: the pieces of it that are in memory.

A window grows only for a record that is larger.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

from tvix_build.records.errors import InputError
from tvix_build.records.streams import ByteStream

WINDOW = 1 << 20  # A few of them fit the last level of cache, where they are read and checked.
MOST_WINDOWS = 16  # that are kept to be used again
RECORD_LIMIT = (1 << 31) - 1  # bytes, protobuf's own limit
PREFIX_LIMIT = 5  # bytes of a length prefix
BLANK = re.compile(rb"[ \t\r\n]+")


class Window:
    """The piece of the stream that is in memory: `view()`, which begins at byte `offset`.

    Views stay valid: a buffer is used again when no view of it is left.

    Attributes:
        records: how many the reader has found so far.
        ended: whether nothing follows.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._buffer = bytearray(WINDOW)
        # Those of the windows before, the oldest first.
        self._others: deque[bytearray] = deque(maxlen=MOST_WINDOWS)
        self._begin = 0
        self._end = 0
        self._error: InputError | None = None
        self.offset: int = 0
        self.records = 0
        self.ended: bool = False

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

    def fill(self, needed: int = 0) -> Iterator[None]:
        """Read on until the window is full or, with something new in it, the writer pauses.

        Yields None before a wait that may be long: for a pipe whose writer pauses, or to read a
        record that is larger than a window.

        Nothing skipped makes the window larger. Sets `ended` where nothing follows. Damage ends the
        stream; see `finish`.

        Args:
            needed: how large the window must become, where that is known.
        """
        rest = self._end - self._begin
        if self._begin or rest == len(self._buffer):
            if needed <= rest:
                needed = min(2 * rest, RECORD_LIMIT + PREFIX_LIMIT + 1)
            if needed > WINDOW:
                # So large a record is alone in memory.
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
        """Raise the InputError that ended the stream, if one did."""
        if self._error is not None:
            raise self._error

    def _move(self, needed: int) -> None:
        """Move what is left to the beginning of a buffer that no view uses."""
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
    """Whether no memoryview of it is left: one forbids to change the size."""
    try:
        buffer.append(buffer.pop())
    except BufferError:
        return False
    return True
