# SPDX-License-Identifier: MIT
"""Digests of the Remote Execution API of what a castore has by BLAKE3 digest."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from reapi.protos import remote_execution_pb2 as reapi
from tvix_build._core.blake3 import blake3_many
from tvix_build.builders.interface import RefusedError
from tvix_build.builders.reading import read_pieces

if TYPE_CHECKING:
    from typing import TypeAlias

    from snix.castore.protos.castore_pb2 import FileEntry
    from tvix.castore.protos import castore_pb2

    FileNode: TypeAlias = castore_pb2.FileNode | FileEntry

_BUSY_SECONDS = 60.0
_BLOB, _DIRECTORY, _TREE = range(3)
_CREATE = """
CREATE TABLE IF NOT EXISTS digest (
    kind INTEGER NOT NULL,
    castore BLOB NOT NULL,
    hash TEXT NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (kind, castore)
) WITHOUT ROWID
"""
_INDEX = "CREATE INDEX IF NOT EXISTS by_hash ON digest (hash, kind)"


class DigestFunction(Enum):
    """A digest function of the Remote Execution API, by its number there."""

    SHA256 = reapi.DigestFunction.SHA256
    BLAKE3 = reapi.DigestFunction.BLAKE3

    def digest(self, data: bytes) -> reapi.Digest:
        """Return the digest of a message or a blob."""
        if self is DigestFunction.BLAKE3:
            found = blake3_many([data])[0].hex()
        else:
            found = hashlib.sha256(data).hexdigest()
        return reapi.Digest(hash=found, size_bytes=len(data))


class Castore(Protocol):
    """What this package reads from a castore. `tvix_build.castore.CastoreStore` is one."""

    def directory(self, digest: bytes) -> castore_pb2.Directory:
        """Return the Directory with a digest."""

    def open_blob(self, digest: bytes) -> BinaryIO:
        """Return an open file with the contents of a blob."""


class DigestTable:
    """The digests of blobs and Directories of a castore in one digest function, in an SQLite file
    that several processes and threads may share. It is a cache: it can be deleted at any time.

    Args:
        function: the digest function.
        path: the file; None for a table in memory.
    """

    def __init__(
        self, function: DigestFunction, path: str | os.PathLike[str] | None = None
    ) -> None:
        self.function = function
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(
            ":memory:" if path is None else os.fspath(path),
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        # Two new tables at the same time: the second one waits for the first one here.
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute(_CREATE)
        self._connection.execute(_INDEX)

    def find(self, kind: int, castore: bytes) -> reapi.Digest | None:
        """Return the digest of a blob or Directory, if the table has it."""
        rows = self._run(
            "SELECT hash, size FROM digest WHERE kind = ? AND castore = ?", kind, castore
        )
        return reapi.Digest(hash=rows[0][0], size_bytes=rows[0][1]) if rows else None

    def find_blob(self, digest: reapi.Digest) -> bytes | None:
        """Return the BLAKE3 digest of a blob, if it is known."""
        if self.function is DigestFunction.BLAKE3:
            return bytes.fromhex(digest.hash)
        return self._find_castore(_BLOB, digest)

    def find_tree(self, digest: reapi.Digest) -> bytes | None:
        """Return the castore digest of the root of a Tree, if it is known."""
        return self._find_castore(_TREE, digest)

    def _find_castore(self, kind: int, digest: reapi.Digest) -> bytes | None:
        rows = self._run(
            "SELECT castore FROM digest WHERE hash = ? AND size = ? AND kind = ?",
            *(digest.hash, digest.size_bytes, kind),
        )
        return bytes(rows[0][0]) if rows else None

    def add(self, kind: int, pairs: Iterable[tuple[bytes, reapi.Digest]]) -> None:
        """Add the digests of blobs or Directories."""
        rows = [(kind, castore, digest.hash, digest.size_bytes) for castore, digest in pairs]
        with self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT OR IGNORE INTO digest VALUES (?, ?, ?, ?)", rows)

    def add_blobs(self, pairs: Iterable[tuple[bytes, reapi.Digest]]) -> None:
        """Add the digests of blobs."""
        if self.function is not DigestFunction.BLAKE3:
            self.add(_BLOB, pairs)

    def add_trees(self, pairs: Iterable[tuple[bytes, reapi.Digest]]) -> None:
        """Add the castore digests of roots, with the digests of their Trees."""
        self.add(_TREE, pairs)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> DigestTable:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()


class Digests:
    """Digests of a castore's blobs and Directories. New ones are computed once, and then are in
    the table. One thread at a time may use an object; leaving its context writes the table.

    Args:
        castore: the castore.
        table: the table, whose digest function is used.
    """

    def __init__(self, castore: Castore, table: DigestTable) -> None:
        self.function: DigestFunction = table.function
        self._castore = castore
        self._table = table
        self._new: dict[int, dict[bytes, reapi.Digest]] = {_BLOB: {}, _DIRECTORY: {}}

    def __enter__(self) -> Digests:
        return self

    def __exit__(self, *_: object) -> None:
        for kind, pairs in self._new.items():
            if pairs:
                self._table.add(kind, pairs.items())
                pairs.clear()

    def of_file(self, node: FileNode) -> reapi.Digest:
        """Return the digest of a blob. BLAKE3 digests are those of the castore."""
        if self.function is DigestFunction.BLAKE3:
            return reapi.Digest(hash=node.digest.hex(), size_bytes=node.size)
        found = self._find(_BLOB, node.digest)
        if found is None:
            found = self._new[_BLOB][node.digest] = self._hash_blob(node.digest)
        return found

    def of_directory(self, digest: bytes) -> reapi.Digest:
        """Return the digest of the message that represents a Directory.

        Raises:
            RefusedError: if a name or a target below is not UTF-8.
        """
        stack = [digest]
        while stack:
            if self._find(_DIRECTORY, stack[-1]) is not None:
                stack.pop()
                continue
            directory = self._castore.directory(stack[-1])
            below = [one.digest for one in directory.directories]
            unknown = [one for one in below if self._find(_DIRECTORY, one) is None]
            if unknown:
                stack += unknown
            else:
                encoding = self.encode(directory)
                self._new[_DIRECTORY][stack.pop()] = self.function.digest(encoding)
        found = self._find(_DIRECTORY, digest)
        assert found is not None
        return found

    def encode(self, directory: castore_pb2.Directory) -> bytes:
        """Return the encoding of the message that represents a Directory.

        Raises:
            RefusedError: if a name or a target is not UTF-8.
        """
        message = reapi.Directory()
        for file in directory.files:
            message.files.append(self.file(text(file.name, "name"), file))
        for child in directory.directories:
            message.directories.add(
                name=text(child.name, "name"), digest=self.of_directory(child.digest)
            )
        for link in directory.symlinks:
            message.symlinks.add(name=text(link.name, "name"), target=text(link.target, "target"))
        return message.SerializeToString(deterministic=True)

    def file(self, name: str, node: FileNode) -> reapi.FileNode:
        """Return the message that represents a file."""
        return reapi.FileNode(name=name, digest=self.of_file(node), is_executable=node.executable)

    def _find(self, kind: int, digest: bytes) -> reapi.Digest | None:
        return self._new[kind].get(digest) or self._table.find(kind, digest)

    def _hash_blob(self, digest: bytes) -> reapi.Digest:
        sha256 = hashlib.sha256()
        size = 0
        for piece in read_pieces(self._castore.open_blob(digest)):
            sha256.update(piece)
            size += len(piece)
        return reapi.Digest(hash=sha256.hexdigest(), size_bytes=size)


def text(value: bytes, what: str, field: str = "inputs") -> str:
    """Return bytes of a message as a string.

    Raises:
        RefusedError: if they are not UTF-8.
    """
    try:
        return value.decode()
    except UnicodeDecodeError:
        reason = f"{field}: Remote Execution has only UTF-8, found the {what} {value!r}"
        raise RefusedError([reason]) from None
