# SPDX-License-Identifier: MIT
"""How a call ended, for logs, metrics and traces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import grpc

from tvix_build.proxy.shared.services import Service


@dataclass(eq=False, slots=True)
class Outcome:
    """What is known of a call; filled in while it goes on.

    Attributes:
        peer: says who called.
        request_size, answer_size: bytes, as received and as sent.
        seconds: from its message to its end.
        code: its status.
        by: who ended it with another status than OK: `door`, `upstream` or `client`.
        digest: of the request, if that is valid.
        message: that of the status.
        violations: codes of violations, of the request or the answer.
        trace: the trace's id in hex, if it is traced.
    """

    service: Service
    peer: Callable[[], str]
    request_size: int
    answer_size: int = 0
    seconds: float = 0.0
    code: grpc.StatusCode = grpc.StatusCode.OK
    by: str = ""
    digest: bytes | None = None
    message: str = ""
    violations: tuple[str, ...] = ()
    trace: str = ""


Observer: TypeAlias = Callable[[Outcome], None]
