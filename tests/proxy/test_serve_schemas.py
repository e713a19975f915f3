# SPDX-License-Identifier: MIT
"""The proxy and clients with services of the later schemas."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import tvix_build
from schema_2024 import Build as BuildOf2024
from serving import EXAMPLES, details_of, error_of, method_of, nodes, open_proxy, running_server
from snix.build.protos import build_pb2, rpc_build_pb2_grpc
from snix.castore.protos.castore_pb2 import Entry, FileEntry
from tvix_build import Schema, nix
from tvix_build.nix import DerivationDirectory
from tvix_build.proxy.client import AsyncBuildService, InvalidResponseError
from tvix_build.proxy.shared.addresses import parse
from tvix_build.proxy.shared.services import SERVICES, Service

SNIX, YEAR = SERVICES[Schema.SNIX_BUILD_V1], SERVICES[Schema.TVIX_BUILD_V1_2024]
REQUEST = build_pb2.BuildRequest(
    command_args=["a"], outputs=["nix/store/a", "nix/store/b"], refscan_needles=["n", "m"]
)
DATA = REQUEST.SerializeToString()
FILE = Entry(file=FileEntry(digest=bytes(32), size=1))


def response_with(*needles: list[int]) -> build_pb2.BuildResponse:
    """Return a response with one output for each list of needles."""
    outputs = [build_pb2.BuildResponse.Output(output=FILE, needles=some) for some in needles]
    return build_pb2.BuildResponse(outputs=outputs)


class Builder(rpc_build_pb2_grpc.BuildServiceServicer):
    """A builder of snix by gRPC's own code, with one response for all requests."""

    def __init__(self, response: build_pb2.BuildResponse) -> None:
        self._response = response
        self.calls: list[tuple[build_pb2.BuildRequest, Any]] = []

    async def DoBuild(  # noqa: N802 - gRPC's
        self, request: build_pb2.BuildRequest, context: Any
    ) -> build_pb2.BuildResponse:
        self.calls.append((request, dict(iter(context.invocation_metadata()))))
        return self._response


def serving_snix(builder: Builder) -> AbstractAsyncContextManager[str]:
    """Run the server of a builder; yields its address."""
    add: Any = rpc_build_pb2_grpc.add_BuildServiceServicer_to_server
    return running_server(lambda server: add(builder, server))


def test_snix_through_the_proxy() -> None:
    builder = Builder(response_with([0, 1], []))

    async def scenario() -> None:
        services = [SERVICES[Schema.TVIX_BUILD_V1], SNIX]
        async with (
            serving_snix(builder) as upstream,
            open_proxy(upstream, services=services) as proxy,
            AsyncBuildService(proxy.addresses[0], schema="snix.build.v1") as client,
            method_of(proxy, SNIX.method) as do_build,
            method_of(proxy) as do_first,
        ):
            assert await client.do_build(REQUEST) == response_with([0, 1], [])
            assert await do_build(DATA) == response_with([0, 1], []).SerializeToString()
            twice = build_pb2.BuildRequest(command_args=["a"], outputs=["a", "a"])
            reason, violations = details_of(await error_of(do_build(twice.SerializeToString())))
            assert (reason, violations[0][:2]) == ("INVALID_REQUEST", ("outputs[1]", "duplicate"))
            # Each service has its own schema.
            assert details_of(await error_of(do_first(DATA)))[0] == "INVALID_REQUEST"
            async with grpc.aio.insecure_channel(parse(proxy.addresses[0]).target) as channel:
                stub: Any = health_pb2_grpc.HealthStub(channel)
                for service in services:
                    state = await stub.Check(health_pb2.HealthCheckRequest(service=service.name))
                    assert state.status == health_pb2.HealthCheckResponse.SERVING

    asyncio.run(scenario())
    assert [request for request, _ in builder.calls] == [REQUEST, REQUEST]
    digest = tvix_build.digest(REQUEST).hex()
    assert all(metadata["tvix-build-digest"] == digest for _, metadata in builder.calls)


