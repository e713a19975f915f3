# SPDX-License-Identifier: MIT
"""Takes calls from gRPC as raw bytes, checks them, has them built, and gives the answers back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import grpc
import grpc.aio

from tvix_build._report import InvalidMessage
from tvix_build.proxy.builder_protocol import Answer, Builder, Call, Metadata
from tvix_build.proxy.logs import LOG
from tvix_build.proxy.outcomes import Observer, Outcome
from tvix_build.proxy.shared.checks import DIGEST_KEY, check_request_aside
from tvix_build.proxy.shared.services import Service
from tvix_build.proxy.status import Refusal, invalid_request, refusal

_Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
_Tracing: TypeAlias = Callable[[Outcome, Metadata], AbstractContextManager[None]]
_NOTHING = nullcontext()


class Door:
    """The one method of each service.

    Args:
        builder: answers what is valid.
        observers: hear of each call that ended.
        tracing: what surrounds each call.
    """

    def __init__(
        self, builder: Builder, observers: Sequence[Observer], tracing: _Tracing | None = None
    ) -> None:
        self._builder = builder
        self._observers = observers
        self._tracing = tracing or (lambda *_: _NOTHING)
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def handlers(self, services: Iterable[Service]) -> list[grpc.GenericRpcHandler]:
        """What gRPC calls, on bytes."""
        return [
            grpc.method_handlers_generic_handler(
                service.name,
                {"DoBuild": grpc.unary_unary_rpc_method_handler(self._method(service))},
            )
            for service in services
        ]

    def _method(self, service: Service) -> Callable[[bytes, _Context], Awaitable[bytes]]:
        # Not functools.partial: gRPC looks into it for every call, whether it is a coroutine.
        async def do_build(request: bytes, context: _Context) -> bytes:
            return await self._do_build(service, request, context)

        return do_build

    async def wait_until_idle(self) -> None:
        """Wait until every call has ended and its answer is sent."""
        await self._idle.wait()

    async def _do_build(self, service: Service, request: bytes, context: _Context) -> bytes:
        self._begin(context)
        metadata = tuple(context.invocation_metadata() or ())
        outcome = Outcome(service, context.peer, len(request))
        begin = time.monotonic()
        answer: Answer | None = None
        refused: Refusal | None = None
        with self._tracing(outcome, metadata):
            try:
                answer = await self._answer(request, metadata, context, outcome)
                outcome.answer_size = len(answer.data)
            except Refusal as error:
                refused = error
                outcome.code, outcome.by, outcome.message = error.code, error.by, error.message
                outcome.violations = error.violations
            except asyncio.CancelledError:
                outcome.code, outcome.by = _given_up(context), "client"
                raise
            finally:
                outcome.seconds = time.monotonic() - begin
                for observe in self._observers:
                    observe(outcome)
        digest = ((DIGEST_KEY, outcome.digest.hex()),) if outcome.digest else ()
        if answer is None:
            assert refused
            trailing = (*_without_digest(refused.trailing_metadata), *digest)
            await context.abort(refused.code, refused.message, trailing)
        if answer.initial_metadata:
            await context.send_initial_metadata(answer.initial_metadata)
        context.set_trailing_metadata((*_without_digest(answer.trailing_metadata), *digest))
        return answer.data

    async def _answer(
        self, request: bytes, metadata: Metadata, context: _Context, outcome: Outcome
    ) -> Answer:
        """Check a request and have it built.

        Raises:
            Refusal: whatever fails.
        """
        service = outcome.service
        try:
            try:
                checked = await check_request_aside(service, request)
            except InvalidMessage as error:
                raise invalid_request(service, error) from None
            outcome.digest = checked.digest
            digest = checked.digest.hex()
            told = _forwarded(metadata, digest)
            remaining = context.time_remaining
            return await self._builder.build(
                Call(service, checked.encoding, checked.digest, told, remaining)
            )
        except Refusal:
            raise
        except Exception:
            LOG.exception("a call failed")
            raise refusal(
                grpc.StatusCode.INTERNAL, "FAILED", "the door failed; its log says why"
            ) from None

    def _begin(self, context: _Context) -> None:
        self._calls += 1
        self._idle.clear()
        end: Any = self._end  # The type that stubs give it is none of functions.
        context.add_done_callback(end)

    def _end(self, _: _Context) -> None:
        self._calls -= 1
        if not self._calls:
            self._idle.set()


def _forwarded(metadata: Metadata, digest: str) -> Metadata:
    """The caller's metadata for the builder: without what gRPC sets, with the true digest.

    Raises:
        Refusal: if the caller says another digest.
    """
    told = []
    for name, value in metadata:
        if name == DIGEST_KEY:
            if value != digest:
                raise refusal(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    "OTHER_DIGEST",
                    f"expected {DIGEST_KEY} to be the request's, {digest}, found {value!r:.100}",
                )
        elif name != "user-agent" and not name.startswith("grpc-"):
            told.append((name, value))
    told.append((DIGEST_KEY, digest))
    return tuple(told)


def _without_digest(metadata: Metadata) -> Metadata:
    return tuple(one for one in metadata if one[0] != DIGEST_KEY)


def _given_up(context: _Context) -> grpc.StatusCode:
    remaining = context.time_remaining()
    late = remaining is not None and remaining <= 0
    return grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
