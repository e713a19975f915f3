# SPDX-License-Identifier: MIT
"""A builder in threads of this process, for tests of the proxy as a process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from serving import response_to
from tvix.build.protos import rpc_build_pb2_grpc
from tvix.build.protos.build_pb2 import Build, BuildRequest


class Builder(rpc_build_pb2_grpc.BuildServiceServicer):
    """A builder in threads of this process.

    Attributes:
        requests: the requests of all calls.
        arrived: is released for each call.
        gate: holds the responses back while it is not set.
    """

    def __init__(self) -> None:
        self.requests: list[BuildRequest] = []
        self.arrived = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()

    def DoBuild(self, request: BuildRequest, context: Any) -> Build:  # noqa: N802 - gRPC's
        self.requests.append(request)
        self.arrived.release()
        self.gate.wait()
        return response_to(request)


@contextmanager
def building(builder: Builder, credentials: grpc.ServerCredentials | None = None) -> Iterator[str]:
    """Run the server of a builder; yield its address."""
    server = grpc.server(ThreadPoolExecutor(4))
    add: Any = rpc_build_pb2_grpc.add_BuildServiceServicer_to_server
    add(builder, server)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"grpc+http{'s' if credentials else ''}://localhost:{port}"
    finally:
        builder.gate.set()
        server.stop(None).wait()
