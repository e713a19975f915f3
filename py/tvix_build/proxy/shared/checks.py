# SPDX-License-Identifier: MIT
"""Checks the bytes of requests and answers, with as little as possible for good ones: no report is
made."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from tvix_build import _engine
from tvix_build._batch import report_of
from tvix_build._engine import Encodings, Verdict
from tvix_build._report import Error, InvalidMessage, MessageType, Violation
from tvix_build.proxy.shared.services import Service

DIGEST_KEY = "tvix-build-digest"
"""The metadata in which a request's digest travels, as hex digits."""
LARGE = 1 << 18
"""Bytes that take about as long to check as a call costs anyway. More must not hold up others, and
are checked in a thread."""
OUTPUTS, NEEDLES = 6, 10
"""Numbers of fields of a request of snix.build.v1."""


class InvalidAnswer(Error):  # noqa: N818 - the name says what was found
    """A builder's answer violates rules, or answers another request.

    Attributes:
        violations: the first 100 of them, in the order of the path; none where the answer is valid,
            but another request's.
        violation_count: how many there are in truth.
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
    """The canonical one: the message itself where that is canonical."""
    digest: bytes


def check_request(service: Service, data: bytes) -> Checked:
    """Check a request.

    Raises:
        InvalidMessage: with all violations, also if the only ones are `not_sorted`.
    """
    digest = _engine.digest_if_canonical(service.request, data)
    if digest is not None:
        return Checked(data, digest)
    return _canonicalize(service.request, data)


def check_answer(service: Service, data: bytes, request: bytes) -> bytes:
    """The canonical encoding of the answer to a request, which is canonical.

    Raises:
        InvalidAnswer: if it is not valid, or not the answer to this request.
    """
    counts = None if service.names_request else _counts(request)
    if not _engine.is_canonical(service.answer, data, counts):
        try:
            data = _canonicalize(service.answer, data, counts).encoding
        except InvalidMessage as error:
            raise InvalidAnswer(
                f"{_expected(service)}, found {error}", error.violations, error.violation_count
            ) from None
    if service.names_request and not data.startswith(_beginning(request)):
        raise InvalidAnswer(f"{_expected(service)} to this request, found another request's")
    return data


async def check_request_aside(service: Service, data: bytes) -> Checked:
    """As `check_request`; a large one in a thread."""
    if len(data) < LARGE:
        return check_request(service, data)
    return await asyncio.to_thread(check_request, service, data)


async def check_answer_aside(service: Service, data: bytes, request: bytes) -> bytes:
    """As `check_answer`; a large one, or one to a large request, in a thread."""
    if len(data) + len(request) < LARGE:
        return check_answer(service, data, request)
    return await asyncio.to_thread(check_answer, service, data, request)


def _expected(service: Service) -> str:
    return f"expected a valid answer of {service.schema.value}"


def _canonicalize(kind: MessageType, data: bytes, counts: tuple[int, int] | None = None) -> Checked:
    encodings = Encodings()
    verdict, digest, found = _engine.run_one(kind, data, encodings, counts)
    if verdict > Verdict.VALID:
        report = report_of(kind, verdict, digest, found)
        raise InvalidMessage(report.violations, report.violation_count)
    return Checked(bytes(encodings.finish()[0]), digest)


def _counts(request: bytes) -> tuple[int, int]:
    """How many outputs and needles a canonical request of snix.build.v1 has."""
    return _engine.count_fields(request, OUTPUTS), _engine.count_fields(request, NEEDLES)


def _beginning(request: bytes) -> bytes:
    """How the canonical encoding of each answer to a request begins: with it, as field 1."""
    length = bytearray()
    rest = len(request)
    while rest > 0x7F:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    length.append(rest)
    return b"\x0a" + length + request
