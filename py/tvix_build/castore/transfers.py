# SPDX-License-Identifier: MIT
"""What a client sends to castore services, and what it receives, checked before it is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, cast

from google.protobuf.message import Message

from tvix.castore.protos import rpc_castore_pb2 as rpc
from tvix.castore.protos.castore_pb2 import Directory
from tvix_build._core.blake3 import blake3_many
from tvix_build._core.check import check
from tvix_build._core.ranges import BytesLike, bytes_view
from tvix_build._core.report import Error, Kind
from tvix_build.castore.layout import DigestMismatchError, SizeMismatchError, check_digest
from tvix_build.castore.sizes import DirectorySizes
from tvix_build.castore.store import CastoreStore
from tvix_build.castore.tree_checks import TreeCheck
from tvix_build.castore.writing import temporary_file

PIECE = 1 << 20
"""The largest part of a blob in a message and in memory, in bytes."""


class UnexpectedContentError(Error):
    """A server returned content that does not have the requested digest or size, or the digest of
    other content than that of an upload."""


class Received:
    """The Directories of a response."""

    def __init__(self, digest: bytes, recursive: bool) -> None:
        self.request: rpc.GetDirectoryRequest = rpc.GetDirectoryRequest(
            digest=check_digest(digest), recursive=recursive
        )
        self._recursive = recursive
        self._missing = {digest}
        self._found: dict[bytes, Directory] = {}

    def add(self, encoding: bytes) -> None:
        """Add the next Directory."""
        report = check(encoding, kind=Kind.DIRECTORY)
        if not report.valid or report.digest not in self._missing:
            raise UnexpectedContentError(
                "expected a Directory that was requested, found "
                + (report.digest.hex() if report.digest else str(report.violations[0]))
            )
        directory = Directory.FromString(encoding)
        self._found[report.digest] = directory
        self._missing.remove(report.digest)
        if self._recursive:
            children = {child.digest for child in directory.directories}
            self._missing |= children - self._found.keys()

    def finish(self) -> dict[bytes, Directory]:
        """Return all Directories by digest."""
        if self._missing:
            digest = min(self._missing).hex()
            raise UnexpectedContentError(f"expected also the Directory {digest}, found none")
        return self._found


class Download:
    """The objects of a node of which a store may lack some."""

    def __init__(self, store: CastoreStore, node: Any) -> None:
        self._store = store
        self._node = node
        self._roots = [node.directory.digest] if node.HasField("directory") else []
        self._fetched: dict[bytes, Directory] = {}
        self._blobs = {node.file.digest: node.file.size} if node.HasField("file") else {}

    def add(self, directories: dict[bytes, Directory]) -> None:
        """Add downloaded Directories."""
        self._fetched.update(directories)

    def missing_directories(self) -> Iterator[bytes]:
        """Yield the digest of each missing tree, which must be added before the next one."""
        waiting = list(self._roots)
        seen = set()
        while waiting:
            digest = waiting.pop()
            if digest in seen:
                continue
            seen.add(digest)
            if digest not in self._fetched and not self._store.has_directory(digest):
                yield digest
            directory = self._directory(digest)
            for file in directory.files:
                size = self._blobs.setdefault(file.digest, file.size)
                _check_size(file.digest, file.size, size)
            waiting.extend(child.digest for child in directory.directories)

    def missing_blobs(self) -> list[bytes]:
        """Return the digests of missing blobs, after checking the sizes of the others."""
        missing = []
        for digest, size in self._blobs.items():
            if self._store.has_blob(digest):
                _check_size(digest, size, self._store.blob_size(digest))
            else:
                missing.append(digest)
        return missing

    def blob(self, digest: bytes) -> DownloadedBlob:
        """Return a blob to fill."""
        return DownloadedBlob(self._store, digest, self._blobs[digest])

    def store_directories(self) -> None:
        """Store the downloaded Directories."""
        if self._fetched:
            self._store.add_directories(leaves_first(self._roots, self._directory))

    def finish(self) -> None:
        """Store the downloaded Directories, and check the whole."""
        self.store_directories()
        self._store.closure(self._node)

    def _directory(self, digest: bytes) -> Directory:
        found = self._fetched.get(digest)
        return self._store.directory(digest) if found is None else found


def leaves_first(
    roots: Iterable[bytes], directory: Callable[[bytes], Directory]
) -> Iterator[Directory]:
    """Yield all Directories below some, each once and after those to which it refers.

    Args:
        roots: the digests of the Directories.
        directory: returns a Directory by its digest.
    """
    waiting = [(digest, False) for digest in roots]
    seen = set()
    while waiting:
        digest, finished = waiting.pop()
        if finished:
            yield directory(digest)
        elif digest not in seen:
            seen.add(digest)
            waiting.append((digest, True))
            waiting.extend((child.digest, False) for child in directory(digest).directories)


class DownloadedBlob:
    """A blob that is being downloaded: in memory if it is small, else in a file.

    Args:
        store: the store.
        digest: the digest of the blob.
        size: its size, or None if it is unknown.

    Attributes:
        digest: the digest of the blob.
    """

    def __init__(self, store: CastoreStore, digest: bytes, size: int | None = None) -> None:
        self._store = store
        self.digest = digest
        self._size = size
        self._found = 0
        self._file = temporary_file(PIECE, store.path)

    def write(self, piece: bytes) -> None:
        """Add a piece."""
        self._found += len(piece)
        if self._size is not None and self._found > self._size:
            raise self._another_size(self._size)
        self._file.write(piece)

    def finish(self) -> None:
        """Store the blob."""
        if self._size is not None and self._found != self._size:
            raise self._another_size(self._size)
        self._file.seek(0)
        try:
            self._store.add_blob(self._file, digest=self.digest)
        except DigestMismatchError as error:
            raise UnexpectedContentError(str(error)) from None

    def _another_size(self, size: int) -> UnexpectedContentError:
        return UnexpectedContentError(
            f"blob {self.digest.hex()}: expected {size} bytes, found "
            f"{'more' if self._found > size else self._found}"
        )

    def __enter__(self) -> DownloadedBlob:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _check_size(digest: bytes, expected: int, found: int) -> None:
    if expected != found:
        raise SizeMismatchError(
            f"blob {digest.hex()}: expected size {expected}, as in a node, found {found}"
        )


def blob_chunks(data: BytesLike | BinaryIO) -> Iterator[rpc.BlobChunk]:
    """Yield the messages of an upload of a blob."""
    view = bytes_view(data)
    if view is not None:
        for i in range(0, len(view), PIECE):
            yield rpc.BlobChunk(data=bytes(view[i : i + PIECE]))
        return
    while piece := cast(BinaryIO, data).read(PIECE):
        yield rpc.BlobChunk(data=piece)


def tree_encodings(store: CastoreStore, digest: bytes) -> Iterator[bytes]:
    """Yield the Directories of a tree in a store, leaves first."""
    for directory in leaves_first([digest], store.directory):
        yield directory.SerializeToString(deterministic=True)


def checked_tree(
    directories: Iterable[BytesLike | Message], sizes: DirectorySizes
) -> tuple[list[bytes], bytes]:
    """Return the canonical encodings of all Directories of a tree, and the digest of the root.

    Raises:
        TreeError: if they are not those of one tree.
    """
    tree = TreeCheck(sizes)
    encodings = [tree.add(directory)[1] for directory in directories]
    return encodings, tree.finish()


def checked_blob(data: BytesLike | BinaryIO, response: rpc.PutBlobResponse) -> bytes:
    """Return the digest in the response to an upload. If the contents were bytes, it is checked.

    Raises:
        UnexpectedContentError: if it is another one.
    """
    view = bytes_view(data)
    if view is None:
        return response.digest
    return checked_digest("blob", blake3_many([view]).tobytes(), response.digest)


def checked_content(digest: bytes, content: bytes) -> bytes:
    """Return content, which has a digest.

    Raises:
        UnexpectedContentError: if it has another one.
    """
    checked_digest("blob", digest, blake3_many([content]).tobytes())
    return content


def checked_digest(what: str, expected: bytes, found: bytes) -> bytes:
    """Return a digest, which is the expected one.

    Raises:
        UnexpectedContentError: if it is another one.
    """
    if found != expected:
        raise UnexpectedContentError(
            f"expected the {what} {expected.hex()}, found {found.hex() or 'no digest'}"
        )
    return found
