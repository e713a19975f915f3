# SPDX-License-Identifier: MIT
"""Reads requests of all schemas as requests of snix.build.v1, and writes responses in the schema of
the request."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from tvix_build._core.batch import serialized, type_of
from tvix_build._core.check import canonicalize, digest, validate
from tvix_build._core.convert import convert
from tvix_build._core.nodes import member_of, name_of, renamed
from tvix_build._core.ranges import BytesLike
from tvix_build._core.report import Kind, NotRepresentableError, Schema, SchemaLike
from tvix_build._core.varint import varint
from tvix_build.builders.interface import RefusedError

if TYPE_CHECKING:
    from snix.build.protos.build_pb2 import BuildRequest
    from tvix.castore.protos.castore_pb2 import Node


@dataclass(frozen=True)
class Request:
    """A valid request.

    Attributes:
        message: the request in snix.build.v1, in canonical order.
        digest: the digest of the request in its own schema.
        schema: its own schema.
        encoding: its canonical encoding in its own schema.
        as_message: whether the response is a message.
    """

    message: BuildRequest
    digest: bytes
    schema: Schema
    encoding: bytes
    as_message: bool

    def respond(self, response: bytes) -> Any:
        """Return a canonical response as a message if the request was a message, or else as it
        is."""
        return response_class(self.schema).FromString(response) if self.as_message else response


def response_class(schema: Schema) -> type[Message]:
    """Return the class of responses to requests that are messages."""
    from snix.build.protos.build_pb2 import BuildResponse
    from tvix.build.protos.build_pb2 import Build

    return BuildResponse if schema is Schema.SNIX_BUILD_V1 else Build


def read_request(request: Message | BytesLike, schema: SchemaLike | None) -> Request:
    """Validate a request, and translate it.

    Raises:
        ValidationError: if it is invalid.
        RefusedError: if the later schemas cannot represent it.
    """
    from snix.build.protos.build_pb2 import BuildRequest

    found = type_of(request, Kind.BUILD_REQUEST, schema).schema
    data = bytes(serialized(request))
    validate(data, schema=found)
    encoding = canonicalize(data, schema=found)
    try:
        later = convert(encoding, schema=found, to=Schema.SNIX_BUILD_V1)
    except NotRepresentableError as error:
        raise RefusedError([str(reason) for reason in error.reasons]) from None
    return Request(
        message=BuildRequest.FromString(later),
        digest=digest(encoding, schema=found),
        schema=found,
        encoding=encoding,
        as_message=isinstance(request, Message),
    )


def write_response(request: Request, nodes: Sequence[Node], needles: Sequence[list[int]]) -> Any:
    """Return the checked response in the schema of the request: a message if the request was a
    message, and its canonical encoding if not.

    Args:
        request: the request.
        nodes: the nodes of its outputs, in order; their names are those of the outputs.
        needles: the indices of the needles in each output.

    Raises:
        ValidationError: if the response is invalid.
    """
    if request.schema is Schema.SNIX_BUILD_V1:
        response: Message = _snix_response(nodes, needles)
        validate(response, request=request.encoding)
        return request.respond(canonicalize(response))
    fields = _tvix_fields(request, nodes, needles)
    data = canonicalize(b"".join(fields), kind=Kind.BUILD, schema=request.schema)
    return request.respond(data)


def read_outputs(request: Request, response: bytes) -> dict[str, Node]:
    """Return the nodes of the outputs in a response that was checked against the request, by the
    paths of the outputs."""
    from tvix.build.protos.build_pb2 import Build
    from tvix.castore.protos.castore_pb2 import Node

    paths = request.message.outputs
    if request.schema is not Schema.SNIX_BUILD_V1:
        nodes = {name_of(node): node for node in Build.FromString(response).outputs}
        return {path: nodes[os.path.basename(path).encode()] for path in paths}
    from snix.build.protos.build_pb2 import BuildResponse

    outputs = {}
    for path, one in zip(paths, BuildResponse.FromString(response).outputs, strict=True):
        node = Node.FromString(one.output.SerializeToString())
        outputs[path] = renamed(node, os.path.basename(path).encode())
    return outputs


def _snix_response(nodes: Sequence[Node], needles: Sequence[list[int]]) -> Message:
    from snix.build.protos.build_pb2 import BuildResponse

    response = BuildResponse()
    for node, found in zip(nodes, needles, strict=True):
        output = response.outputs.add(needles=found)
        output.output.MergeFromString(node.SerializeToString())
        _, member = member_of(output.output)
        member.name = b""
    return response


def _tvix_fields(
    request: Request, nodes: Sequence[Node], needles: Sequence[list[int]]
) -> Iterable[bytes]:
    """Yield the fields of a Build of tvix.build.v1, or of its last version, which has no Python
    module: the request, the outputs by name, and in the last version their needles."""
    yield _field(1, request.encoding)
    pairs = sorted(zip(nodes, needles, strict=True), key=lambda pair: name_of(pair[0]))
    for node, _ in pairs:
        yield _field(2, node.SerializeToString())
    if request.schema is Schema.TVIX_BUILD_V1_2024:
        for _, found in pairs:
            packed = b"".join(map(varint, found))
            yield _field(3, _field(1, packed) if packed else b"")


def _field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data
