# SPDX-License-Identifier: MIT
"""Validates the bytes of requests and responses. Valid messages are the fast path: for them, no
report is made."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from tvix_build._core import engine
from tvix_build._core.batch import report_of
from tvix_build._core.engine import Encodings, Verdict
from tvix_build._core.report import Error, MessageType, ValidationError, Violation
from tvix_build._core.varint import varint
from tvix_build.proxy.shared.services import Service

DIGEST_KEY = "tvix-build-digest"
"""The metadata key of the digest of the request; the value is hexadecimal."""
LARGE = 1 << 18
"""A message of this size, in bytes, takes about as long to validate as the rest of the call. Larger
ones are validated in a thread, so that they do not block other calls."""
OUTPUTS, NEEDLES = 6, 10
"""Field numbers in a BuildRequest of snix.build.v1."""


class InvalidResponseError(Error):
    """The response of a builder is invalid, or belongs to another request.

    Attributes:
        violations: the first 100 violations, ordered by path; empty if the response is valid but
            belongs to another request.
        violation_count: the total number of violations.
    """

    def __init__(
        self, reason: str, violations: Sequence[Violation] = (), violation_count: int = 0
    ) -> None:
        super().__init__(reason, violations, violation_count)
        self.violations: tuple[Violation, ...] = tuple(violations)
        self.violation_count = violation_count

    def __str__(self) -> str:
        return str(self.args[0])


class Checked(NamedTuple):
    """A valid message."""

    encoding: bytes
    """The canonical encoding; the message itself if it is canonical."""
    digest: bytes


def check_request(service: Service, data: bytes) -> Checked:
    """Validate a request.

    Raises:
        ValidationError: with the violations; `not_sorted` alone makes a request invalid, too.
    """
    return check_message(service.request, data)


def check_output(service: Service, data: bytes, needles: int) -> None:
    """Validate a response with one output, whose request has a number of needles.

    Raises:
        ValidationError: as `check_request`.
    """
    if not engine.is_canonical(service.response, data, (1, needles)):
        _canonicalize(service.response, data, (1, needles))


def check_message(kind: MessageType, data: bytes) -> Checked:
    """As `check_request`, for a message of any kind."""
    result = engine.single_digest[kind](data)
    if isinstance(result, bytes):
        return Checked(data, result)
    return _canonicalize(kind, data)


def check_response(service: Service, data: bytes, request: bytes) -> bytes:
    """Return the canonical encoding of the response to a request, which must be canonical.

    Raises:
        InvalidResponseError: if the response is invalid, or belongs to another request.
    """
    counts = None if service.response_has_request else count_outputs(request)
    if not engine.is_canonical(service.response, data, counts):
        try:
            data = _canonicalize(service.response, data, counts).encoding
        except ValidationError as error:
            raise InvalidResponseError(
                f"{_expected(service)}, found {error}", error.violations, error.violation_count
            ) from None
    if service.response_has_request and not _has_request(data, request):
        raise InvalidResponseError(
            f"{_expected(service)} to this request, found a response to another request"
        )
    return data


async def check_request_async(service: Service, data: bytes) -> Checked:
    """As `check_request`, in a thread if the request is large."""
    if len(data) < LARGE:
        return check_request(service, data)
    return await asyncio.to_thread(check_request, service, data)


async def check_response_async(service: Service, data: bytes, request: bytes) -> bytes:
    """As `check_response`, in a thread if the response or the request is large."""
    if len(data) + len(request) < LARGE:
        return check_response(service, data, request)
    return await asyncio.to_thread(check_response, service, data, request)


def _expected(service: Service) -> str:
    return f"expected a valid response of {service.label}"


def _canonicalize(kind: MessageType, data: bytes, counts: tuple[int, int] | None = None) -> Checked:
    encodings = Encodings()
    verdict, digest, found = engine.run_one(kind, data, encodings, counts)
    if verdict > Verdict.VALID:
        report = report_of(kind, verdict, digest, found)
        raise ValidationError(report.violations, report.violation_count)
    return Checked(bytes(encodings.finish()[0]), digest)


def count_outputs(request: bytes) -> tuple[int, int]:
    """Return the numbers of outputs and of needles in a canonical request of snix.build.v1."""
    return engine.count_fields(request, OUTPUTS), engine.count_fields(request, NEEDLES)


def _has_request(response: bytes, request: bytes) -> bool:
    """Return whether a canonical response has a request as field 1, which comes first."""
    tag = b"\x0a" + varint(len(request))
    return response.startswith(tag) and response.startswith(request, len(tag))
