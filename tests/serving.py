# SPDX-License-Identifier: MIT
"""What tests of the door share: builders that answer as they are told, doors before them, clients.

All run in one event loop, over real sockets.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
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
from tvix_build.proxy.server import Options, Server
from tvix_build.proxy.shared.addresses import parse
from tvix_build.proxy.shared.services import SERVICES

Method: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"
FREE_PORT = "grpc+http://127.0.0.1:0"
METHOD = "/tvix.build.v1.BuildService/DoBuild"
EXAMPLES = Path("examples")


def nodes() -> dict[str, Node]:
    """What lies at the store paths of the examples."""
    lines = (EXAMPLES / "nodes.ndjson").read_text().splitlines()
    found = {}
    for line in lines:
        fields = json.loads(line)
        found[fields["path"]] = json_format.ParseDict(fields["node"], Node())
    return found


def answer_to(request: BuildRequest) -> Build:
    """A valid answer, made by protobuf alone."""
    outputs = [
        Node(file=FileNode(name=name.encode(), digest=bytes(32), size=1))
        for name in request.outputs
    ]
    return Build(build_request=request, outputs=outputs)


class Builder(rpc_build_pb2_grpc.BuildServiceServicer):
    """A builder by gRPC's own code. It keeps what it was asked, and answers by `answer`.

    Attributes:
        requests: all of them.
        metadata: of each call.
        remaining: seconds to the deadline of each call, None without.
        cancelled: how many calls were cancelled.
    """

    def __init__(
        self,
        answer: Callable[[BuildRequest, Any], Awaitable[Build]] | None = None,
    ) -> None:
        self._answer = answer
        self.requests: list[BuildRequest] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self.remaining: list[float | None] = []
        self.cancelled = 0

    async def DoBuild(self, request: BuildRequest, context: Any) -> Build:  # noqa: N802 - gRPC's
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        self.remaining.append(context.time_remaining())
        try:
            return await self._answer(request, context) if self._answer else answer_to(request)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


@asynccontextmanager
async def running(builder: Builder, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """A builder's server; yields its address."""
    server = grpc.aio.server()
    add: Any = rpc_build_pb2_grpc.add_BuildServiceServicer_to_server
    add(builder, server)
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield f"grpc+http://127.0.0.1:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def open_door(upstream: str | None = None, **options: Any) -> AsyncIterator[Server]:
    """A door, closed at the end."""
    options.setdefault("listen", [parse(FREE_PORT)])
    options.setdefault("services", [SERVICES[Schema.TVIX_BUILD_V1]])
    server = Server(Options(upstream=parse(upstream) if upstream else None, **options))
    await server.start()
    try:
        yield server
    finally:
        await server.close(None)
        await server.free()


@asynccontextmanager
async def door_to(builder: Builder, **options: Any) -> AsyncIterator[Server]:
    """A door before a builder."""
    async with running(builder) as address, open_door(address, **options) as door:
        yield door


@asynccontextmanager
async def method_of(door: Server, method: str = METHOD) -> AsyncIterator[Method]:
    """A method of a door, called with bytes; nothing is checked here."""
    async with grpc.aio.insecure_channel(parse(door.addresses[0]).target) as channel:
        yield channel.unary_unary(method)


def socket_folder() -> TemporaryDirectory[str]:
    """A folder for sockets, of which the paths must be short; as a context manager."""
    return TemporaryDirectory(dir="/tmp")


async def refused(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    """The error of a call that fails."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("expected the call to fail")


def details_of(error: grpc.aio.AioRpcError) -> tuple[str, list[tuple[str, str, str]]]:
    """The reason, and the violations as path, code and message, by the library of gRPC."""
    status: Any = rpc_status.from_call(error)  # type: ignore[arg-type]
    info, bad = ErrorInfo(), BadRequest()
    for detail in status.details:
        assert detail.Unpack(info) or detail.Unpack(bad)
    return info.reason, [(one.field, one.reason, one.description) for one in bad.field_violations]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds; the test's own time-out ends it."""
    while not condition():
        await asyncio.sleep(0.005)
