# SPDX-License-Identifier: MIT
"""Decides which step of a plan comes next."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence


def order_steps(needs: Sequence[Iterable[int]]) -> list[int]:
    """Return steps in an order in which each comes after those that it needs.

    Args:
        needs: for each step, the steps that it needs. There is no cycle.
    """
    needed_by: list[list[int]] = [[] for _ in needs]
    missing = [0] * len(needs)
    for step, needed in enumerate(needs):
        for one in needed:
            needed_by[one].append(step)
            missing[step] += 1
    order = [step for step, count in enumerate(missing) if not count]
    for step in order:
        for other in needed_by[step]:
            missing[other] -= 1
            if not missing[other]:
                order.append(other)
    return order


class Schedule:
    """The steps of a plan that are not finished. Steps are numbers, from 0.

    A step is ready when all steps that it needs have succeeded. The ready step with the longest
    path of steps that need it comes first; if there are several, that with the smallest number.

    Args:
        needs: for each step, the steps that it needs. There is no cycle.

    Attributes:
        left: the number of steps that are not finished.
    """

    def __init__(self, needs: Sequence[Iterable[int]]) -> None:
        self.left: int = len(needs)
        self._needed_by: list[list[int]] = [[] for _ in needs]
        self._missing = [0] * len(needs)
        self._finished = bytearray(len(needs))
        for step, needed in enumerate(needs):
            for one in set(needed):
                self._needed_by[one].append(step)
                self._missing[step] += 1
        self._lengths = self._find_lengths(order_steps(needs))
        self._ready: list[tuple[int, int]] = []
        for step, missing in enumerate(self._missing):
            if not missing:
                self._add_ready(step)

    @property
    def longest(self) -> int:
        """The number of steps on the longest path of the plan."""
        return max(self._lengths, default=0)

    def rank(self, step: int) -> tuple[int, int]:
        """Return the rank of a step: steps of lower rank come first."""
        return -self._lengths[step], step

    def take(self) -> int | None:
        """Return the next ready step, which is not ready any more; None if none is ready."""
        return heapq.heappop(self._ready)[1] if self._ready else None

    def succeed(self, step: int) -> None:
        """Finish a step, and make the steps ready that only miss this one."""
        self._finish(step)
        for other in self._needed_by[step]:
            self._missing[other] -= 1
            if not self._missing[other] and not self._finished[other]:
                self._add_ready(other)

    def fail(self, step: int) -> list[int]:
        """Finish a step, and all that need it directly or indirectly. Return those."""
        self._finish(step)
        skipped = []
        waiting = [step]
        while waiting:
            for other in self._needed_by[waiting.pop()]:
                if not self._finished[other]:
                    self._finish(other)
                    skipped.append(other)
                    waiting.append(other)
        return skipped

    def skip_rest(self) -> list[int]:
        """Finish all steps, and return those that were not finished."""
        rest = [step for step, finished in enumerate(self._finished) if not finished]
        for step in rest:
            self._finish(step)
        self._ready.clear()
        return rest

    def _finish(self, step: int) -> None:
        assert not self._finished[step]
        self._finished[step] = True
        self.left -= 1

    def _add_ready(self, step: int) -> None:
        heapq.heappush(self._ready, self.rank(step))

    def _find_lengths(self, order: Sequence[int]) -> list[int]:
        """Return the number of steps on the longest path from each step to one that no other step
        needs."""
        lengths = [1] * len(order)
        for step in reversed(order):
            for other in self._needed_by[step]:
                lengths[step] = max(lengths[step], lengths[other] + 1)
        return lengths


class BuildSlots:
    """Limits how many builds run at the same time, in one or several plans of an event loop.

    Runs that wait for a slot get one each, in the order in which they began to wait.

    Args:
        limit: the number of builds.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: dict[Callable[[], object], None] = {}

    def take(self, on_free: Callable[[], object]) -> bool:
        """Take a slot, and return True; or return False, and call `on_free` when one is free."""
        if self._free:
            self._free -= 1
            return True
        self._waiting.setdefault(on_free)
        return False

    def release(self) -> None:
        """Return a slot, and tell those that wait for one until it is taken."""
        self._free += 1
        while self._free and self._waiting:
            on_free = next(iter(self._waiting))
            del self._waiting[on_free]
            on_free()
