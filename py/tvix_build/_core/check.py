# SPDX-License-Identifier: MIT
"""Checks one message: a batch of one."""

from __future__ import annotations

from functools import partial
from typing import Any

from google.protobuf.message import DecodeError, Message

from tvix_build._core import engine
from tvix_build._core.batch import report_of, serialized, type_of
from tvix_build._core.engine import Encodings
from tvix_build._core.hints import find_hint, may_be_another
from tvix_build._core.ranges import BytesLike
from tvix_build._core.report import (
    Kind,
    KindLike,
    MessageType,
    Report,
    Schema,
    SchemaLike,
    ValidationError,
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
    """Check a message.

    Args:
        message: a message, or the bytes of one.
        kind: what it is; inferred from a message, a BuildRequest where bytes say nothing.
        schema: of which version of the protocol; inferred from a message, tvix.build.v1 where bytes
            say nothing.
        request: of a BuildResponse of snix.build.v1, the valid BuildRequest that it answers. With
            it, the number of outputs and the range of needles are checked, too.

    Returns:
        A report, also of an invalid message.

    Raises:
        TypeError: if it is neither bytes-like nor a message of the kind and the schema.
        ValueError: if there is no such kind or schema, or there is a request and the message is no
            BuildResponse, or that request does not decode.
    """
    return _run(message, kind, schema, request=request)


def validate(
    message: BytesLike | Message,
    *,
    kind: KindLike | None = None,
    schema: SchemaLike | None = None,
    request: BytesLike | Message | None = None,
) -> None:
    """Raise unless a message is valid. Arguments as for `check`.

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
    """The canonical encoding of a message, its lists sorted. Arguments as for `check`.

    Raises:
        ValidationError: if there is a violation other than `not_sorted`: nothing is dropped or
            repaired.
        TypeError, ValueError: as `check`.
    """
    encodings = Encodings()
    report = _run(message, kind, schema, encodings)
    if report.digest is None:
        raise refusal(report)
    data, _ = encodings.finish()
    return bytes(data)


def digest(
    message: BytesLike | Message,
    *,
    kind: KindLike | None = None,
    schema: SchemaLike | None = None,
) -> bytes:
    """BLAKE3-256 of the canonical encoding of a message, 32 bytes. Arguments as for `check`.

    Raises:
        ValidationError: if there is a violation other than `not_sorted`.
        TypeError, ValueError: as `check`.
    """
    report = check(message, kind=kind, schema=schema)
    if report.digest is None:
        raise refusal(report)
    return report.digest


def _run(
    message: BytesLike | Message,
    kind: KindLike | None,
    schema: SchemaLike | None,
    encodings: Encodings | None = None,
    request: BytesLike | Message | None = None,
) -> Report:
    found = type_of(message, kind, schema)
    counts = None if request is None else _counts(found, request)
    data = serialized(message)
    report = report_of(found, *engine.run_one(found, data, encodings, counts))
    if report.digest is None and not isinstance(message, Message) and may_be_another(report):
        # The report is frozen, and this is no field of it.
        object.__setattr__(report, "_source", partial(find_hint, found, bytes(data)))
    return report


def _counts(answer: MessageType, request: BytesLike | Message) -> tuple[int, int]:
    """How many outputs and needles the request has that is answered."""
    if answer is not message_type(Kind.BUILD, Schema.SNIX_BUILD_V1):
        raise ValueError(f"expected no request, as {answer} names its own; found one")
    type_of(request, Kind.BUILD_REQUEST, Schema.SNIX_BUILD_V1)
    parsed: Any = request
    if not isinstance(request, Message):
        from snix.build.protos.build_pb2 import BuildRequest

        try:
            parsed = BuildRequest.FromString(bytes(serialized(request)))
        except DecodeError as error:
            raise ValueError(f"expected a serialized request, found: {error}") from None
    return len(parsed.outputs), len(parsed.refscan_needles)
