# SPDX-License-Identifier: MIT
"""The proxy in front of several builders: balance, health, timeouts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

import tvix_build
from serving import (
    Builder,
    details_of,
    error_of,
    method_of,
    open_proxy,
    proxy_to,
    response_to,
    running,
)
from tvix.build.protos import rpc_build_pb2_grpc
from tvix.build.protos.build_pb2 import Build, BuildRequest
from tvix_build.proxy.server import Server
from tvix_build.proxy.shared.addresses import parse
from waiting import DEADLINES, LIMIT, until

DATA = tvix_build.build_request(command_args=["a"], outputs=["b"]).SerializeToString()
SERVICE = "tvix.build.v1.BuildService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Held:
    """A builder whose builds wait for a gate."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.builder = Builder(self._respond)

    async def _respond(self, request: BuildRequest, _context: Any) -> Build:
        await self.gate.wait()
        return response_to(request)


async def health_of(proxy: Server) -> int:
    """Return the health of the service of a proxy."""
    async with grpc.aio.insecure_channel(parse(proxy.addresses[0]).target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        response = await stub.Check(health_pb2.HealthCheckRequest(service=SERVICE))
        status: int = response.status
        return status


@asynccontextmanager
async def with_health(builder: Builder) -> AsyncIterator[tuple[str, Any]]:
    """Run a builder that has the health service; yield its address and its health."""
    server = grpc.aio.server()
    add: Any = rpc_build_pb2_grpc.add_BuildServiceServicer_to_server
    add(builder, server)
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    await servicer.set(SERVICE, SERVING)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"grpc+http://127.0.0.1:{port}", servicer
    finally:
        await server.stop(None)


def test_calls_go_to_the_builder_with_the_fewest() -> None:
    async def scenario() -> None:
        first, second = Held(), Held()
        async with (
            running(first.builder) as one,
            running(second.builder) as other,
            open_proxy(upstreams=[parse(one), parse(other)]) as proxy,
            method_of(proxy) as do_build,
        ):
            calls = [asyncio.ensure_future(do_build(DATA)) for _ in range(6)]
            await until(lambda: len(first.builder.requests) == len(second.builder.requests) == 3)
            first.gate.set()
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            second.gate.set()
            await asyncio.gather(*calls)
            assert proxy.numbers["healthy_builders"]() == 2

    asyncio.run(scenario())


def test_a_builder_that_is_gone_gets_no_calls() -> None:
    async def scenario() -> None:
        left = Builder()
        async with running(Builder()) as gone:
            pass
        async with (
            running(left) as address,
            open_proxy(upstreams=[parse(gone), parse(address)]) as proxy,
            method_of(proxy) as do_build,
        ):
            await until(lambda: proxy.numbers["healthy_builders"]() == 1)
            for _ in range(5):
                await do_build(DATA)
            assert await health_of(proxy) == SERVING

    asyncio.run(scenario())


@pytest.mark.slow
@pytest.mark.parametrize("independent", [False, True])
def test_health_follows_the_builders(independent: bool) -> None:
    async def scenario() -> None:
        async with (
            with_health(Builder()) as (address, servicer),
            open_proxy(address, check_interval=0.01, independent_health=independent) as proxy,
            method_of(proxy) as do_build,
        ):
            await do_build(DATA)
            await servicer.set(SERVICE, NOT_SERVING)
            await until(lambda: proxy.numbers["healthy_builders"]() == 0)
            error = await error_of(do_build(DATA))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert details_of(error) == ("NO_BUILDER", [])
            assert await health_of(proxy) == (SERVING if independent else NOT_SERVING)
            await servicer.set(SERVICE, SERVING)
            await until(lambda: proxy.numbers["healthy_builders"]() == 1)
            await do_build(DATA)
            assert await health_of(proxy) == SERVING

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_builder_that_hangs_is_left_after_five_timeouts() -> None:
    async def scenario() -> None:
        held = Held()
        async with (
            with_health(held.builder) as (address, servicer),
            open_proxy(address, upstream_timeout=1.0, check_interval=LIMIT) as proxy,
            method_of(proxy) as do_build,
        ):
            for number in range(5):
                call = asyncio.ensure_future(error_of(do_build(DATA)))
                if number == 4:  # The check that follows comes before anything later.
                    await until(lambda: proxy.numbers["builds"]() == 1)
                    await servicer.set(SERVICE, NOT_SERVING)
                error = await call
                assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                assert details_of(error) == ("UPSTREAM_TIMEOUT", [])
            await until(lambda: proxy.numbers["healthy_builders"]() == 0)
            assert details_of(await error_of(do_build(DATA))) == ("NO_BUILDER", [])

    asyncio.run(scenario())


def test_a_deadline_of_the_caller_is_no_timeout_of_the_builder() -> None:
    async def scenario() -> None:
        held = Held()
        async with (
            proxy_to(held.builder, upstream_timeout=LIMIT) as proxy,
            method_of(proxy) as do_build,
        ):
            error = await error_of(do_build(DATA, timeout=DEADLINES[0]))
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert proxy.numbers["healthy_builders"]() == 1

    asyncio.run(scenario())
