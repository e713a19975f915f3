# SPDX-License-Identifier: MIT
"""Computes the hashes by which Nix fixes outputs, from castore nodes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TypeAlias

from tvix.castore.protos.castore_pb2 import DirectoryNode, FileNode, Node, SymlinkNode
from tvix_build.builders.reading import read_pieces
from tvix_build.castore import CastoreStore

_Member: TypeAlias = DirectoryNode | FileNode | SymlinkNode


def output_hash(castore: CastoreStore, node: Node, algorithm: str) -> str:
    """Return the hash of an output in lowercase base 16.

    Args:
        castore: the store with the contents of the node.
        node: the node of the output.
        algorithm: the algorithm as in a derivation: `sha256` for a file, `r:sha256` for any file
            system object.

    Raises:
        ValueError: if the algorithm is for a file and the node is not a file, or is executable.
        MissingError: if a blob or a Directory is not stored.
    """
    method, _, name = algorithm.rpartition(":")
    if method == "r":
        pieces = nar(castore, node)
    elif node.HasField("file") and not node.file.executable:
        pieces = read_pieces(castore.open_blob(node.file.digest))
    else:
        kind = "executable file" if node.HasField("file") else node.WhichOneof("node")
        raise ValueError(f"expected a file that is not executable, found {kind}")
    hasher = hashlib.new(name, usedforsecurity=False)
    for piece in pieces:
        hasher.update(piece)
    return hasher.hexdigest()


def nar(castore: CastoreStore, node: Node) -> Iterator[bytes]:
    """Yield the archive of a node in the format of Nix (NAR).

    Raises:
        MissingError: if a blob or a Directory is not stored.
    """
    yield _strings(b"nix-archive-1")
    ((_, root),) = node.ListFields()
    waiting: list[bytes | _Member] = [root]
    while waiting:
        one = waiting.pop()
        if isinstance(one, bytes):
            yield one
        elif isinstance(one, SymlinkNode):
            yield _strings(b"(", b"type", b"symlink", b"target", one.target, b")")
        elif isinstance(one, FileNode):
            yield _strings(b"(", b"type", b"regular")
            if one.executable:
                yield _strings(b"executable", b"")
            yield _strings(b"contents") + one.size.to_bytes(8, "little")
            yield from read_pieces(castore.open_blob(one.digest))
            yield bytes(-one.size % 8) + _strings(b")")
        else:
            yield _strings(b"(", b"type", b"directory")
            waiting.append(_strings(b")"))
            directory = castore.directory(one.digest)
            members: list[_Member] = [
                *directory.directories,
                *directory.files,
                *directory.symlinks,
            ]
            for member in sorted(members, key=lambda member: member.name, reverse=True):
                before = _strings(b"entry", b"(", b"name", member.name, b"node")
                waiting += _strings(b")"), member, before


def _strings(*values: bytes) -> bytes:
    """Return strings, each with its length before it, and padded to 8 bytes."""
    return b"".join(
        len(value).to_bytes(8, "little") + value + bytes(-len(value) % 8) for value in values
    )
