# SPDX-License-Identifier: MIT
"""Clients of the castore services, such as those of `tvix-build serve --castore`. They need grpcio:
`pip install 'tvix-build[grpc]'`.

    from tvix_build.castore import CastoreStore
    from tvix_build.castore.client import CastoreClient

    with CastoreStore("store") as store, CastoreClient("grpc+http://127.0.0.1:8000") as client:
        client.upload(store, store.ingest("source"))

Everything that a client returns or stores has the digest that was requested. If a call fails, the
client raises gRPC's own `grpc.RpcError`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

import grpc
from google.protobuf.message import Message

from tvix.castore.protos import rpc_castore_pb2 as rpc
from tvix.castore.protos.castore_pb2 import Directory
from tvix_build import Schema
from tvix_build._core.blake3 import blake3_many
from tvix_build._core.check import check
from tvix_build._core.ranges import BytesLike, bytes_view
from tvix_build._core.report import Error, Kind, SchemaLike
from tvix_build.castore.layout import (
    DigestMismatchError,
    MissingError,
    SizeMismatchError,
    check_digest,
)
from tvix_build.castore.store import CastoreStore, Closure
from tvix_build.castore.tree_checks import TreeCheck
from tvix_build.proxy.shared.channels import MAX_MESSAGE_SIZE
from tvix_build.proxy.shared.connecting import open_async_channel, open_channel
from tvix_build.proxy.shared.services import SERVICES

if TYPE_CHECKING:
    from snix.castore.protos import castore_pb2 as snix_castore_pb2
    from tvix.castore.protos import castore_pb2

__all__ = ["AsyncCastoreClient", "CastoreClient", "UnexpectedContentError"]

T = TypeVar("T")

_PIECE = 1 << 20  # of a blob, in a message and in memory
_CALLS = 16  # blobs that are uploaded or downloaded at the same time


class UnexpectedContentError(Error):
    """A server returned content that does not have the requested digest or size, or the digest of
    other content than that of an upload."""


class CastoreClient:
    """A client of the castore services. It is safe to use from several threads. Close it, or use it
    as a context manager.

    Args:
        address: the address of the server: `grpc+http://HOST:PORT`, `grpc+https://HOST:PORT` or
            `grpc+unix:/PATH`.
        schema: the schema of the build service that belongs to the castore services:
            `tvix.castore.v1` belongs to those of tvix, `snix.castore.v1` to that of snix.
        credentials: the TLS credentials, for `grpc+https` only. The default trusts the certificate
            authorities that gRPC trusts.
        timeout: the limit of time of each call in seconds; None for no limit.

    Raises:
        ValueError: if the address has none of these forms, the schema is unknown, or `credentials`
            are given for an address without TLS.
    """

    def __init__(
        self,
        address: str,
        *,
        schema: SchemaLike = Schema.TVIX_BUILD_V1,
        credentials: grpc.ChannelCredentials | None = None,
        timeout: float | None = None,
    ) -> None:
        package = SERVICES[Schema(schema)].castore
        self._channel = open_channel(address, credentials, MAX_MESSAGE_SIZE)
        self._calls = _Calls(self._channel, package)
        self._timeout = timeout

    def has_blob(self, digest: bytes) -> bool:
        """Return whether the server has a blob.

        Raises:
            grpc.RpcError: if the call fails.
        """
        request = rpc.StatBlobRequest(digest=check_digest(digest))
        try:
            self._calls.stat(request, timeout=self._timeout)
        except grpc.RpcError as error:
            if _is_missing(error):
                return False
            raise
        return True

    def put_blob(self, data: BytesLike | BinaryIO) -> bytes:
        """Upload a blob, and return its digest.

        Args:
            data: the contents, or a binary file, which is read to its end. Of a file, the digest is
                that of the server.

        Raises:
            UnexpectedContentError: if the server returns another digest than that of the contents.
            grpc.RpcError: if the call fails.
        """
        return _checked_blob(data, self._calls.put_blob(_chunks(data), timeout=self._timeout))

    def get_blob(self, digest: bytes) -> bytes:
        """Return the contents of a blob, in memory. `download` does not need memory for them.

        Raises:
            MissingError: if the server lacks the blob.
            UnexpectedContentError: if the server returns other contents.
            grpc.RpcError: if the call fails.
        """
        return _checked_content(digest, b"".join(self._read(digest)))

    def put_directories(self, directories: Iterable[BytesLike | Message]) -> bytes:
        """Upload all Directories of a tree, and return the digest of the root.

        Args:
            directories: the Directories, leaves first and the root last.

        Raises:
            TreeError: if they are not those of one tree. They are not uploaded.
            UnexpectedContentError: if the server returns another digest.
            grpc.RpcError: if the call fails.
        """
        encodings, root = _checked_tree(directories)
        found = self._calls.put_directories(iter(encodings), timeout=self._timeout)
        return _same("Directory", root, found.root_digest)

    def get_directories(
        self, digest: bytes, *, recursive: bool = False
    ) -> dict[bytes, castore_pb2.Directory]:
        """Return a Directory by its digest; with `recursive` all Directories of the tree.

        Raises:
            MissingError: if the server lacks the Directory.
            UnexpectedContentError: if the server returns other or incomplete Directories.
            grpc.RpcError: if the call fails.
        """
        received = _Received(digest, recursive)
        try:
            for encoding in self._calls.get_directories(received.request, timeout=self._timeout):
                received.add(encoding)
        except grpc.RpcError as error:
            raise _error("Directory", digest, error) from None
        return received.finish()

    def upload(self, store: CastoreStore, node: castore_pb2.Node | snix_castore_pb2.Entry) -> None:
        """Upload all that a node consists of, unless the server has it.

        Raises:
            MissingError, SizeMismatchError, CastoreError: as `CastoreStore.closure`.
            UnexpectedContentError: if the server returns another digest.
            grpc.RpcError: if a call fails.
        """
        closure = store.closure(node)

        def put(digest: bytes) -> None:
            if not self.has_blob(digest):
                with store.open_blob(digest) as file:
                    _same("blob", digest, self.put_blob(file))

        _run_all(put, closure.blobs)
        if closure.directories:
            root = next(reversed(closure.directories))
            try:
                self.get_directories(root)
            except MissingError:
                encodings = _encodings(store, closure)
                found = self._calls.put_directories(encodings, timeout=self._timeout)
                _same("Directory", root, found.root_digest)

    def download(
        self, node: castore_pb2.Node | snix_castore_pb2.Entry, store: CastoreStore
    ) -> None:
        """Store all that a node consists of. Only what the store lacks is downloaded. The
        Directories of missing trees are in memory until the end. After an error, the store may
        have some blobs more.

        Raises:
            MissingError: if the server lacks an object.
            UnexpectedContentError: if the server returns other content.
            SizeMismatchError: if a node has another size than the object to which it refers.
            grpc.RpcError: if a call fails.
        """
        download = _Download(store, node)
        for digest in download.missing_directories():
            download.add(self.get_directories(digest, recursive=True))

        def get(digest: bytes) -> None:
            with download.blob(digest) as blob:
                for piece in self._read(digest):
                    blob.write(piece)
                blob.finish()

        _run_all(get, download.missing_blobs())
        download.finish()

    def _read(self, digest: bytes) -> Iterator[bytes]:
        request = rpc.ReadBlobRequest(digest=check_digest(digest))
        try:
            for chunk in self._calls.read(request, timeout=self._timeout):
                yield chunk.data
        except grpc.RpcError as error:
            raise _error("blob", digest, error) from None

    def close(self) -> None:
        """Close the connection and cancel the running calls."""
        self._channel.close()

    def __enter__(self) -> CastoreClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncCastoreClient:
    """As `CastoreClient`, for asyncio. Create, use and close it within one event loop. Files are
    read and written in threads."""

    def __init__(
        self,
        address: str,
        *,
        schema: SchemaLike = Schema.TVIX_BUILD_V1,
        credentials: grpc.ChannelCredentials | None = None,
        timeout: float | None = None,
    ) -> None:
        package = SERVICES[Schema(schema)].castore
        self._channel = open_async_channel(address, credentials, MAX_MESSAGE_SIZE)
        self._calls = _Calls(self._channel, package)
        self._timeout = timeout

    async def has_blob(self, digest: bytes) -> bool:
        """As `CastoreClient.has_blob`."""
        request = rpc.StatBlobRequest(digest=check_digest(digest))
        try:
            await self._calls.stat(request, timeout=self._timeout)
        except grpc.RpcError as error:
            if _is_missing(error):
                return False
            raise
        return True

    async def put_blob(self, data: BytesLike | BinaryIO) -> bytes:
        """As `CastoreClient.put_blob`."""
        chunks = _in_threads(_chunks(data))
        return _checked_blob(data, await self._calls.put_blob(chunks, timeout=self._timeout))

    async def get_blob(self, digest: bytes) -> bytes:
        """As `CastoreClient.get_blob`."""
        pieces = [piece async for piece in self._read(digest)]
        return _checked_content(digest, b"".join(pieces))

    async def put_directories(self, directories: Iterable[BytesLike | Message]) -> bytes:
        """As `CastoreClient.put_directories`."""
        encodings, root = await asyncio.to_thread(_checked_tree, directories)
        found = await self._calls.put_directories(iter(encodings), timeout=self._timeout)
        return _same("Directory", root, found.root_digest)

    async def get_directories(
        self, digest: bytes, *, recursive: bool = False
    ) -> dict[bytes, castore_pb2.Directory]:
        """As `CastoreClient.get_directories`."""
        received = _Received(digest, recursive)
        call = self._calls.get_directories(received.request, timeout=self._timeout)
        try:
            async for encoding in call:
                received.add(encoding)
        except grpc.RpcError as error:
            raise _error("Directory", digest, error) from None
        finally:
            call.cancel()
        return received.finish()

    async def upload(
        self, store: CastoreStore, node: castore_pb2.Node | snix_castore_pb2.Entry
    ) -> None:
        """As `CastoreClient.upload`."""
        closure = await asyncio.to_thread(store.closure, node)

        async def put(digest: bytes) -> None:
            if not await self.has_blob(digest):
                with store.open_blob(digest) as file:
                    _same("blob", digest, await self.put_blob(file))

        await _await_all(put, closure.blobs)
        if closure.directories:
            root = next(reversed(closure.directories))
            try:
                await self.get_directories(root)
            except MissingError:
                encodings = _in_threads(_encodings(store, closure))
                found = await self._calls.put_directories(encodings, timeout=self._timeout)
                _same("Directory", root, found.root_digest)

    async def download(
        self, node: castore_pb2.Node | snix_castore_pb2.Entry, store: CastoreStore
    ) -> None:
        """As `CastoreClient.download`."""
        download = _Download(store, node)
        missing = download.missing_directories()
        while (digest := await asyncio.to_thread(next, missing, None)) is not None:
            download.add(await self.get_directories(digest, recursive=True))

        async def get(digest: bytes) -> None:
            with download.blob(digest) as blob:
                async for piece in self._read(digest):
                    await asyncio.to_thread(blob.write, piece)
                await asyncio.to_thread(blob.finish)

        await _await_all(get, await asyncio.to_thread(download.missing_blobs))
        await asyncio.to_thread(download.finish)

    async def _read(self, digest: bytes) -> AsyncIterator[bytes]:
        request = rpc.ReadBlobRequest(digest=check_digest(digest))
        call = self._calls.read(request, timeout=self._timeout)
        try:
            async for chunk in call:
                yield chunk.data
        except grpc.RpcError as error:
            raise _error("blob", digest, error) from None
        finally:
            call.cancel()

    async def close(self) -> None:
        """Close the connection and cancel the running calls."""
        await self._channel.close()

    async def __aenter__(self) -> AsyncCastoreClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Calls:
    """The methods of the services, on a channel. Directories are bytes."""

    def __init__(self, channel: Any, package: str) -> None:
        def blobs(kind: str, name: str, request: Any, response: Any) -> Any:
            return getattr(channel, kind)(
                f"/{package}.BlobService/{name}",
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )

        self.stat = blobs("unary_unary", "Stat", rpc.StatBlobRequest, rpc.StatBlobResponse)
        self.read = blobs("unary_stream", "Read", rpc.ReadBlobRequest, rpc.BlobChunk)
        self.put_blob = blobs("stream_unary", "Put", rpc.BlobChunk, rpc.PutBlobResponse)
        self.get_directories = channel.unary_stream(
            f"/{package}.DirectoryService/Get",
            request_serializer=rpc.GetDirectoryRequest.SerializeToString,
        )
        self.put_directories = channel.stream_unary(
            f"/{package}.DirectoryService/Put",
            response_deserializer=rpc.PutDirectoryResponse.FromString,
        )


class _Received:
    """The Directories of a response."""

    def __init__(self, digest: bytes, recursive: bool) -> None:
        self.request = rpc.GetDirectoryRequest(digest=check_digest(digest), recursive=recursive)
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


class _Download:
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

    def blob(self, digest: bytes) -> _DownloadedBlob:
        """Return a blob to fill."""
        return _DownloadedBlob(self._store, digest, self._blobs[digest])

    def finish(self) -> None:
        """Store the downloaded Directories, and check the whole."""
        if self._fetched:
            self._store.add_directories(self._leaves_first())
        self._store.closure(self._node)

    def _leaves_first(self) -> Iterator[Directory]:
        waiting = [(digest, False) for digest in self._roots]
        seen = set()
        while waiting:
            digest, finished = waiting.pop()
            if finished:
                yield self._directory(digest)
            elif digest not in seen:
                seen.add(digest)
                waiting.append((digest, True))
                children = self._directory(digest).directories
                waiting.extend((child.digest, False) for child in children)

    def _directory(self, digest: bytes) -> Directory:
        found = self._fetched.get(digest)
        return self._store.directory(digest) if found is None else found


class _DownloadedBlob:
    """A blob that is being downloaded: in memory if it is small, else in a file."""

    def __init__(self, store: CastoreStore, digest: bytes, size: int) -> None:
        self._store = store
        self._digest = digest
        self._size = size
        self._found = 0
        self._file = _temporary_file(store)

    def write(self, piece: bytes) -> None:
        """Add a piece."""
        self._found += len(piece)
        if self._found > self._size:
            raise self._another_size()
        self._file.write(piece)

    def finish(self) -> None:
        """Store the blob."""
        if self._found != self._size:
            raise self._another_size()
        self._file.seek(0)
        try:
            self._store.add_blob(self._file, digest=self._digest)
        except DigestMismatchError as error:
            raise UnexpectedContentError(str(error)) from None

    def _another_size(self) -> UnexpectedContentError:
        return UnexpectedContentError(
            f"blob {self._digest.hex()}: expected {self._size} bytes, found "
            f"{'more' if self._found > self._size else self._found}"
        )

    def __enter__(self) -> _DownloadedBlob:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _temporary_file(store: CastoreStore) -> BinaryIO:
    return cast(BinaryIO, SpooledTemporaryFile(_PIECE, dir=store.path))


def _run_all(function: Callable[[bytes], None], digests: Iterable[bytes]) -> None:
    with ThreadPoolExecutor(_CALLS) as pool:
        futures = [pool.submit(function, digest) for digest in digests]
        try:
            for future in futures:
                future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


async def _await_all(
    function: Callable[[bytes], Coroutine[Any, Any, None]], digests: Iterable[bytes]
) -> None:
    remaining = iter(digests)

    async def work() -> None:
        for digest in remaining:
            await function(digest)

    tasks = [asyncio.create_task(work()) for _ in range(_CALLS)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _chunks(data: BytesLike | BinaryIO) -> Iterator[rpc.BlobChunk]:
    view = bytes_view(data)
    if view is not None:
        for i in range(0, len(view), _PIECE):
            yield rpc.BlobChunk(data=bytes(view[i : i + _PIECE]))
        return
    while piece := cast(BinaryIO, data).read(_PIECE):
        yield rpc.BlobChunk(data=piece)


def _encodings(store: CastoreStore, closure: Closure) -> Iterator[bytes]:
    for digest in closure.directories:
        yield store.directory(digest).SerializeToString(deterministic=True)


async def _in_threads(iterator: Iterator[T]) -> AsyncIterator[T]:
    while (one := await asyncio.to_thread(next, iterator, None)) is not None:
        yield one


def _checked_tree(directories: Iterable[BytesLike | Message]) -> tuple[list[bytes], bytes]:
    """Return the canonical encodings of all Directories, and the digest of the root."""
    tree = TreeCheck()
    encodings = [tree.add(directory)[1] for directory in directories]
    return encodings, tree.finish()


def _checked_blob(data: BytesLike | BinaryIO, response: rpc.PutBlobResponse) -> bytes:
    view = bytes_view(data)
    if view is None:
        return response.digest
    return _same("blob", blake3_many([view]).tobytes(), response.digest)


def _checked_content(digest: bytes, content: bytes) -> bytes:
    _same("blob", digest, blake3_many([content]).tobytes())
    return content


def _same(what: str, expected: bytes, found: bytes) -> bytes:
    if found != expected:
        raise UnexpectedContentError(
            f"expected the {what} {expected.hex()}, found {found.hex() or 'no digest'}"
        )
    return found


def _check_size(digest: bytes, expected: int, found: int) -> None:
    if expected != found:
        raise SizeMismatchError(
            f"blob {digest.hex()}: expected size {expected}, as in a node, found {found}"
        )


def _is_missing(error: grpc.RpcError) -> bool:
    return cast("grpc.Call", error).code() is grpc.StatusCode.NOT_FOUND


def _error(what: str, digest: bytes, error: grpc.RpcError) -> Exception:
    if _is_missing(error):
        return MissingError(f"the server has no {what} with the digest {digest.hex()}", digest)
    return error
