# SPDX-License-Identifier: MIT
"""What passes between the door and a builder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from tvix_build._rpc.services import Service

Metadata: TypeAlias = tuple[tuple[str, "str | bytes"], ...]


@dataclass(frozen=True, eq=False, slots=True)
class Call:
    """A valid request on its way to a builder.

    Attributes:
        request: its canonical encoding.
        digest: of the request, 32 bytes.
        metadata: what the builder is told.
        deadline: when the caller gives up, in `time.monotonic()`; None for never.
    """

    service: Service
    request: bytes
    digest: bytes
    metadata: Metadata
    deadline: float | None

    def remaining(self) -> float | None:
        """Seconds until the deadline."""
        return None if self.deadline is None else self.deadline - time.monotonic()


@dataclass(frozen=True, eq=False, slots=True)
class Answer:
    """What a builder answers, and the metadata that came before and after it."""

    data: bytes
    initial_metadata: Metadata = ()
    trailing_metadata: Metadata = ()


class Builder(Protocol):
    """Answers calls, many at once; a cancelled one is given up."""

    async def build(self, call: Call) -> Answer:
        """The answer to a call.

        Raises:
            Refusal: if there is none.
        """
