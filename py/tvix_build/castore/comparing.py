# SPDX-License-Identifier: MIT
"""Compares trees of the castore."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from tvix_build.castore.store import CastoreStore

if TYPE_CHECKING:
    from tvix.castore.protos.castore_pb2 import Node


class Difference(NamedTuple):
    """A path at which two trees differ."""

    path: bytes
    """The path of the entry, relative to the root of the trees; empty for the root itself."""
    message: str
    """What differs, such as `expected a file, found a symlink`."""


def compare_nodes(castore: CastoreStore, expected: Node, found: Node) -> Iterator[Difference]:
    """Yield all paths at which two trees differ, ordered by name in each directory. The names of
    the nodes themselves are not compared, and contents are compared by digest: no blob is read.

    Raises:
        MissingError, CastoreError: if a Directory is missing or damaged.
    """
    # Pairs that are not compared yet, the next one last.
    waiting = [(b"", expected, found)]
    while waiting:
        path, first, second = waiting.pop()
        message = _describe(first, second)
        if message is not None:
            yield Difference(path, message)
        elif first.directory.digest != second.directory.digest:
            before = _entries(castore, first.directory.digest)
            after = _entries(castore, second.directory.digest)
            for name in sorted(before.keys() ^ after.keys()):
                message = "expected an entry, found none" if name in before else "unexpected entry"
                yield Difference(_join(path, name), message)
            waiting += [
                (_join(path, name), before[name], after[name])
                for name in sorted(before.keys() & after.keys(), reverse=True)
            ]


def _describe(expected: Node, found: Node) -> str | None:
    """Return how two nodes differ; None if they are equal, or both are directories."""
    kind, other = expected.WhichOneof("node"), found.WhichOneof("node")
    if kind != other:
        return f"expected a {kind}, found a {other}"
    if expected.symlink.target != found.symlink.target:
        target = _show(expected.symlink.target)
        return f"expected the target {target}, found {_show(found.symlink.target)}"
    if expected.file.digest != found.file.digest:
        return (
            f"contents differ: expected the blob {expected.file.digest.hex()}, "
            f"found {found.file.digest.hex()}"
        )
    if expected.file.executable != found.file.executable:
        name = ("a file that is not executable", "an executable file")
        return f"expected {name[expected.file.executable]}, found {name[found.file.executable]}"
    return None


def _show(target: bytes) -> str:
    return repr(target.decode(errors="backslashreplace"))


def _entries(castore: CastoreStore, digest: bytes) -> dict[bytes, Node]:
    from tvix.castore.protos.castore_pb2 import Node

    directory = castore.directory(digest)
    return {
        **{child.name: Node(directory=child) for child in directory.directories},
        **{child.name: Node(file=child) for child in directory.files},
        **{child.name: Node(symlink=child) for child in directory.symlinks},
    }


def _join(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path else name
