# SPDX-License-Identifier: MIT
"""The proxy under load: limits, queues, deadlines, cancelled calls, shared builds, draining."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import tvix_build
from serving import Builder, details_of, error_of, method_of, proxy_to, response_to
from tvix.build.protos.build_pb2 import Build, BuildRequest
from tvix_build.proxy.shared.addresses import parse
from waiting import DEADLINES, LIMIT, until


def request(number: int) -> bytes:
    """Return one of many requests."""
    made = tvix_build.build_request(command_args=[str(number)], outputs=["out"])
    return made.SerializeToString()


class Held:
    """A builder whose builds wait for a gate."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.builder = Builder(self._respond)

    async def _respond(self, request: BuildRequest, context: Any) -> Build:
        await self.gate.wait()
        return response_to(request)

    def running(self) -> int:
        """Return the number of running builds."""
        return len(self.builder.requests) - self.builder.cancelled


def test_calls_wait_for_their_turn_and_too_many_are_error_of() -> None:
    async def scenario() -> None:
        held = Held()
        async with (
            proxy_to(held.builder, max_builds=2, max_queue=3) as proxy,
            method_of(proxy) as do_build,
        ):
            calls = [do_build(request(i)) for i in range(5)]
            await until(lambda: held.running() == 2)
            await until(lambda: proxy.numbers["open_calls"]() == 5)
            assert proxy.numbers["waiting_calls"]() == 3
            error = await error_of(do_build(request(5)))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert details_of(error) == ("QUEUE_FULL", [])
            # An invalid request gets its violations even if the queue is full.
            assert (await error_of(do_build(b""))).code() is grpc.StatusCode.INVALID_ARGUMENT
            held.gate.set()
            responses = [Build.FromString(await call) for call in calls]
            assert [list(one.build_request.command_args) for one in responses] == [
                [str(i)] for i in range(5)
            ]
            await do_build(request(6))
            assert proxy.numbers["open_calls"]() == proxy.numbers["builds"]() == 0

    asyncio.run(scenario())


