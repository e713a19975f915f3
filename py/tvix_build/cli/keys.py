# SPDX-License-Identifier: MIT
"""Reads keys that are pressed while a command runs."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PAUSE = 1.0
"""The seconds between two looks whether this process is in the foreground again."""


@contextmanager
def reading_keys(on_key: Callable[[bytes], object]) -> Iterator[bool]:
    """Within an event loop, call a function with each byte that is typed, and yield true. Do
    nothing, and yield false, if stdin is no terminal, or this process runs in its background.
    Signals of the terminal remain."""
    if sys.stdin is None or not _is_foreground(terminal := sys.stdin.fileno()):
        yield False
        return
    loop = asyncio.get_running_loop()
    later: asyncio.TimerHandle | None = None

    def read() -> None:
        nonlocal later
        if not _is_foreground(terminal):
            # Reading would stop this process, and the loop would call this again at once.
            loop.remove_reader(terminal)
            later = loop.call_later(PAUSE, loop.add_reader, terminal, read)
            return
        key = os.read(terminal, 1)
        if key:
            on_key(key)
        else:
            loop.remove_reader(terminal)

    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)
    loop.add_reader(terminal, read)
    try:
        yield True
    finally:
        if later is not None:
            later.cancel()
        loop.remove_reader(terminal)
        if _is_foreground(terminal):
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _is_foreground(terminal: int) -> bool:
    """Return whether a descriptor is the terminal of this process, and not used by others."""
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
