# SPDX-License-Identifier: MIT
"""Support for the tests of the proxy: builders with given responses, proxies and clients.

All run in one event loop, over real sockets.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf import json_format
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc_status import rpc_status

from tvix.build.protos import rpc_build_pb2_grpc
from tvix.build.protos.build_pb2 import Build, BuildRequest
from tvix.castore.protos.castore_pb2 import FileNode, Node
from tvix_build import Schema
from tvix_build.proxy.builder_protocol import Builder as ProxyBuilder
from tvix_build.proxy.server import Options, Server
from tvix_build.proxy.shared.addresses import parse
from tvix_build.proxy.shared.services import SERVICES

Method: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"
FREE_PORT = "grpc+http://127.0.0.1:0"
FREE_METRICS = ("--metrics", "127.0.0.1:0")
METHOD = "/tvix.build.v1.BuildService/DoBuild"
EXAMPLES = Path(__file__).parents[2] / "examples"


def nodes() -> dict[str, Node]:
    """Return the nodes at the store paths of the examples."""
    lines = (EXAMPLES / "nodes.ndjson").read_text().splitlines()
    found = {}
    for line in lines:
        fields = json.loads(line)
        found[fields["path"]] = json_format.ParseDict(fields["node"], Node())
    return found


def response_to(request: BuildRequest) -> Build:
    """Return a valid response, made by protobuf alone."""
    outputs = [
        Node(file=FileNode(name=name.encode(), digest=bytes(32), size=1))
        for name in request.outputs
    ]
    return Build(build_request=request, outputs=outputs)


class Builder(rpc_build_pb2_grpc.BuildServiceServicer):
    """A builder made with gRPC's generated code. It records calls and responds with `respond`.

    Attributes:
        requests: the requests of all calls.
        metadata: the metadata of each call.
        remaining: the seconds to the deadline of each call, None without a deadline.
        cancelled: the number of cancelled calls.
    """

    def __init__(
        self,
        respond: Callable[[BuildRequest, Any], Awaitable[Build]] | None = None,
    ) -> None:
        self._respond = respond
        self.requests: list[BuildRequest] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self.remaining: list[float | None] = []
        self.cancelled = 0

    async def DoBuild(self, request: BuildRequest, context: Any) -> Build:  # noqa: N802 - gRPC's
        self.requests.append(request)
        self.metadata.append(dict(iter(context.invocation_metadata())))
        self.remaining.append(context.time_remaining())
        try:
            return await self._respond(request, context) if self._respond else response_to(request)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


@asynccontextmanager
async def running_server(
    add_to: Callable[[grpc.aio.Server], None], address: str = "127.0.0.1:0"
) -> AsyncIterator[str]:
    """Run a server with the services that a function adds. Yield its address."""
    server = grpc.aio.server()
    add_to(server)
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield f"grpc+http://127.0.0.1:{port}"
    finally:
        await server.stop(None)


def running(builder: Builder, address: str = "127.0.0.1:0") -> AbstractAsyncContextManager[str]:
    """Run the server of a builder. The context manager yields its address."""
    add: Any = rpc_build_pb2_grpc.add_BuildServiceServicer_to_server
    return running_server(lambda server: add(builder, server), address)


@asynccontextmanager
async def open_proxy(
    upstream: str | None = None, *, builder: ProxyBuilder | None = None, **options: Any
) -> AsyncIterator[Server]:
    """Run a proxy. Yield it, and close it at the end."""
    options.setdefault("listen", [parse(FREE_PORT)])
    options.setdefault("services", [SERVICES[Schema.TVIX_BUILD_V1]])
    options.setdefault("upstreams", [parse(upstream)] if upstream else [])
    server = Server(Options(**options), builder)
    await server.start()
    try:
        yield server
    finally:
        await server.close(None)
        await server.free()


@asynccontextmanager
async def proxy_to(builder: Builder, **options: Any) -> AsyncIterator[Server]:
    """Run a proxy in front of a builder. Yield the proxy."""
    async with running(builder) as address, open_proxy(address, **options) as proxy:
        yield proxy


@asynccontextmanager
async def method_of(proxy: Server, method: str = METHOD) -> AsyncIterator[Method]:
    """Yield a method of a proxy, to call with bytes. The client does not validate."""
    async with grpc.aio.insecure_channel(parse(proxy.addresses[0]).target) as channel:
        yield channel.unary_unary(method)


def socket_directory() -> TemporaryDirectory[str]:
    """Return a context manager of a directory for sockets, whose paths must be short."""
    return TemporaryDirectory(dir="/tmp")


async def error_of(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    """Return the error of a call that fails."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("expected the call to fail")


def details_of(error: grpc.aio.AioRpcError) -> tuple[str, list[tuple[str, str, str]]]:
    """Return the reason and the violations as path, code and message, parsed by gRPC's library."""
    status: Any = rpc_status.from_call(error)  # type: ignore[arg-type]
    info, bad = ErrorInfo(), BadRequest()
    for detail in status.details:
        assert detail.Unpack(info) or detail.Unpack(bad)
    return info.reason, [(one.field, one.reason, one.description) for one in bad.field_violations]
