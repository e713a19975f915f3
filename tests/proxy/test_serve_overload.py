# SPDX-License-Identifier: MIT
"""The proxy and clients that want more than their share: streams, memory, places, pings."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

import tvix_build
from attacks import Connection, connect
from frames import (
    ACK,
    END_HEADERS,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    data_frames,
    frame,
    headers,
    message,
    read_frame,
)
from serving import (
    METHOD,
    Builder,
    Method,
    details_of,
    error_of,
    method_of,
    open_proxy,
    proxy_to,
    response_to,
)
from tvix.build.protos.build_pb2 import Build, BuildRequest
from tvix_build.proxy.listening import ServeError
from tvix_build.proxy.open_calls import OpenCall
from tvix_build.proxy.receiving import Receiver
from tvix_build.proxy.server import Server
from tvix_build.proxy.shared.addresses import parse
from tvix_build.proxy.shared.channels import Connections, Memory, server_options
from tvix_build.proxy.shares import Shares
from tvix_build.proxy.status import shutting_down
from waiting import until

SIZE = 1 << 20


def request(*arguments: str) -> bytes:
    """Return a request."""
    made = tvix_build.build_request(command_args=[*arguments], outputs=["out"])
    return made.SerializeToString()


class Gate:
    """A builder whose builds wait for a gate, and a record of the order in which they started."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.builder = Builder(self._respond)

    @property
    def started(self) -> list[str]:
        return [one.command_args[0] for one in self.builder.requests]

    async def _respond(self, request: BuildRequest, _context: Any) -> Build:
        await self.gate.wait()
        return response_to(request)


def port_of(proxy: Server) -> int:
    """Return the port of a proxy."""
    port = parse(proxy.addresses[0]).port
    assert port
    return port


@asynccontextmanager
async def bare(proxy: Server) -> AsyncIterator[Connection]:
    """Yield a bare connection to a proxy."""
    connection = await connect(port_of(proxy))
    try:
        yield connection
    finally:
        connection.writer.close()
        with suppress(ConnectionError):
            await connection.writer.wait_closed()


async def frames_of(connection: Connection) -> list[int]:
    """Return the types of all frames until the connection is closed."""
    found = []
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            found.append((await read_frame(connection.reader))[0])
    return found


