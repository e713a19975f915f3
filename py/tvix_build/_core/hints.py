# SPDX-License-Identifier: MIT
"""Finds the type of bytes that are no message of the expected type: a wrong schema is not
corruption."""

from __future__ import annotations

from tvix_build._core import engine
from tvix_build._core.engine import Buffer, Verdict
from tvix_build._core.report import TYPES, MessageType, Report, ViolationCode

_LATEST_FIRST = TYPES[::-1]
SIGNS = {ViolationCode.MALFORMED, ViolationCode.UNKNOWN_FIELD}
"""The codes of bytes that may be a message of another type."""


def may_be_another(report: Report) -> bool:
    """Whether the bytes of a report may be a message of another type."""
    return report.digest is None and any(one.code in SIGNS for one in report.violations)


def find_type(expected: MessageType, data: Buffer) -> MessageType | None:
    """The type of which bytes are a message that has a canonical encoding; None if there is none.

    Types that differ from the expected one in the kind or in the schema go before those that differ
    in both, and later schemas before earlier ones.
    """

    def differences(kind: MessageType) -> int:
        return (kind.kind is not expected.kind) + (kind.schema is not expected.schema)

    for kind in sorted(_LATEST_FIRST, key=differences):
        if differences(kind) and engine.run_one(kind, data)[0] <= Verdict.UNSORTED:
            return kind
    return None


def changes(expected: MessageType, found: MessageType) -> dict[str, str]:
    """The arguments `kind` and `schema` in which two types differ, with those of the found one."""
    pairs = {"kind": (expected.kind, found.kind), "schema": (expected.schema, found.schema)}
    return {name: new.value for name, (old, new) in pairs.items() if new is not old}


def find_hint(expected: MessageType, data: Buffer) -> str | None:
    """As what bytes decode that are no message of the expected type, and the arguments to pass for
    it; None if they are a message of no type."""
    found = find_type(expected, data)
    if found is None:
        return None
    arguments = (f'{name}="{value}"' for name, value in changes(expected, found).items())
    return f"decodes as {found.title}; use {', '.join(arguments)}"
