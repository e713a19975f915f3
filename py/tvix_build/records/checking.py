# SPDX-License-Identifier: MIT
"""Checks batches of records in threads, while the next ones are read and what was found in the last
ones is written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from tvix_build import BatchReport, check_batch
from tvix_build._core.pieces import cpu_count
from tvix_build._core.report import MessageType
from tvix_build.records.reading import Batch, Progress, open_records
from tvix_build.records.sources import Source
from tvix_build.records.streams import InputError

MOST_THREADS = 4  # One of them reads, and has no time to feed more.


def check_records(
    source: Source, kind: MessageType, take: Callable[[Batch, Progress, BatchReport], None]
) -> None:
    """Check all records of a source; `take` gets each batch, in order, in this thread.

    Raises:
        InputError: as `open_records`, after all batches before the damage were taken.
    """
    threads = min(cpu_count(), MOST_THREADS)
    most_waiting = 2 * (threads - 1)
    ahead = 2 * threads if threads > 1 else 0
    begun: deque[tuple[Batch, Progress, Future[BatchReport]]] = deque()

    def take_first() -> None:
        batch, progress, future = begun.popleft()
        take(batch, progress, future.result())

    def take_all() -> None:
        while begun:
            take_first()

    with (
        ThreadPoolExecutor(threads) as pool,  # starts them when they are needed
        open_records(source, kind, ahead, take_all) as batches,
    ):
        try:
            for batch, progress in batches:
                check = partial(_check, kind, batch)
                waiting = sum(not future.done() for *_, future in begun)
                # The first batch is often the only one. This thread checks while the others are
                # busy: so none is one too many for the CPUs.
                alone = batch.first == 0 or waiting >= most_waiting
                begun.append((batch, progress, _done(check()) if alone else pool.submit(check)))
                while begun and (begun[0][2].done() or len(begun) > ahead):
                    take_first()
        except InputError:
            take_all()
            raise
        take_all()


def _check(kind: MessageType, batch: Batch) -> BatchReport:
    return check_batch(
        batch.buffer,
        kind=kind.kind,
        offsets=(batch.begins, batch.ends),
        threads=1,
        schema=kind.schema,
    )


def _done(report: BatchReport) -> Future[BatchReport]:
    future: Future[BatchReport] = Future()
    future.set_result(report)
    return future
