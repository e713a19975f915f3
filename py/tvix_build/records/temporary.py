# SPDX-License-Identifier: MIT
"""Names of files that are not whole yet, all of which `remove_all` removes.

A signal may come between any two lines, those of a context manager included, so what must not
outlive the program is written down before it is made.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress

_names: set[str] = set()


def new(folder: str, name: str) -> str:
    """The path of a hidden file to make in `folder`; `name` is to be seen in it."""
    path = os.path.join(folder, f".{name[:200]}.{secrets.token_hex(6)}.tmp")
    _names.add(path)
    return path


def put(path: str, target: str) -> None:
    """Have the file take the place of `target`."""
    os.replace(path, target)
    _names.discard(path)


def remove(path: str) -> None:
    """Remove the file if it was made."""
    with suppress(OSError):
        os.unlink(path)
    _names.discard(path)


def remove_all() -> None:
    """Remove what neither `put` nor `remove` has seen to its end."""
    for path in list(_names):
        remove(path)
