# SPDX-License-Identifier: MIT
"""Log, metrics and limits of the calls of the castore services."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import grpc.aio
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from prometheus_client import generate_latest

from cli_support import run
from proxy_process import running_proxy
from serving import details_of, error_of, open_proxy
from tvix.castore.protos import rpc_castore_pb2 as rpc
from tvix.castore.protos import rpc_castore_pb2_grpc
from tvix.castore.protos.castore_pb2 import Directory
from tvix_build._core.blake3 import blake3_many
from tvix_build.castore import CastoreStore
from tvix_build.proxy.logs import LOG
from tvix_build.proxy.metrics import Metrics
from tvix_build.proxy.outcomes import ServiceOutcome
from tvix_build.proxy.server import Server
from tvix_build.proxy.shared.addresses import parse
from waiting import LIMIT, until

BLOBS = "tvix.castore.v1.BlobService"
DIRECTORIES = "tvix.castore.v1.DirectoryService"
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


class Served(NamedTuple):
    """A proxy with a store, and clients."""

    proxy: Server
    store: CastoreStore
    blobs: Any
    directories: Any


Scenario = Callable[[Served], Awaitable[None]]


def serve(path: Path, scenario: Scenario, **options: Any) -> None:
    @asynccontextmanager
    async def served() -> AsyncIterator[Served]:
        with CastoreStore(path / "store") as store:
            async with (
                open_proxy(castore=store, **options) as proxy,
                grpc.aio.insecure_channel(parse(proxy.addresses[0]).target) as channel,
            ):
                stubs: Any = rpc_castore_pb2_grpc
                blobs = stubs.BlobServiceStub(channel)
                yield Served(proxy, store, blobs, stubs.DirectoryServiceStub(channel))

    async def main() -> None:
        async with served() as made:
            await scenario(made)

    asyncio.run(main())


def chunks(*data: bytes) -> Any:
    return iter([rpc.BlobChunk(data=one) for one in data])


def calls(caplog: pytest.LogCaptureFixture) -> list[tuple[str, dict[str, Any]]]:
    """Return the level and the fields of each logged call."""
    return [
        (record.levelname, dict(record.__dict__["fields"]))
        for record in caplog.records
        if record.getMessage() == "castore call"
    ]


def test_calls_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(served: Served) -> None:
        digest = (await served.blobs.Put(chunks(b"ab", b"c"))).digest
        await served.blobs.Stat(rpc.StatBlobRequest(digest=digest))
        assert [one async for one in served.blobs.Read(rpc.ReadBlobRequest(digest=digest))]
        root = (await served.directories.Put(iter([Directory()]))).root_digest
        request = rpc.GetDirectoryRequest(digest=root)
        assert [one async for one in served.directories.Get(request)] == [Directory()]
        await error_of(served.blobs.Stat(rpc.StatBlobRequest(digest=bytes(32))))
        await error_of(served.blobs.Stat(rpc.StatBlobRequest(digest=b"short")))
        place = tmp_path / "store" / "directories" / root.hex()[:2] / root.hex()[2:]
        place.chmod(0o644)
        place.write_bytes(b"damage")
        await error_of(served.directories.Get(request).read())
        await until(lambda: len(calls(caplog)) == 8)

    caplog.set_level(logging.DEBUG, LOG.name)
    serve(tmp_path, scenario)
    found = calls(caplog)
    assert [(level, one["method"], one["code"]) for level, one in found] == [
        ("DEBUG", f"{BLOBS}/Put", "OK"),
        ("DEBUG", f"{BLOBS}/Stat", "OK"),
        ("DEBUG", f"{BLOBS}/Read", "OK"),
        ("DEBUG", f"{DIRECTORIES}/Put", "OK"),
        ("DEBUG", f"{DIRECTORIES}/Get", "OK"),
        ("DEBUG", f"{BLOBS}/Stat", "NOT_FOUND"),
        ("INFO", f"{BLOBS}/Stat", "INVALID_ARGUMENT"),
        ("WARNING", f"{DIRECTORIES}/Get", "DATA_LOSS"),
    ]
    sizes = [(one["request_bytes"], one["response_bytes"]) for _, one in found]
    assert sizes == [(7, 34), (34, 0), (34, 5), (0, 34), (34, 0), (34, 0), (7, 0), (34, 0)]
    assert [one.get("by") for _, one in found] == [None] * 5 + ["proxy"] * 3
    assert found[6][1]["message"] == "expected a digest of 32 bytes, found 5"
    assert all(one["peer"].startswith("ipv4:") and one["seconds"] >= 0 for _, one in found)


def test_metrics() -> None:
    metrics = Metrics({"open_castore_calls": lambda: 2})
    assert b"tvix_build_castore_calls" not in generate_latest(metrics.registry)
    outcome = ServiceOutcome(f"{BLOBS}/Put", "peer", 3, 34, seconds=0.002)
    metrics.observe_castore(outcome)
    outcome.code, outcome.by = grpc.StatusCode.CANCELLED, "client"
    metrics.observe_castore(outcome)
    lines = generate_latest(metrics.registry).decode().splitlines()
    method = f'method="{BLOBS}/Put"'
    for line in (
        f'tvix_build_castore_calls_total{{by="",code="OK",{method}}} 1.0',
        f'tvix_build_castore_calls_total{{by="client",code="CANCELLED",{method}}} 1.0',
        f'tvix_build_castore_call_seconds_bucket{{le="0.003",{method}}} 2.0',
        f'tvix_build_castore_message_bytes_total{{message="request",{method}}} 6.0',
        f'tvix_build_castore_message_bytes_total{{message="response",{method}}} 68.0',
        "tvix_build_open_castore_calls 2.0",
    ):
        assert line in lines


def test_metrics_of_plans() -> None:
    metrics = Metrics({"running_plans": lambda: 1})
    method = "tvix_build.plan.v1.PlanService/ListPlans"
    metrics.observe_plans(ServiceOutcome(method, "peer", 3, 34, seconds=0.002))
    text = generate_latest(metrics.registry).decode()
    assert f'tvix_build_plan_calls_total{{by="",code="OK",method="{method}"}} 1.0' in text
    assert "tvix_build_castore_calls" not in text


def test_the_limit_of_calls(tmp_path: Path) -> None:
    async def scenario(served: Served) -> None:
        number = served.proxy.numbers["open_castore_calls"]
        request = rpc.StatBlobRequest(digest=bytes(32))
        upload = served.blobs.Put()
        await upload.write(rpc.BlobChunk(data=b"x"))
        await until(lambda: number() == 1)
        error = await error_of(served.blobs.Stat(request))
        assert error.code() is EXHAUSTED
        assert details_of(error)[0] == "TOO_MANY_CALLS"
        await upload.done_writing()
        await upload
        await until(lambda: number() == 0)
        assert (await error_of(served.blobs.Stat(request))).code() is grpc.StatusCode.NOT_FOUND
        upload = served.blobs.Put()
        await until(lambda: number() == 1)
        upload.cancel()
        await until(lambda: number() == 0)

    serve(tmp_path, scenario, max_castore_calls=1)


def test_the_limit_of_uploads(tmp_path: Path) -> None:
    async def scenario(served: Served) -> None:
        fitting, larger = os.urandom(98), os.urandom(99)
        await served.blobs.Put(chunks(fitting))
        directory = Directory()
        directory.symlinks.add(name=b"link", target=b"x" * 100)
        for call in (
            served.blobs.Put(chunks(larger)),
            served.blobs.Put(chunks(*[b"x"] * 50)),
            served.directories.Put(iter([directory])),
        ):
            error = await error_of(call)
            assert error.code() is EXHAUSTED
            assert details_of(error)[0] == "UPLOAD_TOO_LARGE"
        assert served.store.has_blob(blake3_many([fitting]).tobytes())
        assert not served.store.has_blob(blake3_many([larger]).tobytes())

    serve(tmp_path, scenario, max_upload_size=100)


def test_usage(tmp_path: Path) -> None:
    found = run("serve", "--check-only", "--max-castore-calls", "0", cwd=tmp_path)
    assert found.status == 2


def test_traces(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    metadata = (("traceparent", f"00-{trace}-00f067aa0ba902b7-01"),)
    caplog.set_level(logging.DEBUG, LOG.name)

    async def scenario(served: Served) -> None:
        digest = (await served.blobs.Put(chunks(b"abc"), metadata=metadata)).digest
        read = served.blobs.Read(rpc.ReadBlobRequest(digest=digest))
        assert [one.data async for one in read] == [b"abc"]
        await error_of(served.directories.Get(rpc.GetDirectoryRequest(digest=digest)).read())

    serve(tmp_path, scenario, traces=provider)
    put, read, get = exporter.get_finished_spans()
    assert put.name == f"{BLOBS}/Put"
    assert f"{put.context.trace_id:032x}" == trace
    assert put.parent is not None
    found = dict(put.attributes or {})
    assert (found["rpc.service"], found["rpc.method"]) == (BLOBS, "Put")
    assert found["tvix_build.request_bytes"] == 5
    assert (read.name, read.parent) == (f"{BLOBS}/Read", None)
    assert (get.attributes or {})["rpc.grpc.status_code"] == grpc.StatusCode.NOT_FOUND.value[0]
    assert all(span.kind is SpanKind.SERVER for span in (put, read, get))
    assert calls(caplog)[0][1]["trace"] == trace


def test_streams_that_clients_cancel(tmp_path: Path) -> None:
    """A generator of responses must not be closed after gRPC has freed its call."""
    with CastoreStore(tmp_path / "store") as store:
        digest = store.add_blob(bytes(32 << 20))
    lines = []
    options = ("--listen", "grpc+http://127.0.0.1:0", "--castore", tmp_path / "store")
    with running_proxy(*options, "--check-only") as proxy:
        for _ in range(20):
            with grpc.insecure_channel(parse(proxy.address).target) as channel:
                stub: Any = rpc_castore_pb2_grpc.BlobServiceStub
                call = stub(channel).Read(rpc.ReadBlobRequest(digest=digest), timeout=LIMIT)
                assert next(call).data
                call.cancel()
            lines.append(proxy.line())
    assert {line["event"] for line in lines} == {"castore call"}  # and no errors
    # Not always: all messages may be sent before.
    assert "CANCELLED" in {line["code"] for line in lines}
