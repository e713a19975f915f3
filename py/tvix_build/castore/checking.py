# SPDX-License-Identifier: MIT
"""Finds damage in a castore store."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from tvix_build._core import file_hashing
from tvix_build._core.check import check
from tvix_build._core.report import Kind
from tvix_build.castore.ingestion import ChangedError, IngestError, node_from_path
from tvix_build.castore.layout import DIGITS, KINDS, MODES, KindName, Layout, MissingError, opened
from tvix_build.castore.trees import trees
from tvix_build.castore.writing import hash_file

_PIECE = 64  # files that are hashed together
_READINGS = 100  # of a tree whose files change


@dataclass(frozen=True)
class Damage:
    """A damaged file or tree of a store."""

    path: str
    """The path of the file or tree."""
    digest: bytes | None
    """The digest under which it is stored; None if its name is not that of a digest."""
    message: str
    """A text with what was expected and what was found."""


def find_damage(layout: Layout) -> Iterator[Damage]:
    """Yield all damage of a store."""
    for kind in KINDS:
        for first in layout.shards(kind):
            with opened(first, layout.kinds[kind]) as directory:
                yield from _in_directory(layout, kind, first, directory)
    for digest, path in trees(layout):
        message = _tree_damage(digest, path)
        if message:
            yield Damage(path, digest, message)


def _tree_damage(digest: bytes, path: str) -> str:
    """Return the damage of a tree; "" if it has none."""
    for left in reversed(range(_READINGS)):
        try:
            found = node_from_path(path)
            break
        except ChangedError as error:
            # Whoever finds a blob also changes the status of its file, a hard link.
            if not left:
                return f"cannot be read: {error}"
        except (OSError, IngestError) as error:
            return f"cannot be read: {error}"
    if found.directory.digest != digest:
        return f"expected the tree of this Directory, found {found.directory.digest.hex()}"
    return ""


def _in_directory(layout: Layout, kind: KindName, first: str, directory: int) -> Iterator[Damage]:
    names = []
    place = os.path.join(layout.path, kind, first)
    for name in sorted(os.listdir(directory)):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if not DIGITS.fullmatch(name) or not stat.S_ISREG(status.st_mode):
            message = "expected a regular file with 62 hexadecimal digits as its name"
            yield Damage(os.path.join(place, name), None, message)
            continue
        names.append(name)
        mode = stat.S_IMODE(status.st_mode)
        if mode != MODES[kind]:
            message = f"expected mode {MODES[kind]:o}, found {mode:o}"
            yield Damage(os.path.join(place, name), bytes.fromhex(first + name), message)
    for i in range(0, len(names), _PIECE):
        for name, found in _digests(directory, names[i : i + _PIECE]):
            digest = bytes.fromhex(first + name)
            message = ""
            if isinstance(found, str):
                message = found
            elif found != digest:
                message = f"expected this digest, found {found.hex()}"
            elif kind == "directories":
                message = _directory_damage(layout, directory, name)
            if message:
                yield Damage(os.path.join(place, name), digest, message)


def _digests(directory: int, names: list[str]) -> Iterator[tuple[str, bytes | str]]:
    """Yield names with digests, or with the reason why a file cannot be read."""
    found = file_hashing.hash_files(directory, [os.fsencode(name) for name in names])
    size = file_hashing.HASH_SIZE
    for i, name in enumerate(names):
        if not found.statuses[i]:
            yield name, found.digests[i * size : (i + 1) * size]
            continue
        try:
            yield name, hash_file(directory, name).digest
        except (OSError, file_hashing.ChangedError) as error:
            yield name, f"cannot be read: {getattr(error, 'strerror', None) or error}"


def _directory_damage(layout: Layout, directory: int, name: str) -> str:
    """Return the damage of a Directory that has the right digest; "" if it has none."""
    from tvix.castore.protos.castore_pb2 import Directory

    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(name, flags, dir_fd=directory), "rb") as file:
        encoding = file.read()
    report = check(encoding, kind=Kind.DIRECTORY)
    if not report.canonical:
        return "expected a canonical Directory, found another encoding or an invalid one"
    message = Directory.FromString(encoding)
    try:
        for node in message.files:
            layout.size("blobs", node.digest)
        for child in message.directories:
            layout.size("directories", child.digest)
    except MissingError as error:
        return f"refers to a missing object with the digest {error.digest.hex()}"
    return ""
