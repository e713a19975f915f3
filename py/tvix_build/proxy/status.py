# SPDX-License-Identifier: MIT
"""The gRPC statuses of failed calls, with details (google.rpc.Status) that are small enough for the
metadata that every client accepts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure
from google.rpc.status_pb2 import Status

from tvix_build._core.report import ValidationError
from tvix_build.proxy.builder_protocol import Metadata
from tvix_build.proxy.shared.checks import InvalidResponseError
from tvix_build.proxy.shared.failures import DOMAIN
from tvix_build.proxy.shared.services import Service

AnyMessage = TypeVar("AnyMessage", bound=Message)

DETAILS_KEY = "grpc-status-details-bin"
# Clients accept 8 KiB of metadata. Details are sent in base64, and bytes of a message that are not
# ASCII as %XX.
VIOLATIONS_SIZE = 4000
MESSAGE_SIZE = 400


class StatusError(Exception):
    """Ends a call with a status other than OK.

    Attributes:
        code, message: those of the status.
        trailing_metadata: the trailing metadata, with the details.
        by: the origin of the status: `proxy` or `upstream`.
        violations: the codes of the violations that caused the status.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        trailing_metadata: Metadata = (),
        by: str = "proxy",
        violations: tuple[str, ...] = (),
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.trailing_metadata = trailing_metadata
        self.by = by
        self.violations = violations

    def without_frames(self) -> StatusError:
        """Return this error without tracebacks. Their frames refer to messages, and possibly to the
        error: such cycles keep messages in memory until the garbage collector runs."""
        error: BaseException = self
        error.__context__ = error.__cause__ = None
        return self.with_traceback(None)


def status_error(
    code: grpc.StatusCode, reason: str, message: str, metadata: Mapping[str, str] | None = None
) -> StatusError:
    """Return a status of the proxy. `reason` is the machine-readable one, in UPPER_SNAKE_CASE, and
    `metadata` the details that belong to it."""
    return _status_error(
        code, ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata or {}), message
    )


def cancelled_code(context: grpc.aio.ServicerContext[bytes, bytes]) -> grpc.StatusCode:
    """Return the status of a call that is cancelled."""
    remaining = context.time_remaining()
    expired = remaining is not None and remaining <= 0
    return grpc.StatusCode.DEADLINE_EXCEEDED if expired else grpc.StatusCode.CANCELLED


def castore_unavailable() -> StatusError:
    """Return UNAVAILABLE for a failed call to the server behind the castore store."""
    message = "a call to the server behind the castore store failed; see the server's log"
    return status_error(grpc.StatusCode.UNAVAILABLE, "CASTORE_UNAVAILABLE", message)


def shutting_down() -> StatusError:
    """Return UNAVAILABLE for calls that a shutdown does not accept, or ends."""
    message = "the proxy is shutting down; try again later"
    return status_error(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", message)


def invalid_request(service: Service, error: ValidationError) -> StatusError:
    """Return INVALID_ARGUMENT for an invalid request, with as many violations as fit."""
    return invalid(f"request of {service.label}", "INVALID_REQUEST", error)


def invalid(expected: str, reason: str, error: ValidationError) -> StatusError:
    """Return INVALID_ARGUMENT for an invalid message, with as many violations as fit."""
    violations = error.to_bad_request().field_violations
    return _status_error(
        grpc.StatusCode.INVALID_ARGUMENT,
        _info(reason, error),
        f"expected a valid {expected}, found {error}",
        BadRequest(field_violations=_fitting(violations)),
        error,
    )


def invalid_response(error: InvalidResponseError) -> StatusError:
    """Return INTERNAL for an invalid response of the builder, with as many violations as fit."""
    violations = (
        PreconditionFailure.Violation(
            type=one.code.value, subject=one.path, description=one.message
        )
        for one in error.violations
    )
    return _status_error(
        grpc.StatusCode.INTERNAL,
        _info("INVALID_RESPONSE", error),
        f"invalid response from the builder: {error}",
        PreconditionFailure(violations=_fitting(violations)),
        error,
    )


def _info(reason: str, error: ValidationError | InvalidResponseError) -> ErrorInfo:
    count = {"violation_count": str(error.violation_count)}
    return ErrorInfo(reason=reason, domain=DOMAIN, metadata=count)


def _fitting(messages: Iterable[AnyMessage]) -> list[AnyMessage]:
    """Return the first messages, as many as fit. A single one always fits."""
    found: list[AnyMessage] = []
    room = VIOLATIONS_SIZE
    for message in messages:
        room -= message.ByteSize() + 3
        if room < 0 and found:
            break
        found.append(message)
    return found


def _status_error(
    code: grpc.StatusCode,
    info: ErrorInfo,
    message: str,
    details: Message | None = None,
    error: ValidationError | InvalidResponseError | None = None,
) -> StatusError:
    message = _cut(message)
    status = Status(code=code.value[0], message=message)
    for detail in (info, details):
        if detail is not None:
            status.details.add().Pack(detail)
    trailing = ((DETAILS_KEY, status.SerializeToString()),)
    codes = tuple(one.code.value for one in error.violations) if error else ()
    return StatusError(code, message, trailing, violations=codes)


def _cut(message: str) -> str:
    data = message.encode()
    if len(data) <= MESSAGE_SIZE:
        return message
    return data[:MESSAGE_SIZE].decode(errors="ignore") + "…"