def test_a_deadline_that_expires_in_the_queue() -> None:
    async def scenario(seconds: float) -> bool:
        held = Held()
        async with proxy_to(held.builder, max_builds=1) as proxy, method_of(proxy) as do_build:
            first = do_build(request(0))
            await until(lambda: held.running() == 1)
            second = do_build(request(1), timeout=seconds)
            waiting = proxy.numbers["waiting_calls"]
            await until(lambda: waiting() == 1 or second.done())
            queued = waiting() == 1
            assert (await error_of(second)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await until(lambda: waiting() == 0)
            held.gate.set()
            await first
            assert len(held.builder.requests) == 1
        return queued

    assert any(asyncio.run(scenario(seconds)) for seconds in DEADLINES)


def test_a_deadline_that_expires_cancels_the_build() -> None:
    async def scenario(seconds: float) -> bool:
        held = Held()
        async with proxy_to(held.builder) as proxy, method_of(proxy) as do_build:
            call = do_build(request(0), timeout=seconds)
            await until(lambda: held.running() == 1 or call.done())
            assert (await error_of(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await until(lambda: held.running() == proxy.numbers["builds"]() == 0)
            return held.builder.cancelled == 1

    assert any(asyncio.run(scenario(seconds)) for seconds in DEADLINES)


@pytest.mark.parametrize("deduplicate", [False, True])
def test_a_cancelled_call_cancels_its_build_and_frees_its_slot(deduplicate: bool) -> None:
    async def scenario() -> None:
        held = Held()
        async with (
            proxy_to(held.builder, max_builds=1, deduplicate=deduplicate) as proxy,
            method_of(proxy) as do_build,
        ):
            call = do_build(request(0))
            await until(lambda: held.running() == 1)
            call.cancel()
            await until(lambda: held.builder.cancelled == 1)
            held.gate.set()
            await do_build(request(0))

    asyncio.run(scenario())


def test_equal_calls_share_a_build() -> None:
    async def scenario() -> None:
        held = Held()
        async with proxy_to(held.builder, deduplicate=True) as proxy, method_of(proxy) as do_build:
            # One of the encodings is not canonical, but the request is the same.
            odd = BuildRequest(outputs=["out"]).SerializeToString() + b"\x0a\x010"
            calls = [do_build(one) for one in (request(0), odd, request(0), request(1))]
            await until(lambda: proxy.numbers["open_calls"]() == 4)
            assert proxy.numbers["deduplicated_calls_total"]() == 2
            await until(lambda: held.running() == 2)
            held.gate.set()
            responses = [await call for call in calls]
            assert responses[0] == responses[1] == responses[2] != responses[3]
            assert len(held.builder.requests) == 2
            await do_build(request(0))  # A build that has ended is not reused.
            assert len(held.builder.requests) == 3

    asyncio.run(scenario())


def test_calls_with_different_authorization_do_not_share_a_build() -> None:
    async def scenario() -> None:
        held = Held()
        async with proxy_to(held.builder, deduplicate=True) as proxy, method_of(proxy) as do_build:
            names = ["a", "a", "b"]
            calls = [do_build(request(0), metadata=(("authorization", one),)) for one in names]
            await until(lambda: proxy.numbers["open_calls"]() == 3)
            await until(lambda: held.running() == 2)
            held.gate.set()
            for call in calls:
                await call
            assert sorted(str(one["authorization"]) for one in held.builder.metadata) == ["a", "b"]

    asyncio.run(scenario())


@pytest.mark.parametrize("leave", ["cancel", "deadline"])
def test_cancelling_one_of_several_calls_keeps_their_build(leave: str) -> None:
    async def scenario(seconds: float | None) -> bool:
        held = Held()
        async with proxy_to(held.builder, deduplicate=True) as proxy, method_of(proxy) as do_build:
            first = do_build(request(0), timeout=seconds)
            await until(lambda: held.running() == 1 or first.done())
            second = do_build(request(0))
            open_calls = proxy.numbers["open_calls"]
            await until(lambda: open_calls() == 2 or first.done())
            if open_calls() < 2:
                return False
            if leave == "cancel":
                first.cancel()
            await until(lambda: open_calls() == 1)
            assert held.builder.cancelled == 0
            held.gate.set()
            assert Build.FromString(await second).build_request.command_args == ["0"]
            assert held.builder.remaining == [None]
            return True

    deadlines = DEADLINES if leave == "deadline" else [None]
    assert any(asyncio.run(scenario(seconds)) for seconds in deadlines)


def test_cancelling_the_last_call_cancels_a_shared_build() -> None:
    async def scenario() -> None:
        held = Held()
        async with proxy_to(held.builder, deduplicate=True) as proxy, method_of(proxy) as do_build:
            calls = [do_build(request(0)) for _ in range(3)]
            await until(lambda: proxy.numbers["open_calls"]() == 3)
            await until(lambda: held.running() == 1)
            for call in calls:
                call.cancel()
            # A new call must not join the build that is being cancelled.
            held.gate.set()
            await do_build(request(0))
            assert held.builder.cancelled <= 1

    asyncio.run(scenario())


def test_all_calls_of_a_shared_build_get_its_error() -> None:
    async def scenario() -> None:
        gate = asyncio.Event()

        async def fail(request: BuildRequest, context: Any) -> Build:
            await gate.wait()
            await context.abort(grpc.StatusCode.ABORTED, "why")
            raise AssertionError

        async with proxy_to(Builder(fail), deduplicate=True) as proxy, method_of(proxy) as do_build:
            calls = [do_build(request(0)) for _ in range(3)]
            await until(lambda: proxy.numbers["open_calls"]() == 3)
            gate.set()
            errors = [await error_of(call) for call in calls]
            assert [(one.code(), one.details()) for one in errors] == [
                (grpc.StatusCode.ABORTED, "why")
            ] * 3

    asyncio.run(scenario())


@pytest.mark.slow
@pytest.mark.parametrize("size", [100, 100_000, 3_000_000])
def test_messages_of_any_size_up_to_the_limit(size: int) -> None:
    data = tvix_build.build_request(command_args=["a" * size], outputs=["b"]).SerializeToString()
    response = response_to(BuildRequest.FromString(data)).SerializeToString()

    async def scenario(limit: int) -> Callable[[], Any]:
        async with (
            proxy_to(Builder(), max_message_size=limit) as proxy,
            method_of(proxy) as do_build,
        ):
            if limit >= len(response):
                assert await do_build(data) == response
                return lambda: None
            error = await error_of(do_build(data))
            return error.code

    assert asyncio.run(scenario(len(response)))() is None
    # The response is too large, then the request is.
    for limit in (len(response) - 1, len(data) - 1):
        assert asyncio.run(scenario(limit))() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_closing_waits_for_calls_and_rejects_new_ones() -> None:
    async def scenario() -> None:
        held = Held()
        async with proxy_to(held.builder) as proxy, method_of(proxy) as do_build:
            call = do_build(request(0))
            await until(lambda: held.running() == 1)
            closing = asyncio.create_task(proxy.close(1000))
            # The client may not know yet that the connection closes.
            for seconds in DEADLINES:
                error = await error_of(do_build(request(1), timeout=seconds))
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    break
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert not closing.done()
            held.gate.set()
            assert Build.FromString(await call).build_request.command_args == ["0"]
            await closing

    asyncio.run(scenario())


def test_closing_cancels_calls_after_the_grace_period() -> None:
    async def scenario() -> None:
        held = Held()
        async with proxy_to(held.builder) as proxy, method_of(proxy) as do_build:
            call = do_build(request(0))
            await until(lambda: held.running() == 1)
            await proxy.close(0.1)
            error = await error_of(call)
            assert error.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
            await until(lambda: held.builder.cancelled == 1)

    asyncio.run(scenario())


@pytest.mark.slow
@pytest.mark.parametrize("round_seconds", [0.0, 0.01])
def test_calls_that_a_shutdown_does_not_accept_are_unavailable(round_seconds: float) -> None:
    """Not CANCELLED, which means that the caller cancelled the call. Also if each round of the
    event loop takes long, as on a busy machine."""

    async def scenario() -> None:
        async def delay_rounds() -> None:
            while True:
                time.sleep(round_seconds)
                await asyncio.sleep(0)

        async with proxy_to(Builder()) as proxy, method_of(proxy) as do_build:
            await do_build(request(0))
            calls = [asyncio.ensure_future(do_build(request(i))) for i in range(200)]
            delaying = asyncio.create_task(delay_rounds())
            await asyncio.wait(calls[:1])
            await proxy.close(LIMIT)
            found = await asyncio.gather(*calls, return_exceptions=True)
            delaying.cancel()
            codes = {one.code() for one in found if isinstance(one, grpc.aio.AioRpcError)}
            assert codes <= {grpc.StatusCode.UNAVAILABLE}

    asyncio.run(scenario())


def test_a_shutdown_ends_calls_after_the_grace_period() -> None:
    async def scenario() -> None:
        held = Held()
        async with proxy_to(held.builder) as proxy, method_of(proxy) as do_build:
            call = do_build(request(0))
            await until(lambda: held.running() == 1)
            await proxy.close(0.01)
            error = await error_of(call)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert details_of(error) == ("SHUTTING_DOWN", [])
            await until(lambda: held.builder.cancelled == 1)

    asyncio.run(scenario())


def test_calls_are_accepted_during_the_drain_delay() -> None:
    async def scenario() -> None:
        async with (
            proxy_to(Builder(), drain_delay=LIMIT) as proxy,
            method_of(proxy) as do_build,
            grpc.aio.insecure_channel(parse(proxy.addresses[0]).target) as channel,
        ):
            stub: Any = health_pb2_grpc.HealthStub(channel)
            watch = stub.Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            closing = asyncio.create_task(proxy.close(LIMIT))
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            watch.cancel()
            await do_build(request(0))
            await proxy.close(None)
            await closing

    asyncio.run(scenario())
