# SPDX-License-Identifier: MIT
"""What passes between the door and a builder."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

from tvix_build.proxy.shared.services import Service

Metadata: TypeAlias = tuple[tuple[str, "str | bytes"], ...]


class Call(NamedTuple):
    """A valid request on its way to a builder.

    Attributes:
        request: its canonical encoding.
        digest: of the request, 32 bytes.
        metadata: what the builder is told.
        remaining: says how many seconds the caller still waits; None for ever.
    """

    service: Service
    request: bytes
    digest: bytes
    metadata: Metadata
    remaining: Callable[[], float | None]


class Answer(NamedTuple):
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
