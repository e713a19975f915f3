# SPDX-License-Identifier: MIT
"""Handles calls: receives raw bytes from gRPC, validates them, and forwards them to a builder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import grpc
import grpc.aio

from tvix_build._core.report import ValidationError
from tvix_build.proxy.builder_protocol import Builder, Call, Caller, Metadata, Response
from tvix_build.proxy.logs import LOG
from tvix_build.proxy.metadata import forwarded as forwarded_metadata
from tvix_build.proxy.metadata import returned
from tvix_build.proxy.open_calls import OpenCall, OpenCalls, cancelled_if_ended
from tvix_build.proxy.outcomes import Observer, Outcome
from tvix_build.proxy.receiving import Receiver
from tvix_build.proxy.shared.checks import DIGEST_KEY, check_request_async
from tvix_build.proxy.shared.services import Service
from tvix_build.proxy.status import (
    StatusError,
    cancelled_code,
    invalid_request,
    shutting_down,
    status_error,
)

_Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
_Tracing: TypeAlias = Callable[[Outcome, Metadata], AbstractContextManager[None]]
_NOTHING = nullcontext()


class ProxyService:
    """DoBuild, the only method of a service.

    Args:
        service: the service.
        builder: receives the valid requests.
        observers: are called with the outcome of each call.
        calls: counts the calls.
        receiver: receives the requests.
        identify: returns the caller of a call with its metadata, or raises a StatusError.
        forwarded: the names of the metadata that the builder receives; None for all.
        tracing: makes the context manager in which a call runs.
    """

    def __init__(
        self,
        service: Service,
        builder: Builder,
        observers: Sequence[Observer],
        calls: OpenCalls,
        receiver: Receiver,
        identify: Callable[[_Context, Metadata], Caller],
        forwarded: Collection[str] | None = None,
        tracing: _Tracing | None = None,
    ) -> None:
        self._service = service
        self._builder = builder
        self._observers = observers
        self._calls = calls
        self._receiver = receiver
        self._identify = identify
        self._forwarded = forwarded
        self._tracing = tracing or (lambda *_: _NOTHING)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler for gRPC, from bytes to bytes. For gRPC, the requests are streams, so
        that it does not read them by itself."""
        do_build: Any = self._do_build  # Of a stream of responses, gRPC ignores what it returns.
        streams, unary = grpc.stream_stream_rpc_method_handler, grpc.stream_unary_rpc_method_handler
        method: Any = (streams if self._service.streams else unary)(do_build)
        return grpc.method_handlers_generic_handler(self._service.name, {"DoBuild": method})

    async def _do_build(self, _: object, context: _Context) -> bytes:
        call = self._calls.begin(context)
        metadata = tuple(context.invocation_metadata() or ())
        outcome = Outcome(self._service, context.peer())
        begin = time.monotonic()
        response: Response | None = None
        failure: StatusError | None = None
        with self._tracing(outcome, metadata):
            try:
                if self._calls.refusing:
                    raise shutting_down()
                caller = self._identify(context, metadata)
                outcome.caller = caller.name
                response = await self._receive_and_build(call, metadata, caller, context, outcome)
            except StatusError as error:
                failure = error.without_frames()
                outcome.fail(error)
            except (asyncio.CancelledError, grpc.aio.AbortError):
                if call.failure is None:
                    outcome.code, outcome.by = cancelled_code(context), "client"
                    raise
                failure = call.failure
                outcome.fail(failure)
            finally:
                outcome.seconds = time.monotonic() - begin
                for observe in self._observers:
                    observe(outcome)
        digest = ((DIGEST_KEY, outcome.digest.hex()),) if outcome.digest else ()
        if response is None:
            assert failure
            trailing = (*returned(failure.trailing_metadata), *digest)
            await call.abort(failure, trailing)
        if response.initial_metadata:
            await context.send_initial_metadata(returned(response.initial_metadata))
        context.set_trailing_metadata((*returned(response.trailing_metadata), *digest))
        return response.data

    async def _receive_and_build(
        self,
        call: OpenCall,
        metadata: Metadata,
        caller: Caller,
        context: _Context,
        outcome: Outcome,
    ) -> Response:
        """Receive and validate a request, and return the response of the builder.

        Raises:
            StatusError: for each failure.
            CancelledError, AbortError: if the call is ended.
        """
        # Not in the frame of `_do_build`, which gRPC keeps when it aborts a call, and the request.
        request = await self._receiver.receive(call, context, caller.share)
        outcome.request_size = len(request)
        service = self._service
        try:
            try:
                checked = await check_request_async(service, request)
            except ValidationError as error:
                raise invalid_request(service, error) from None
            outcome.digest = checked.digest
            digest = checked.digest.hex()
            forwarded = forwarded_metadata(metadata, digest, self._forwarded)
            remaining = context.time_remaining
            updates = _Updates(context, outcome) if service.streams else None
            response = await self._builder.build(
                Call(
                    service, checked.encoding, checked.digest, forwarded, remaining, caller, updates
                )
            )
        except StatusError:
            raise
        except Exception:
            LOG.exception("internal error")
            raise status_error(
                grpc.StatusCode.INTERNAL,
                "INTERNAL_ERROR",
                "internal error in the proxy; see the proxy's log",
            ) from None
        outcome.response_size += len(response.data)
        self._receiver.hold(call, caller.share, request, response.data)
        return response


class _Updates:
    """Sends the updates of a response to the caller."""

    def __init__(self, context: _Context, outcome: Outcome) -> None:
        self._context = context
        self._outcome = outcome

    async def begin(self, initial_metadata: Metadata) -> None:
        """As `Updates.begin`."""
        with cancelled_if_ended():
            await self._context.send_initial_metadata(returned(initial_metadata))

    async def send(self, update: bytes) -> None:
        """As `Updates.send`."""
        with cancelled_if_ended():
            await self._context.write(update)
        self._outcome.response_size += len(update)
