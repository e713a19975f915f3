# SPDX-License-Identifier: MIT
"""Calls the services of a Remote Execution engine. Calls that fail with UNAVAILABLE are
repeated."""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, BinaryIO, TypeVar

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from reapi.protos import google_pb2 as google
from reapi.protos import remote_execution_pb2 as reapi
from tvix_build.builders.reading import read_pieces
from tvix_build.builders.reapi.address import Address
from tvix_build.builders.reapi.digests import DigestFunction
from tvix_build.builders.reapi.statuses import (
    EngineStatusError,
    engine_error,
    not_found,
    status_of,
    wrong_contents,
)
from tvix_build.proxy.shared.channels import MAX_MESSAGE_SIZE
from tvix_build.proxy.shared.connecting import connect

T = TypeVar("T")
Opener = Callable[[], BinaryIO]
"""Opens a blob."""

BATCH_SIZE = 4 << 20
"""The largest batch in bytes, with its digests; gRPC's default limit of a message."""
_ENTRY_SIZE = 256  # a digest and a status in a batch, rounded up
_PAGE = 10_000  # digests per FindMissingBlobs
_PIECE = 1 << 20
DELAYS = (0.1, 0.5, 2.0, 5.0, 10.0)
"""Seconds before each repetition of a call."""


class CancelledError(Exception):
    """The caller cancelled the build."""


