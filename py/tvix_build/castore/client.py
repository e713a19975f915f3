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
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
)
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

import grpc
from google.protobuf.message import Message

from tvix.castore.protos import rpc_castore_pb2 as rpc
from tvix.castore.protos.castore_pb2 import DirectoryNode, Node
from tvix_build import Schema
from tvix_build._core.names import publish
from tvix_build._core.ranges import BytesLike
from tvix_build._core.report import SchemaLike
from tvix_build.castore.layout import MissingError, check_digest
from tvix_build.castore.sizes import DirectorySizes
from tvix_build.castore.store import CastoreStore
from tvix_build.castore.transfers import (
    Download,
    DownloadedBlob,
    Received,
    UnexpectedContentError,
    blob_chunks,
    checked_blob,
    checked_content,
    checked_digest,
    checked_tree,
    tree_encodings,
)
from tvix_build.proxy.shared.channels import MAX_MESSAGE_SIZE
from tvix_build.proxy.shared.connecting import open_async_channel, open_channel
from tvix_build.proxy.shared.services import SERVICES

if TYPE_CHECKING:
    from snix.castore.protos import castore_pb2 as snix_castore_pb2
    from tvix.castore.protos import castore_pb2

__all__ = ["AsyncCastoreClient", "CastoreClient", "UnexpectedContentError"]

T = TypeVar("T")

