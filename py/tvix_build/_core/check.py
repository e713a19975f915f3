# SPDX-License-Identifier: MIT
"""Checks single messages."""

from __future__ import annotations

from functools import partial
from typing import Any

from google.protobuf.message import DecodeError, Message

from tvix_build._core import engine
from tvix_build._core.batch import report_of, serialized, type_of
from tvix_build._core.engine import (
    Encodings,
    SingleDetails,
    single_canonical,
    single_digest,
    violations_of,
)
from tvix_build._core.hints import find_hint, may_be_another
from tvix_build._core.names import publish
from tvix_build._core.ranges import BytesLike
from tvix_build._core.report import (
    Kind,
    KindLike,
    MessageType,
    Report,
    Schema,
    SchemaLike,
    ValidationError,
    canonical_report,
    message_type,
    refusal,
)


def check(
    message: BytesLike | Message,
    *,
    kind: KindLike | None = None,
    schema: SchemaLike | None = None,
    request: BytesLike | Message | None = None,
) -> Report:
    """Check a message, and return a report.

    Args:
        message: a protobuf message, or the bytes of one.
        kind: the kind of the message; by default the kind of the protobuf message, or a
            BuildRequest for bytes.
        schema: the schema of the message; by default the schema of the protobuf message, or
            tvix.build.v1 for bytes.
        request: the valid BuildRequest of a BuildResponse of snix.build.v1. If it is given, the
            number of outputs and the range of needles in the response are also checked.

    Returns:
        The report, for valid and for invalid messages.

    Raises:
        TypeError: if the message is neither bytes-like nor a message of the kind and the schema.
        ValueError: if the kind or the schema is unknown, if `request` is given and the message is
            not a BuildResponse of snix.build.v1, or if `request` is malformed.
    """
    found = type_of(message, kind, schema)
    data = serialized(message)
    if request is None:
        result = single_digest[found](data)
        if isinstance(result, bytes):
            return canonical_report(result)
        if result is not None:
            return _report_of_details(message, found, data, result)
    return _run(message, found, data, request=request)


def validate(
    message: BytesLike | Message,
    *,
    kind: KindLike | None = None,
    schema: SchemaLike | None = None,
    request: BytesLike | Message | None = None,
) -> None:
    """Raise ValidationError if a message is invalid. Arguments as for `check`.

    Raises:
        ValidationError: with all violations.
        TypeError, ValueError: as `check`.
    """
    report = check(message, kind=kind, schema=schema, request=request)
    if not report.valid:
        raise ValidationError(report.violations, report.violation_count, hint=report.hint)


def canonicalize(
    message: BytesLike | Message,
    *,
    kind: KindLike | None = None,
    schema: SchemaLike | None = None,
) -> bytes:
    """Return the canonical encoding of a message. Arguments as for `check`.

    Lists are sorted. Nothing else is repaired or dropped.

    Raises:
        ValidationError: if the message has a violation other than `not_sorted`.
        TypeError, ValueError: as `check`.
    """
    found = type_of(message, kind, schema)
    data = serialized(message)
    result = single_canonical[found](data)
    if isinstance(result, bytes):
        return result
    if result is not None:
        raise refusal(_report_of_details(message, found, data, result))
    encodings = Encodings()
    report = _run(message, found, data, encodings)
    if report.digest is None:
        raise refusal(report)
    return bytes(encodings.finish()[0])


def digest(
    message: BytesLike | Message,
    *,
    kind: KindLike | None = None,
    schema: SchemaLike | None = None,
) -> bytes:
    """Return the digest of a message: the BLAKE3-256 hash of its canonical encoding, 32 bytes.
    Arguments as for `check`.

    Raises:
        ValidationError: if the message has a violation other than `not_sorted`.
        TypeError, ValueError: as `check`.
    """
    found = type_of(message, kind, schema)
    data = serialized(message)
    result = single_digest[found](data)
    if isinstance(result, bytes):
        return result
    if result is None:
        report = _run(message, found, data)
    else:
        report = _report_of_details(message, found, data, result)
    if report.digest is None:
        raise refusal(report)
    return report.digest


def _run(
    message: BytesLike | Message,
    found: MessageType,
    data: bytes | memoryview,
    encodings: Encodings | None = None,
    request: BytesLike | Message | None = None,
) -> Report:
    counts = None if request is None else _counts(found, request)
    report = report_of(found, *engine.run_one(found, data, encodings, counts))
    return _with_hint(report, message, found, data)


def _report_of_details(
    message: BytesLike | Message,
    found: MessageType,
    data: bytes | memoryview,
    details: SingleDetails,
) -> Report:
    digest, violations, total = details
    report = Report(not total, False, digest, violations_of(violations), total)
    return _with_hint(report, message, found, data)


def _with_hint(
    report: Report, message: BytesLike | Message, found: MessageType, data: bytes | memoryview
) -> Report:
    """Return the report, which will find a hint if the bytes may be of another type."""
    if report.digest is None and not isinstance(message, Message) and may_be_another(report):
        # The report is a frozen dataclass, and `_source` is not a field.
        object.__setattr__(report, "_source", partial(find_hint, found, bytes(data)))
    return report


def _counts(response: MessageType, request: BytesLike | Message) -> tuple[int, int]:
    """Return the numbers of outputs and needles in the request of a response."""
    if response is not message_type(Kind.BUILD, Schema.SNIX_BUILD_V1):
        raise ValueError(f"request= requires a snix.build.v1.BuildResponse, found {response}")
    type_of(request, Kind.BUILD_REQUEST, Schema.SNIX_BUILD_V1)
    parsed: Any = request
    if not isinstance(request, Message):
        from snix.build.protos.build_pb2 import BuildRequest

        try:
            parsed = BuildRequest.FromString(bytes(serialized(request)))
        except DecodeError as error:
            raise ValueError(f"expected a serialized request, found: {error}") from None
    return len(parsed.outputs), len(parsed.refscan_needles)


publish("tvix_build", canonicalize, check, digest, validate)
