# SPDX-License-Identifier: MIT
"""The door under load: limits, queues, deadlines, cancelled calls, shared builds, draining."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

import tvix_build
from serving import Builder, answer_to, details_of, door_to, method_of, refused, until
from tvix.build.protos.build_pb2 import Build, BuildRequest


def request(number: int) -> bytes:
    """One of many requests."""
    made = tvix_build.build_request(command_args=[str(number)], outputs=["out"])
    return made.SerializeToString()


class Held:
    """Builds that go on until they are let go."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.builder = Builder(self._answer)

    async def _answer(self, request: BuildRequest, context: Any) -> Build:
        await self.gate.wait()
        return answer_to(request)

    def running(self) -> int:
        """How many builds there are."""
        return len(self.builder.requests) - self.builder.cancelled


def test_calls_wait_for_their_turn_and_too_many_are_refused() -> None:
    async def scenario() -> None:
        held = Held()
        async with (
            door_to(held.builder, max_builds=2, max_queue=3) as door,
            method_of(door) as do_build,
        ):
            calls = [do_build(request(i)) for i in range(5)]
            await until(lambda: held.running() == 2)
            await until(lambda: door.numbers["open_calls"]() == 5)
            assert door.numbers["waiting_calls"]() == 3
            error = await refused(do_build(request(5)))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert details_of(error) == ("QUEUE_FULL", [])
            # An invalid one hears what is wrong with it, however full it is.
            assert (await refused(do_build(b""))).code() is grpc.StatusCode.INVALID_ARGUMENT
            held.gate.set()
            answers = [Build.FromString(await call) for call in calls]
            assert [list(one.build_request.command_args) for one in answers] == [
                [str(i)] for i in range(5)
            ]
            await do_build(request(6))
            assert door.numbers["open_calls"]() == door.numbers["builds"]() == 0

    asyncio.run(scenario())


def test_a_deadline_that_passes_in_the_queue() -> None:
    async def scenario() -> None:
        held = Held()
        async with door_to(held.builder, max_builds=1) as door, method_of(door) as do_build:
            first = do_build(request(0))
            await until(lambda: held.running() == 1)
            error = await refused(do_build(request(1), timeout=0.1))
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await until(lambda: door.numbers["waiting_calls"]() == 0)
            held.gate.set()
            await first
            assert len(held.builder.requests) == 1

    asyncio.run(scenario())


def test_a_deadline_that_passes_in_a_build_ends_it() -> None:
    async def scenario() -> None:
        held = Held()
        async with door_to(held.builder) as door, method_of(door) as do_build:
            error = await refused(do_build(request(0), timeout=0.2))
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await until(lambda: held.builder.cancelled == 1)
            await until(lambda: door.numbers["builds"]() == 0)

    asyncio.run(scenario())


