# SPDX-License-Identifier: MIT
"""What the door says of itself: health, reflection, metrics, traces, log; and what it records."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
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
    answer_to,
    details_of,
    door_to,
    method_of,
    open_door,
    refused,
    socket_folder,
    until,
)
from tvix.build.protos.build_pb2 import Build, BuildRequest
from tvix_build.proxy.logs import LOG, JsonLines
from tvix_build.proxy.server import ServeError, Server
from tvix_build.proxy.shared.addresses import parse
from tvix_build.proxy.tracing import exporting_provider
from tvix_build.store import RequestStore, StoreError

REQUEST = tvix_build.build_request(command_args=["a"], outputs=["b"])
DATA = REQUEST.SerializeToString()
DIGEST = tvix_build.digest(REQUEST)
SERVICE = "tvix.build.v1.BuildService"


def channel_to(door: Server) -> grpc.aio.Channel:
    """A bare channel."""
    return grpc.aio.insecure_channel(parse(door.addresses[0]).target)


def test_log_of_what_is_not_text() -> None:
    record = logging.makeLogRecord({"msg": "x", "fields": {"addresses": ["grpc+unix:/\udcff"]}})
    line = JsonLines().format(record)
    assert json.loads(line)["addresses"] == [r"grpc+unix:/\xff"]
    assert "\\ud" not in line


def test_health() -> None:
    async def scenario() -> None:
        async with open_door() as door, channel_to(door) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            serving = health_pb2.HealthCheckResponse.SERVING
            for name in ("", SERVICE):
                request = health_pb2.HealthCheckRequest(service=name)
                assert (await stub.Check(request)).status == serving
            error = await refused(stub.Check(health_pb2.HealthCheckRequest(service="other")))
            assert error.code() is grpc.StatusCode.NOT_FOUND
            # Who watches hears that it closes, and does not keep it from closing.
            watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
            assert (await watch.read()).status == serving
            closing = asyncio.create_task(door.close(1000))
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            await closing

    asyncio.run(scenario())


def test_reflection() -> None:
    async def scenario() -> None:
        async with open_door() as door, channel_to(door) as channel:
            stub_class: Any = reflection_pb2_grpc.ServerReflectionStub
            stub = stub_class(channel)
            requests = [
                reflection_pb2.ServerReflectionRequest(list_services=""),
                reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
            ]
            answers = [one async for one in stub.ServerReflectionInfo(iter(requests))]
            names = [one.name for one in answers[0].list_services_response.service]
            assert set(names) == {
                SERVICE,
                "grpc.health.v1.Health",
                "grpc.reflection.v1alpha.ServerReflection",
            }
            files = [
                FileDescriptorProto.FromString(one)
                for one in answers[1].file_descriptor_response.file_descriptor_proto
            ]
            assert "tvix/build/protos/rpc_build.proto" in [file.name for file in files]

    asyncio.run(scenario())


def test_metrics() -> None:
    def scrape(port: int) -> dict[str, dict[tuple[str, ...], float]]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            families = text_string_to_metric_families(answer.read().decode())
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for family in families:
            for sample in family.samples:
                labels = tuple(value for _, value in sorted(sample.labels.items()))
                found.setdefault(sample.name, {})[labels] = sample.value
        return found

    async def scenario() -> dict[str, dict[tuple[str, ...], float]]:
        options: dict[str, Any] = {"metrics": ("127.0.0.1", 0), "deduplicate": True}
        async with door_to(Builder(), **options) as door, method_of(door) as do_build:
            await do_build(DATA)
            await do_build(DATA)
            await refused(do_build(b""))
            await refused(do_build(BuildRequest(command_args=["a", "\0"]).SerializeToString()))
            assert door.metrics_port
            return await asyncio.to_thread(scrape, door.metrics_port)

    found = asyncio.run(scenario())
    schema, size = "tvix.build.v1", len(answer_to(REQUEST).SerializeToString())
    assert found["tvix_build_calls_total"] == {
        ("", "OK", schema): 2,
        ("door", "INVALID_ARGUMENT", schema): 2,
    }
    assert found["tvix_build_call_seconds_count"] == {(schema,): 4}
    assert found["tvix_build_call_seconds_bucket"]["+Inf", schema] == 4
    assert found["tvix_build_violations_total"] == {
        (schema, "required"): 1,
        (schema, "invalid_arg"): 1,
    }
    assert found["tvix_build_message_bytes_total"] == {
        ("request", schema): 2 * len(DATA) + 6,
        ("answer", schema): 2 * size,
    }
    for name in ("open_calls", "builds", "waiting_calls", "shared_calls_total"):
        assert found[f"tvix_build_{name}"] == {(): 0}


def test_traces() -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    builder = Builder()
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    async def scenario() -> None:
        async with door_to(builder, traces=provider) as door, method_of(door) as do_build:
            await do_build(DATA, metadata=(("traceparent", parent),))
            await refused(do_build(b""))

    asyncio.run(scenario())
    build, call, invalid = spans.get_finished_spans()
    assert (build.kind, call.kind) == (SpanKind.CLIENT, SpanKind.SERVER)
    assert f"{call.context.trace_id:032x}" == parent.split("-")[1]
    assert call.parent
    assert f"{call.parent.span_id:016x}" == parent.split("-")[2]
    assert build.parent
    assert build.parent.span_id == call.context.span_id
    told = f"00-{build.context.trace_id:032x}-{build.context.span_id:016x}-01"
    assert builder.metadata[0]["traceparent"] == told
    assert call.name == f"{SERVICE}/DoBuild"
    assert call.attributes
    assert call.attributes["tvix_build.digest"] == DIGEST.hex()
    assert call.attributes["rpc.grpc.status_code"] == 0
    assert invalid.attributes
    assert invalid.attributes["rpc.grpc.status_code"] == 3
    assert invalid.attributes["tvix_build.violations"] == ("required",)
    assert invalid.parent is None
    # The caller's fault is none of the server.
    assert invalid.status.status_code is StatusCode.UNSET


def test_traces_go_to_a_collector() -> None:
    exported: list[ExportTraceServiceRequest] = []

    async def collect(request: bytes, context: Any) -> bytes:
        exported.append(ExportTraceServiceRequest.FromString(request))
        answer: bytes = ExportTraceServiceResponse().SerializeToString()
        return answer

    async def scenario() -> None:
        server = grpc.aio.server()
        handler: Any = grpc.unary_unary_rpc_method_handler(collect)
        name = "opentelemetry.proto.collector.trace.v1.TraceService"
        service = grpc.method_handlers_generic_handler(name, {"Export": handler})
        server.add_generic_rpc_handlers([service])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        provider = exporting_provider(f"http://127.0.0.1:{port}")
        async with door_to(Builder(), traces=provider) as door, method_of(door) as do_build:
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
            return answer_to(request)
        if request.outputs == ["hang"]:
            await asyncio.Event().wait()
        await context.abort(grpc.StatusCode.ABORTED, "why\n")
        raise AssertionError

    async def scenario() -> None:
        async with door_to(Builder(fail)) as door, method_of(door) as do_build:
            await do_build(DATA)
            await refused(do_build(b""))
            await refused(do_build(BuildRequest(command_args=["a"]).SerializeToString()))
            hanging = BuildRequest(command_args=["a"], outputs=["hang"]).SerializeToString()
            call = do_build(hanging)
            await until(lambda: door.numbers["builds"]() == 1)
            call.cancel()
            await until(lambda: door.numbers["builds"]() == 0)
            await refused(do_build(hanging, timeout=0.1))
            await until(lambda: door.numbers["builds"]() == 0)

    caplog.set_level(logging.DEBUG, LOG.name)
    asyncio.run(scenario())
    lines = [json.loads(JsonLines().format(one)) for one in caplog.records if one.name == LOG.name]
    good, invalid, failed, cancelled, late = lines
    assert set(good) == {
        *("time", "level", "event", "schema", "code", "seconds", "peer", "digest"),
        *("request_bytes", "answer_bytes"),
    }
    assert (good["level"], good["event"], good["code"]) == ("debug", "call", "OK")
    assert good["digest"] == DIGEST.hex()
    assert good["peer"].startswith("ipv4:127.0.0.1:")
    assert (invalid["level"], invalid["by"], invalid["code"]) == (
        *("info", "door", "INVALID_ARGUMENT"),
    )
    assert invalid["violations"] == ["required"]
    assert "digest" not in invalid
    assert (failed["level"], failed["by"], failed["code"], failed["message"]) == (
        *("warning", "upstream", "ABORTED", "why\n"),
    )
    assert (cancelled["level"], cancelled["by"], cancelled["code"]) == (
        *("info", "client", "CANCELLED"),
    )
    # Who notices first, the door or its builder, is chance.
    assert late["code"] == "DEADLINE_EXCEEDED"


def test_every_request_is_recorded_before_it_is_built(tmp_path: Path) -> None:
    path = tmp_path / "store"
    requests = [
        tvix_build.build_request(command_args=[str(i % 30)], outputs=["b"]) for i in range(100)
    ]

    async def answer(request: BuildRequest, context: Any) -> Build:
        with RequestStore(path, create=False) as store:
            assert tvix_build.digest(request) in store
        return answer_to(request)

    async def scenario() -> None:
        async with (
            door_to(Builder(answer), store=str(path), max_builds=8) as door,
            method_of(door) as do_build,
        ):
            await asyncio.gather(*(do_build(one.SerializeToString()) for one in requests))
            await refused(do_build(b""))

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
            door_to(builder, store=str(tmp_path / "store")) as door,
            method_of(door) as do_build,
        ):
            with monkeypatch.context() as patched:
                patched.setattr(RequestStore, "put_many", fail)
                for error in await asyncio.gather(*(refused(do_build(DATA)) for _ in range(3))):
                    assert error.code() is grpc.StatusCode.INTERNAL
                    assert details_of(error) == ("STORE_FAILED", [])
            assert builder.requests == []
            await do_build(DATA)

    asyncio.run(scenario())


def test_a_place_that_is_taken() -> None:
    async def scenario(folder: str) -> None:
        listen = [parse(FREE_PORT), parse(f"grpc+unix:{folder}/socket")]
        async with open_door(listen=listen, metrics=("127.0.0.1", 0)) as door:
            for options in (
                {"listen": [parse(door.addresses[0])]},
                {"listen": [parse(door.addresses[1])]},
                {"metrics": ("127.0.0.1", door.metrics_port)},
                {"listen": [parse("grpc+unix:/no/such/folder/socket")]},
            ):
                with pytest.raises(ServeError, match=r"expected|metrics"):
                    async with open_door(**options):
                        pass
        # A socket that is left over is no server.
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(f"{folder}/left")
        listen = [parse(f"grpc+unix:{folder}/left")]
        async with open_door(listen=listen) as door, method_of(door) as do_build:
            await refused(do_build(DATA))

    with socket_folder() as folder:
        asyncio.run(scenario(folder))
