# SPDX-License-Identifier: MIT
"""Checks batches of records in threads, while the caller reads and uses other batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tvix_build._core.batch import BatchReport
from tvix_build._core.pieces import cpu_count
from tvix_build._core.report import MessageType
from tvix_build.records.batch import Batch
from tvix_build.records.errors import InputError
from tvix_build.records.reading import read_source
from tvix_build.records.source import Source

if TYPE_CHECKING:
    from concurrent.futures import Future

MOST_THREADS = 4  # one thread reads, and cannot supply more


def check_source(
    source: Source, kind: MessageType, threads: int | None = None
) -> Iterator[tuple[Batch, BatchReport]]:
    """Check all records of a source, and yield the batches, in order, each with its report.

    Args:
        source: the source to read.
        kind: the type of the records.
        threads: the maximum number of threads; None for one per CPU, up to 4.

    Raises:
        InputError: as `read_source`, after all batches before the damage.
    """
    from concurrent.futures import Future, ThreadPoolExecutor  # slow

    threads = min(threads or cpu_count(), MOST_THREADS)
    # With lower limits, other threads wait for work while this thread checks a batch, or this
    # thread waits for the first batch.
    most_waiting = 3 * (threads - 1)
    ahead = 3 * threads if threads > 1 else 0
    begun: deque[tuple[Batch, Future[BatchReport]]] = deque()
    damage = None
    with ThreadPoolExecutor(threads) as pool:  # starts threads on demand
        try:
            for batch in read_source(source, kind):
                if batch is None:  # Reading may wait: finish all batches first.
                    yield from _finish(begun, 0)
                    continue
                waiting = sum(not future.done() for _, future in begun)
                # The first batch is often the only one. If the other threads are busy, this thread
                # checks, too, so that there are not more threads than CPUs.
                if batch.first == 0 or waiting >= most_waiting:
                    future: Future[BatchReport] = Future()
                    future.set_result(batch.check(threads=1))
                else:
                    future = pool.submit(batch.check, threads=1)
                begun.append((batch, future))
                del batch
                yield from _finish(begun, ahead)
        except InputError as error:
            damage = error
        yield from _finish(begun, 0)
        if damage is not None:
            raise damage


def _finish(
    begun: deque[tuple[Batch, Future[BatchReport]]], ahead: int
) -> Iterator[tuple[Batch, BatchReport]]:
    """Yield checked batches, and wait until at most `ahead` batches are left."""
    while begun and (len(begun) > ahead or begun[0][1].done()):
        batch, future = begun.popleft()
        yield batch, future.result()
