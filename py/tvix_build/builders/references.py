# SPDX-License-Identifier: MIT
"""Finds references in castore nodes."""

from __future__ import annotations

from collections.abc import Sequence

from tvix.castore.protos import castore_pb2
from tvix_build._core.references import ReferenceScanner
from tvix_build.builders.reading import read_pieces
from tvix_build.castore import CastoreStore


def scan_node(
    castore: CastoreStore, node: castore_pb2.Node, needles: Sequence[str | bytes]
) -> list[int]:
    """Return the indices of the needles in the contents, targets and names of a node.

    Raises:
        MissingError: if a blob or a Directory is not stored.
    """
    if not needles:
        return []
    scanner = ReferenceScanner(needles)
    root = castore_pb2.Directory()
    if node.HasField("directory"):
        root = castore.directory(node.directory.digest)
    elif node.HasField("file"):
        _scan_blob(castore, scanner, node.file.digest)
    else:
        scanner.scan(node.symlink.target)
    scanner.end_stream()
    waiting = [root]
    done: set[bytes] = set()
    while waiting:
        directory = waiting.pop()
        for link in directory.symlinks:
            scanner.scan(link.name)
            scanner.end_stream()
            scanner.scan(link.target)
            scanner.end_stream()
        for file in directory.files:
            scanner.scan(file.name)
            scanner.end_stream()
            if file.digest not in done:
                done.add(file.digest)
                _scan_blob(castore, scanner, file.digest)
        for child in directory.directories:
            scanner.scan(child.name)
            scanner.end_stream()
            if child.digest not in done:
                done.add(child.digest)
                waiting.append(castore.directory(child.digest))
    return scanner.found


def _scan_blob(castore: CastoreStore, scanner: ReferenceScanner, digest: bytes) -> None:
    for piece in read_pieces(castore.open_blob(digest)):
        scanner.scan(piece)
    scanner.end_stream()
