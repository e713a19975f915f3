# SPDX-License-Identifier: MIT
"""Returns free memory to the system. After large messages, the allocator of glibc keeps hundreds of
megabytes in pieces, which later large messages do not fit."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
from pathlib import Path

_INTERVAL_SECONDS = 10.0
_GROWTH = 64 << 20
"""The growth since the start, in bytes, from which on memory is trimmed."""
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""Only glibc has it."""


async def trim_memory() -> None:
    """Trim memory in a thread from time to time while it is larger than now, until cancelled."""
    if _trim is None:
        return
    most = _resident() + _GROWTH
    while True:
        await asyncio.sleep(_INTERVAL_SECONDS)
        if _resident() > most:
            gc.collect()  # Calls that were cancelled leave cycles, which may refer to messages.
            await asyncio.to_thread(_trim, 0)


def _resident() -> int:
    """Return the resident memory of the process in bytes."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
