# SPDX-License-Identifier: MIT
"""Servers of the benchmarks of the door: the least that grpcio can do, and the door around it.

usage: python -m bench.peers.python.rpc ROLE CORPUS [WORD]

ROLE is `echo` (looks the answer up), `proxy` (asks the server at WORD), `door` (the door, which
looks the answer up in its own process) or `builder` (as echo, at port WORD, and counts in the file
CORPUS.built what it answers). Prints its port once it serves, until it is killed.
"""

from __future__ import annotations

import asyncio
import mmap
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
from tvix_build.proxy.builder_protocol import Answer, Call
from tvix_build.proxy.server import Options, Server
from tvix_build.proxy.shared.addresses import parse
from tvix_build.proxy.shared.services import SERVICES

Handler: TypeAlias = Callable[[bytes, Any], Awaitable[bytes]]
SERVICE = SERVICES[Schema.TVIX_BUILD_V1]
CALL_KEY = "call"
"""The metadata that numbers the calls of the soak."""
MOST_CALLS = 1 << 27


def answers(corpus: Path) -> dict[bytes, bytes]:
    """A valid answer to each request of a corpus."""
    return {data: _answer(data) for data in messages_of(corpus.read_bytes())}


def _answer(data: bytes) -> bytes:
    request = BuildRequest.FromString(data)
    outputs = [
        Node(file=FileNode(name=name.encode(), digest=bytes(32), size=1))
        for name in request.outputs
    ]
    build = Build(build_request=request, outputs=outputs)
    return build.SerializeToString(deterministic=True)


class Table:
    """A builder for the door's own process."""

    def __init__(self, corpus: Path) -> None:
        self._answers = answers(corpus)

    async def build(self, call: Call) -> Answer:
        """Look an answer up."""
        return Answer(self._answers[call.request])


def echo(corpus: Path) -> Handler:
    """Looks answers up."""
    known = answers(corpus)

    async def handle(request: bytes, context: Any) -> bytes:
        return known[request]

    return handle


def proxy(target: str) -> Handler:
    """Asks another server, with deadline and metadata."""
    method: Any = grpc.aio.insecure_channel(target).unary_unary(SERVICE.method)

    async def handle(request: bytes, context: Any) -> bytes:
        answer: bytes = await method(
            request,
            timeout=context.time_remaining(),
            metadata=[one for one in context.invocation_metadata() if one[0] != "user-agent"],
        )
        return answer

    return handle


class Record:
    """How often each call was answered, a byte a call, in a file that survives a kill."""

    def __init__(self, path: Path) -> None:
        path.touch()
        with path.open("r+b") as file:
            file.truncate(MOST_CALLS)  # Sparse: only what is written takes room.
            self.counts = mmap.mmap(file.fileno(), MOST_CALLS)


def builder(corpus: Path) -> Handler:
    """Looks answers up, and counts."""
    known = answers(corpus)
    counts = Record(Path(f"{corpus}.built")).counts

    async def handle(request: bytes, context: Any) -> bytes:
        answer = known[request]
        number = next(value for name, value in context.invocation_metadata() if name == CALL_KEY)
        counts[int(number)] += 1
        return answer

    return handle


async def serve(handler: Handler, port: int = 0) -> None:
    """Serve without end, with grpcio alone."""
    server = grpc.aio.server()
    method: Any = grpc.unary_unary_rpc_method_handler(handler)
    service = grpc.method_handlers_generic_handler(SERVICE.name, {"DoBuild": method})
    server.add_generic_rpc_handlers([service])
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


async def serve_door(corpus: Path) -> None:
    """The door, with its limits, log and metrics."""
    listen = [parse("grpc+http://127.0.0.1:0")]
    options = Options(listen, [SERVICE], metrics=("127.0.0.1", 0))
    door = Server(options, Table(corpus))
    await door.start()
    print(door.addresses[0].rpartition(":")[2], flush=True)
    await asyncio.Event().wait()


async def main(role: str, corpus: Path, word: str = "") -> None:
    """The program."""
    if role == "door":
        from tvix_build.proxy.logs import configure

        configure("info")
        await serve_door(corpus)
    elif role == "builder":
        await serve(builder(corpus), int(word))
    else:
        await serve(echo(corpus) if role == "echo" else proxy(word))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))
