# SPDX-License-Identifier: MIT
"""Locks that end with the process."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold a lock, which is a file. The file is removed at the end, or by the next holder if the
    process is killed.

    Raises:
        BlockingIOError: if another call, perhaps in another process, holds it.
    """
    while True:
        with open(path, "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last holder may have removed the file after it was opened here.
            if not _is_same(path, file.fileno()):
                continue
            try:
                yield
            finally:
                with suppress(FileNotFoundError):
                    path.unlink()
            return


def _is_same(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