class Cancellation:
    """Lets another thread cancel a build."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._call: Any = None

    def cancel(self) -> None:
        """Cancel the build: its running call, and the next one."""
        self._event.set()
        with self._lock:
            if self._call is not None:
                self._call.cancel()

    def run(self, call: Any) -> Any:
        """Make a running call the one to cancel, and return it."""
        with self._lock:
            self._call = call
        if self._event.is_set():
            call.cancel()
        return call

    def wait(self, seconds: float) -> None:
        """Wait.

        Raises:
            CancelledError: if the build is cancelled.
        """
        if self._event.wait(seconds):
            raise CancelledError

    @property
    def cancelled(self) -> bool:
        """Whether the build is cancelled."""
        return self._event.is_set()


class Client:
    """A connection to an engine.

    Args:
        address: the address.
        credentials: the TLS credentials.
        delays: the seconds before each repetition of a call.
    """

    def __init__(
        self,
        address: Address,
        credentials: grpc.ChannelCredentials | None = None,
        delays: Sequence[float] = DELAYS,
    ) -> None:
        if address.tls:
            credentials = credentials or grpc.ssl_channel_credentials()
        self._channel = connect(address.target, credentials, MAX_MESSAGE_SIZE)
        self._instance = address.instance
        self._delays = delays
        services = reapi.DESCRIPTOR.services_by_name
        self._cas = self._methods(services["ContentAddressableStorage"])
        self._cache = self._methods(services["ActionCache"])
        self._execution = self._methods(services["Execution"])
        self._capabilities = self._methods(services["Capabilities"])
        services = google.DESCRIPTOR.services_by_name
        self._bytes = self._methods(services["ByteStream"], "google.bytestream.ByteStream")
        self._operations = self._methods(services["Operations"], "google.longrunning.Operations")

    def _methods(self, service: ServiceDescriptor, name: str | None = None) -> dict[str, Any]:
        """Return the methods of a service, which the engine may have under another name. Unless
        the request is a stream, the response is read as one, even if it is not: such a call can be
        cancelled by another thread, and gRPC starts no thread for it."""
        found = {}
        for method in service.methods:
            kind = "stream_unary" if method.client_streaming else "unary_stream"
            found[method.name] = getattr(self._channel, kind)(
                f"/{name or service.full_name}/{method.name}",
                request_serializer=GetMessageClass(method.input_type).SerializeToString,
                response_deserializer=GetMessageClass(method.output_type).FromString,
            )
        return found

    def close(self) -> None:
        """Close the connection and cancel the running calls."""
        self._channel.close()

    def session(self, function: DigestFunction, cancellation: Cancellation) -> Session:
        """Return the calls of one build."""
        return Session(self, function, cancellation)

    def capabilities(self, cancellation: Cancellation) -> reapi.ServerCapabilities:
        """Return the capabilities of the engine.

        Raises:
            EngineStatusError: if the call fails.
        """
        request = reapi.GetCapabilitiesRequest(instance_name=self._instance)
        found: reapi.ServerCapabilities = self.repeat(
            cancellation, lambda: self._call(cancellation, self._capabilities, request)
        )
        return found

    def repeat(self, cancellation: Cancellation, call: Callable[[], T]) -> T:
        """Return the result of a call, which is repeated while the engine is unavailable.

        Raises:
            EngineStatusError: if the call fails.
            CancelledError: if the build is cancelled.
        """
        delays = iter(self._delays)
        while True:
            try:
                return call()
            except grpc.RpcError as error:
                failure = status_of(error)
            except EngineStatusError as error:
                failure = error
            if cancellation.cancelled:
                raise CancelledError
            delay = next(delays, None)
            if failure.code is not grpc.StatusCode.UNAVAILABLE or delay is None:
                raise failure
            cancellation.wait(delay)

    @staticmethod
    def _call(cancellation: Cancellation, methods: dict[str, Any], request: Any) -> Any:
        """Call the method that takes this request, and return its only response."""
        name = type(request).__name__.removesuffix("Request")
        call = cancellation.run(methods[name](request))
        found = list(islice(call, 2))
        if len(found) != 1:
            call.cancel()
            message = f"expected one response of {name}, found {'several' if found else 'none'}"
            raise engine_error(grpc.StatusCode.INTERNAL, message)
        return found[0]


class Session:
    """The calls of one build, in one thread. They raise EngineStatusError and CancelledError."""

    def __init__(
        self, client: Client, function: DigestFunction, cancellation: Cancellation
    ) -> None:
        self._client = client
        self._function = function
        self._cancellation = cancellation
        self._batch_size = BATCH_SIZE
        self._fields: dict[str, Any] = {
            "instance_name": client._instance,
            "digest_function": function.value,
        }

    def limit_batches(self, size: int) -> None:
        """Set the limit of batches in bytes; 0 for the default."""
        self._batch_size = min(size or BATCH_SIZE, BATCH_SIZE)

    def find_result(self, action: reapi.Digest) -> reapi.ActionResult | None:
        """Return the cached result of an action, if there is one."""
        request = reapi.GetActionResultRequest(action_digest=action, **self._fields)
        try:
            found: reapi.ActionResult = self._call(self._client._cache, request)
        except EngineStatusError as error:
            if error.code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED):
                return None
            raise
        return found

    def upload(self, blobs: Iterable[tuple[reapi.Digest, bytes | Opener]]) -> int:
        """Upload the blobs that the engine lacks, and return their number.

        Args:
            blobs: each digest, with the contents or a function that opens them.
        """
        count = 0
        page: dict[str, tuple[reapi.Digest, bytes | Opener]] = {}
        for digest, source in blobs:
            page[digest.hash] = digest, source
            if len(page) == _PAGE:
                count += self._upload_page(page)
                page.clear()
        return count + self._upload_page(page)

    def _upload_page(self, page: dict[str, tuple[reapi.Digest, bytes | Opener]]) -> int:
        if not page:
            return 0
        digests = [digest for digest, _ in page.values()]
        request = reapi.FindMissingBlobsRequest(blob_digests=digests, **self._fields)
        found = self._call(self._client._cas, request)
        missing = [page[digest.hash] for digest in found.missing_blob_digests]
        small = [pair for pair in missing if self._is_small(pair[0])]
        for batch in self._batches(small, lambda pair: pair[0]):
            self._upload_batch(batch)
        for digest, source in missing:
            if not self._is_small(digest):
                self._write(digest, source)
        return len(missing)

    def _is_small(self, digest: reapi.Digest) -> bool:
        return digest.size_bytes + _ENTRY_SIZE <= self._batch_size

    def _batches(
        self, values: Iterable[T], digest_of: Callable[[T], reapi.Digest]
    ) -> Iterator[list[T]]:
        batch: list[T] = []
        size = 0
        for value in values:
            one = digest_of(value).size_bytes + _ENTRY_SIZE
            if batch and size + one > self._batch_size:
                yield batch
                batch, size = [], 0
            batch.append(value)
            size += one
        if batch:
            yield batch

    def _upload_batch(self, batch: list[tuple[reapi.Digest, bytes | Opener]]) -> None:
        request = reapi.BatchUpdateBlobsRequest(**self._fields)
        for digest, source in batch:
            request.requests.add(digest=digest, data=_contents(source))

        def call() -> None:
            for response in self._now(self._client._cas, request).responses:
                if response.status.code:
                    raise EngineStatusError(response.status)

        self._client.repeat(self._cancellation, call)

    def _write(self, digest: reapi.Digest, source: bytes | Opener) -> None:
        """Upload a large blob."""
        name = self._resource(f"uploads/{uuid.uuid4()}/", digest)

        def call() -> None:
            pieces = _write_requests(name, digest, source)
            future = self._client._bytes["Write"].future(pieces)
            size = self._cancellation.run(future).result().committed_size
            if size not in (digest.size_bytes, -1):
                message = f"expected {digest.size_bytes} committed bytes of {name}, found {size}"
                raise engine_error(grpc.StatusCode.DATA_LOSS, message)

        self._client.repeat(self._cancellation, call)

    def download(
        self, digests: Iterable[reapi.Digest]
    ) -> Iterator[tuple[reapi.Digest, Iterator[bytes]]]:
        """Yield each blob in pieces, which the caller must consume. Their size is verified, but not
        their contents."""
        waiting = list(digests)
        small = [digest for digest in waiting if self._is_small(digest)]
        for batch in self._batches(small, lambda digest: digest):
            for digest, data in self._read_batch(batch):
                if len(data) != digest.size_bytes:
                    raise wrong_contents(digest)
                yield digest, iter((data,))
        for digest in waiting:
            if not self._is_small(digest):
                yield digest, self._read(digest)

    def read(self, digest: reapi.Digest) -> bytes:
        """Return the contents of a blob, verified."""
        for _, pieces in self.download([digest]):
            data = b"".join(pieces)
        if self._function.digest(data) != digest:
            raise wrong_contents(digest)
        return data

    def _read_batch(self, batch: list[reapi.Digest]) -> list[tuple[reapi.Digest, bytes]]:
        request = reapi.BatchReadBlobsRequest(digests=batch, **self._fields)

        def call() -> list[tuple[reapi.Digest, bytes]]:
            found = self._now(self._client._cas, request).responses
            for response in found:
                if response.status.code:
                    raise EngineStatusError(response.status)
            by_hash = {response.digest.hash: response.data for response in found}
            for digest in batch:
                if digest.hash not in by_hash:
                    raise not_found(digest)
            return [(digest, by_hash[digest.hash]) for digest in batch]

        return self._client.repeat(self._cancellation, call)

    def _read(self, digest: reapi.Digest) -> Iterator[bytes]:
        """Yield the pieces of a large blob. A lost connection continues at the same offset."""
        offset = 0
        name = self._resource("", digest)
        while True:
            before = offset
            stream = self._client.repeat(self._cancellation, partial(self._open, name, offset))
            try:
                for response in stream:
                    offset += len(response.data)
                    if offset > digest.size_bytes:
                        raise wrong_contents(digest)
                    yield response.data
                if offset < digest.size_bytes:
                    raise wrong_contents(digest)
                return
            except grpc.RpcError as error:
                failure = status_of(error)
                if self._cancellation.cancelled:
                    raise CancelledError from None
                if failure.code is not grpc.StatusCode.UNAVAILABLE or offset == before:
                    raise failure from None

    def _open(self, name: str, offset: int) -> Iterator[google.ReadResponse]:
        """Return the rest of a blob, after waiting for its first piece."""
        request = google.ReadRequest(resource_name=name, read_offset=offset)
        stream = self._cancellation.run(self._client._bytes["Read"](request))
        first = next(stream, None)
        return _chain(first, stream)

    def execute(
        self,
        action: reapi.Digest,
        *,
        skip_cache: bool,
        on_stage: Callable[[str], object],
    ) -> reapi.ExecuteResponse:
        """Execute an action, wait for its end, and return the response. A lost connection continues
        to wait for the same execution.

        Args:
            action: the digest of the action.
            skip_cache: whether the engine executes the action although it has a result.
            on_stage: called with the name of each stage.
        """
        request = reapi.ExecuteRequest(
            action_digest=action, skip_cache_lookup=skip_cache, **self._fields
        )
        execution = _Execution(self, request, on_stage)
        try:
            return self._client.repeat(self._cancellation, execution.run)
        except CancelledError:
            if execution.name:
                with suppress(grpc.RpcError):
                    cancel = google.CancelOperationRequest(name=execution.name)
                    call = self._client._operations["CancelOperation"]
                    deque(call(cancel, timeout=_CANCEL_SECONDS), 0)
            raise

    def stream(self, request: reapi.ExecuteRequest | reapi.WaitExecutionRequest) -> Any:
        """Return the operations of an execution."""
        name = "Execute" if isinstance(request, reapi.ExecuteRequest) else "WaitExecution"
        return self._cancellation.run(self._client._execution[name](request))

    def _call(self, methods: dict[str, Any], request: Any) -> Any:
        return self._client.repeat(self._cancellation, lambda: self._now(methods, request))

    def _now(self, methods: dict[str, Any], request: Any) -> Any:
        return self._client._call(self._cancellation, methods, request)

    def _resource(self, prefix: str, digest: reapi.Digest) -> str:
        """Return the name of a blob for ByteStream."""
        function = "blake3/" if self._function is DigestFunction.BLAKE3 else ""
        instance = f"{self._client._instance}/" if self._client._instance else ""
        return f"{instance}{prefix}blobs/{function}{digest.hash}/{digest.size_bytes}"


_CANCEL_SECONDS = 5.0


class _Execution:
    """An execution that is followed over several connections.

    Attributes:
        name: the name of the operation; empty before it is known.
    """

    def __init__(
        self, session: Session, request: reapi.ExecuteRequest, on_stage: Callable[[str], object]
    ) -> None:
        self.name = ""
        self._session = session
        self._request = request
        self._on_stage = on_stage
        self._stage = reapi.ExecutionStage.UNKNOWN

    def run(self) -> reapi.ExecuteResponse:
        """Return the response, from the operation if there is one.

        Raises:
            EngineStatusError, grpc.RpcError: UNAVAILABLE if the connection is lost.
        """
        wait = reapi.WaitExecutionRequest(name=self.name)
        try:
            for operation in self._session.stream(wait if self.name else self._request):
                self.name = operation.name or self.name
                self._report(operation)
                if operation.done:
                    return _response_of(operation)
        except grpc.RpcError as error:
            failure = status_of(error)
            if not self.name or failure.code is not grpc.StatusCode.NOT_FOUND:
                raise failure from None
            self.name = ""  # The engine forgot the operation: execute again.
        raise engine_error(
            grpc.StatusCode.UNAVAILABLE, "the engine ended the stream before the execution ended"
        )

    def _report(self, operation: google.Operation) -> None:
        metadata = reapi.ExecuteOperationMetadata()
        with suppress(DecodeError):
            metadata.ParseFromString(operation.metadata.value)
        if metadata.stage != self._stage:
            self._stage = metadata.stage
            if metadata.stage in reapi.ExecutionStage.Value.values():
                self._on_stage(reapi.ExecutionStage.Value.Name(metadata.stage))


def _response_of(operation: google.Operation) -> reapi.ExecuteResponse:
    if operation.HasField("error"):
        raise EngineStatusError(operation.error)
    response = reapi.ExecuteResponse.FromString(operation.response.value)
    if response.status.code:
        raise EngineStatusError(response.status)
    return response


def _contents(source: bytes | Opener) -> bytes:
    if isinstance(source, bytes):
        return source
    with source() as file:
        return file.read()


def _write_requests(
    name: str, digest: reapi.Digest, source: bytes | Opener
) -> Iterator[google.WriteRequest]:
    offset = 0
    for piece in _pieces(source):
        end = offset + len(piece)
        yield google.WriteRequest(
            resource_name=name if offset == 0 else "",
            write_offset=offset,
            data=piece,
            finish_write=end == digest.size_bytes,
        )
        offset = end


def _pieces(source: bytes | Opener) -> Iterator[bytes]:
    if isinstance(source, bytes):
        for offset in range(0, len(source), _PIECE):
            yield source[offset : offset + _PIECE]
        return
    yield from read_pieces(source())


def _chain(first: Any, stream: Any) -> Iterator[Any]:
    try:
        if first is not None:
            yield first
            yield from stream
    finally:
        stream.cancel()  # The caller may not need the rest.
