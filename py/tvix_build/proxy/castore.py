# SPDX-License-Identifier: MIT
"""The castore services: a castore store for clients that upload inputs and fetch outputs.

Blocking work runs in threads. Messages are bytes here, as the packages have the same messages.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from tempfile import SpooledTemporaryFile
from typing import IO, Any, TypeAlias, TypeVar, cast

import grpc
import grpc.aio

from tvix.castore.protos import rpc_castore_pb2 as castore
from tvix_build.castore import CastoreStore, MissingError
from tvix_build.castore.tree_checks import TreeCheck
from tvix_build.proxy.service_calls import (
    Context,
    ServiceCalls,
    check_digest,
    parse,
    run_in,
    sending,
)
from tvix_build.proxy.status import StatusError, status_error

T = TypeVar("T")
_Requests: TypeAlias = "AsyncIterator[bytes]"
_MISSING = grpc.StatusCode.NOT_FOUND

PIECE = 1 << 20
"""The largest part of a blob in a response, and of an upload in memory, in bytes."""
_THREADS = 8
_LENGTH = struct.Struct("<I")


class CastoreServices:
    """BlobService and DirectoryService of each package.

    Args:
        store: the store.
        calls: runs the calls.
    """

    def __init__(self, store: CastoreStore, calls: ServiceCalls) -> None:
        self._store = store
        self._calls = calls
        self._threads = ThreadPoolExecutor(_THREADS, "castore")

    @staticmethod
    def names(package: str) -> list[str]:
        """Return the names of the services of a package."""
        return [f"{package}.BlobService", f"{package}.DirectoryService"]

    @staticmethod
    def module(package: str) -> str:
        """Return the module with the descriptors of a package."""
        return f"{package.partition('.')[0]}.castore.protos.rpc_castore_pb2"

    def handlers(self, package: str) -> tuple[grpc.GenericRpcHandler, ...]:
        """Return the handlers for gRPC, from bytes to bytes."""
        blobs, directories = self.names(package)
        made = _Methods(self._store, self._calls, self._threads, blobs, directories)
        methods: dict[str, dict[str, Any]] = {
            blobs: {
                "Stat": grpc.unary_unary_rpc_method_handler(made.stat),
                "Read": grpc.unary_stream_rpc_method_handler(sending(made.read)),
                "Put": grpc.stream_unary_rpc_method_handler(made.put_blob),
            },
            directories: {
                "Get": grpc.unary_stream_rpc_method_handler(sending(made.get)),
                "Put": grpc.stream_unary_rpc_method_handler(made.put_directories),
            },
        }
        return tuple(
            grpc.method_handlers_generic_handler(name, found) for name, found in methods.items()
        )

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()


class _Methods:
    """The methods of the services of a package."""

    def __init__(
        self,
        store: CastoreStore,
        calls: ServiceCalls,
        threads: ThreadPoolExecutor,
        blobs: str,
        directories: str,
    ) -> None:
        self._store = store
        self._calls = calls
        self._threads = threads
        self._blobs = blobs
        self._directories = directories

    async def stat(self, data: bytes, context: Context) -> bytes:
        """BlobService.Stat."""
        async with self._calls.call(context, f"{self._blobs}/Stat", len(data)):
            digest = check_digest(parse(castore.StatBlobRequest, data).digest)
            if not await self._run(self._store.has_blob, digest):
                raise _no_blob(digest)
        return castore.StatBlobResponse().SerializeToString()

    async def read(self, data: bytes, context: Context) -> AsyncIterator[bytes]:
        """BlobService.Read."""
        async with self._calls.call(context, f"{self._blobs}/Read", len(data)) as outcome:
            digest = check_digest(parse(castore.ReadBlobRequest, data).digest)
            try:
                file = await self._run(self._store.open_blob, digest)
            except MissingError:
                raise _no_blob(digest) from None
            with file:
                while piece := await self._run(file.read, PIECE):
                    chunk = castore.BlobChunk(data=piece).SerializeToString()
                    outcome.response_size += len(chunk)
                    yield chunk

    async def put_blob(self, requests: _Requests, context: Context) -> bytes:
        """BlobService.Put."""
        async with self._calls.call(context, f"{self._blobs}/Put") as outcome:
            with self._upload() as file:
                async for data in self._calls.received(requests, context, outcome):
                    await self._run(file.write, parse(castore.BlobChunk, data).data)
                file.seek(0)
                digest = await self._run(self._store.add_blob, file)
            response = castore.PutBlobResponse(digest=digest).SerializeToString()
            outcome.response_size = len(response)
        return response

    async def get(self, data: bytes, context: Context) -> AsyncIterator[bytes]:
        """DirectoryService.Get."""
        async with self._calls.call(context, f"{self._directories}/Get", len(data)) as outcome:
            request = parse(castore.GetDirectoryRequest, data)
            digest = check_digest(request.digest)
            # It also protects the whole tree from garbage collection.
            if not await self._run(self._store.has_directory, digest):
                raise _no_directory(digest)
            found = {digest: None}
            waiting = [digest]
            while waiting:
                after: list[bytes] = []
                for one in waiting:
                    try:
                        directory = await self._run(self._store.directory, one)
                    except MissingError:
                        raise _no_directory(one) from None
                    encoding = directory.SerializeToString(deterministic=True)
                    outcome.response_size += len(encoding)
                    yield encoding
                    if request.recursive:
                        for child in directory.directories:
                            if child.digest not in found:
                                found[child.digest] = None
                                after.append(child.digest)
                waiting = after

    async def put_directories(self, requests: _Requests, context: Context) -> bytes:
        """DirectoryService.Put."""
        async with self._calls.call(context, f"{self._directories}/Put") as outcome:
            tree = TreeCheck(self._store.directory_sizes)
            with self._upload() as file:
                async for data in self._calls.received(requests, context, outcome):
                    await self._run(_save, tree, file, data)
                tree.finish()
                file.seek(0)
                digest = await self._run(self._store.add_directories, _saved(file))
            response = castore.PutDirectoryResponse(root_digest=digest).SerializeToString()
            outcome.response_size = len(response)
        return response

    def _upload(self) -> IO[bytes]:
        """Return a file for an upload, beside the store if it is large."""
        return cast("IO[bytes]", SpooledTemporaryFile(PIECE, dir=self._store.path))

    async def _run(self, function: Callable[..., T], *args: Any) -> T:
        return await run_in(self._threads, function, *args)


def _no_blob(digest: bytes) -> StatusError:
    return status_error(_MISSING, "MISSING_BLOB", f"no blob with the digest {digest.hex()}")


def _no_directory(digest: bytes) -> StatusError:
    message = f"no Directory with the digest {digest.hex()}"
    return status_error(_MISSING, "MISSING_DIRECTORY", message)


def _save(tree: TreeCheck, file: IO[bytes], data: bytes) -> None:
    _, encoding = tree.add(data)
    file.write(_LENGTH.pack(len(encoding)))
    file.write(encoding)


def _saved(file: IO[bytes]) -> Iterator[bytes]:
    while length := file.read(_LENGTH.size):
        yield file.read(*_LENGTH.unpack(length))
