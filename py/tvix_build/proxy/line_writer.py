# SPDX-License-Identifier: MIT
"""Writes lines in a thread, so that a reader that stalls does not stop the proxy."""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone

from tvix_build._core.text import json_line

_LINES = 10_000
"""The default limit of waiting lines."""
_CLOSE_SECONDS = 2.0
"""How long a stalled reader may delay the end of the process."""


class LineWriter:
    """Writes lines to a file descriptor. If too many lines wait, it drops further ones, and writes
    their number when the reader reads again. Close it.

    Args:
        descriptor: the file descriptor, which stays open.
        limit: the limit of waiting lines.

    Attributes:
        dropped: the number of lines that were dropped.
    """

    def __init__(self, descriptor: int, limit: int = _LINES) -> None:
        self.descriptor = descriptor
        self.dropped: int = 0
        self._limit = limit
        self._reported = 0
        self._lines: deque[str] = deque()
        self._changed = threading.Condition()
        self._closed = False
        # A thread that is blocked in a write must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="lines", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Write a line later. It never blocks."""
        with self._changed:
            if len(self._lines) >= self._limit:
                self.dropped += 1
                return
            self._lines.append(line)
            self._changed.notify()

    def close(self, timeout: float = _CLOSE_SECONDS) -> None:
        """Wait until all lines are written, for at most `timeout` seconds."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._closed)
                if not self._lines:
                    return
                lines = [*self._lines]
                self._lines.clear()
                dropped, self._reported = self.dropped - self._reported, self.dropped
            if dropped:
                lines.append(_report(dropped))
            for data in _together(lines):
                self._write(data)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self.descriptor, rest) :]
        except OSError:  # Nobody reads any more, or the disk is full.
            self.dropped += data.count(b"\n")


def _together(lines: Iterable[str]) -> Iterator[bytes]:
    """Yield lines that are written at once: as many as a pipe accepts without mixing them with
    those of other processes."""
    data = b""
    for line in lines:
        encoded = f"{line}\n".encode(errors="backslashreplace")
        if data and len(data) + len(encoded) > select.PIPE_BUF:
            yield data
            data = b""
        data += encoded
    yield data


def _report(dropped: int) -> str:
    time = datetime.now(timezone.utc).isoformat()
    return json_line({"time": time, "level": "warning", "event": "dropped", "lines": dropped})
