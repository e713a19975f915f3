# SPDX-License-Identifier: MIT
"""Checks batches of records in threads, while the next ones are read and the last ones are used."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from tvix_build._core.batch import BatchReport
from tvix_build._core.pieces import cpu_count
from tvix_build._core.report import MessageType
from tvix_build.records.batch import Batch
from tvix_build.records.errors import InputError
from tvix_build.records.reading import read_source
from tvix_build.records.source import Source

MOST_THREADS = 4  # One of them reads, and has no time to feed more.


def check_source(
    source: Source, kind: MessageType, threads: int | None = None
) -> Iterator[tuple[Batch, BatchReport]]:
    """Check all records of a source: batches, in order, each with its report.

    Args:
        source: what to read.
        kind: what its records are.
        threads: at most how many check; None for one a CPU, up to 4.

    Raises:
        InputError: as `read_source`, after all batches before the damage.
    """
    threads = min(threads or cpu_count(), MOST_THREADS)
    most_waiting = 2 * (threads - 1)
    ahead = 2 * threads if threads > 1 else 0
    begun: deque[tuple[Batch, Future[BatchReport]]] = deque()
    damage = None
    with ThreadPoolExecutor(threads) as pool:  # starts them when they are needed
        try:
            for batch in read_source(source, kind):
                if batch is None:  # The next one may take long: finish all others before.
                    yield from _finish(begun, 0)
                    continue
                waiting = sum(not future.done() for _, future in begun)
                # The first batch is often the only one. This thread checks while the others are
                # busy: so none is one too many for the CPUs.
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
    """What is checked, and more until at most `ahead` are left; all without a wait for 0."""
    while begun and (len(begun) > ahead or begun[0][1].done()):
        batch, future = begun.popleft()
        yield batch, future.result()
