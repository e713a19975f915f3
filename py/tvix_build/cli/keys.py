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


@contextmanager
def reading_keys(on_key: Callable[[bytes], object]) -> Iterator[None]:
    """Within an event loop, call a function with each byte that is typed. Do nothing if stdin is no
    terminal, or this process runs in its background. Signals of the terminal remain."""
    if sys.stdin is None or not _is_foreground(terminal := sys.stdin.fileno()):
        yield
        return
    loop = asyncio.get_running_loop()

    def read() -> None:
        if not _is_foreground(terminal):
            return  # Reading would stop this process.
        key = os.read(terminal, 1)
        if key:
            on_key(key)
        else:
            loop.remove_reader(terminal)

    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)
    loop.add_reader(terminal, read)
    try:
        yield
    finally:
        loop.remove_reader(terminal)
        if _is_foreground(terminal):
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _is_foreground(terminal: int) -> bool:
    """Return whether a descriptor is the terminal of this process, and not used by others."""
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