_CALLS = 16  # blobs that are uploaded or downloaded at the same time


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
        return checked_blob(data, self._calls.put_blob(blob_chunks(data), timeout=self._timeout))

    def get_blob(self, digest: bytes) -> bytes:
        """Return the contents of a blob, in memory. `download` does not need memory for them.

        Raises:
            MissingError: if the server lacks the blob.
            UnexpectedContentError: if the server returns other contents.
            grpc.RpcError: if the call fails.
        """
        return checked_content(digest, b"".join(self.read_blob(digest)))

    def read_blob(self, digest: bytes) -> Iterator[bytes]:
        """Yield the contents of a blob in pieces, which are not verified.

        Raises:
            MissingError: if the server lacks the blob.
            grpc.RpcError: if the call fails.
        """
        request = rpc.ReadBlobRequest(digest=check_digest(digest))
        try:
            for chunk in self._calls.read(request, timeout=self._timeout):
                yield chunk.data
        except grpc.RpcError as error:
            raise _error("blob", digest, error) from None

    def put_directories(
        self,
        directories: Iterable[BytesLike | Message],
        *,
        directory_sizes: DirectorySizes | str = DirectorySizes.SPECIFIED,
    ) -> bytes:
        """Upload all Directories of a tree, and return the digest of the root.

        Args:
            directories: the Directories, leaves first and the root last.
            directory_sizes: how their sizes are counted.

        Raises:
            TreeError: if they are not those of one tree. They are not uploaded.
            UnexpectedContentError: if the server returns another digest.
            grpc.RpcError: if the call fails.
        """
        encodings, root = checked_tree(directories, DirectorySizes(directory_sizes))
        found = self._calls.put_directories(iter(encodings), timeout=self._timeout)
        return checked_digest("Directory", root, found.root_digest)

    def get_directories(
        self, digest: bytes, *, recursive: bool = False
    ) -> dict[bytes, castore_pb2.Directory]:
        """Return a Directory by its digest; with `recursive` all Directories of the tree.

        Raises:
            MissingError: if the server lacks the Directory.
            UnexpectedContentError: if the server returns other or incomplete Directories.
            grpc.RpcError: if the call fails.
        """
        received = Received(digest, recursive)
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
                    checked_digest("blob", digest, self.put_blob(file))

        _run_all(put, closure.blobs)
        if closure.directories:
            self.upload_directories(store, next(reversed(closure.directories)))

    def upload_directories(self, store: CastoreStore, digest: bytes) -> None:
        """Upload all Directories of a tree, unless the server has it, without the blobs.

        Raises:
            MissingError, CastoreError: as `CastoreStore.directory`.
            UnexpectedContentError: if the server returns another digest.
            grpc.RpcError: if a call fails.
        """
        try:
            self.get_directories(digest)
        except MissingError:
            deque(tree_encodings(store, digest), 0)  # An error while gRPC iterates is not raised.
            encodings = tree_encodings(store, digest)
            found = self._calls.put_directories(encodings, timeout=self._timeout)
            checked_digest("Directory", digest, found.root_digest)

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
        download = Download(store, node)
        self._add_missing(download)

        def get(digest: bytes) -> None:
            self._download(download.blob(digest))

        _run_all(get, download.missing_blobs())
        download.finish()

    def download_blob(self, digest: bytes, store: CastoreStore) -> None:
        """Store a blob, unless the store has it.

        Raises:
            MissingError, UnexpectedContentError, grpc.RpcError: as `get_blob`.
        """
        if not store.has_blob(digest):
            self._download(DownloadedBlob(store, digest))

    def download_directories(self, digest: bytes, store: CastoreStore) -> None:
        """Store all Directories of a tree that the store lacks, without the blobs.

        Raises:
            MissingError, UnexpectedContentError, grpc.RpcError: as `get_directories`.
        """
        download = Download(store, Node(directory=DirectoryNode(digest=digest)))
        self._add_missing(download)
        download.store_directories()

    def _add_missing(self, download: Download) -> None:
        for digest in download.missing_directories():
            download.add(self.get_directories(digest, recursive=True))

    def _download(self, blob: DownloadedBlob) -> None:
        with blob:
            for piece in self.read_blob(blob.digest):
                blob.write(piece)
            blob.finish()

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
        chunks = _in_threads(blob_chunks(data))
        return checked_blob(data, await self._calls.put_blob(chunks, timeout=self._timeout))

    async def get_blob(self, digest: bytes) -> bytes:
        """As `CastoreClient.get_blob`."""
        pieces = [piece async for piece in self.read_blob(digest)]
        return checked_content(digest, b"".join(pieces))

    async def read_blob(self, digest: bytes) -> AsyncGenerator[bytes, None]:
        """As `CastoreClient.read_blob`."""
        request = rpc.ReadBlobRequest(digest=check_digest(digest))
        call = self._calls.read(request, timeout=self._timeout)
        try:
            async for chunk in call:
                yield chunk.data
        except grpc.RpcError as error:
            raise _error("blob", digest, error) from None
        finally:
            call.cancel()

    async def put_directories(
        self,
        directories: Iterable[BytesLike | Message],
        *,
        directory_sizes: DirectorySizes | str = DirectorySizes.SPECIFIED,
    ) -> bytes:
        """As `CastoreClient.put_directories`."""
        encodings, root = await asyncio.to_thread(
            checked_tree, directories, DirectorySizes(directory_sizes)
        )
        found = await self._calls.put_directories(iter(encodings), timeout=self._timeout)
        return checked_digest("Directory", root, found.root_digest)

    async def get_directories(
        self, digest: bytes, *, recursive: bool = False
    ) -> dict[bytes, castore_pb2.Directory]:
        """As `CastoreClient.get_directories`."""
        received = Received(digest, recursive)
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
                    checked_digest("blob", digest, await self.put_blob(file))

        await _await_all(put, closure.blobs)
        if closure.directories:
            await self.upload_directories(store, next(reversed(closure.directories)))

    async def upload_directories(self, store: CastoreStore, digest: bytes) -> None:
        """As `CastoreClient.upload_directories`."""
        try:
            await self.get_directories(digest)
        except MissingError:
            await asyncio.to_thread(deque, tree_encodings(store, digest), 0)
            encodings = _in_threads(tree_encodings(store, digest))
            found = await self._calls.put_directories(encodings, timeout=self._timeout)
            checked_digest("Directory", digest, found.root_digest)

    async def download(
        self, node: castore_pb2.Node | snix_castore_pb2.Entry, store: CastoreStore
    ) -> None:
        """As `CastoreClient.download`."""
        download = Download(store, node)
        await self._add_missing(download)

        async def get(digest: bytes) -> None:
            await self._download(download.blob(digest))

        await _await_all(get, await asyncio.to_thread(download.missing_blobs))
        await asyncio.to_thread(download.finish)

    async def download_blob(self, digest: bytes, store: CastoreStore) -> None:
        """As `CastoreClient.download_blob`."""
        if not await asyncio.to_thread(store.has_blob, digest):
            await self._download(DownloadedBlob(store, digest))

    async def download_directories(self, digest: bytes, store: CastoreStore) -> None:
        """As `CastoreClient.download_directories`."""
        download = Download(store, Node(directory=DirectoryNode(digest=digest)))
        await self._add_missing(download)
        await asyncio.to_thread(download.store_directories)

    async def _add_missing(self, download: Download) -> None:
        missing = download.missing_directories()
        while (digest := await asyncio.to_thread(next, missing, None)) is not None:
            download.add(await self.get_directories(digest, recursive=True))

    async def _download(self, blob: DownloadedBlob) -> None:
        with blob:
            async for piece in self.read_blob(blob.digest):
                await asyncio.to_thread(blob.write, piece)
            await asyncio.to_thread(blob.finish)

    async def close(self) -> None:
        """Close the connection and cancel the running calls."""
        await self._channel.close()

    async def __aenter__(self) -> AsyncCastoreClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


publish(__name__, UnexpectedContentError)


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


async def _in_threads(iterator: Iterator[T]) -> AsyncIterator[T]:
    while (one := await asyncio.to_thread(next, iterator, None)) is not None:
        yield one


def _is_missing(error: grpc.RpcError) -> bool:
    return cast("grpc.Call", error).code() is grpc.StatusCode.NOT_FOUND


def _error(what: str, digest: bytes, error: grpc.RpcError) -> Exception:
    if _is_missing(error):
        return MissingError(f"the server has no {what} with the digest {digest.hex()}", digest)
    return error
