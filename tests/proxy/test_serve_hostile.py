# SPDX-License-Identifier: MIT
"""The proxy and hostile or vanished clients: it serves the others, and keeps nothing."""

from __future__ import annotations

import asyncio
import gzip
import random
from typing import Any

import grpc
import grpc.aio
import pytest

import tvix_build
from frames import (
    DATA_FRAME,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    SETTINGS,
    data_frames,
    frame,
    headers,
    message,
)
from serving import METHOD, Builder, error_of, method_of, open_proxy, proxy_to, response_to
from tvix.build.protos.build_pb2 import Build, BuildRequest
from tvix_build.proxy.server import Server
from tvix_build.proxy.shared.addresses import parse
from waiting import until

DATA = tvix_build.build_request(command_args=["a"], outputs=["b"]).SerializeToString()


async def connect(proxy: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a bare connection."""
    host, port = parse(proxy.addresses[0]).target.split(":")
    return await asyncio.open_connection(host, int(port))


async def serves(proxy: Server) -> None:
    """Check that a well-behaved client is served."""
    async with method_of(proxy) as do_build:
        assert Build.FromString(await do_build(DATA)) == response_to(BuildRequest.FromString(DATA))


RANDOM = random.Random(8)
GARBAGE = {
    "nothing": b"",
    "no HTTP": b"GET / HTTP/1.1\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(500),
    "random bytes": RANDOM.randbytes(5000),
    "preface and random bytes": PREFACE + RANDOM.randbytes(5000),
    "a frame of 16 MiB": PREFACE + b"\xff\xff\xff\0\0\0\0\0\1",
    "headers that are none": PREFACE
    + frame(SETTINGS, 0, 0)
    + frame(HEADERS, END_HEADERS, 1, RANDOM.randbytes(300)),
    "a message that is cut": PREFACE
    + frame(SETTINGS, 0, 0)
    + frame(HEADERS, END_HEADERS, 1, headers(METHOD))
    + frame(DATA_FRAME, END_STREAM, 1, message(DATA)[:9]),
    "a length of 4 GiB": PREFACE
    + frame(SETTINGS, 0, 0)
    + frame(HEADERS, END_HEADERS, 1, headers(METHOD))
    + frame(DATA_FRAME, END_STREAM, 1, message(DATA, 0xFFFFFFFF)),
    "two messages": PREFACE
    + frame(SETTINGS, 0, 0)
    + frame(HEADERS, END_HEADERS, 1, headers(METHOD))
    + frame(DATA_FRAME, END_STREAM, 1, message(DATA) * 2),
    "compressed, it says": PREFACE
    + frame(SETTINGS, 0, 0)
    + frame(HEADERS, END_HEADERS, 1, headers(METHOD))
    + frame(DATA_FRAME, END_STREAM, 1, b"\1" + message(DATA)[1:]),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=list(GARBAGE))
def test_garbage_on_the_connection(garbage: bytes) -> None:
    async def scenario() -> None:
        async with proxy_to(Builder()) as proxy:
            _, writer = await connect(proxy)
            writer.write(garbage)
            await writer.drain()
            await serves(proxy)
            writer.close()
            await until(lambda: proxy.numbers["open_calls"]() == 0)

    asyncio.run(scenario())


def test_handmade_frames_are_valid() -> None:
    """Otherwise, the previous test would prove little."""
    builder = Builder()

    async def scenario() -> None:
        async with proxy_to(builder) as proxy:
            _, writer = await connect(proxy)
            writer.write(PREFACE + frame(SETTINGS, 0, 0))
            writer.write(frame(HEADERS, END_HEADERS, 1, headers(METHOD)))
            writer.write(frame(DATA_FRAME, END_STREAM, 1, message(DATA)))
            await writer.drain()
            await until(lambda: len(builder.requests) == 1)
            writer.close()

    asyncio.run(scenario())


async def hang(request: BuildRequest, context: Any) -> Build:
    """Build without end."""
    await asyncio.Event().wait()
    raise AssertionError


def test_clients_that_disconnect_leave_nothing() -> None:
    builder = Builder(hang)

    async def scenario() -> None:
        async with proxy_to(builder) as proxy:
            for number in range(1, 4):
                _, writer = await connect(proxy)
                writer.write(PREFACE + frame(SETTINGS, 0, 0))
                for stream in (1, 3, 5):
                    writer.write(frame(HEADERS, END_HEADERS, stream, headers(METHOD)))
                    writer.write(frame(DATA_FRAME, END_STREAM, stream, message(DATA)))
                await writer.drain()
                await until(lambda: len(builder.requests) == 3 * number)  # noqa: B023
                transport: Any = writer.transport
                transport.abort()
                await until(lambda: proxy.numbers["open_calls"]() == 0)
            await until(lambda: builder.cancelled == 9)

    asyncio.run(scenario())


def test_many_cancelled_calls_leave_nothing() -> None:
    builder = Builder(hang)

    async def scenario() -> None:
        async with proxy_to(builder, max_builds=7) as proxy, method_of(proxy) as do_build:
            rng = random.Random(1)
            for _ in range(10):
                calls = [do_build(DATA) for _ in range(20)]
                for call in calls:
                    for _ in range(rng.randrange(10)):
                        await asyncio.sleep(0)  # a turn of the event loop
                    call.cancel()
            await until(lambda: proxy.numbers["open_calls"]() == 0)
            assert proxy.numbers["builds"]() == proxy.numbers["waiting_calls"]() == 0
            await until(lambda: builder.cancelled == len(builder.requests))

    asyncio.run(scenario())


def test_a_client_that_does_not_read_blocks_no_other() -> None:
    data = tvix_build.build_request(command_args=["a" * 1_000_000], outputs=["b"])
    builder = Builder()

    async def scenario() -> None:
        async with proxy_to(builder) as proxy:
            _, writer = await connect(proxy)
            writer.write(PREFACE + frame(SETTINGS, 0, 0))
            body = message(data.SerializeToString())
            for stream in (1, 3):
                writer.write(frame(HEADERS, END_HEADERS, stream, headers(METHOD)))
                writer.write(data_frames(stream, body))
            # Flow control stops what is sent, or else the response; neither blocks other clients.
            for _ in range(5):
                await serves(proxy)
            transport: Any = writer.transport
            transport.abort()
            await until(lambda: proxy.numbers["open_calls"]() == 0)

    asyncio.run(scenario())


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_messages_that_are_too_large(compression: grpc.Compression) -> None:
    """Also if they are small until they are decompressed."""
    builder = Builder()

    async def scenario() -> None:
        async with (
            proxy_to(builder, max_message_size=100_000) as proxy,
            grpc.aio.insecure_channel(parse(proxy.addresses[0]).target) as channel,
        ):
            do_build: Any = channel.unary_unary(METHOD)
            error = await error_of(do_build(bytes(5_000_000), compression=compression))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            await serves(proxy)

    asyncio.run(scenario())
    assert len(builder.requests) == 1
    assert len(gzip.compress(bytes(5_000_000))) < 100_000


def test_compressed_messages_are_read() -> None:
    async def scenario() -> None:
        async with (
            proxy_to(Builder()) as proxy,
            grpc.aio.insecure_channel(parse(proxy.addresses[0]).target) as channel,
        ):
            do_build: Any = channel.unary_unary(METHOD)
            assert await do_build(DATA, compression=grpc.Compression.Gzip)

    asyncio.run(scenario())


def test_metadata_that_is_too_large() -> None:
    async def scenario() -> None:
        async with proxy_to(Builder()) as proxy, method_of(proxy) as do_build:
            error = await error_of(do_build(DATA, metadata=(("key", "a" * 100_000),)))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            await serves(proxy)

    asyncio.run(scenario())


def test_unknown_methods() -> None:
    async def scenario() -> None:
        async with open_proxy() as proxy:
            for name in (METHOD + "s", "/other.BuildService/DoBuild", "/"):
                async with method_of(proxy, name) as other:
                    error = await error_of(other(DATA))
                    assert error.code() is grpc.StatusCode.UNIMPLEMENTED

    asyncio.run(scenario())