@pytest.mark.parametrize("deduplicate", [False, True])
def test_a_cancelled_call_ends_its_build_and_frees_its_turn(deduplicate: bool) -> None:
    async def scenario() -> None:
        held = Held()
        async with (
            door_to(held.builder, max_builds=1, deduplicate=deduplicate) as door,
            method_of(door) as do_build,
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
        async with door_to(held.builder, deduplicate=True) as door, method_of(door) as do_build:
            # One of them is not canonical, and still the same.
            odd = BuildRequest(outputs=["out"]).SerializeToString() + b"\x0a\x010"
            calls = [do_build(one) for one in (request(0), odd, request(0), request(1))]
            await until(lambda: door.numbers["open_calls"]() == 4)
            assert door.numbers["shared_calls_total"]() == 2
            await until(lambda: held.running() == 2)
            held.gate.set()
            answers = [await call for call in calls]
            assert answers[0] == answers[1] == answers[2] != answers[3]
            assert len(held.builder.requests) == 2
            await do_build(request(0))  # What has ended is not remembered.
            assert len(held.builder.requests) == 3

    asyncio.run(scenario())


def test_callers_of_other_authorization_do_not_share() -> None:
    async def scenario() -> None:
        held = Held()
        async with door_to(held.builder, deduplicate=True) as door, method_of(door) as do_build:
            names = ["a", "a", "b"]
            calls = [do_build(request(0), metadata=(("authorization", one),)) for one in names]
            await until(lambda: door.numbers["open_calls"]() == 3)
            await until(lambda: held.running() == 2)
            held.gate.set()
            for call in calls:
                await call
            assert sorted(str(one["authorization"]) for one in held.builder.metadata) == ["a", "b"]

    asyncio.run(scenario())


@pytest.mark.parametrize("leave", ["cancel", "deadline"])
def test_who_leaves_a_shared_build_does_not_end_it(leave: str) -> None:
    async def scenario() -> None:
        held = Held()
        async with door_to(held.builder, deduplicate=True) as door, method_of(door) as do_build:
            first = do_build(request(0), timeout=0.3 if leave == "deadline" else None)
            await until(lambda: held.running() == 1)
            second = do_build(request(0))
            await until(lambda: door.numbers["open_calls"]() == 2)
            if leave == "cancel":
                first.cancel()
            await until(lambda: door.numbers["open_calls"]() == 1)
            assert held.builder.cancelled == 0
            held.gate.set()
            assert Build.FromString(await second).build_request.command_args == ["0"]
            assert held.builder.remaining == [None]

    asyncio.run(scenario())


def test_the_last_to_leave_ends_a_shared_build() -> None:
    async def scenario() -> None:
        held = Held()
        async with door_to(held.builder, deduplicate=True) as door, method_of(door) as do_build:
            calls = [do_build(request(0)) for _ in range(3)]
            await until(lambda: door.numbers["open_calls"]() == 3)
            await until(lambda: held.running() == 1)
            for call in calls:
                call.cancel()
            # A new call must not join the build that is being cancelled.
            held.gate.set()
            await do_build(request(0))
            assert held.builder.cancelled <= 1

    asyncio.run(scenario())


def test_all_who_share_hear_of_an_error() -> None:
    async def scenario() -> None:
        gate = asyncio.Event()

        async def fail(request: BuildRequest, context: Any) -> Build:
            await gate.wait()
            await context.abort(grpc.StatusCode.ABORTED, "why")
            raise AssertionError

        async with door_to(Builder(fail), deduplicate=True) as door, method_of(door) as do_build:
            calls = [do_build(request(0)) for _ in range(3)]
            await until(lambda: door.numbers["open_calls"]() == 3)
            gate.set()
            errors = [await refused(call) for call in calls]
            assert [(one.code(), one.details()) for one in errors] == [
                (grpc.StatusCode.ABORTED, "why")
            ] * 3

    asyncio.run(scenario())


@pytest.mark.parametrize("size", [100, 100_000, 3_000_000])
def test_messages_of_any_size_up_to_the_limit(size: int) -> None:
    data = tvix_build.build_request(command_args=["a" * size], outputs=["b"]).SerializeToString()
    answer = answer_to(BuildRequest.FromString(data)).SerializeToString()

    async def scenario(limit: int) -> Callable[[], Any]:
        async with (
            door_to(Builder(), max_message_size=limit) as door,
            method_of(door) as do_build,
        ):
            if limit >= len(answer):
                assert await do_build(data) == answer
                return lambda: None
            error = await refused(do_build(data))
            return error.code

    assert asyncio.run(scenario(len(answer)))() is None
    # The answer is too large, then the request is.
    for limit in (len(answer) - 1, len(data) - 1):
        assert asyncio.run(scenario(limit))() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_closing_lets_calls_end_and_refuses_new_ones() -> None:
    async def scenario() -> None:
        held = Held()
        async with door_to(held.builder) as door, method_of(door) as do_build:
            call = do_build(request(0))
            await until(lambda: held.running() == 1)
            closing = asyncio.create_task(door.close(1000))
            while True:  # Until the connection is known to close.
                error = await refused(do_build(request(1), timeout=0.1))
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    break
            assert not closing.done()
            held.gate.set()
            assert Build.FromString(await call).build_request.command_args == ["0"]
            await closing

    asyncio.run(scenario())


def test_closing_ends_calls_when_the_grace_is_over() -> None:
    async def scenario() -> None:
        held = Held()
        async with door_to(held.builder) as door, method_of(door) as do_build:
            call = do_build(request(0))
            await until(lambda: held.running() == 1)
            await door.close(0.1)
            error = await refused(call)
            assert error.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
            await until(lambda: held.builder.cancelled == 1)

    asyncio.run(scenario())
