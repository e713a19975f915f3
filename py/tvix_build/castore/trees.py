# SPDX-License-Identifier: MIT
"""Materialized Directories that all users of a store share.

    trees/DD/D{62}/     the files and directories of a Directory, complete
    uses/RANDOM         the digests that a process uses, which holds the lock of this file

A tree is made once and never changed. Garbage collection keeps what is in use.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

from tvix_build._core import file_hashing
from tvix_build._core.engine import DIGEST_SIZE
from tvix_build.castore.layout import DIGITS, FIRST, Layout, opened, place

TREES = "trees"
_USES = "uses"


def tree_path(digest: bytes) -> str:
    """Return the path of a tree within the directory of the store."""
    return f"{TREES}/{place(digest)}"


def make_trees(
    layout: Layout, paths: Mapping[bytes, str], make_tree: Callable[[bytes, bytes], None]
) -> None:
    """Make the trees of Directories that have none yet, and protect all these Directories from
    garbage collection for now. The caller shares the lock of the store.

    Args:
        layout: the store.
        paths: the path of each tree, as of `tree_path`, by digest.
        make_tree: makes the tree at a path of the Directory with a digest.

    Raises:
        MissingError: if a blob or a Directory is not stored.
    """
    store = _absolute(layout, "")
    missing = []
    with opened(store) as directory:
        for digest, path in paths.items():
            if not layout.touch("directories", digest):
                raise layout.missing("directories", digest)
            if not os.access(path, os.F_OK, dir_fd=directory):
                missing.append(digest)
    if not missing:
        return
    made = _absolute(layout, f"incoming/{secrets.token_hex(8)}")
    os.mkdir(made, 0o700)
    try:
        for digest in missing:
            make_tree(os.fsencode(f"{made}/{digest.hex()}"), digest)
        # A tree must be complete after a crash of the machine, too.
        file_hashing.sync(layout.incoming)
        for digest in missing:
            _show(f"{made}/{digest.hex()}", store + paths[digest])
    finally:
        shutil.rmtree(made)


def _show(made: str, tree: str) -> None:
    os.makedirs(os.path.dirname(tree), exist_ok=True)
    try:
        os.rename(made, tree)
    except OSError as error:
        # Another process has made the same tree.
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise


@contextmanager
def in_use(layout: Layout, digests: Iterable[bytes]) -> Iterator[None]:
    """Keep blobs and Directories, and all that these refer to, from garbage collection. The caller
    shares the lock of the store when it enters the context."""
    os.makedirs(_absolute(layout, _USES), exist_ok=True)
    path = _absolute(layout, f"{_USES}/{secrets.token_hex(8)}")
    with open(path, "xb", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            file.write(b"".join(digests))
            yield
        finally:
            os.unlink(path)


def find_used(layout: Layout) -> set[bytes]:
    """Return the digests that are in use, and remove the files of processes that have ended. The
    caller holds the exclusive lock of the store."""
    found: set[bytes] = set()
    for name in _names(layout, _USES):
        path = _absolute(layout, f"{_USES}/{name}")
        with suppress(FileNotFoundError), open(path, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)
            except BlockingIOError:
                data = file.read()
                found |= {data[i : i + DIGEST_SIZE] for i in range(0, len(data), DIGEST_SIZE)}
    return found


def remove_trees(layout: Layout, kept: set[bytes]) -> None:
    """Move the trees of other Directories to `incoming`, which is cleared later: a tree that is
    partly removed must not be found. The caller holds the exclusive lock of the store."""
    for digest, path in trees(layout):
        if digest not in kept:
            os.rename(path, _absolute(layout, f"incoming/{secrets.token_hex(8)}"))


def trees(layout: Layout) -> Iterator[tuple[bytes, str]]:
    """Yield the digests and the paths of all trees."""
    for first in filter(FIRST.fullmatch, _names(layout, TREES)):
        for name in filter(DIGITS.fullmatch, _names(layout, f"{TREES}/{first}")):
            yield bytes.fromhex(first + name), _absolute(layout, f"{TREES}/{first}/{name}")


def _names(layout: Layout, name: str) -> list[str]:
    try:
        return os.listdir(_absolute(layout, name))
    except FileNotFoundError:
        return []


def _absolute(layout: Layout, name: str) -> str:
    return os.path.join(layout.path, name)
