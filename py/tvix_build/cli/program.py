# SPDX-License-Identifier: MIT
"""The name of the program, and its plain error messages."""

from __future__ import annotations

import sys
from contextlib import suppress

PROGRAM = "tvix-build"


def complain(reason: str) -> None:
    """Print `tvix-build: reason` on stderr."""
    if sys.stderr is None:
        return
    with suppress(OSError):
        print(f"{PROGRAM}: {reason}", file=sys.stderr, flush=True)
