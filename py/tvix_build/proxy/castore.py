# SPDX-License-Identifier: MIT
"""The castore services: a castore store for clients that upload inputs and fetch outputs.

Blocking work runs in threads. Messages are bytes here, as the packages have the same messages.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from tempfile import SpooledTemporaryFile
from typing import IO, Any, TypeAlias, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from tvix.castore.protos import rpc_castore_pb2 as castore
from tvix_build._core.engine import DIGEST_SIZE
from tvix_build.castore import CastoreError, CastoreStore, MissingError, TreeError
from tvix_build.castore.transfers import UnexpectedContentError
from tvix_build.castore.tree_checks import TreeCheck
from tvix_build.proxy.logs import LOG
from tvix_build.proxy.open_calls import OpenCalls
from tvix_build.proxy.status import StatusError, castore_unavailable, status_error

T = TypeVar("T")
AnyMessage = TypeVar("AnyMessage", bound=Message)
_Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
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
        calls: counts the calls.
    """

    def __init__(self, store: CastoreStore, calls: OpenCalls) -> None:
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
        methods: dict[str, dict[str, Any]] = {
            blobs: {
                "Stat": grpc.unary_unary_rpc_method_handler(self._stat),
                "Read": grpc.unary_stream_rpc_method_handler(self._read),
                "Put": grpc.stream_unary_rpc_method_handler(self._put_blob),
            },
            directories: {
                "Get": grpc.unary_stream_rpc_method_handler(self._get),
                "Put": grpc.stream_unary_rpc_method_handler(self._put_directories),
            },
        }
        return tuple(
            grpc.method_handlers_generic_handler(name, found) for name, found in methods.items()
        )

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    async def _stat(self, data: bytes, context: _Context) -> bytes:
        async with self._call(context):
            digest = _digest(_parse(castore.StatBlobRequest, data).digest)
            if not await self._run(self._store.has_blob, digest):
                raise _no_blob(digest)
        return castore.StatBlobResponse().SerializeToString()

    async def _read(self, data: bytes, context: _Context) -> AsyncIterator[bytes]:
        async with self._call(context):
            digest = _digest(_parse(castore.ReadBlobRequest, data).digest)
            try:
                file = await self._run(self._store.open_blob, digest)
            except MissingError:
                raise _no_blob(digest) from None
            with file:
                while piece := await self._run(file.read, PIECE):
                    yield castore.BlobChunk(data=piece).SerializeToString()

    async def _put_blob(self, requests: _Requests, context: _Context) -> bytes:
        async with self._call(context):
            with self._upload() as file:
                async for data in _received(requests, context):
                    await self._run(file.write, _parse(castore.BlobChunk, data).data)
                file.seek(0)
                digest = await self._run(self._store.add_blob, file)
        return castore.PutBlobResponse(digest=digest).SerializeToString()

    async def _get(self, data: bytes, context: _Context) -> AsyncIterator[bytes]:
        async with self._call(context):
            request = _parse(castore.GetDirectoryRequest, data)
            digest = _digest(request.digest)
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
                    yield directory.SerializeToString(deterministic=True)
                    if request.recursive:
                        for child in directory.directories:
                            if child.digest not in found:
                                found[child.digest] = None
                                after.append(child.digest)
                waiting = after

    async def _put_directories(self, requests: _Requests, context: _Context) -> bytes:
        async with self._call(context):
            tree = TreeCheck(self._store.directory_sizes)
            with self._upload() as file:
                async for data in _received(requests, context):
                    await self._run(_save, tree, file, data)
                tree.finish()
                file.seek(0)
                digest = await self._run(self._store.add_directories, _saved(file))
        return castore.PutDirectoryResponse(root_digest=digest).SerializeToString()

    def _upload(self) -> IO[bytes]:
        """Return a file for an upload, beside the store if it is large."""
        return cast("IO[bytes]", SpooledTemporaryFile(PIECE, dir=self._store.path))

    @asynccontextmanager
    async def _call(self, context: _Context) -> AsyncIterator[None]:
        """Count a call, and end it with the status of an error."""
        self._calls.begin(context)
        try:
            try:
                yield
            except StatusError:
                raise
            except TreeError as error:
                code = grpc.StatusCode.INVALID_ARGUMENT
                raise status_error(code, "INVALID_DIRECTORIES", str(error)) from None
            except CastoreError as error:
                LOG.error("damaged castore", extra={"fields": _message(error)})
                code = grpc.StatusCode.DATA_LOSS
                message = "an object in the castore store is damaged; see the server's log"
                raise status_error(code, "DAMAGED", message) from None
            except UnexpectedContentError as error:
                LOG.error("wrong content behind the castore", extra={"fields": _message(error)})
                code = grpc.StatusCode.DATA_LOSS
                message = "the server behind the castore store returned wrong content"
                raise status_error(code, "DAMAGED", message) from None
            except grpc.RpcError as error:
                raise castore_unavailable(error) from None
            except Exception:
                LOG.exception("internal error")
                raise status_error(
                    grpc.StatusCode.INTERNAL,
                    "INTERNAL_ERROR",
                    "internal error in the server; see the server's log",
                ) from None
        except StatusError as error:
            await context.abort(error.code, error.message, error.trailing_metadata)

    async def _run(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function in a thread. Cancellation waits for its end, as it may use a file that
        the caller closes."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, function, *args)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise


def _message(error: Exception) -> dict[str, str]:
    return {"message": str(error)}


async def _received(requests: _Requests, context: _Context) -> AsyncIterator[bytes]:
    """Yield the messages of a client."""
    async for data in requests:
        yield data
    # The iterator also ends when the client cancels, possibly before this task is cancelled. Then
    # the connection cannot be written to.
    try:
        await context.send_initial_metadata(())
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None


def _parse(kind: type[AnyMessage], data: bytes) -> AnyMessage:
    try:
        return kind.FromString(data)
    except DecodeError:
        raise status_error(
            grpc.StatusCode.INVALID_ARGUMENT,
            "MALFORMED",
            f"expected a serialized {kind.DESCRIPTOR.name}, found bytes that do not decode",
        ) from None


def _digest(digest: bytes) -> bytes:
    if len(digest) != DIGEST_SIZE:
        raise status_error(
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_DIGEST",
            f"expected a digest of {DIGEST_SIZE} bytes, found {len(digest)}",
        )
    return digest


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
