# SPDX-License-Identifier: MIT
"""Health, reflection, metrics, traces and log of the proxy, and its request store."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client.parser import text_string_to_metric_families

import tvix_build
from serving import (
    FREE_PORT,
    Builder,
    Method,
    details_of,
    error_of,
    method_of,
    open_proxy,
    proxy_to,
    response_to,
    socket_directory,
)
from tvix.build.protos.build_pb2 import Build, BuildRequest
from tvix_build.proxy.line_writer import LineWriter
from tvix_build.proxy.listening import ServeError
from tvix_build.proxy.logs import LOG, JsonLines
from tvix_build.proxy.metrics import Metrics
from tvix_build.proxy.metrics_server import MetricsServer
from tvix_build.proxy.server import Server
from tvix_build.proxy.shared.addresses import parse
from tvix_build.proxy.shared.services import SERVICES
from tvix_build.proxy.tracing import exporting_provider
from tvix_build.store import RequestStore, StoreError
from waiting import DEADLINES, LIMIT, until

REQUEST = tvix_build.build_request(command_args=["a"], outputs=["b"])
DATA = REQUEST.SerializeToString()
DIGEST = tvix_build.digest(REQUEST)
SERVICE = "tvix.build.v1.BuildService"


def channel_to(proxy: Server) -> grpc.aio.Channel:
    """Return a bare channel."""
    return grpc.aio.insecure_channel(parse(proxy.addresses[0]).target)


def test_log_of_what_is_not_text() -> None:
    record = logging.makeLogRecord({"msg": "x", "fields": {"addresses": ["grpc+unix:/\udcff"]}})
    line = JsonLines().format(record)
    assert json.loads(line)["addresses"] == [r"grpc+unix:/\xff"]
    assert "\\ud" not in line


def test_lines_for_a_reader_that_stalls() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write, bytes(1 << 12))
    os.set_blocking(write, True)
    writer = LineWriter(write, limit=3)
    for number in range(100):
        writer.write(f"line {number}")
    assert writer.dropped > 90
    writer.close(0)  # It does not wait for the reader.
    with open(read, "rb") as pipe:
        lines: list[bytes] = []
        while not lines or b"dropped" not in lines[-1]:
            lines.append(pipe.readline().lstrip(b"\0"))
    assert lines[0] == b"line 0\n"
    report = json.loads(lines[-1])
    assert (report["event"], report["lines"]) == ("dropped", writer.dropped)
    writer.close()
    os.close(write)


def test_lines_without_a_reader() -> None:
    read, write = os.pipe()
    os.close(read)
    writer = LineWriter(write)
    writer.write("a")
    writer.close()
    os.close(write)
    assert writer.dropped == 1


def test_the_audit_log(tmp_path: Path) -> None:
    file = tmp_path / "audit"

    async def scenario(writer: LineWriter) -> None:
        async with proxy_to(Builder(), audit=writer) as proxy, method_of(proxy) as do_build:
            await do_build(DATA)
            await error_of(do_build(b""))

    with file.open("ab") as opened:
        writer = LineWriter(opened.fileno())
        asyncio.run(scenario(writer))
        writer.close(LIMIT)
    (line,) = map(json.loads, file.read_text().splitlines())
    assert line.pop("time")
    assert line.pop("peer").startswith("ipv4:127.0.0.1:")
    assert line == {
        "caller": "",
        "schema": "tvix.build.v1",
        "digest": DIGEST.hex(),
        "code": "OK",
    }


def test_health() -> None:
    async def scenario() -> None:
        async with open_proxy() as proxy, channel_to(proxy) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            serving = health_pb2.HealthCheckResponse.SERVING
            for name in ("", SERVICE):
                request = health_pb2.HealthCheckRequest(service=name)
                assert (await stub.Check(request)).status == serving
            error = await error_of(stub.Check(health_pb2.HealthCheckRequest(service="other")))
            assert error.code() is grpc.StatusCode.NOT_FOUND
            # A watcher is notified of the shutdown, and does not block it.
            watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
            assert (await watch.read()).status == serving
            closing = asyncio.create_task(proxy.close(1000))
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            await closing

    asyncio.run(scenario())


def test_reflection() -> None:
    async def scenario() -> None:
        async with open_proxy() as proxy, channel_to(proxy) as channel:
            stub_class: Any = reflection_pb2_grpc.ServerReflectionStub
            stub = stub_class(channel)
            requests = [
                reflection_pb2.ServerReflectionRequest(list_services=""),
                reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
            ]
            responses = [one async for one in stub.ServerReflectionInfo(iter(requests))]
            names = [one.name for one in responses[0].list_services_response.service]
            assert set(names) == {
                SERVICE,
                "grpc.health.v1.Health",
                "grpc.reflection.v1.ServerReflection",
                "grpc.reflection.v1alpha.ServerReflection",
            }
            name = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
            again = channel.stream_stream(
                name,
                request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )
            assert [one async for one in again(iter(requests))] == responses
            files = [
                FileDescriptorProto.FromString(one)
                for one in responses[1].file_descriptor_response.file_descriptor_proto
            ]
            assert "tvix/build/protos/rpc_build.proto" in [file.name for file in files]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("label", "streams"), [("snix.build.v1", False), ("snix.build.v1@2026", True)]
)
def test_reflection_of_the_response(label: str, streams: bool) -> None:
    async def scenario() -> None:
        service = SERVICES[label]
        async with open_proxy(services=[service]) as proxy, channel_to(proxy) as channel:
            stub_class: Any = reflection_pb2_grpc.ServerReflectionStub
            request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=service.name)
            call = stub_class(channel).ServerReflectionInfo(iter([request]))
            (response,) = [one async for one in call]
            pool = DescriptorPool()
            for one in reversed(response.file_descriptor_response.file_descriptor_proto):
                pool.AddSerializedFile(one)
            method: Any = pool.FindMethodByName(f"{service.name}.DoBuild")
            name = "BuildUpdate" if streams else "BuildResponse"
            assert (method.output_type.name, method.server_streaming) == (name, streams)

    asyncio.run(scenario())


def test_metrics() -> None:
    def scrape(port: int) -> dict[str, dict[tuple[str, ...], float]]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
            families = text_string_to_metric_families(response.read().decode())
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for family in families:
            for sample in family.samples:
                labels = tuple(value for _, value in sorted(sample.labels.items()))
                found.setdefault(sample.name, {})[labels] = sample.value
        return found

    async def scenario() -> dict[str, dict[tuple[str, ...], float]]:
        options: dict[str, Any] = {"metrics": ("127.0.0.1", 0), "deduplicate": True}
        async with proxy_to(Builder(), **options) as proxy, method_of(proxy) as do_build:
            await do_build(DATA)
            await do_build(DATA)
            await error_of(do_build(b""))
            await error_of(do_build(BuildRequest(command_args=["a", "\0"]).SerializeToString()))
            assert proxy.metrics_port
            return await asyncio.to_thread(scrape, proxy.metrics_port)

    found = asyncio.run(scenario())
    schema, size = "tvix.build.v1", len(response_to(REQUEST).SerializeToString())
    assert found["tvix_build_calls_total"] == {
        ("", "OK", schema): 2,
        ("proxy", "INVALID_ARGUMENT", schema): 2,
    }
    assert found["tvix_build_call_seconds_count"] == {(schema,): 4}
    assert found["tvix_build_call_seconds_bucket"]["+Inf", schema] == 4
    assert found["tvix_build_violations_total"] == {
        (schema, "required"): 1,
        (schema, "invalid_arg"): 1,
    }
    assert found["tvix_build_message_bytes_total"] == {
        ("request", schema): 2 * len(DATA) + 6,
        ("response", schema): 2 * size,
    }
    for name in ("open_calls", "builds", "waiting_calls", "deduplicated_calls_total"):
        assert found[f"tvix_build_{name}"] == {(): 0}


def test_traces() -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    builder = Builder()
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    async def scenario() -> None:
        async with proxy_to(builder, traces=provider) as proxy, method_of(proxy) as do_build:
            await do_build(DATA, metadata=(("traceparent", parent),))
            await error_of(do_build(b""))

    asyncio.run(scenario())
    build, call, invalid = spans.get_finished_spans()
    assert (build.kind, call.kind) == (SpanKind.CLIENT, SpanKind.SERVER)
    assert f"{call.context.trace_id:032x}" == parent.split("-")[1]
    assert call.parent
    assert f"{call.parent.span_id:016x}" == parent.split("-")[2]
    assert build.parent
    assert build.parent.span_id == call.context.span_id
    expected = f"00-{build.context.trace_id:032x}-{build.context.span_id:016x}-01"
    assert builder.metadata[0]["traceparent"] == expected
    assert call.name == f"{SERVICE}/DoBuild"
    assert call.attributes
    assert call.attributes["tvix_build.digest"] == DIGEST.hex()
    assert call.attributes["rpc.grpc.status_code"] == 0
    assert invalid.attributes
    assert invalid.attributes["rpc.grpc.status_code"] == 3
    assert invalid.attributes["tvix_build.violations"] == ("required",)
    assert invalid.parent is None
    # An error of the caller is none of the server.
    assert invalid.status.status_code is StatusCode.UNSET


def test_traces_are_exported_to_a_collector() -> None:
    exported: list[ExportTraceServiceRequest] = []

    async def collect(request: bytes, context: Any) -> bytes:
        exported.append(ExportTraceServiceRequest.FromString(request))
        response: bytes = ExportTraceServiceResponse().SerializeToString()
        return response

    async def scenario() -> None:
        server = grpc.aio.server()
        handler: Any = grpc.unary_unary_rpc_method_handler(collect)
        name = "opentelemetry.proto.collector.trace.v1.TraceService"
        service = grpc.method_handlers_generic_handler(name, {"Export": handler})
        server.add_generic_rpc_handlers([service])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        provider = exporting_provider(f"http://127.0.0.1:{port}")
        async with proxy_to(Builder(), traces=provider) as proxy, method_of(proxy) as do_build:
            await do_build(DATA)
            await asyncio.to_thread(provider.force_flush)
        await server.stop(None)

    asyncio.run(scenario())
    (resource,) = exported[0].resource_spans
    names = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert names["service.name"] == "tvix-build"
    assert len(resource.scope_spans[0].spans) == 2


def test_log(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(request: BuildRequest, context: Any) -> Build:
        if request.outputs == ["b"]:
            return response_to(request)
        if request.outputs == ["hang"]:
            await asyncio.Event().wait()
        await context.abort(grpc.StatusCode.ABORTED, "why\n")
        raise AssertionError

    hanging = BuildRequest(command_args=["a"], outputs=["hang"]).SerializeToString()

    async def late(proxy: Server, do_build: Method, seconds: float) -> bool:
        builds = proxy.numbers["builds"]
        # With `timeout`, the client may cancel the call before the proxy's deadline expires.
        call = do_build(hanging, metadata=(("grpc-timeout", f"{1000 * seconds:.0f}m"),))
        await until(lambda: builds() == 1 or call.done())
        built = builds() == 1
        assert (await error_of(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: builds() == 0)
        return built

    async def scenario() -> None:
        async with proxy_to(Builder(fail)) as proxy, method_of(proxy) as do_build:
            await do_build(DATA)
            await error_of(do_build(b""))
            await error_of(do_build(BuildRequest(command_args=["a"]).SerializeToString()))
            call = do_build(hanging)
            await until(lambda: proxy.numbers["builds"]() == 1)
            call.cancel()
            await until(lambda: proxy.numbers["builds"]() == 0)
            for seconds in DEADLINES:
                if await late(proxy, do_build, seconds):
                    break

    caplog.set_level(logging.DEBUG, LOG.name)
    asyncio.run(scenario())
    lines = [json.loads(JsonLines().format(one)) for one in caplog.records if one.name == LOG.name]
    good, invalid, failed, cancelled, *others = lines
    assert set(good) == {
        *("time", "level", "event", "schema", "code", "seconds", "peer", "digest"),
        *("request_bytes", "response_bytes"),
    }
    assert (good["level"], good["event"], good["code"]) == ("debug", "call", "OK")
    assert good["digest"] == DIGEST.hex()
    assert good["peer"].startswith("ipv4:127.0.0.1:")
    assert (invalid["level"], invalid["by"], invalid["code"]) == (
        *("info", "proxy", "INVALID_ARGUMENT"),
    )
    assert invalid["violations"] == ["required"]
    assert "digest" not in invalid
    assert (failed["level"], failed["by"], failed["code"], failed["message"]) == (
        *("warning", "upstream", "ABORTED", "why\n"),
    )
    assert (cancelled["level"], cancelled["by"], cancelled["code"]) == (
        *("info", "client", "CANCELLED"),
    )
    # The proxy or the builder may notice the deadline first.
    assert {one["code"] for one in others} == {"DEADLINE_EXCEEDED"}


def test_every_request_is_stored_before_it_is_built(tmp_path: Path) -> None:
    path = tmp_path / "store"
    requests = [
        tvix_build.build_request(command_args=[str(i % 30)], outputs=["b"]) for i in range(100)
    ]

    async def respond(request: BuildRequest, context: Any) -> Build:
        with RequestStore(path, create=False) as store:
            assert tvix_build.digest(request) in store
        return response_to(request)

    async def scenario() -> None:
        async with (
            proxy_to(Builder(respond), store=str(path), max_builds=8) as proxy,
            method_of(proxy) as do_build,
        ):
            await asyncio.gather(*(do_build(one.SerializeToString()) for one in requests))
            await error_of(do_build(b""))

    asyncio.run(scenario())
    with RequestStore(path, create=False) as store:
        assert {digest for digest, _ in store} == {tvix_build.digest(one) for one in requests}
        assert store.verify() == []


def test_a_store_that_fails_builds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builder = Builder()

    def fail(*_: object) -> None:
        raise StoreError("disk full")

    async def scenario() -> None:
        async with (
            proxy_to(builder, store=str(tmp_path / "store")) as proxy,
            method_of(proxy) as do_build,
        ):
            with monkeypatch.context() as patched:
                patched.setattr(RequestStore, "put_many", fail)
                for error in await asyncio.gather(*(error_of(do_build(DATA)) for _ in range(3))):
                    assert error.code() is grpc.StatusCode.INTERNAL
                    assert details_of(error) == ("STORE_FAILED", [])
            assert builder.requests == []
            await do_build(DATA)

    asyncio.run(scenario())


async def read_metrics(port: int, request: bytes) -> bytes:
    """Return the response to a request for metrics."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def test_requests_for_metrics() -> None:
    async def scenario() -> None:
        async with open_proxy(metrics=("127.0.0.1", 0)) as proxy:
            assert proxy.metrics_port
            get = b"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text\r\n\r\n"
            head, _, body = (await read_metrics(proxy.metrics_port, get)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text")
            assert b"tvix_build_open_calls 0.0" in body
            assert body.endswith(b"# EOF\n")
            for request, expected in [
                (b"HEAD / HTTP/1.1\r\n\r\n", b"200 OK"),
                (b"POST / HTTP/1.1\r\n\r\n", b"405"),
                (b"GET / HTTP/1.1\r\nA: " + b"a" * 100_000, b""),
            ]:
                response = await read_metrics(proxy.metrics_port, request)
                assert expected in response
                assert b"tvix_build" not in response

    asyncio.run(scenario())


def test_unfinished_requests_for_metrics() -> None:
    """They block no other request, and end by themselves."""

    async def scenario() -> None:
        server = MetricsServer(Metrics({}).registry, timeout=DEADLINES[0])
        await server.start("127.0.0.1", 0)
        assert await read_metrics(server.port, b"GET / HT") == b""
        await server.close()
        async with open_proxy(metrics=("127.0.0.1", 0)) as proxy:
            assert proxy.metrics_port
            writers = []
            for _ in range(100):
                _, writer = await asyncio.open_connection("127.0.0.1", proxy.metrics_port)
                writer.write(b"GET / HT")
                writers.append(writer)
            response = await read_metrics(proxy.metrics_port, b"GET / HTTP/1.1\r\n\r\n")
            assert b"200 OK" in response
            for writer in writers:
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()

    asyncio.run(scenario())


def test_many_requests_for_metrics_at_once() -> None:
    """The server accepts them before it handles one, and then ends all but the last ones."""

    async def scenario() -> None:
        server = MetricsServer(Metrics({}).registry, timeout=LIMIT)
        await server.start("127.0.0.1", 0)
        with ExitStack() as stack:
            sockets = []
            for _ in range(50):
                one = socket.create_connection(("127.0.0.1", server.port))
                one.setblocking(False)
                sockets.append(stack.enter_context(one))
            for one in sockets[:18]:
                with suppress(ConnectionError):
                    assert await asyncio.get_running_loop().sock_recv(one, 1) == b""
        await server.close()

    asyncio.run(scenario())


def test_addresses_in_use() -> None:
    async def scenario(directory: str) -> None:
        listen = [parse(FREE_PORT), parse(f"grpc+unix:{directory}/socket")]
        async with open_proxy(listen=listen, metrics=("127.0.0.1", 0)) as proxy:
            rejected: list[tuple[dict[str, Any], str]] = [
                ({"listen": [parse(proxy.addresses[0])]}, "already in use"),
                ({"listen": [parse(proxy.addresses[1])]}, "already in use"),
                ({"metrics": ("127.0.0.1", proxy.metrics_port)}, "already in use"),
                ({"listen": [parse("grpc+unix:/no/such/directory/socket")]}, "No such file"),
            ]
            for options, expected in rejected:
                with pytest.raises(ServeError, match=expected):
                    async with open_proxy(**options):
                        pass
        # A socket file without a server does not block the address.
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(f"{directory}/left")
        listen = [parse(f"grpc+unix:{directory}/left")]
        async with open_proxy(listen=listen) as proxy, method_of(proxy) as do_build:
            await error_of(do_build(DATA))

    with socket_directory() as directory:
        asyncio.run(scenario(directory))
