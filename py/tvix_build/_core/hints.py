# SPDX-License-Identifier: MIT
"""Finds the type of bytes that are not a message of the expected type, so that a wrong schema is
not reported as corruption only."""

from __future__ import annotations

from tvix_build._core import engine
from tvix_build._core.engine import Buffer, Verdict
from tvix_build._core.report import TYPES, MessageType, Report, ViolationCode, message_type

_LATEST_FIRST = TYPES[::-1]
SIGNS = {ViolationCode.MALFORMED, ViolationCode.UNKNOWN_FIELD}
"""The violations of bytes that may be a message of another type."""


def may_be_another(report: Report) -> bool:
    """Return whether the bytes of a report may be a message of another type."""
    return report.digest is None and any(one.code in SIGNS for one in report.violations)


def find_type(expected: MessageType, data: Buffer) -> MessageType | None:
    """Return another type with which the bytes have a canonical encoding; None if there is none.

    Types that differ from the expected one in the kind or in the schema are tried before those that
    differ in both, and later schemas before earlier ones.
    """

    for kind in sorted(_LATEST_FIRST, key=lambda kind: len(changes(expected, kind))):
        if kind is not expected and engine.run_one(kind, data)[0] <= Verdict.UNSORTED:
            return kind
    return None


def changes(expected: MessageType, found: MessageType) -> dict[str, str]:
    """Return the arguments `kind` and `schema` that differ, with the values of the found type."""
    arguments = {} if found.kind is expected.kind else {"kind": found.kind.value}
    if message_type(found.kind, expected.schema) is not found:
        arguments["schema"] = found.schema.value
    return arguments


def find_hint(expected: MessageType, data: Buffer) -> str | None:
    """Return a text with the type of bytes that are not a message of the expected type, and the
    arguments for it; None if they are not a message of any type."""
    found = find_type(expected, data)
    if found is None:
        return None
    arguments = (f'{name}="{value}"' for name, value in changes(expected, found).items())
    return f"decodes as {found.title}; use {', '.join(arguments)}"
