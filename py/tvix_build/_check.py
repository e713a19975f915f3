# SPDX-License-Identifier: MIT
"""Checks one message: a batch of one."""

from __future__ import annotations

from google.protobuf.message import Message

from tvix_build import _engine
from tvix_build._batch import kind_of, report_of, serialized
from tvix_build._engine import Encodings
from tvix_build._ranges import BytesLike
from tvix_build._report import InvalidMessage, Kind, Report, refusal


def check(x: BytesLike | Message, kind: Kind | str | None = None) -> Report:
    """All that is known of a message.

    Args:
        x: a message, or the bytes of one.
        kind: what it is; inferred from a message, a BuildRequest where bytes say nothing.

    Returns:
        A report. A bad message is no error.

    Raises:
        TypeError: if x is neither bytes-like nor a message of the kind.
        ValueError: if there is no such kind.
    """
    return _run(x, kind)


def validate(x: BytesLike | Message, kind: Kind | str | None = None) -> None:
    """Raise unless a message is valid. Arguments as for `check`.

    Raises:
        InvalidMessage: with all violations.
        TypeError, ValueError: as `check`.
    """
    report = check(x, kind)
    if not report.valid:
        raise InvalidMessage(report.violations, report.violation_count)


def canonicalize(x: BytesLike | Message, kind: Kind | str | None = None) -> bytes:
    """The canonical encoding of a message, its lists sorted. Arguments as for `check`.

    Raises:
        InvalidMessage: if there is a violation other than `not_sorted`: nothing is dropped or
            repaired.
        TypeError, ValueError: as `check`.
    """
    encodings = Encodings(0)
    report = _run(x, kind, encodings)
    if report.digest is None:
        raise refusal(report)
    data, _ = encodings.finish()
    return bytes(data)


def digest(x: BytesLike | Message, kind: Kind | str | None = None) -> bytes:
    """BLAKE3-256 of the canonical encoding of a message, 32 bytes. Arguments as for `check`.

    Raises:
        InvalidMessage: if there is a violation other than `not_sorted`.
        TypeError, ValueError: as `check`.
    """
    report = check(x, kind)
    if report.digest is None:
        raise refusal(report)
    return report.digest


def _run(
    x: BytesLike | Message, kind: Kind | str | None, encodings: Encodings | None = None
) -> Report:
    kind = kind_of(x, kind)
    return report_of(kind, *_engine.run_one(kind, serialized(x), encodings))
