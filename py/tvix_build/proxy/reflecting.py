# SPDX-License-Identifier: MIT
"""Server reflection, in both of its versions."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Sequence
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

_V1 = "grpc.reflection.v1.ServerReflection"


def add_reflection(
    server: grpc.aio.Server, names: Sequence[str], modules: Sequence[str], streams: Collection[str]
) -> None:
    """Add reflection to a server.

    Args:
        server: the server.
        names: the names of its services.
        modules: the modules with their descriptors.
        streams: the names of the services of builds whose response is a stream of BuildUpdate.
    """
    shown = [*names, reflection.SERVICE_NAME, _V1]
    pool = _descriptors(modules, streams)
    reflection.enable_server_reflection(shown, server, pool)
    # grpcio has no module of v1; its messages are those of v1alpha.
    servicer: Any = reflection.aio.ReflectionServicer(shown, pool=pool)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handlers = {"ServerReflectionInfo": handler}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_V1, handlers)])


def _descriptors(modules: Sequence[str], streams: Collection[str]) -> DescriptorPool:
    """Return the descriptors of modules for reflection, in a pool of their own: in the default
    pool, a name may belong to another schema."""
    pool = DescriptorPool()
    added: set[str] = set()

    def add(file: Any) -> None:
        if file.name not in added:
            added.add(file.name)
            for dependency in file.dependencies:
                add(dependency)
            proto = FileDescriptorProto.FromString(file.serialized_pb)
            for service in proto.service:
                if f"{proto.package}.{service.name}" in streams:
                    (method,) = service.method
                    method.output_type = f".{proto.package}.BuildUpdate"
                    method.server_streaming = True
            pool.Add(proto)

    for module in modules:
        add(importlib.import_module(module).DESCRIPTOR)
    add(health_pb2.DESCRIPTOR)
    add(reflection_pb2.DESCRIPTOR)
    return pool
