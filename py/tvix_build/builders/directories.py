# SPDX-License-Identifier: MIT
"""The directories of builds. A directory belongs to the process that holds the lock of the file
beside it; those of killed processes are removed by the next build."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BUILDS = "builds"
"""The directory of builds in the directory of a castore store."""
_LOCK = ".lock"


@contextmanager
def build_directory(parent: Path) -> Iterator[Path]:
    """Make a directory that nobody else can read, and remove it at the end, unless it has been
    renamed."""
    # Files in it may have any mode, and belong to the user that runs the builder.
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    remove_abandoned(parent)
    lock, path = _lock_new(parent)
    try:
        path.mkdir(mode=0o700)
        yield path
    finally:
        remove(path)
        path.with_suffix(_LOCK).unlink(missing_ok=True)
        os.close(lock)


def _lock_new(parent: Path) -> tuple[int, Path]:
    """Return a locked descriptor, and the path of the directory that it locks."""
    while True:
        path = parent / os.urandom(8).hex()
        name = path.with_suffix(_LOCK)
        lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.stat(name).st_ino == os.fstat(lock).st_ino:
                return lock, path
        os.close(lock)  # Another process took it for abandoned.


def remove_abandoned(parent: Path) -> None:
    """Remove the directories of processes that have ended."""
    for name in parent.glob(f"*{_LOCK}"):
        try:
            lock = os.open(name, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(name.with_suffix(""))
            name.unlink(missing_ok=True)
        except BlockingIOError:
            pass
        finally:
            os.close(lock)


def remove(path: Path) -> None:
    """Remove a directory of any depth and with any modes. Nothing happens if it is missing."""
    if not path.exists():
        return
    try:
        shutil.rmtree(path)
    except (OSError, RecursionError):
        subprocess.run(["chmod", "-R", "u+rwX", "--", str(path)], check=False)
        subprocess.run(["rm", "-rf", "--", str(path)], check=True)
