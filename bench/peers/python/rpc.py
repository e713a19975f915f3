# SPDX-License-Identifier: MIT
"""Servers of the proxy benchmarks: bare ones of grpcio, and a validating one.

usage: python -m bench.peers.python.rpc ROLE CORPUS [WORD]

ROLE is `lookup` (looks responses up in a table), `forward` (forwards calls to the server at WORD)
or `validate` (the validating proxy of tvix-build, with a table as its builder). Prints its
address when it serves, and runs until it is killed.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import grpc.aio

from bench.corpora import messages_of
from tvix.build.protos.build_pb2 import Build, BuildRequest
from tvix.castore.protos.castore_pb2 import FileNode, Node
from tvix_build import Schema
from tvix_build.proxy.builder_protocol import Call, Response
from tvix_build.proxy.server import Options, Server
from tvix_build.proxy.shared.addresses import parse
from tvix_build.proxy.shared.services import SERVICES

Handler: TypeAlias = Callable[[bytes, Any], Awaitable[bytes]]
SERVICE = SERVICES[Schema.TVIX_BUILD_V1]


def responses(corpus: Path) -> dict[bytes, bytes]:
    """Return a valid response to each request of a corpus."""
    return {data: _response(data) for data in messages_of(corpus.read_bytes())}


def _response(data: bytes) -> bytes:
    request = BuildRequest.FromString(data)
    outputs = [
        Node(file=FileNode(name=name.encode(), digest=bytes(32), size=1))
        for name in request.outputs
    ]
    build = Build(build_request=request, outputs=outputs)
    return build.SerializeToString(deterministic=True)


class Table:
    """A builder in the process of the proxy."""

    def __init__(self, corpus: Path) -> None:
        self._responses = responses(corpus)

    async def build(self, call: Call) -> Response:
        """Look up the response."""
        return Response(self._responses[call.request])


def lookup(corpus: Path) -> Handler:
    """Return a handler that looks responses up."""
    known = responses(corpus)

    async def handle(request: bytes, context: Any) -> bytes:
        return known[request]

    return handle


def forward(target: str) -> Handler:
    """Return a handler that forwards calls, with deadline and metadata, to another server."""
    method: Any = grpc.aio.insecure_channel(target).unary_unary(SERVICE.method)

    async def handle(request: bytes, context: Any) -> bytes:
        response: bytes = await method(
            request,
            timeout=context.time_remaining(),
            metadata=[one for one in context.invocation_metadata() if one[0] != "user-agent"],
        )
        return response

    return handle


async def serve(handler: Handler) -> None:
    """Serve until killed, with grpcio alone."""
    server = grpc.aio.server()
    method: Any = grpc.unary_unary_rpc_method_handler(handler)
    service = grpc.method_handlers_generic_handler(SERVICE.name, {"DoBuild": method})
    server.add_generic_rpc_handlers([service])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


async def serve_validating(corpus: Path) -> None:
    """Serve the validating proxy, with its limits, log and metrics, until killed."""
    listen = [parse("grpc+http://127.0.0.1:0")]
    options = Options(listen, [SERVICE], metrics=("127.0.0.1", 0))
    server = Server(options, Table(corpus))
    await server.start()
    print(server.addresses[0], flush=True)
    await asyncio.Event().wait()


async def main(role: str, corpus: Path, word: str = "") -> None:
    """The program."""
    if role == "validate":
        from tvix_build.proxy.logs import configure

        configure("info")
        await serve_validating(corpus)
    else:
        await serve(lookup(corpus) if role == "lookup" else forward(word))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))
