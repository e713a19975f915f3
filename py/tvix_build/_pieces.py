# SPDX-License-Identifier: MIT
"""Batches in pieces: each piece is one call of the engine, in this thread or in several, and the
results are put together in order. Pieces are small, so that an interrupt is noticed between them.
"""

from __future__ import annotations

import os
from array import array
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Generic, TypeVar

from tvix_build import _engine
from tvix_build._engine import Results

T = TypeVar("T")

# Bytes and messages in a piece: a few milliseconds of work.
_PIECE_SIZE = 4 << 20
_PIECE_COUNT = 1 << 16
_SAMPLE_COUNT = 64


def thread_count(threads: int | None) -> int:
    """How many threads to use: as many as asked for, or as this process has CPUs.

    Raises:
        ValueError: if fewer than one are asked for.
    """
    if threads is None:
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1
    if threads < 1:
        raise ValueError(f"expected at least 1 thread, found {threads}")
    return threads


class Workers(Generic[T]):
    """Runs calls in `threads` threads and hands their results to `take`, in the order of the
    calls. A call that stays the only one runs in the caller's thread.

    A context manager: leaving it waits for all calls; leaving it by an exception drops those that
    have not begun.
    """

    def __init__(self, threads: int, take: Callable[[T], None]) -> None:
        self._threads = threads
        self._take = take
        self._first: Callable[[], T] | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._running: deque[Future[T]] = deque()

    def __enter__(self) -> Workers[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.wait()
        finally:
            if self._pool:
                self._pool.shutdown(cancel_futures=True)

    def run(self, call: Callable[[], T]) -> None:
        """Run a call now or soon."""
        if self._threads == 1:
            self._take(call())
        elif self._pool:
            self._submit(call)
        elif self._first:
            self._pool = ThreadPoolExecutor(self._threads)
            self._submit(self._first)
            self._submit(call)
            self._first = None
        else:
            self._first = call

    def wait(self) -> None:
        """Take the results of all calls so far."""
        if self._first:
            call, self._first = self._first, None
            self._take(call())
        while self._running:
            self._take(self._running.popleft().result())

    def _submit(self, call: Callable[[], T]) -> None:
        assert self._pool
        # Bounds what waits: pieces that are not begun, and results that are not taken.
        while len(self._running) >= 2 * self._threads:
            self._take(self._running.popleft().result())
        self._running.append(self._pool.submit(call))


class Collector:
    """Puts the results of pieces together."""

    def __init__(self) -> None:
        self._verdicts = bytearray()
        self._digests = bytearray()
        self._by_message = array("Q")
        self._violations: list[bytes] = []
        self._violation_size = 0
        self._encoded: list[bytes] = []
        self._offsets = array("Q", [0])

    def take(self, results: Results) -> None:
        """Add the results of the next piece."""
        before = self._violation_size // _engine.VIOLATION_SIZE
        _engine.rebase(results.by_message, len(self._verdicts), before)
        self._verdicts += results.verdicts
        self._digests += results.digests
        self._by_message += results.by_message
        self._violations.append(results.violations)
        self._violation_size += len(results.violations)
        start = self._offsets[-1]
        self._encoded.append(results.encoded)
        self._offsets.extend(start + offset for offset in results.offsets[1:])

    def results(self) -> Results:
        """All results."""
        return Results(
            self._verdicts,
            self._digests,
            self._by_message,
            b"".join(self._violations),
            b"".join(self._encoded),
            self._offsets,
        )


def for_each_piece(begins: Any, ends: Any, run: Callable[[Any, Any, int], None]) -> None:
    """Call `run` with the begins, the ends and the number of the first message of each piece of a
    batch of ranges; both are buffers of unsigned 64-bit integers."""
    begins, ends = memoryview(begins).cast("B").cast("Q"), memoryview(ends).cast("B").cast("Q")
    n = len(begins)
    if len(ends) != n:
        raise ValueError(f"expected as many ends as begins, found {len(ends)} for {n}")
    count = _piece_count(begins, ends)
    for first in range(0, n, count):
        run(begins[first : first + count], ends[first : first + count], first)


def _piece_count(begins: memoryview[int], ends: memoryview[int]) -> int:
    """How many messages make a piece, judged by some of them. The buffer's size says nothing:
    messages may be a small part of it."""
    sample = range(0, len(begins), len(begins) // _SAMPLE_COUNT + 1)
    size = sum(ends[i] - begins[i] for i in sample)
    return min(max(1, len(sample) * _PIECE_SIZE // max(1, size)), _PIECE_COUNT)
