# SPDX-License-Identifier: MIT
"""Why a derivation gives no request: a reason in words, of a kind that reasons are grouped by."""

from __future__ import annotations

from enum import Enum


class Kind(Enum):
    """What is wrong, and so what helps."""

    INVALID = "invalid_derivation"
    UNREADABLE = "unreadable"
    MISSING_DERIVATION = "missing_derivation"
    MISSING_NODE = "missing_node"
    UNKNOWN_PATH = "unknown_path"
    CYCLE = "cycle"
    BUILTIN = "builtin"
    LATER_SCHEMA = "later_schema"
    NOT_REPRESENTABLE = "not_representable"
    INVALID_REQUEST = "invalid_request"


class Reason(str):
    """A reason in words; its kind is not part of them."""

    kind: Kind

    def __new__(cls, kind: Kind, words: str) -> Reason:
        reason = super().__new__(cls, words)
        reason.kind = kind
        return reason

    def __reduce__(self) -> tuple[type[Reason], tuple[Kind, str]]:
        return Reason, (self.kind, str(self))


def kind_of(reason: str) -> Kind:
    """The kind of a reason; `INVALID` for one without."""
    return reason.kind if isinstance(reason, Reason) else Kind.INVALID
