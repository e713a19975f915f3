# SPDX-License-Identifier: MIT
"""Limits how often a caller may call."""

from __future__ import annotations

import time
from collections.abc import Callable

import grpc

from tvix_build.proxy.builder_protocol import Caller
from tvix_build.proxy.status import status_error

_CALLERS = 10_000


class Rates:
    """A rate for each caller, by its name, or by its host if it has none.

    Args:
        rate: the calls per second.
        burst: the calls that a caller may make at once.
        clock: returns the time in seconds.
    """

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate = rate
        self.burst = burst
        self._clock = clock
        self._free: dict[str, tuple[float, float]] = {}

    def count(self, caller: Caller) -> None:
        """Count a call.

        Raises:
            StatusError: if the caller has made too many.
        """
        name = caller.name or caller.connection.rpartition(":")[0]
        now = self._clock()
        free, since = self._free.get(name, (float(self.burst), now))
        free = min(free + (now - since) * self.rate, float(self.burst))
        if free < 1:
            raise status_error(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "RATE_LIMITED",
                f"the limit of {self.rate:g} calls per second is reached; try again later",
            )
        if len(self._free) >= _CALLERS:
            self._forget(now)
        self._free[name] = free - 1, now

    def _forget(self, now: float) -> None:
        """Forget the callers that may make all calls at once again."""
        self._free = {
            name: (free, since)
            for name, (free, since) in self._free.items()
            if free + (now - since) * self.rate < self.burst
        }
