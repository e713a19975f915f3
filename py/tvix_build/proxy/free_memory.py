# SPDX-License-Identifier: MIT
"""Returns freed memory to the system.

Messages arrive in pieces. When an attack has ended, a few pieces that are in use lie all over the
heap, and glibc returns only what is free at its end. The rest would stay in memory forever.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PAUSE = 15.0
"""The seconds from one return to the next. One takes a few milliseconds."""


@contextmanager
def returning_free_memory(pause: float = PAUSE) -> Iterator[None]:
    """Return freed memory to the system again and again, in a thread that ends with the context.
    Does nothing with C libraries other than glibc.

    Args:
        pause: the seconds from one return to the next.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        yield
        return
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(pause):
            trim(0)

    thread = threading.Thread(target=run, name="free-memory", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
