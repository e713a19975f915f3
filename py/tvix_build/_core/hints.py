# SPDX-License-Identifier: MIT
"""Finds the type of bytes that are no message of the expected type: a wrong schema is not
corruption."""

from __future__ import annotations

from tvix_build._core import engine
from tvix_build._core.engine import Buffer, Verdict
from tvix_build._core.report import TYPES, MessageType, Report, ViolationCode

_LATEST_FIRST = TYPES[::-1]
_SIGNS = {ViolationCode.MALFORMED, ViolationCode.UNKNOWN_FIELD}


def may_be_another(report: Report) -> bool:
    """Whether the bytes of a report may be a message of another type."""
    return report.digest is None and any(one.code in _SIGNS for one in report.violations)


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


def find_hint(expected: MessageType, data: Buffer, python: bool = True) -> str | None:
    """As what bytes decode that are no message of the expected type, and the arguments that say so:
    those of functions, or the options of the command line. None if they are of no type."""
    found = find_type(expected, data)
    if found is None:
        return None
    changed = {
        name: value
        for name, value, other in (
            ("kind", found.kind, expected.kind),
            ("schema", found.schema, expected.schema),
        )
        if value is not other
    }
    arguments = (
        ", ".join(f'{name}="{value}"' for name, value in changed.items())
        if python
        else " ".join(f"--{name} {value}" for name, value in changed.items())
    )
    package, _, message = found.full_name.rpartition(".")
    return f"decodes as {package} {message}; use {arguments}"
