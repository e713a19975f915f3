# SPDX-License-Identifier: MIT
"""The generated modules have the schemas of upstream tvix, snix, the Remote Execution API and
plans; protos.json says them again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
)

import reapi.protos.google_pb2
import reapi.protos.remote_execution_pb2
import snix.build.protos.build_pb2
import snix.build.protos.rpc_build_pb2
import snix.castore.protos.castore_pb2
import snix.castore.protos.rpc_castore_pb2
import tvix.build.protos.build_pb2
import tvix.build.protos.rpc_build_pb2
import tvix.castore.protos.castore_pb2
import tvix.castore.protos.rpc_castore_pb2
import tvix_build.plan.v1.plan_pb2
import tvix_build.plan.v1.rpc_plan_pb2

MODULES = [
    *(tvix.castore.protos.castore_pb2, snix.castore.protos.castore_pb2),
    *(tvix.build.protos.build_pb2, snix.build.protos.build_pb2),
    *(tvix.build.protos.rpc_build_pb2, snix.build.protos.rpc_build_pb2),
    *(tvix.castore.protos.rpc_castore_pb2, snix.castore.protos.rpc_castore_pb2),
    *(reapi.protos.google_pb2, reapi.protos.remote_execution_pb2),
    *(tvix_build.plan.v1.plan_pb2, tvix_build.plan.v1.rpc_plan_pb2),
]
EXPECTED = json.loads((Path(__file__).parents[1] / "protos.json").read_text())


def field_line(message: DescriptorProto, field: FieldDescriptorProto) -> str:
    """A field as it is declared, with its options if it has any."""
    repeated = "repeated " if field.label == FieldDescriptorProto.LABEL_REPEATED else ""
    kind = field.type_name or FieldDescriptorProto.Type.Name(field.type)[len("TYPE_") :].lower()
    member = field.HasField("oneof_index")
    oneof = f"oneof {message.oneof_decl[field.oneof_index].name}: " if member else ""
    presence = "optional " if field.proto3_optional else ""
    return f"{oneof}{presence}{repeated}{kind} {field.name} = {field.number}{field.options}"


def method_line(method: MethodDescriptorProto) -> str:
    """A method as it is declared, with its options if it has any."""
    sent = "stream " * method.client_streaming + method.input_type
    received = "stream " * method.server_streaming + method.output_type
    return f"{method.name}({sent}) returns ({received}){method.options}"


def message_lines(
    messages: Iterator[DescriptorProto], prefix: str = ""
) -> Iterator[tuple[str, list[str]]]:
    """The names of messages, of those within them and of enums, each with its fields or values."""
    for message in messages:
        name = prefix + message.name
        yield name, [field_line(message, field) for field in message.field]
        for enum in message.enum_type:
            yield f"{name}.{enum.name}", [f"{value.name} = {value.number}" for value in enum.value]
        yield from message_lines(iter(message.nested_type), f"{name}.")


def table(file: FileDescriptorProto) -> dict[str, Any]:
    """A file in the form of protos.json."""
    return {
        "package": file.package,
        "go_package": file.options.go_package,
        "imports": list(file.dependency),
        "messages": dict(message_lines(iter(file.message_type))),
        "services": {
            service.name: [method_line(method) for method in service.method]
            for service in file.service
        },
    }


@pytest.fixture(params=MODULES, ids=lambda module: module.DESCRIPTOR.name)
def file(request: pytest.FixtureRequest) -> FileDescriptorProto:
    found = FileDescriptorProto()
    request.param.DESCRIPTOR.CopyToProto(found)
    return found


def test_same_schema(file: FileDescriptorProto) -> None:
    assert table(file) == EXPECTED[file.name]


def test_nothing_but_what_the_table_can_say(file: FileDescriptorProto) -> None:
    assert file.syntax == "proto3"
    assert {field.name for field, _ in file.options.ListFields()} <= {"go_package"}
    assert not file.enum_type
    assert not file.extension


def test_every_file_is_compared() -> None:
    assert sorted(EXPECTED) == sorted(module.DESCRIPTOR.name for module in MODULES)
