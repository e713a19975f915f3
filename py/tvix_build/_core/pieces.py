# SPDX-License-Identifier: MIT
"""Runs batches in pieces, in one or several threads, and joins the results in order. Each piece is
one call of the engine. Pieces are small, so that an interrupt is handled soon.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from operator import itemgetter
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeAlias

from tvix_build._core import engine
from tvix_build._core.engine import Encodings, Found, Messages, Results, Rows, Table
from tvix_build._core.report import MessageType

Work: TypeAlias = Callable[[Messages, Rows, int], Found | None]
"""The function for a piece: takes its messages, the memory for results and the first index."""
Call: TypeAlias = Callable[[], None]


def cpu_count() -> int:
    """Return the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Workers:
    """Runs calls in several threads, including the thread of the caller. `run` and `finish` raise
    the error of the earliest failed call."""

    def __init__(self, threads: int) -> None:
        self._waiting: SimpleQueue[tuple[int, Call] | None] = SimpleQueue()
        self._count = 0
        self._errors: list[tuple[int, Exception]] = []
        self._limit = threads - 1
        self._threads: list[Thread] = []

    def run(self, call: Call) -> None:
        """Run a call now or later."""
        self._raise()
        self._waiting.put((self._count, call))
        self._count += 1
        if len(self._threads) < self._limit:
            thread = Thread(target=self._serve, daemon=True)
            thread.start()
            self._threads.append(thread)
        # Limit the number of waiting calls, and keep this thread busy.
        if self._waiting.qsize() > 2 * len(self._threads):
            self._help()

    def finish(self) -> None:
        """Wait for all calls."""
        while not self._errors and self._help():
            pass
        self.stop()
        self._raise()

    def stop(self) -> None:
        """Drop the waiting calls, which are later than any failed call, and wait for the others."""
        with suppress(Empty):
            while True:
                self._waiting.get_nowait()
        for _ in self._threads:
            self._waiting.put(None)
        while self._threads:
            self._threads.pop().join()

    def _serve(self) -> None:
        while task := self._waiting.get():
            self._do(*task)

    def _help(self) -> bool:
        """Run a waiting call. Return whether there was one."""
        try:
            task = self._waiting.get_nowait()
        except Empty:
            return False
        assert task
        self._do(*task)
        return True

    def _do(self, number: int, call: Call) -> None:
        try:
            call()
        except Exception as error:
            self._errors.append((number, error))

    def _raise(self) -> None:
        if self._errors:
            self.stop()
            _, error = min(self._errors, key=itemgetter(0))
            self._errors.clear()
            try:
                raise error
            finally:
                del error  # Break the cycle with the traceback, which would keep buffers alive.


class Batch:
    """Runs the pieces of a batch in `threads` threads, by default one per CPU that this process may
    use, and joins their results. A single piece starts no thread.

    It is a context manager. Leaving it waits for all pieces; leaving it by an exception drops the
    pieces that have not started. `expected` is the number of messages, 0 if unknown. If `encodings`
    is given, canonical encodings are added to it.
    """

    def __init__(
        self, threads: int | None, expected: int, encodings: Encodings | None = None
    ) -> None:
        if threads is not None and threads < 1:
            raise ValueError(f"expected at least 1 thread, found {threads}")
        self._limit = threads
        self._count = 0
        self._table = Table(expected)
        self._encodings = encodings
        self._found: dict[int, Found] = {}
        self._only: Call | None = None
        self._workers: _Workers | None = None

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        # Break the cycle with this batch, which would keep buffers until the next garbage
        # collection.
        only, self._only = self._only, None
        if self._workers:
            try:
                if error is None:
                    self._workers.finish()
            finally:
                self._workers.stop()
        elif error is None and only:
            only()

    def add(self, work: Work, piece: Messages, kind: MessageType | None = None) -> None:
        """Run `work` on the next piece of the batch. Encodings require `kind`."""
        first = self._count
        rows = self._table.rows(piece.number)
        if self._encodings and kind:
            rows = rows._replace(encodings=self._encodings.add(kind, piece))
        self._count += piece.number
        if self._limit == 1:
            self._run(work, piece, rows, first)
            return
        call = partial(self._run, work, piece, rows, first)
        if self._workers:
            self._workers.run(call)
        elif self._only:
            self._workers = _Workers(self._limit or cpu_count())
            self._workers.run(self._only)
            self._only = None
            self._workers.run(call)
        else:
            self._only = call

    def _run(self, work: Work, piece: Messages, rows: Rows, first: int) -> None:
        found = work(piece, rows, first)
        if found:
            self._found[first] = found

    def digests(self) -> memoryview[int]:
        """Return the digests of all messages."""
        return self._table.finish()[1]

    def encodings(self) -> tuple[memoryview[int], array[int]]:
        """Return the canonical encodings, back to back, and n + 1 offsets."""
        assert self._encodings
        return self._encodings.finish()

    def results(self) -> Results:
        """Return the results of all messages."""
        verdicts, digests = self._table.finish()
        if not self._found:
            return Results(verdicts, digests)
        by_message = array("Q")
        violations = []
        violation_count = 0
        for first, found in sorted(self._found.items()):
            engine.rebase(found.by_message, first, violation_count)
            by_message += found.by_message
            violations.append(found.violations)
            violation_count += len(found.violations) // engine.VIOLATION_SIZE
        return Results(verdicts, digests, by_message, b"".join(violations))