@asynccontextmanager
async def own_connection(proxy: Server) -> AsyncIterator[Method]:
    """Yield DoBuild over a connection that no other client shares."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(parse(proxy.addresses[0]).target, options) as channel:
        yield channel.unary_unary(METHOD)


def test_streams_of_a_connection_are_limited() -> None:
    async def scenario() -> None:
        held = Gate()
        connections = Connections(max_streams=3)
        async with (
            proxy_to(held.builder, connections=connections) as proxy,
            bare(proxy) as (reader, writer),
        ):
            kind, _, _, payload = await read_frame(reader)
            entries = {payload[at : at + 2]: payload[at + 2 : at + 6] for at in range(0, 30, 6)}
            assert (kind, entries[b"\0\3"]) == (SETTINGS, (3).to_bytes(4, "big"))
            for number in range(5):
                writer.write(frame(HEADERS, END_HEADERS, 2 * number + 1, headers(METHOD)))
                writer.write(data_frames(2 * number + 1, message(request(str(number)))))
            reset: set[int] = set()
            while len(reset) < 2:
                kind, _, stream, _ = await read_frame(reader)
                if kind == RST_STREAM:
                    reset.add(stream)
            assert reset == {7, 9}
            async with own_connection(proxy) as do_build:
                good = asyncio.ensure_future(do_build(request("good")))
                await until(lambda: "good" in held.started)
                held.gate.set()
                await good
            assert sorted(held.started) == ["0", "1", "2", "good"]

    asyncio.run(scenario())


def test_options_of_grpc() -> None:
    connections = Connections(
        max_connections=7,
        max_connection_age=1.5,
        max_connection_idle=2.5,
        handshake_timeout=3.5,
        keepalive_time=4.5,
        keepalive_timeout=1e9,
    )
    options = dict(server_options(SIZE, connections))
    assert options["grpc.max_allowed_incoming_connections"] == 7
    assert options["grpc.max_connection_age_ms"] == 1500
    assert options["grpc.max_connection_idle_ms"] == 2500
    assert options["grpc.server_handshake_timeout_ms"] == 3500
    assert options["grpc.keepalive_time_ms"] == 4500
    assert options["grpc.keepalive_timeout_ms"] == (1 << 31) - 1
    assert options["grpc.http2.min_ping_interval_without_data_ms"] == 5000


def test_connections_are_limited() -> None:
    async def scenario() -> None:
        connections = Connections(max_connections=1)
        async with open_proxy(connections=connections) as proxy, bare(proxy) as first:
            assert (await read_frame(first.reader))[0] == SETTINGS
            async with bare(proxy) as second:
                assert SETTINGS not in await frames_of(second)

    asyncio.run(scenario())


@pytest.mark.parametrize("interval", [0.0, 1e6])
def test_pings(interval: float) -> None:
    """A client that pings too often loses its connection."""

    async def scenario() -> None:
        held = Gate()
        connections = Connections(min_ping_interval=interval)
        async with (
            proxy_to(held.builder, connections=connections) as proxy,
            bare(proxy) as connection,
        ):
            connection.call(1)
            await until(lambda: len(held.started) == 1)
            for _ in range(5):
                connection.writer.write(frame(PING, 0, 0, bytes(8)))
            if interval:
                assert GOAWAY in await frames_of(connection)
                return
            for _ in range(5):
                while (await read_frame(connection.reader))[:2] != (PING, ACK):
                    pass

    asyncio.run(scenario())


def test_compression_can_be_switched_off() -> None:
    async def scenario() -> None:
        connections = Connections(compression=False)
        async with (
            proxy_to(Builder(), connections=connections) as proxy,
            method_of(proxy) as do_build,
        ):
            with_gzip: Any = do_build
            error = await error_of(with_gzip(request("a"), compression=grpc.Compression.Gzip))
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED
            await do_build(request("a"))

    asyncio.run(scenario())


def test_details_of_the_builder_that_are_large() -> None:
    """Above 8 KiB, gRPC drops metadata at random by default."""
    status = Status(code=grpc.StatusCode.ABORTED.value[0], message="failed")
    status.details.add().Pack(ErrorInfo(reason="a" * 24_000))
    details = status.SerializeToString()

    async def fail(_: BuildRequest, context: Any) -> Build:
        await context.abort(
            grpc.StatusCode.ABORTED, "failed", (("grpc-status-details-bin", details),)
        )
        raise AssertionError

    async def scenario() -> None:
        options = [("grpc.max_metadata_size", 1 << 20)]
        async with (
            proxy_to(Builder(fail)) as proxy,
            grpc.aio.insecure_channel(parse(proxy.addresses[0]).target, options) as channel,
        ):
            do_build: Any = channel.unary_unary(METHOD)
            for _ in range(20):
                error = await error_of(do_build(request("a")))
                assert error.code() is grpc.StatusCode.ABORTED
                assert ("grpc-status-details-bin", details) in tuple(error.trailing_metadata())

    asyncio.run(scenario())


def test_unfinished_uploads_end_for_the_call_of_another_connection() -> None:
    async def scenario() -> None:
        memory = Memory(max_buffered=3 * SIZE)
        async with (
            proxy_to(Builder(), memory=memory, max_message_size=SIZE) as proxy,
            bare(proxy) as connection,
        ):
            for stream in (1, 3, 5):
                connection.writer.write(frame(HEADERS, END_HEADERS, stream, headers(METHOD)))
                connection.writer.write(data_frames(stream, message(b"a", 9), end=False))
            await until(lambda: proxy.numbers["buffered_bytes"]() == 3 * SIZE)
            async with own_connection(proxy) as do_build:
                assert await do_build(request("good"))
            # The oldest upload has ended, with a status.
            while (await read_frame(connection.reader))[::2][:2] != (HEADERS, 1):
                pass
            connection.writer.close()
            await until(lambda: proxy.numbers["buffered_bytes"]() == 0)

    asyncio.run(scenario())


def test_a_caller_that_holds_all_memory_gets_no_more() -> None:
    async def scenario() -> None:
        held = Gate()
        memory = Memory(max_buffered=SIZE)
        large = request("a" * (SIZE // 2))
        async with (
            proxy_to(held.builder, memory=memory, max_message_size=SIZE) as proxy,
            method_of(proxy) as do_build,
        ):
            call = asyncio.ensure_future(do_build(large))
            await until(lambda: len(held.started) == 1)
            assert proxy.numbers["buffered_bytes"]() == len(large)
            error = await error_of(do_build(large))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert details_of(error) == ("MEMORY_FULL", [])
            held.gate.set()
            await call
            await until(lambda: proxy.numbers["buffered_bytes"]() == 0)
            await do_build(large)

    asyncio.run(scenario())


def test_calls_wait_while_another_caller_holds_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not ended for its requests, which have arrived."""
    monkeypatch.setattr("tvix_build.proxy.receiving._PATIENCE", 0.0)

    async def scenario() -> None:
        held = Gate()
        memory = Memory(max_buffered=2 * SIZE)
        large = request("a" * (SIZE * 3 // 4))
        async with (
            proxy_to(held.builder, memory=memory, max_message_size=SIZE) as proxy,
            method_of(proxy) as greedy,
            own_connection(proxy) as do_build,
        ):
            calls = []
            for number in (1, 2):
                calls.append(asyncio.ensure_future(greedy(large)))
                await until(lambda: len(held.started) == number)  # noqa: B023 - used at once
            waiting = asyncio.ensure_future(do_build(request("good")))
            await until(lambda: proxy._receiver.bytes.waiting == 1)
            for _ in range(100):
                await asyncio.sleep(0)
            held.gate.set()
            await asyncio.gather(waiting, *calls)

    asyncio.run(scenario())


def test_calls_that_fail_leave_no_message_behind() -> None:
    """The garbage collector is not needed for it."""
    requests = [b"\x08" * SIZE, b"\xff" * SIZE, request("a" * SIZE)]

    async def scenario() -> None:
        async with open_proxy() as proxy, method_of(proxy) as do_build:
            for data in requests:
                await error_of(do_build(data))
            await until(lambda: not proxy.numbers["buffered_bytes"]())
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()

    gc.collect()
    gc.disable()
    try:
        asyncio.run(scenario())
        held = [one for garbage in gc.garbage for one in gc.get_referents(garbage)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not [len(one) for one in held if isinstance(one, bytes) and len(one) >= SIZE]


@pytest.mark.slow
def test_many_calls_that_arrive_at_once() -> None:
    """gRPC cancels none of those that wait for the process."""

    async def scenario() -> None:
        async with open_proxy() as proxy, AsyncExitStack() as stack:
            calls = []
            for _ in range(15):
                do_build = await stack.enter_async_context(own_connection(proxy))
                calls += [do_build(b"\x08") for _ in range(100)]
            codes = {(await error_of(call)).code() for call in calls}
            assert codes == {grpc.StatusCode.INVALID_ARGUMENT}

    asyncio.run(scenario())


def test_a_request_that_does_not_arrive() -> None:
    async def scenario() -> None:
        async with (
            open_proxy(memory=Memory(upload_timeout=0.01)) as proxy,
            grpc.aio.insecure_channel(parse(proxy.addresses[0]).target) as channel,
        ):
            do_build: Any = channel.stream_unary(METHOD)
            error = await error_of(do_build())
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert details_of(error) == ("UPLOAD_TIMEOUT", [])
            await until(lambda: proxy.numbers["buffered_bytes"]() == 0)

    asyncio.run(scenario())


class Reading:
    """The context of a call whose request gRPC reads until `request` is set or the call is aborted.
    gRPC would never free a request that arrives after its reading was cancelled."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.request: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.aborted: list[grpc.StatusCode] = []

    async def read(self) -> bytes:
        """Return the request."""
        self.begun.set()
        return await self.request

    async def abort(self, code: grpc.StatusCode, *_: object) -> None:
        """End the reading, as gRPC does."""
        self.aborted.append(code)
        if not self.request.done():
            self.request.set_exception(grpc.aio.AbortError())
        raise grpc.aio.AbortError


@pytest.mark.parametrize("arrives", [False, True])
def test_a_call_is_ended_while_grpc_reads_its_request(arrives: bool) -> None:
    async def scenario() -> None:
        reading = Reading()
        context: Any = reading
        receiver = Receiver(Memory(), SIZE)
        calls = []

        async def handle() -> None:
            calls.append(OpenCall(context))
            try:
                await receiver.receive(calls[0], context, "caller")
            except (grpc.aio.AbortError, asyncio.CancelledError):
                await calls[0].abort(shutting_down(), ())

        handling = asyncio.create_task(handle())
        await reading.begun.wait()
        if arrives:
            reading.request.set_result(b"request")
        calls[0].end(shutting_down())
        await asyncio.wait([handling])
        assert handling.cancelled()
        assert not reading.request.cancelled()
        assert reading.aborted == [grpc.StatusCode.UNAVAILABLE]
        assert calls[0].on_end is None
        assert receiver.bytes.held == 0

    asyncio.run(scenario())


def test_a_call_without_a_request() -> None:
    async def scenario() -> None:
        async with (
            open_proxy() as proxy,
            grpc.aio.insecure_channel(parse(proxy.addresses[0]).target) as channel,
        ):
            do_build: Any = channel.stream_unary(METHOD)
            call = do_build()
            await call.done_writing()
            error = await error_of(call)
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert details_of(error) == ("NO_REQUEST", [])

    asyncio.run(scenario())


def test_limits_that_contradict_each_other() -> None:
    async def scenario() -> None:
        async with open_proxy(memory=Memory(max_buffered=SIZE), max_message_size=SIZE + 1):
            raise AssertionError

    with pytest.raises(ServeError, match=f"at least {SIZE + 1} bytes"):
        asyncio.run(scenario())


def test_builds_start_in_turn_of_the_connections() -> None:
    async def scenario() -> None:
        held = Gate()
        async with (
            proxy_to(held.builder, max_builds=1) as proxy,
            own_connection(proxy) as first,
            own_connection(proxy) as second,
        ):
            calls = [asyncio.ensure_future(first(request(f"first {i}"))) for i in range(4)]
            await until(lambda: proxy.numbers["waiting_calls"]() == 3)
            calls += [asyncio.ensure_future(second(request(f"second {i}"))) for i in range(2)]
            await until(lambda: proxy.numbers["waiting_calls"]() == 5)
            held.gate.set()
            await asyncio.gather(*calls)
            order = [one.split()[0] for one in held.started]
            assert order == ["first", "first", "second", "first", "second", "first"]

    asyncio.run(scenario())


def test_a_full_queue_rejects_the_connection_with_most_calls() -> None:
    async def scenario() -> None:
        held = Gate()
        async with (
            proxy_to(held.builder, max_builds=1, max_queue=3) as proxy,
            own_connection(proxy) as first,
            own_connection(proxy) as second,
        ):
            calls = [asyncio.ensure_future(first(request(str(i)))) for i in range(4)]
            await until(lambda: proxy.numbers["waiting_calls"]() == 3)
            good = asyncio.ensure_future(second(request("good")))
            done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            error = await error_of(done.pop())
            assert details_of(error) == ("QUEUE_FULL", [])
            held.gate.set()
            await good
            failed = await asyncio.gather(*calls, return_exceptions=True)
            assert sum(isinstance(one, grpc.RpcError) for one in failed) == 1

    asyncio.run(scenario())


def test_cancelled_calls_release_their_shares() -> None:
    async def scenario() -> None:
        shares = Shares(2)
        assert shares.try_acquire("a", 2)
        waiting = [asyncio.ensure_future(shares.acquire(one)) for one in ("a", "b", "b", "c")]
        await asyncio.sleep(0)
        assert shares.waiting == 4
        waiting[1].cancel()
        shares.release("a", 2)  # Before the cancelled call notices.
        waiting[3].cancel()  # Its turn has come.
        await asyncio.gather(*waiting, return_exceptions=True)
        assert [one.cancelled() for one in waiting] == [False, True, False, True]
        assert (shares.waiting, shares.held, shares.of("c")) == (0, 2, 0)
        shares.resize(1)
        last = asyncio.ensure_future(shares.acquire("d"))
        await asyncio.sleep(0)
        shares.release("a")
        assert shares.waiting == 1
        shares.release("b")
        await last
        assert not shares.reject("d", ValueError)

    asyncio.run(scenario())
