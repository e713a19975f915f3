# SPDX-License-Identifier: MIT
"""What happens during a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from tvix_build.plan.state import StepResult


@dataclass(frozen=True)
class Queued:
    """A step without a stored build waits for a builder."""

    step: bytes
    """The digest of the step."""
    request: bytes
    """The digest of its request with all inputs."""


@dataclass(frozen=True)
class Started:
    """A builder starts to build a step. It happens again for each retry."""

    step: bytes
    """The digest of the step."""
    builder: int
    """The index of the builder in `builders`."""


@dataclass(frozen=True)
class Logged:
    """The command of a step wrote output."""

    step: bytes
    """The digest of the step."""
    data: bytes
    """The output."""


@dataclass(frozen=True)
class Finished:
    """The outcome of a step is stored."""

    result: StepResult
    """The outcome."""


Event: TypeAlias = "Queued | Started | Logged | Finished"
OnEvent: TypeAlias = Callable[[Event], object]
"""Gets the events of a run: `Logged` in threads of builders, the others in the thread that runs the
plan."""
