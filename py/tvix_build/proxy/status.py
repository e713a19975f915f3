# SPDX-License-Identifier: MIT
"""Why a call is refused: a gRPC status with details (google.rpc.Status), small enough for the
metadata that every client accepts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure
from google.rpc.status_pb2 import Status

from tvix_build._report import InvalidMessage
from tvix_build.proxy.builder_protocol import Metadata
from tvix_build.proxy.shared.checks import InvalidAnswer
from tvix_build.proxy.shared.services import Service

AnyMessage = TypeVar("AnyMessage", bound=Message)

DETAILS_KEY = "grpc-status-details-bin"
DOMAIN = "tvix-build"
# Clients take 8 KiB of metadata. Details travel as base64, and a message as %XX where it is not
# ASCII.
VIOLATIONS_SIZE = 4000
MESSAGE_SIZE = 400


class Refusal(Exception):  # noqa: N818 - it is no fault of this program
    """A call that ends with another status than OK.

    Attributes:
        code, message: the status.
        trailing_metadata: with the details.
        by: who refuses: `door` or `upstream`.
        violations: codes of the violations that are the reason.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        trailing_metadata: Metadata = (),
        by: str = "door",
        violations: tuple[str, ...] = (),
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.trailing_metadata = trailing_metadata
        self.by = by
        self.violations = violations


def refusal(code: grpc.StatusCode, reason: str, message: str) -> Refusal:
    """A refusal by the door; the reason is for programs, in capitals."""
    return _refusal(code, ErrorInfo(reason=reason, domain=DOMAIN), message)


def invalid_request(service: Service, error: InvalidMessage) -> Refusal:
    """For a request that violates rules: INVALID_ARGUMENT with its violations, as many as fit."""
    violations = (
        BadRequest.FieldViolation(field=one.path, description=one.message, reason=one.code.value)
        for one in error.violations
    )
    return _refusal(
        grpc.StatusCode.INVALID_ARGUMENT,
        _info("INVALID_REQUEST", error),
        f"expected a valid request of {service.schema.value}, found {error}",
        BadRequest(field_violations=_fitting(violations)),
        error,
    )


def invalid_answer(error: InvalidAnswer) -> Refusal:
    """For an answer of the builder that violates rules: INTERNAL, likewise."""
    violations = (
        PreconditionFailure.Violation(
            type=one.code.value, subject=one.path, description=one.message
        )
        for one in error.violations
    )
    return _refusal(
        grpc.StatusCode.INTERNAL,
        _info("INVALID_ANSWER", error),
        f"the builder failed: {error}",
        PreconditionFailure(violations=_fitting(violations)),
        error,
    )


def _info(reason: str, error: InvalidMessage | InvalidAnswer) -> ErrorInfo:
    count = {"violation_count": str(error.violation_count)}
    return ErrorInfo(reason=reason, domain=DOMAIN, metadata=count)


def _fitting(messages: Iterable[AnyMessage]) -> list[AnyMessage]:
    """As many as there is room for; the first one in any case, as none is that large."""
    found: list[AnyMessage] = []
    room = VIOLATIONS_SIZE
    for message in messages:
        room -= message.ByteSize() + 3
        if room < 0 and found:
            break
        found.append(message)
    return found


def _refusal(
    code: grpc.StatusCode,
    info: ErrorInfo,
    message: str,
    details: Message | None = None,
    error: InvalidMessage | InvalidAnswer | None = None,
) -> Refusal:
    message = _cut(message)
    status = Status(code=code.value[0], message=message)
    for detail in (info, details):
        if detail is not None:
            status.details.add().Pack(detail)
    trailing = ((DETAILS_KEY, status.SerializeToString()),)
    codes = tuple(one.code.value for one in error.violations) if error else ()
    return Refusal(code, message, trailing, violations=codes)


def _cut(message: str) -> str:
    data = message.encode()
    if len(data) <= MESSAGE_SIZE:
        return message
    return data[:MESSAGE_SIZE].decode(errors="ignore") + "…"
