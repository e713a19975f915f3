# SPDX-License-Identifier: MIT
"""An engine of the Remote Execution API within the process. It executes nothing: a test says which
result each execution has, and which calls fail."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from reapi.protos import google_pb2 as google
from reapi.protos import remote_execution_pb2 as reapi
from tvix_build.builders.reapi import DigestFunction

MISSING_TYPE = "type.googleapis.com/google.rpc.PreconditionFailure"


class FailedCallError(Exception):
    """Ends a call with a status."""

    def __init__(self, code: grpc.StatusCode, details: google.Status | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.details = details


class Engine:
    """The state of the engine.

    Attributes:
        blobs: the blobs by hash.
        results: the cached results by hash of the action.
        calls: the number of calls of each method.
        failures: for each method, what its next calls raise, the first one first; None for a call
            that succeeds.
        execute: returns the response to an action that was found.
        stages: the operations that each stream has before its end. A grpc.StatusCode ends the
            stream with an error, and the next stream continues.
        cancelled: the names of cancelled operations.
        written: the resource names of ByteStream writes.
        requests: the requests of Execute.
        hanging: whether executions last until they are cancelled.
        copies: how often a method sends its response, by default once.
        read_pieces: the most pieces that a ByteStream read has before the connection is lost.
    """

    def __init__(self, function: DigestFunction = DigestFunction.SHA256) -> None:
        self.function = function
        self.capabilities = reapi.ServerCapabilities()
        self.capabilities.cache_capabilities.digest_functions.append(function.value)
        self.capabilities.execution_capabilities.digest_functions.append(function.value)
        self.capabilities.execution_capabilities.exec_enabled = True
        self.blobs: dict[str, bytes] = {}
        self.results: dict[str, reapi.ActionResult] = {}
        self.calls: Counter[str] = Counter()
        self.failures: defaultdict[str, list[FailedCallError | None]] = defaultdict(list)
        self.execute: Callable[[reapi.ExecuteRequest], reapi.ExecuteResponse] = lambda _: (
            reapi.ExecuteResponse()
        )
        self.stages: list[str | int | grpc.StatusCode] = ["EXECUTING"]
        self.requests: list[reapi.ExecuteRequest] = []
        self.cancelled: list[str] = []
        self.written: list[str] = []
        self.read_pieces = 1 << 30
        self.hanging = False
        self.copies: defaultdict[str, int] = defaultdict(lambda: 1)

    def put(self, data: bytes) -> reapi.Digest:
        """Add a blob, and return its digest."""
        digest = self.function.digest(data)
        self.blobs[digest.hash] = data
        return digest

    def get_capabilities(self, _: Any) -> Message:
        return self.capabilities

    def get_action_result(self, request: reapi.GetActionResultRequest) -> Message:
        found = self.results.get(request.action_digest.hash)
        if found is None:
            raise FailedCallError(grpc.StatusCode.NOT_FOUND)
        return found

    def find_missing_blobs(self, request: reapi.FindMissingBlobsRequest) -> Message:
        missing = [one for one in request.blob_digests if one.hash not in self.blobs]
        return reapi.FindMissingBlobsResponse(missing_blob_digests=missing)

    def batch_update_blobs(self, request: reapi.BatchUpdateBlobsRequest) -> Message:
        response = reapi.BatchUpdateBlobsResponse()
        for one in request.requests:
            assert self.put(one.data) == one.digest
            response.responses.add(digest=one.digest)
        return response

    def batch_read_blobs(self, request: reapi.BatchReadBlobsRequest) -> Message:
        response = reapi.BatchReadBlobsResponse()
        for digest in request.digests:
            one = response.responses.add(digest=digest)
            if digest.hash in self.blobs:
                one.data = self.blobs[digest.hash]
            else:
                one.status.code = grpc.StatusCode.NOT_FOUND.value[0]
        return response

    def write(self, requests: Iterator[google.WriteRequest]) -> Message:
        first = next(requests)
        data, finished = first.data, first.finish_write
        for request in requests:
            assert not finished
            assert request.write_offset == len(data)
            data += request.data
            finished = request.finish_write
        assert finished
        digest = self.put(data)
        assert first.resource_name.endswith(f"/{digest.hash}/{digest.size_bytes}")
        self.written.append(first.resource_name)
        return google.WriteResponse(committed_size=len(data))

    def read(self, request: google.ReadRequest) -> Iterator[Message]:
        data = self.blobs[request.resource_name.split("/")[-2]]
        for count, offset in enumerate(range(request.read_offset, len(data), 1 << 20)):
            if count == self.read_pieces:
                raise FailedCallError(grpc.StatusCode.UNAVAILABLE)
            yield google.ReadResponse(data=data[offset : offset + (1 << 20)])

    def execute_stream(self, request: reapi.ExecuteRequest) -> Iterator[Message]:
        self.requests.append(request)
        return self._stream(request)

    def wait_execution(self, request: reapi.WaitExecutionRequest) -> Iterator[Message]:
        assert request.name == "operation"
        return self._stream(self.requests[-1])

    def _stream(self, request: reapi.ExecuteRequest) -> Iterator[Message]:
        while self.stages:
            stage = self.stages.pop(0)
            if isinstance(stage, grpc.StatusCode):
                raise FailedCallError(stage)
            yield self._operation(stage)
        while self.hanging:
            yield self._operation("EXECUTING")
        operation = self._operation("COMPLETED")
        operation.done = True
        operation.response.value = self.execute(request).SerializeToString()
        yield operation

    @staticmethod
    def _operation(stage: Any) -> google.Operation:
        operation = google.Operation(name="operation")
        metadata = reapi.ExecuteOperationMetadata(stage=stage)
        operation.metadata.value = metadata.SerializeToString()
        return operation

    def cancel_operation(self, request: google.CancelOperationRequest) -> Message:
        self.cancelled.append(request.name)
        self.hanging = False
        return google.Empty()


def missing_blobs(*digests: reapi.Digest) -> google.Status:
    """Return the status of an execution whose blobs are missing."""
    failure = google.PreconditionFailure()
    for digest in digests:
        failure.violations.add(type="MISSING", subject=f"blobs/{digest.hash}/{digest.size_bytes}")
    status = google.Status(code=grpc.StatusCode.FAILED_PRECONDITION.value[0], message="missing")
    status.details.add(type_url=MISSING_TYPE, value=failure.SerializeToString())
    return status


_SERVICES = {
    "google.bytestream.ByteStream": google.DESCRIPTOR.services_by_name["ByteStream"],
    "google.longrunning.Operations": google.DESCRIPTOR.services_by_name["Operations"],
} | {one.full_name: one for one in reapi.DESCRIPTOR.services_by_name.values()}
_METHODS = {"Execute": "execute_stream"}


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, engine: Engine) -> None:
        self._handlers = {
            f"/{name}/{method.name}": _handler(engine, method)
            for name, service in _SERVICES.items()
            for method in service.methods
        }

    def service(self, handler_call_details: Any) -> Any:
        return self._handlers.get(handler_call_details.method)


def _handler(engine: Engine, method: Any) -> Any:
    snake = "".join(f"_{one.lower()}" if one.isupper() else one for one in method.name).strip("_")
    function = getattr(engine, _METHODS.get(method.name, snake))
    kind = "stream_stream" if method.client_streaming else "unary_stream"

    def check(context: Any) -> None:
        engine.calls[method.name] += 1
        failures = engine.failures[method.name]
        failure = failures.pop(0) if failures else None
        if failure is not None:
            _abort(context, failure)

    def respond(request: Any, context: Any) -> Iterator[Any]:
        check(context)
        try:
            if method.server_streaming:
                yield from function(request)
            else:
                yield from [function(request)] * engine.copies[method.name]
        except FailedCallError as failure:
            _abort(context, failure)

    return getattr(grpc, f"{kind}_rpc_method_handler")(
        respond,
        request_deserializer=GetMessageClass(method.input_type).FromString,
        response_serializer=GetMessageClass(method.output_type).SerializeToString,
    )


def _abort(context: Any, failure: FailedCallError) -> None:
    if failure.details is not None:
        details = failure.details.SerializeToString()
        context.set_trailing_metadata([("grpc-status-details-bin", details)])
    context.abort(failure.code, "the test says so")


@contextmanager
def serve(engine: Engine) -> Iterator[str]:
    """Serve the engine, and yield its HOST:PORT."""
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool, handlers=[_Handlers(engine)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()
