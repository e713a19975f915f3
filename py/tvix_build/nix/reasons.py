# SPDX-License-Identifier: MIT
"""Reasons why a derivation is rejected. Each is a text with a kind."""

from __future__ import annotations

from enum import Enum


class Kind(Enum):
    """The kind of a reason; reasons of a kind have the same remedy."""

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
    """A reason as text, with its kind as an attribute."""

    kind: Kind

    def __new__(cls, kind: Kind, words: str) -> Reason:
        reason = super().__new__(cls, words)
        reason.kind = kind
        return reason

    def __reduce__(self) -> tuple[type[Reason], tuple[Kind, str]]:
        return Reason, (self.kind, str(self))


def kind_of(reason: str) -> Kind:
    """Return the kind of a reason; `INVALID` for a plain string."""
    return reason.kind if isinstance(reason, Reason) else Kind.INVALID
