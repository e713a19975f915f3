# SPDX-License-Identifier: MIT
"""Suggests options for records that are messages of another kind or schema."""

from __future__ import annotations

from tvix_build import Report
from tvix_build._core.hints import changes, find_type, may_be_another
from tvix_build._core.report import MessageType, message_type
from tvix_build.records import Batch


def find_hint(batch: Batch, i: int, report: Report) -> str | None:
    """Return `Report.hint` for record i, with options instead of arguments."""
    if i in batch.reasons:
        return None
    return find_hint_of(batch.record(i), message_type(batch.kind, batch.schema), report)


def find_hint_of(data: bytes, kind: MessageType, report: Report) -> str | None:
    """Return `Report.hint` for a message, with options instead of arguments."""
    if not may_be_another(report):
        return None
    found = find_type(kind, data)
    if found is None:
        return None
    options = (f"--{name} {value}" for name, value in changes(kind, found).items())
    return f"decodes as {found.title}; use {' '.join(options)}"
