# SPDX-License-Identifier: MIT
"""Limits calls of the castore services and of PlanService, and ends each with a status that is
observed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import (
    AbstractContextManager,
    aclosing,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from typing import Any, TypeAlias, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from tvix_build._core.engine import DIGEST_SIZE
from tvix_build.castore import CastoreError, TreeError
from tvix_build.castore.transfers import UnexpectedContentError
from tvix_build.proxy.builder_protocol import Metadata
from tvix_build.proxy.logs import LOG, log_castore_failure
from tvix_build.proxy.open_calls import OpenCalls, cancelled_if_ended
from tvix_build.proxy.outcomes import ServiceObserver, ServiceOutcome
from tvix_build.proxy.status import (
    StatusError,
    cancelled_code,
    castore_unavailable,
    status_error,
)

T = TypeVar("T")
AnyMessage = TypeVar("AnyMessage", bound=Message)
Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


class ServiceCalls:
    """The calls of all castore services, or of PlanService.

    Args:
        open_calls: counts the calls.
        observers: are called with the outcome of each call.
        max_calls: the limit of concurrent calls; further ones are rejected.
        max_upload_size: the limit of all messages of an upload, in bytes.
        identify: raises the status of a caller who is not allowed.
        tracing: makes the context manager in which a call runs.

    Attributes:
        calls: the number of calls that have not ended.
    """

    def __init__(
        self,
        open_calls: OpenCalls,
        observers: Sequence[ServiceObserver],
        max_calls: int,
        max_upload_size: int,
        identify: Callable[[Context, Metadata], object] = lambda *_: None,
        tracing: Callable[[ServiceOutcome, Metadata], AbstractContextManager[None]] | None = None,
    ) -> None:
        self._open_calls = open_calls
        self._observers = observers
        self._max_calls = max_calls
        self._max_upload_size = max_upload_size
        self._identify = identify
        self._tracing = tracing or (lambda *_: nullcontext())
        self.calls: int = 0

    @asynccontextmanager
    async def call(
        self, context: Context, method: str, request_size: int = 0
    ) -> AsyncIterator[ServiceOutcome]:
        """Run a call: count it, or reject it. End it with the status of an error, and observe it.

        Args:
            method: the name of the method, with its service and package.
            request_size: the size of the request, if it is not a stream.
        """
        self._open_calls.begin(context)
        outcome = ServiceOutcome(method, context.peer(), request_size)
        metadata = tuple(context.invocation_metadata() or ())
        failure: StatusError | None = None
        begin = time.monotonic()
        with self._tracing(outcome, metadata):
            try:
                with self._counted(), _statuses():
                    self._identify(context, metadata)
                    yield outcome
            except StatusError as error:
                failure = error.without_frames()
                outcome.code, outcome.by, outcome.message = error.code, error.by, error.message
            except (asyncio.CancelledError, GeneratorExit):
                outcome.code, outcome.by = cancelled_code(context), "client"
                raise
            finally:
                outcome.seconds = time.monotonic() - begin
                for observe in self._observers:
                    observe(outcome)
        if failure is not None:
            with cancelled_if_ended():
                await context.abort(failure.code, failure.message, failure.trailing_metadata)

    async def received(
        self, requests: AsyncIterator[bytes], context: Context, outcome: ServiceOutcome
    ) -> AsyncIterator[bytes]:
        """Yield the messages of an upload.

        Raises:
            StatusError: if they exceed the limit.
        """
        async for data in requests:
            outcome.request_size += len(data)
            if outcome.request_size > self._max_upload_size:
                message = f"the limit of {self._max_upload_size} bytes of an upload is exceeded"
                raise status_error(_EXHAUSTED, "UPLOAD_TOO_LARGE", message)
            yield data
        # The iterator also ends when the client cancels, possibly before this task is cancelled.
        # Then the connection cannot be written to.
        # A UsageError means that a stream of responses has begun.
        with suppress(grpc.aio.UsageError), cancelled_if_ended():
            await context.send_initial_metadata(())

    @contextmanager
    def _counted(self) -> Iterator[None]:
        if self.calls >= self._max_calls:
            message = f"the limit of {self._max_calls} concurrent calls is reached; try again later"
            raise status_error(_EXHAUSTED, "TOO_MANY_CALLS", message)
        self.calls += 1
        try:
            yield
        finally:
            self.calls -= 1


def sending(method: Callable[[Any, Context], AsyncIterator[bytes]]) -> Any:
    """Return a handler for gRPC that sends what a method yields, and closes its generator while the
    call exists. If gRPC itself iterated, and the client cancelled a response that waits to be sent,
    the generator would be closed after gRPC has freed the call."""

    async def send(request: Any, context: Context) -> None:
        responses: Any = method(request, context)
        async with aclosing(responses):
            async for response in responses:
                with cancelled_if_ended():
                    await context.write(response)

    return send


async def run_in(threads: Executor, function: Callable[..., T], *args: Any) -> T:
    """Call a function in a thread. Cancellation waits for its end, as it may use a file that the
    caller closes."""
    return await complete(asyncio.get_running_loop().run_in_executor(threads, function, *args))


async def complete(work: Awaitable[T]) -> T:
    """Return the result of work. Cancellation waits for its end, so that none of it is missing."""
    future = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise


def parse(kind: type[AnyMessage], data: bytes) -> AnyMessage:
    """Return a message.

    Raises:
        StatusError: if the bytes do not decode.
    """
    try:
        return kind.FromString(data)
    except DecodeError:
        raise status_error(
            grpc.StatusCode.INVALID_ARGUMENT,
            "MALFORMED",
            f"expected a serialized {kind.DESCRIPTOR.name}, found bytes that do not decode",
        ) from None


def check_digest(digest: bytes) -> bytes:
    """Return a digest.

    Raises:
        StatusError: if it has another length.
    """
    if len(digest) != DIGEST_SIZE:
        raise status_error(
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_DIGEST",
            f"expected a digest of {DIGEST_SIZE} bytes, found {len(digest)}",
        )
    return digest


@contextmanager
def _statuses() -> Iterator[None]:
    """Raise errors as the status that a caller gets."""
    try:
        yield
    except StatusError:
        raise
    except TreeError as error:
        code = grpc.StatusCode.INVALID_ARGUMENT
        raise status_error(code, "INVALID_DIRECTORIES", str(error)) from None
    except CastoreError as error:
        LOG.error("damaged castore", extra={"fields": {"message": str(error)}})
        message = "an object in the castore store is damaged; see the server's log"
        raise status_error(grpc.StatusCode.DATA_LOSS, "DAMAGED", message) from None
    except UnexpectedContentError as error:
        LOG.error("wrong content behind the castore", extra={"fields": {"message": str(error)}})
        message = "the server behind the castore store returned wrong content"
        raise status_error(grpc.StatusCode.DATA_LOSS, "DAMAGED", message) from None
    except grpc.RpcError as error:
        log_castore_failure(error)
        raise castore_unavailable() from None
    except Exception:
        LOG.exception("internal error")
        raise status_error(
            grpc.StatusCode.INTERNAL,
            "INTERNAL_ERROR",
            "internal error in the server; see the server's log",
        ) from None
