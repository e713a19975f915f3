# SPDX-License-Identifier: MIT
"""The names of incomplete files, which `remove_all` removes.

A signal may arrive between any two lines, also in a context manager. Therefore the name of a
temporary file is recorded before the file is created.
"""

from __future__ import annotations

import os
from contextlib import suppress

_names: set[str] = set()


def new(directory: str, name: str) -> str:
    """Return the path of a hidden file to create in `directory`. It contains `name`."""
    path = os.path.join(directory, f".{name[:200]}.{os.urandom(6).hex()}.tmp")
    _names.add(path)
    return path


def put(path: str, target: str) -> None:
    """Replace `target` with the file."""
    os.replace(path, target)
    _names.discard(path)


def remove(path: str) -> None:
    """Remove the file if it exists."""
    with suppress(OSError):
        os.unlink(path)
    _names.discard(path)


def remove_all() -> None:
    """Remove all files for which neither `put` nor `remove` has been called."""
    for path in list(_names):
        remove(path)
