# SPDX-License-Identifier: MIT
"""Handles calls: receives raw bytes from gRPC, validates them, and forwards them to a builder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

import grpc
import grpc.aio

from tvix_build._core.report import ValidationError
from tvix_build.proxy.builder_protocol import Builder, Call, Metadata, Response
from tvix_build.proxy.logs import LOG
from tvix_build.proxy.open_calls import OpenCalls
from tvix_build.proxy.outcomes import Observer, Outcome
from tvix_build.proxy.shared.checks import DIGEST_KEY, check_request_async
from tvix_build.proxy.shared.services import Service
from tvix_build.proxy.status import (
    StatusError,
    cancelled_code,
    invalid_request,
    status_error,
)

_Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
_Tracing: TypeAlias = Callable[[Outcome, Metadata], AbstractContextManager[None]]
_NOTHING = nullcontext()


class ProxyService:
    """DoBuild, the only method of each service.

    Args:
        builder: receives the valid requests.
        observers: are called with the outcome of each call.
        calls: counts the calls.
        tracing: makes the context manager in which a call runs.
    """

    def __init__(
        self,
        builder: Builder,
        observers: Sequence[Observer],
        calls: OpenCalls,
        tracing: _Tracing | None = None,
    ) -> None:
        self._builder = builder
        self._observers = observers
        self._calls = calls
        self._tracing = tracing or (lambda *_: _NOTHING)

    def handlers(self, services: Iterable[Service]) -> list[grpc.GenericRpcHandler]:
        """Return the handlers for gRPC, from bytes to bytes."""
        return [
            grpc.method_handlers_generic_handler(
                service.name,
                {"DoBuild": grpc.unary_unary_rpc_method_handler(self._method(service))},
            )
            for service in services
        ]

    def _method(self, service: Service) -> Callable[[bytes, _Context], Awaitable[bytes]]:
        # Not functools.partial: for each call, gRPC would inspect whether it wraps a coroutine.
        async def do_build(request: bytes, context: _Context) -> bytes:
            return await self._do_build(service, request, context)

        return do_build

    async def _do_build(self, service: Service, request: bytes, context: _Context) -> bytes:
        self._calls.begin(context)
        metadata = tuple(context.invocation_metadata() or ())
        outcome = Outcome(service, context.peer, len(request))
        begin = time.monotonic()
        response: Response | None = None
        failure: StatusError | None = None
        with self._tracing(outcome, metadata):
            try:
                response = await self._build(request, metadata, context, outcome)
                outcome.response_size = len(response.data)
            except StatusError as error:
                failure = error
                outcome.code, outcome.by, outcome.message = error.code, error.by, error.message
                outcome.violations = error.violations
            except asyncio.CancelledError:
                outcome.code, outcome.by = cancelled_code(context), "client"
                raise
            finally:
                outcome.seconds = time.monotonic() - begin
                for observe in self._observers:
                    observe(outcome)
        digest = ((DIGEST_KEY, outcome.digest.hex()),) if outcome.digest else ()
        if response is None:
            assert failure
            trailing = (*_without_digest(failure.trailing_metadata), *digest)
            await context.abort(failure.code, failure.message, trailing)
        if response.initial_metadata:
            await context.send_initial_metadata(response.initial_metadata)
        context.set_trailing_metadata((*_without_digest(response.trailing_metadata), *digest))
        return response.data

    async def _build(
        self, request: bytes, metadata: Metadata, context: _Context, outcome: Outcome
    ) -> Response:
        """Validate a request and return the response of the builder.

        Raises:
            StatusError: for each failure.
        """
        service = outcome.service
        try:
            try:
                checked = await check_request_async(service, request)
            except ValidationError as error:
                raise invalid_request(service, error) from None
            outcome.digest = checked.digest
            digest = checked.digest.hex()
            forwarded = _forwarded_metadata(metadata, digest)
            remaining = context.time_remaining
            return await self._builder.build(
                Call(service, checked.encoding, checked.digest, forwarded, remaining)
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


def _forwarded_metadata(metadata: Metadata, digest: str) -> Metadata:
    """Return the metadata for the builder: the caller's, without what gRPC sets, with the digest.

    Raises:
        StatusError: if the digest in the caller's metadata is another one.
    """
    forwarded = []
    for name, value in metadata:
        if name == DIGEST_KEY:
            if value != digest:
                raise status_error(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    "DIGEST_MISMATCH",
                    f"expected the digest of the request, {digest}, in {DIGEST_KEY}, found "
                    f"{value!r:.100}",
                )
        elif name != "user-agent" and not name.startswith("grpc-"):
            forwarded.append((name, value))
    forwarded.append((DIGEST_KEY, digest))
    return tuple(forwarded)


def _without_digest(metadata: Metadata) -> Metadata:
    return tuple(one for one in metadata if one[0] != DIGEST_KEY)
