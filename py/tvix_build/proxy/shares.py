# SPDX-License-Identifier: MIT
"""Distributes a capacity among callers: those that hold least go first."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, TypeAlias


class _Waiter(NamedTuple):
    amount: int
    turn: asyncio.Future[None]
    on_turn: Callable[[], None]


_Waiters: TypeAlias = "deque[_Waiter]"


class Shares:
    """A capacity, such as a number of builds or of bytes.

    Args:
        capacity: the capacity.

    Attributes:
        held: the amount that callers hold. It exceeds the capacity by what `add` added.
        waiting: the number of waiting calls.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity: int = capacity
        self.held: int = 0
        self.waiting: int = 0
        self._held: dict[str, int] = {}
        self._waiters: dict[str, _Waiters] = {}

    def of(self, caller: str) -> int:
        """Return the amount that a caller holds."""
        return self._held.get(caller, 0)

    def most(self) -> int:
        """Return the amount that the caller holds who holds most."""
        return max(self._held.values(), default=0)

    def try_acquire(self, caller: str, amount: int = 1) -> bool:
        """Take an amount, unless it is not free or calls wait; return whether it is taken."""
        if self.waiting or self.held + amount > self.capacity:
            return False
        self.add(caller, amount)
        return True

    async def acquire(
        self, caller: str, amount: int = 1, on_turn: Callable[[], None] = lambda: None
    ) -> None:
        """Take an amount, after waiting for it.

        Args:
            on_turn: is called when the amount is taken after a wait, before this continues.

        Raises:
            Exception: the one with which `reject` ends the wait.
        """
        if self.try_acquire(caller, amount):
            return
        waiter = _Waiter(amount, asyncio.get_running_loop().create_future(), on_turn)
        self._waiters.setdefault(caller, deque()).append(waiter)
        self.waiting += 1
        self._wake()
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.cancelled():
                self._remove(caller, waiter)
                self._wake()
            elif not waiter.turn.exception():
                self.release(caller, amount)
            raise

    def add(self, caller: str, amount: int) -> None:
        """Take an amount at once, even if it is not free."""
        if not amount:
            return
        self.held += amount
        self._held[caller] = self._held.get(caller, 0) + amount

    def release(self, caller: str, amount: int = 1) -> None:
        """Give an amount back."""
        if not amount:
            return
        self.held -= amount
        rest = self._held[caller] - amount
        if rest:
            self._held[caller] = rest
        else:
            del self._held[caller]
        if self.waiting:
            self._wake()

    def resize(self, capacity: int) -> None:
        """Change the capacity. Callers keep what they hold."""
        self.capacity = capacity
        self._wake()

    def reject(self, newcomer: str, error: Callable[[], Exception]) -> bool:
        """End the wait of the last call of the caller with most waiting calls, unless `newcomer`
        has as many with one more. Return whether a call was ended."""
        if not self._waiters:
            return False
        caller = max(self._waiters, key=lambda one: len(self._waiters[one]))
        waiters = self._waiters[caller]
        if len(waiters) <= len(self._waiters.get(newcomer, ())) + 1:
            return False
        waiter = waiters[-1]
        self._remove(caller, waiter)
        if not waiter.turn.done():  # A cancelled call leaves by itself.
            waiter.turn.set_exception(error())
        return True

    def _wake(self) -> None:
        """Let calls proceed that fit: of the callers, the one that holds least comes first, and of
        those that hold as much, the one that has waited longest."""
        while self._waiters:
            caller = min(self._waiters, key=self.of)
            waiter = self._waiters[caller][0]
            if self.held + waiter.amount > self.capacity:
                return
            self._remove(caller, waiter)
            if waiter.turn.done():  # The call is cancelled.
                continue
            if caller in self._waiters:  # It goes behind the others.
                self._waiters[caller] = self._waiters.pop(caller)
            self.add(caller, waiter.amount)
            waiter.on_turn()
            waiter.turn.set_result(None)

    def _remove(self, caller: str, waiter: _Waiter) -> None:
        waiters = self._waiters.get(caller, deque())
        if waiter in waiters:
            waiters.remove(waiter)
            self.waiting -= 1
            if not waiters:
                del self._waiters[caller]
