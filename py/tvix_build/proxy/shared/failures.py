# SPDX-License-Identifier: MIT
"""The message of the status of a build that failed, with its log."""

from __future__ import annotations

import re
from typing import NamedTuple

_FORM = re.compile("(.*); the log is the blob ([0-9a-f]{64})", re.DOTALL)


class Failure(NamedTuple):
    """Why a build failed."""

    reason: str
    log_digest: bytes


def write_failure(failure: Failure) -> str:
    """Return the message."""
    return f"{failure.reason}; the log is the blob {failure.log_digest.hex()}"


def read_failure(message: str) -> Failure | None:
    """Return what a message says; None if it has another form."""
    found = _FORM.fullmatch(message)
    return found and Failure(found[1], bytes.fromhex(found[2]))
