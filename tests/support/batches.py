# SPDX-License-Identifier: MIT
"""Runs a check on many batches of messages that hypothesis draws, and counts the messages.

TVIX_BUILD_CASE_FACTOR multiplies the batches, 1 if unset. Above 1 they are drawn anew each time;
at 1 they are the same in every run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis.strategies import SearchStrategy

from strategies import Batch

KINDS: Final = ("build-request", "build", "directory")
FIRST: Final = "tvix.build.v1"
TVIX_2024: Final = "tvix.build.v1@2024"
SNIX: Final = "snix.build.v1"

#: Every kind with its schema. The Directory of tvix.build.v1@2024 is that of tvix.build.v1.
TYPES = (
    *((kind, FIRST) for kind in KINDS),
    *(("build-request", TVIX_2024), ("build", TVIX_2024)),
    *((kind, SNIX) for kind in KINDS),
)

_FACTOR = int(os.environ.get("TVIX_BUILD_CASE_FACTOR", "1"))


def run(strategy: SearchStrategy[Batch], batches: int, check: Callable[[Batch], None]) -> int:
    """Calls `check` with `batches` batches; returns how many messages they held.

    Hypothesis does not shrink a batch: `check` names the message that failed, see smallest().
    """
    cases = 0

    @settings(
        max_examples=batches * _FACTOR,
        derandomize=_FACTOR == 1,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
        report_multiple_bugs=False,
    )
    @given(strategy)
    def run_one(batch: Batch) -> None:
        nonlocal cases
        check(batch)
        cases += len(batch)

    run_one()
    return cases


def smallest(data: bytes, fails: Callable[[bytes], bool], attempts: int = 20_000) -> bytes:
    """The smallest of what is left of `data` when pieces are removed while it still `fails`."""
    size = len(data)
    while size:
        at = 0
        while at < len(data) and attempts:
            attempts -= 1
            shorter = data[:at] + data[at + size :]
            if fails(shorter):
                data = shorter
            else:
                at += size
        size //= 2
    return data