@pytest.mark.parametrize(
    ("response", "code", "path"),
    [
        (response_with([]), "missing_output", "outputs[1]"),
        (response_with([], [], []), "unexpected_output", "outputs[2]"),
        (response_with([1, 0], []), "not_sorted", "outputs[0].needles[1]"),
        (response_with([2], []), "invalid_needle", "outputs[0].needles[0]"),
        (response_with([1], [0, 0]), "duplicate", "outputs[1].needles[1]"),
    ],
)
def test_responses_that_do_not_match_their_request(
    response: build_pb2.BuildResponse, code: str, path: str
) -> None:
    async def scenario() -> None:
        async with (
            serving_snix(Builder(response)) as upstream,
            open_proxy(upstream, services=[SNIX]) as proxy,
            method_of(proxy, SNIX.method) as do_build,
            AsyncBuildService(upstream, schema=Schema.SNIX_BUILD_V1) as client,
        ):
            error = await error_of(do_build(DATA))
            assert error.code() is grpc.StatusCode.INTERNAL
            assert path in (error.details() or "")
            with pytest.raises(InvalidResponseError) as caught:
                await client.do_build(DATA)
            assert (code, path) in [(one.code.value, one.path) for one in caught.value.violations]

    asyncio.run(scenario())


def serving_bytes(
    service: Service, response_to: Callable[[bytes], bytes]
) -> AbstractAsyncContextManager[str]:
    """Run a server of any service; yields its address."""

    async def do_build(request: bytes, context: Any) -> bytes:
        return response_to(request)

    handlers: Any = {"DoBuild": grpc.unary_unary_rpc_method_handler(do_build)}
    handler = grpc.method_handlers_generic_handler(service.name, handlers)
    return running_server(lambda server: server.add_generic_rpc_handlers([handler]))


def build_of_2024(request: bytes, *names: bytes) -> Any:
    """Return a Build with files of these names."""
    build: Any = BuildOf2024()
    build.build_request.ParseFromString(request)
    for name in names:
        build.outputs.add().file.MergeFromString(
            FileEntry(name=name, digest=bytes(32)).SerializeToString()
        )
    return build


def test_bytes_of_2024() -> None:
    """The service has the same name as in tvix.build.v1, its messages other field numbers."""
    names: list[bytes] = []

    def response_to(request: bytes) -> bytes:
        assert request == DATA
        data: bytes = build_of_2024(DATA, *names).SerializeToString()
        return data

    async def scenario() -> None:
        async with (
            serving_bytes(YEAR, response_to) as upstream,
            open_proxy(upstream, services=[YEAR]) as proxy,
            AsyncBuildService(proxy.addresses[0], schema="tvix.build.v1@2024") as client,
        ):
            with pytest.raises(grpc.aio.AioRpcError, match="missing_output"):
                await client.do_build(DATA)
            names.extend((b"a", b"b"))
            assert await client.do_build(DATA) == response_to(DATA)

    asyncio.run(scenario())


@pytest.mark.parametrize("service", [SNIX, YEAR], ids=lambda service: service.schema.value)
def test_from_a_derivation_to_the_response(service: Service) -> None:
    directory, known = DerivationDirectory(EXAMPLES / "derivations"), nodes()
    made: list[Any] = [
        nix.to_build_request(one, nodes=known, derivations=directory, schema=service.schema)
        for one in directory.values()
    ]
    requests: list[bytes] = made if service is YEAR else [one.SerializeToString() for one in made]
    assert len(requests) > 5
    requests_seen = []

    def response_to(request: bytes) -> bytes:
        requests_seen.append(request)
        # The requests of both are alike.
        outputs = build_pb2.BuildRequest.FromString(request).outputs
        if service is SNIX:
            return response_with(*[[i] for i in range(len(outputs))]).SerializeToString()
        names = sorted(path.rpartition("/")[2].encode() for path in outputs)
        data: bytes = build_of_2024(request, *names).SerializeToString()
        return data

    async def scenario() -> None:
        async with (
            serving_bytes(service, response_to) as upstream,
            open_proxy(upstream, services=[service]) as proxy,
            AsyncBuildService(proxy.addresses[0], schema=service.schema) as client,
        ):
            for request in requests:
                received = await client.do_build(request)
                assert requests_seen.pop() == request
                assert received == response_to(request)
                assert requests_seen.pop() == request

    asyncio.run(scenario())
    assert not requests_seen
