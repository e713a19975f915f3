# SPDX-License-Identifier: MIT
"""The outcome of a call, for logs, metrics and traces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import grpc

from tvix_build.proxy.shared.services import Service
from tvix_build.proxy.status import StatusError


@dataclass(eq=False, slots=True)
class Outcome:
    """The outcome of a call. The fields are set while the call proceeds.

    Attributes:
        peer: the address of the caller.
        caller: the name that the caller has proved; empty if there is none.
        request_size, response_size: bytes of the received request and of the sent response.
        seconds: from the receipt of the request to the end of the call.
        code: the status code.
        by: the origin of a status other than OK: `proxy`, `upstream` or `client`.
        digest: the digest of the request, if the request is valid.
        message: the message of the status.
        violations: the codes of the violations in the request or in the response.
        trace: the trace id in hex, if the call is traced.
    """

    service: Service
    peer: str
    caller: str = ""
    request_size: int = 0
    response_size: int = 0
    seconds: float = 0.0
    code: grpc.StatusCode = grpc.StatusCode.OK
    by: str = ""
    digest: bytes | None = None
    message: str = ""
    violations: tuple[str, ...] = ()
    trace: str = ""

    def fail(self, error: StatusError) -> None:
        """Set the status."""
        self.code, self.by, self.message = error.code, error.by, error.message
        self.violations = error.violations


@dataclass(eq=False, slots=True)
class ServiceOutcome:
    """The outcome of a call of the castore services or of PlanService.

    Attributes:
        method: the name of the method, such as `snix.castore.v1.BlobService/Put`.
        peer, seconds, code, by, message, trace: as in `Outcome`.
        request_size, response_size: bytes of all messages.
    """

    method: str
    peer: str
    request_size: int
    response_size: int = 0
    seconds: float = 0.0
    code: grpc.StatusCode = grpc.StatusCode.OK
    by: str = ""
    message: str = ""
    trace: str = ""


Observer: TypeAlias = Callable[[Outcome], None]
ServiceObserver: TypeAlias = Callable[[ServiceOutcome], None]
