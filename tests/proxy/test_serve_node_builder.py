# SPDX-License-Identifier: MIT
"""The proxy in front of a builder made with Node's HTTP/2, which shares no code with gRPC's."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from shutil import which
from tempfile import TemporaryFile
from typing import Any

import grpc
import grpc.aio
import pytest

import tvix_build
from serving import METHOD, error_of, method_of, open_proxy, response_to, socket_directory
from snix.build.protos.build_pb2 import BuildRequest, BuildUpdate
from tvix_build.proxy.shared.addresses import parse
from tvix_build.proxy.shared.services import SERVICES
from waiting import LIMIT

BUILDER = Path(__file__).parents[1] / "consumers/node/builder.js"
STREAMING = SERVICES["snix.build.v1@2026"]
REQUEST = tvix_build.build_request(command_args=["a"], outputs=["b"])
DATA = REQUEST.SerializeToString()
RESPONSE = response_to(REQUEST).SerializeToString()
DIGEST = tvix_build.digest(REQUEST).hex()
OK = {"grpc-status": "0"}

pytestmark = pytest.mark.skipif(which("node") is None, reason="needs node")


class Builder:
    """A running builder.

    Attributes:
        address: its address, for the proxy.
    """

    def __init__(self, process: asyncio.subprocess.Process, address: str) -> None:
        self._process = process
        self.address = address

    def kill(self) -> None:
        """Kill its process."""
        self._process.kill()

    async def line(self) -> Any:
        """Return the next line that it prints."""
        assert self._process.stdout
        return json.loads(await asyncio.wait_for(self._process.stdout.readline(), LIMIT))


@asynccontextmanager
async def builder_with(
    *messages: bytes, trailers: dict[str, str] = OK, end: bool = True, path: str = ""
) -> AsyncIterator[Builder]:
    """Run a builder with these messages in its response, on a free port or a unix socket."""
    encoded = [b64encode(one).decode() for one in messages]
    response = json.dumps({"messages": encoded, "trailers": trailers, "end": end})
    with TemporaryFile() as file:
        file.write(response.encode())
        file.seek(0)
        process = await asyncio.create_subprocess_exec(
            *("node", BUILDER, path or "0"), stdin=file, stdout=asyncio.subprocess.PIPE
        )
    try:
        builder = Builder(process, f"grpc+unix:{path}")
        bound = await builder.line()
        if not path:
            builder.address = f"grpc+http://127.0.0.1:{bound}"
        yield builder
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.parametrize("name", ["", "b.sock", "a b%41.sock"], ids=["tcp", "unix", "characters"])
def test_a_call(name: str) -> None:
    async def scenario() -> None:
        with socket_directory() as directory:
            path = f"{directory}/{name}" if name else ""
            async with (
                builder_with(RESPONSE, trailers={**OK, "last": "1"}, path=path) as builder,
                open_proxy(builder.address) as proxy,
                method_of(proxy) as do_build,
            ):
                call = do_build(DATA, metadata=[("mine", "2")])
                assert await call == RESPONSE
                assert dict(await call.trailing_metadata())["last"] == "1"
                received = await builder.line()
        assert b64decode(received["request"]) == DATA
        headers = received["headers"]
        authority = "localhost" if name else builder.address.rpartition("/")[2]
        assert headers[":authority"] == authority
        assert (headers[":path"], headers["te"]) == (METHOD, "trailers")
        assert (headers["mine"], headers["tvix-build-digest"]) == ("2", DIGEST)

    asyncio.run(scenario())


def test_a_status_with_large_details() -> None:
    details = b64encode(bytes(12 << 10)).decode()
    trailers = {
        "grpc-status": "10",
        "grpc-message": "no%20space",
        "grpc-status-details-bin": details,
    }

    async def scenario() -> None:
        async with (
            builder_with(trailers=trailers) as builder,
            open_proxy(builder.address) as proxy,
            grpc.aio.insecure_channel(
                parse(proxy.addresses[0]).target, [("grpc.max_metadata_size", 1 << 20)]
            ) as channel,
        ):
            do_build: Any = channel.unary_unary(METHOD)
            error = await error_of(do_build(DATA))
            assert (error.code(), error.details()) == (grpc.StatusCode.ABORTED, "no space")
            assert dict(error.trailing_metadata())["grpc-status-details-bin"] == bytes(12 << 10)

    asyncio.run(scenario())


def test_a_stream_of_updates() -> None:
    """It is larger than the windows of HTTP/2."""
    chunk = BuildUpdate.StdioChunk(chunk=bytes(1 << 20))
    failure = BuildUpdate.BuildFailure(other=BuildUpdate.BuildFailure.Other(message="no space"))
    data = BuildRequest(command_args=["a"]).SerializeToString()
    updates = [*[BuildUpdate(produced_stdout=chunk)] * 8, BuildUpdate(build_failure=failure)]
    messages = [update.SerializeToString() for update in updates]

    async def scenario() -> None:
        async with (
            builder_with(*messages) as builder,
            open_proxy(builder.address, services=[STREAMING]) as proxy,
            grpc.aio.insecure_channel(parse(proxy.addresses[0]).target) as channel,
        ):
            do_build: Any = channel.unary_stream(STREAMING.method)
            assert [one async for one in do_build(data)] == messages

    asyncio.run(scenario())


@asynccontextmanager
async def open_call() -> AsyncIterator[tuple[Builder, Any]]:
    """Yield a builder that does not respond, and a call that it has received."""
    async with (
        builder_with(end=False) as builder,
        open_proxy(builder.address) as proxy,
        method_of(proxy) as do_build,
    ):
        call = do_build(DATA)
        assert (await builder.line())["headers"]
        yield builder, call


def test_cancellation() -> None:
    async def scenario() -> None:
        async with open_call() as (builder, call):
            call.cancel()
            cancel = 8  # RFC 9113, section 7
            assert await builder.line() == {"reset": cancel}

    asyncio.run(scenario())


def test_a_builder_that_ends() -> None:
    async def scenario() -> None:
        async with open_call() as (builder, call):
            builder.kill()
            assert (await error_of(call)).code() is grpc.StatusCode.UNAVAILABLE

    asyncio.run(scenario())
