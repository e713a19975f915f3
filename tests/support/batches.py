# SPDX-License-Identifier: MIT
"""Runs a check on many batches of messages that hypothesis draws, and counts the messages.

The environment variable TVIX_BUILD_CASE_FACTOR multiplies the number of batches; the default is 1,
with which the batches are the same in every run. With a greater factor they are random.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis.strategies import SearchStrategy

import reference
from strategies import Batch

FIRST: Final = reference.FIRST
TVIX_2024: Final = reference.TVIX_2024
SNIX: Final = reference.SNIX

#: All kinds with their schemas. tvix.build.v1@2024 has the Directory of tvix.build.v1.
TYPES = tuple(reference.TYPES.values())
KINDS = tuple(dict.fromkeys(kind for kind, _ in TYPES))

_FACTOR = int(os.environ.get("TVIX_BUILD_CASE_FACTOR", "1"))


def run(strategy: SearchStrategy[Batch], batches: int, check: Callable[[Batch], None]) -> int:
    """Call `check` with `batches` batches. Return the number of messages in them.

    Hypothesis does not shrink a batch: `check` must report the message that failed. `smallest`
    shrinks a message.
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
    """Return a shrunk `data` that still `fails`, made by removing pieces."""
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
