# SPDX-License-Identifier: MIT
"""A model of the job in Spark: how long it takes on any number of cores, and what that costs.

`simulate` gives tasks to cores one by one, some of them slow; `bounds` is what it cannot beat.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass

BILLION = 10**9


@dataclass(frozen=True)
class Run:
    """A run of the job.

    Attributes:
        size: bytes of messages.
        cores: how many it had.
        seconds: how long it took.
        cpu: CPU seconds of all its processes.
    """

    size: int
    cores: int
    seconds: float
    cpu: float


@dataclass(frozen=True)
class Model:
    """Seconds of CPU: those of the job, and those of a byte."""

    start: float
    byte: float

    def cpu(self, size: float) -> float:
        """Of a job."""
        return self.start + self.byte * size


def fitted(small: Run, large: Run) -> Model:
    """The line through two runs."""
    byte = (large.cpu - small.cpu) / (large.size - small.size)
    return Model(small.cpu - byte * small.size, byte)


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes:
        size: bytes of all messages.
        packed: the same as Parquet, which is what is read.
        task: bytes of the messages of one task.
        rate: bytes of messages that a core gets through in a second.
        task_seconds: what a task takes besides.
        start_seconds: what the job takes before and after its tasks.
    """

    size: float
    packed: float
    task: float
    rate: float
    task_seconds: float = 0.0
    start_seconds: float = 0.0

    @property
    def tasks(self) -> int:
        """How many there are."""
        return max(1, -int(-self.size // self.task))

    @property
    def core_seconds(self) -> float:
        """Of all tasks together."""
        return self.size / self.rate + self.tasks * self.task_seconds


@dataclass(frozen=True)
class Store:
    """What an object store gives.

    Attributes:
        bandwidth: bytes a second, to all cores together.
        gets: responses a second, to all cores together.
        task_gets: how many of these a task needs.
    """

    bandwidth: float
    gets: float
    task_gets: int


@dataclass(frozen=True)
class Stragglers:
    """Tasks that are slower than others.

    Attributes:
        part: of all tasks.
        slower: how many times as long they take.
        speculative: a task that would take more than this many times as long as most is begun anew
            elsewhere once it has taken so long; 0: none is.
    """

    part: float = 0.0
    slower: float = 1.0
    speculative: float = 0.0


@dataclass(frozen=True)
class Prices:
    """Assumptions, in dollars.

    Attributes:
        core_hour: a core with its memory.
        gets: 1,000 reads of the store.
        puts: 1,000 writes.
    """

    core_hour: float
    gets: float
    puts: float


def bounds(job: Job, store: Store, cores: int) -> dict[str, float]:
    """Seconds that each of these alone needs for the whole job. The largest is what bounds it."""
    return {
        "cores": job.core_seconds / min(cores, job.tasks),
        "bandwidth of the store": job.packed / store.bandwidth,
        "requests of the store": job.tasks * store.task_gets / store.gets,
    }


def simulate(
    job: Job, store: Store, cores: int, stragglers: Stragglers = Stragglers(), seed: int = 0
) -> float:
    """How long the job takes: each core takes the next task when it is done with one.

    The store is shared evenly by the cores that work: a task waits for its part of it.
    """
    rng = random.Random(seed)
    most = job.core_seconds / job.tasks
    # What the store lets the cores have together bounds each task.
    limits = list(bounds(job, store, cores).values())[1:]
    at_once = min(cores, job.tasks)
    usual = max(most, *(limit * at_once / job.tasks for limit in limits))
    free = [0.0] * at_once
    end = 0.0
    for _ in range(job.tasks):
        begin = heapq.heappop(free)
        slow = rng.random() < stragglers.part
        taken = usual * stragglers.slower if slow else usual
        if stragglers.speculative:
            taken = min(taken, stragglers.speculative * usual + usual)
        end = max(end, begin + taken)
        heapq.heappush(free, begin + taken)
    return job.start_seconds + end


def dollars(job: Job, store: Store, prices: Prices, cores: int, taken: float) -> float:
    """The cost of a job of the given length in seconds; cores are paid for until its end."""
    reads = job.tasks * store.task_gets * prices.gets / 1000
    writes = job.tasks * prices.puts / 1000
    return cores * taken / 3600 * prices.core_hour + reads + writes
