# SPDX-License-Identifier: MIT
"""A castore store with a server behind it. It needs grpcio: `pip install 'tvix-build[grpc]'`.

from tvix_build.castore.backed import BackedStore
from tvix_build.castore.client import CastoreClient

with (
    CastoreClient("grpc+http://127.0.0.1:8000") as client,
    BackedStore("store", client) as store,
):
    builder = SandboxBuilder(store)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from google.protobuf.message import Message

from tvix.castore.protos.castore_pb2 import Directory, FileNode, Node
from tvix_build._core.check import canonicalize
from tvix_build._core.ranges import BytesLike
from tvix_build._core.report import Kind
from tvix_build.castore.client import CastoreClient
from tvix_build.castore.garbage import Garbage
from tvix_build.castore.layout import LinkMethod, MissingError
from tvix_build.castore.sizes import DirectorySizes
from tvix_build.castore.store import CastoreStore, Closure

if TYPE_CHECKING:
    from snix.castore.protos import castore_pb2 as snix_castore_pb2
    from tvix.castore.protos import castore_pb2

__all__ = ["BackedStore"]

T = TypeVar("T")


class BackedStore(CastoreStore):
    """A castore store in a directory, with a castore server behind it. Use it as any other store.

    Objects that the directory lacks are read from the server, verified, and stored in the
    directory. What is added is stored in the directory first, then uploaded, unless the server has
    it: when a method returns, both have it. `find`, `verify` and `collect_garbage` only use the
    directory. Other methods also raise `grpc.RpcError` if a call of the server fails, and
    `UnexpectedContentError` if it returns other content.

    Args:
        path: the directory.
        server: the client of the server. The caller closes it.
        create: as for `CastoreStore`.
        directory_sizes: as for `CastoreStore`.

    Raises:
        CastoreError, ValueError: as `CastoreStore`.
    """

    def __init__(
        self,
        path: str | bytes | os.PathLike[str],
        server: CastoreClient,
        *,
        create: bool = True,
        directory_sizes: DirectorySizes | str = DirectorySizes.SPECIFIED,
    ) -> None:
        super().__init__(path, create=create, directory_sizes=directory_sizes)
        # Its methods do not read from the server while they hold a lock.
        self._local = CastoreStore(path, directory_sizes=directory_sizes)
        self._server = server

    def has_blob(self, digest: bytes) -> bool:
        """As `CastoreStore.has_blob`, also on the server."""
        return self._local.has_blob(digest) or self._server.has_blob(digest)

    def add_blob(self, data: BytesLike | BinaryIO, *, digest: bytes | None = None) -> bytes:
        """As `CastoreStore.add_blob`, also on the server."""
        found = self._local.add_blob(data, digest=digest)
        size = self._local.blob_size(found)
        self._server.upload(self._local, Node(file=FileNode(digest=found, size=size)))
        return found

    def open_blob(self, digest: bytes) -> BinaryIO:
        """As `CastoreStore.open_blob`."""
        return self._with_blob(self._local.open_blob, digest)

    def blob_size(self, digest: bytes) -> int:
        """As `CastoreStore.blob_size`."""
        return self._with_blob(self._local.blob_size, digest)

    def has_directory(self, digest: bytes) -> bool:
        """As `CastoreStore.has_directory`, also on the server."""
        if self._local.has_directory(digest):
            return True
        try:
            self._server.get_directories(digest)
        except MissingError:
            return False
        return True

    def add_directory(
        self, directory: BytesLike | Message, *, check_children: bool = True
    ) -> bytes:
        """As `CastoreStore.add_directory`, also on the server. The server gets all Directories of
        the tree: if one of them is stored nowhere, that is a MissingError even if children are not
        checked."""
        encoding = canonicalize(directory, kind=Kind.DIRECTORY)
        if check_children:
            self._check_children(Directory.FromString(encoding))
        digest = self._local.add_directory(encoding, check_children=False)
        self._server.upload_directories(self, digest)
        return digest

    def add_directories(self, directories: Iterable[BytesLike | Message]) -> bytes:
        """As `CastoreStore.add_directories`, also on the server."""
        digest = self._local.add_directories(directories)
        self._server.upload_directories(self, digest)
        return digest

    def directory(self, digest: bytes) -> castore_pb2.Directory:
        """As `CastoreStore.directory`."""
        try:
            return self._local.directory(digest)
        except MissingError:
            self._server.download_directories(digest, self._local)
            return self._local.directory(digest)

    def ingest(
        self,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        *,
        name: str | bytes | None = None,
        threads: int | None = None,
    ) -> castore_pb2.Node:
        """As `CastoreStore.ingest`, also on the server."""
        node = self._local.ingest(path, name=name, threads=threads)
        self._server.upload(self._local, node)
        return node

    def materialize(
        self,
        node: castore_pb2.Node | snix_castore_pb2.Entry,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        *,
        method: LinkMethod | str = LinkMethod.AUTO,
    ) -> None:
        """As `CastoreStore.materialize`."""
        try:
            self._local.materialize(node, path, method=method)
        except MissingError:
            self._server.download(node, self._local)
            self._local.materialize(node, path, method=method)

    @contextmanager
    def shared(
        self, nodes: Iterable[castore_pb2.Node | snix_castore_pb2.Entry]
    ) -> Iterator[list[str]]:
        """As `CastoreStore.shared`."""
        wanted = list(nodes)
        with ExitStack() as uses:
            try:
                paths = uses.enter_context(self._local.shared(wanted))
            except MissingError:
                for node in wanted:
                    self._server.download(node, self._local)
                paths = uses.enter_context(self._local.shared(wanted))
            yield paths

    def closure(self, node: castore_pb2.Node | snix_castore_pb2.Entry) -> Closure:
        """As `CastoreStore.closure`."""
        try:
            return self._local.closure(node)
        except MissingError:
            self._server.download(node, self._local)
            return self._local.closure(node)

    def collect_garbage(
        self,
        roots: Iterable[castore_pb2.Node | snix_castore_pb2.Entry],
        *,
        grace_seconds: float = 3600.0,
    ) -> Garbage:
        """As `CastoreStore.collect_garbage`, of the directory only."""
        return self._local.collect_garbage(roots, grace_seconds=grace_seconds)

    def close(self) -> None:
        """Close the store in the directory."""
        self._local.close()
        super().close()

    def _with_blob(self, function: Callable[[bytes], T], digest: bytes) -> T:
        try:
            return function(digest)
        except MissingError:
            self._server.download_blob(digest, self._local)
            return function(digest)
