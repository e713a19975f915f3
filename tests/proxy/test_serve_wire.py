# SPDX-License-Identifier: MIT
"""The proxy and what other implementations send: builders made of frames, addresses, deadlines."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import grpc.aio
import pytest

import tvix_build
from attacks import connect
from frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    SETTINGS,
    data_frames,
    field,
    frame,
    headers,
    message,
    read_frame,
)
from serving import (
    METHOD,
    Builder,
    error_of,
    method_of,
    open_proxy,
    proxy_to,
    response_to,
    running,
    socket_directory,
)
from tvix_build.proxy.client import AsyncBuildService, BuildService
from tvix_build.proxy.listening import ServeError
from tvix_build.proxy.server import Server
from tvix_build.proxy.shared.addresses import parse
from tvix_build.proxy.shared.channels import channel_options
from waiting import until

REQUEST = tvix_build.build_request(command_args=["a"], outputs=["b"])
DATA = REQUEST.SerializeToString()
RESPONSE = response_to(REQUEST).SerializeToString()
DIGEST = tvix_build.digest(REQUEST).hex()


def head(*more: tuple[bytes, bytes]) -> bytes:
    """Return the initial metadata of a response."""
    fields = [(b":status", b"200"), (b"content-type", b"application/grpc"), *more]
    return frame(HEADERS, END_HEADERS, 1, b"".join(field(*one) for one in fields))


def end(*more: tuple[bytes, bytes]) -> bytes:
    """Return the trailing metadata of a response."""
    fields = [(b"grpc-status", b"0"), *more]
    payload = b"".join(field(*one) for one in fields)
    return frame(HEADERS, END_HEADERS | END_STREAM, 1, payload)


def body(*messages: bytes) -> bytes:
    """Return the messages of a response."""
    return b"".join(data_frames(1, message(one), end=False) for one in messages)


def on_stream(frames: bytes, stream: int) -> bytes:
    """Return frames with another number of their stream."""
    found, at = bytearray(frames), 0
    while at < len(frames):
        found[at + 5 : at + 9] = stream.to_bytes(4, "big")
        at += 9 + int.from_bytes(frames[at : at + 3], "big")
    return bytes(found)


NO_HEALTH = frame(
    HEADERS,
    END_HEADERS | END_STREAM,
    1,
    field(b":status", b"200")
    + field(b"content-type", b"application/grpc")
    + field(b"grpc-status", b"12"),
)


class RawBuilder:
    """A builder that responds to each call with given bytes.

    Attributes:
        response: the response.
        received: the payloads of the frames of headers.
        calls: the numbers of the streams of calls.
    """

    def __init__(self, response: bytes) -> None:
        self.response = response
        self.calls: list[int] = []
        self._writers: list[asyncio.StreamWriter] = []
        self.received: list[bytes] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readexactly(len(PREFACE))
            writer.write(frame(SETTINGS, 0, 0))
            while True:
                kind, flags, stream, payload = await read_frame(reader)
                if kind == SETTINGS and not flags & ACK:
                    writer.write(frame(SETTINGS, ACK, 0))
                if kind != HEADERS:
                    continue
                self.received.append(payload)
                if b"Health" in payload:
                    writer.write(on_stream(NO_HEALTH, stream))
                else:
                    self.calls.append(stream)
                    writer.write(on_stream(self.response, stream))
        writer.close()

    @asynccontextmanager
    async def running(self, path: str) -> AsyncIterator[str]:
        """Serve at a unix socket; yield the address."""
        server = await asyncio.start_unix_server(self._serve, path)
        try:
            yield f"grpc+unix:{path}"
        finally:
            server.close()
            for writer in self._writers:
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()


@asynccontextmanager
async def raw_proxy(builder: RawBuilder, directory: str) -> AsyncIterator[Server]:
    """Run a proxy in front of a builder at a socket in a directory."""
    async with builder.running(f"{directory}/builder") as upstream, open_proxy(upstream) as proxy:
        yield proxy


RESPONSES = {
    "one message": (head() + body(RESPONSE) + end(), ""),
    "an initial digest": (head((b"tvix-build-digest", b"00")) + body(RESPONSE) + end(), ""),
    "no message": (head() + end(), "no message"),
    "only trailing metadata": (
        frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            1,
            field(b":status", b"200")
            + field(b"content-type", b"application/grpc")
            + field(b"grpc-status", b"0"),
        ),
        "no message",
    ),
    "two messages": (head() + body(RESPONSE, RESPONSE) + end(), "several messages"),
    "two messages and no end": (head() + body(RESPONSE, RESPONSE), "several messages"),
    "an empty message": (head() + body(b"") + end(), "expected a valid response"),
    "no status": (
        head() + body(RESPONSE) + frame(HEADERS, END_HEADERS | END_STREAM, 1, field(b"a", b"b")),
        "No status received",
    ),
}


@pytest.mark.parametrize(("response", "expected"), RESPONSES.values(), ids=list(RESPONSES))
def test_malformed_responses(response: bytes, expected: str) -> None:
    async def scenario(directory: str) -> None:
        builder = RawBuilder(response)
        async with raw_proxy(builder, directory) as proxy, method_of(proxy) as do_build:
            call = do_build(DATA)
            if not expected:
                assert await call == RESPONSE
                metadata = dict(iter(await call.initial_metadata()))
                assert "tvix-build-digest" not in metadata
                return
            error = await error_of(call)
            assert error.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
            assert expected in str(error.details())

    with socket_directory() as directory:
        asyncio.run(scenario(directory))


def test_the_response_after_a_failure_is_read_as_a_stream() -> None:
    """The first response makes the proxy read one message of each further one, which never ends
    with two messages."""

    async def scenario(directory: str) -> None:
        builder = RawBuilder(head() + body(RESPONSE) + end())
        async with raw_proxy(builder, directory) as proxy, method_of(proxy) as do_build:
            assert await do_build(DATA) == RESPONSE
            builder.response = head() + body(RESPONSE, RESPONSE) + end()
            call = do_build(DATA)
            await until(lambda: len(builder.calls) == 2)
            call.cancel()
            await until(lambda: not proxy.numbers["open_calls"]())
            error = await error_of(do_build(DATA))
            assert "several messages" in str(error.details())

    with socket_directory() as directory:
        asyncio.run(scenario(directory))


def test_the_authority_over_unix_sockets() -> None:
    """Servers of Rust's h2 reject a path in percent encoding, which is gRPC's default."""

    async def scenario(directory: str) -> None:
        builder = RawBuilder(head() + body(RESPONSE) + end())
        async with raw_proxy(builder, directory) as proxy, method_of(proxy) as do_build:
            assert await do_build(DATA)
        async with (
            builder.running(f"{directory}/other") as address,
            AsyncBuildService(address) as client,
        ):
            assert await client.do_build(REQUEST)
            received = b"".join(builder.received)
            assert b"%2F" not in received
            # Once on each connection; later calls refer to it.
            assert received.count(b"localhost") == 2

    with socket_directory() as directory:
        asyncio.run(scenario(directory))


@pytest.mark.parametrize("name", ["a%41.sock", "a b", "a#b", "caf\xe9", "a\udcffb", "a:b", "%"])
def test_paths_of_sockets(name: str) -> None:
    async def scenario(directory: str) -> None:
        path = f"{directory}/{name}"
        address = f"grpc+unix:{path}"
        listen = [parse(address)]
        async with open_proxy(listen=listen) as proxy, method_of(proxy) as do_build:
            assert proxy.addresses == [address]
            assert os.listdir(directory) == [name]
            assert (await error_of(do_build(DATA))).code() is grpc.StatusCode.UNIMPLEMENTED
            with pytest.raises(ServeError, match="already in use"):
                async with open_proxy(listen=listen):
                    pass
        # Another path, which gRPC decodes to this one.
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(f"{directory}/aA.sock")

    with socket_directory() as directory:
        asyncio.run(scenario(directory))


@pytest.mark.parametrize(
    ("text", "target", "wait"),
    [
        ("grpc+http://host", "host:80", False),
        ("grpc+https://[::1]", "[::1]:443", False),
        ("grpc+http://host:1/?wait-connect=1", "host:1", True),
        ("grpc+http://host?wait-connect=0", "host:80", False),
        ("grpc+unix:///a/b?wait-connect=1", "unix:/a/b", True),
        ("grpc+unix:/a%41 b", "unix:/a%2541%20b", False),
    ],
)
def test_forms_of_addresses(text: str, target: str, wait: bool) -> None:
    address = parse(text)
    assert (address.text, address.target, address.wait) == (text, target, wait)


@pytest.mark.parametrize(
    "text", ["grpc+unix:/a,b", "grpc+unix:/a?b", "grpc+http://host?x=1", "grpc+http://h:1?wait"]
)
def test_addresses_that_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse(text)


def test_waiting_for_the_builder() -> None:
    async def scenario(directory: str) -> None:
        address = f"grpc+unix:{directory}/builder?wait-connect=1"
        absent = f"grpc+unix:{directory}/absent?wait-connect=1"
        with pytest.raises(ServeError, match=r"absent\?wait-connect=1: cannot connect"):
            async with open_proxy(absent):
                pass
        async with (
            running(Builder(), f"unix:{directory}/builder"),
            open_proxy(address) as proxy,
            method_of(proxy) as do_build,
        ):
            assert await do_build(DATA)

    with socket_directory() as directory:
        asyncio.run(scenario(directory))


@pytest.mark.parametrize(
    ("text", "uses_proxy"),
    [
        ("grpc+http://127.0.0.1:1", False),
        ("grpc+http://[::1]:1", False),
        ("grpc+http://localhost:1", False),
        ("grpc+unix:/a", False),
        ("grpc+http://10.0.0.1:1", True),
        ("grpc+http://localhost.example:1", True),
    ],
)
def test_http_proxies(text: str, uses_proxy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("grpc_proxy", raising=False)
    options = dict(channel_options(parse(text), 1))
    assert options.get("grpc.enable_http_proxy", 1) == uses_proxy
    monkeypatch.setenv("grpc_proxy", "http://proxy:1")
    assert "grpc.enable_http_proxy" not in dict(channel_options(parse(text), 1))


def test_a_proxy_for_http_is_not_used_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")

    async def scenario() -> None:
        async with proxy_to(Builder()) as proxy:
            address = proxy.addresses[0]
            await asyncio.to_thread(call, address)

    def call(address: str) -> None:
        with BuildService(address) as client:
            assert client.do_build(REQUEST) == response_to(REQUEST)

    asyncio.run(scenario())


def test_localhost_is_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, 0, 0, "", (f"127.0.0.{n}", 0)) for n in (1, 2)]
    absent = (socket.AF_INET, 0, 0, "", ("192.0.2.1", 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [*found, absent])

    async def scenario() -> None:
        async with open_proxy(listen=[parse("grpc+http://localhost:0")]) as proxy:
            port = parse(proxy.addresses[0]).port
            for host in ("127.0.0.1", "127.0.0.2"):
                async with grpc.aio.insecure_channel(f"{host}:{port}") as channel:
                    await channel.channel_ready()
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: reversed(found))
            with pytest.raises(ServeError, match="already in use"):
                async with open_proxy(listen=[parse(proxy.addresses[0])]):
                    pass
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [absent])
        with pytest.raises(ServeError, match="Cannot assign"):
            async with open_proxy(listen=[parse("grpc+http://localhost:0")]):
                pass

    asyncio.run(scenario())


# The longest deadlines of Go and Java, and of the format.
@pytest.mark.parametrize("timeout", [b"2562047H", b"9223372036S", b"99999999H", b"99999999S"])
def test_deadlines_that_are_none(timeout: bytes) -> None:
    async def scenario() -> None:
        builder = Builder()
        async with proxy_to(builder) as proxy:
            port = parse(proxy.addresses[0]).port
            assert port
            reader, writer = await connect(port)
            writer.write(
                frame(HEADERS, END_HEADERS, 1, headers(METHOD, [(b"grpc-timeout", timeout)]))
            )
            writer.write(data_frames(1, message(DATA)))
            while (await read_frame(reader))[:3:2] != (HEADERS, 1):
                pass
            await until(lambda: len(builder.remaining) == 1)
            writer.close()
        remaining: Any = builder.remaining[0]
        assert remaining is None or (timeout == b"99999999S" and remaining > 1e7)

    asyncio.run(scenario())
