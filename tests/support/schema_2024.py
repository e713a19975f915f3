# SPDX-License-Identifier: MIT
"""Messages of tvix.build.v1@2024, in a separate descriptor pool.

A separate pool is necessary because the messages have the names of tvix.build.v1, whose fields have
other numbers. castore is the same in both schemas, but has other classes here.
"""

from __future__ import annotations

from typing import Any, cast

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

import snix.build.protos.build_pb2 as snix_build
import tvix.castore.protos.castore_pb2 as castore

PACKAGE = "tvix.build.v1"

#: The fields of each message, as in a proto file.
MESSAGES = {
    "BuildRequest": (
        "repeated tvix.castore.v1.Node inputs = 1",
        "repeated string command_args = 2",
        "string working_dir = 3",
        "repeated string scratch_paths = 4",
        "string inputs_dir = 5",
        "repeated string outputs = 6",
        "repeated tvix.build.v1.BuildRequest.EnvVar environment_vars = 7",
        "tvix.build.v1.BuildRequest.BuildConstraints constraints = 8",
        "repeated tvix.build.v1.BuildRequest.AdditionalFile additional_files = 9",
        "repeated string refscan_needles = 10",
    ),
    "BuildRequest.EnvVar": ("string key = 1", "bytes value = 2"),
    "BuildRequest.BuildConstraints": (
        "string system = 1",
        "uint64 min_memory = 2",
        "repeated string available_ro_paths = 3",
        "bool network_access = 4",
        "bool provide_bin_sh = 5",
    ),
    "BuildRequest.AdditionalFile": ("string path = 1", "bytes contents = 2"),
    "Build": (
        "tvix.build.v1.BuildRequest build_request = 1",
        "repeated tvix.castore.v1.Node outputs = 2",
        "repeated tvix.build.v1.Build.OutputNeedles outputs_needles = 3",
    ),
    "Build.OutputNeedles": ("repeated uint64 needles = 1",),
}


def _add_field(message: DescriptorProto, declaration: str) -> None:
    *label, kind, name, _, number = declaration.split()
    field = message.field.add(name=name, number=int(number))
    repeated = label == ["repeated"]
    field.label = (
        FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
    )
    if "." in kind:
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{kind}"
    else:
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")


def _file() -> FileDescriptorProto:
    file = FileDescriptorProto(name="tvix/build/protos/build.proto", package=PACKAGE)
    file.syntax = "proto3"
    file.dependency.append(castore.DESCRIPTOR.name)
    messages: dict[str, DescriptorProto] = {}
    for name, fields in MESSAGES.items():
        outer, _, inner = name.rpartition(".")
        holder = messages[outer].nested_type if outer else file.message_type
        message = messages[name] = holder.add(name=inner)
        for declaration in fields:
            _add_field(message, declaration)
    return file


def _classes() -> dict[str, Any]:
    pool = DescriptorPool()
    pool.AddSerializedFile(castore.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(_file().SerializeToString())
    find = pool.FindMessageTypeByName
    return {name: GetMessageClass(find(f"{PACKAGE}.{name}")) for name in MESSAGES}


_CLASSES = _classes()

#: Has the fields of BuildRequest of snix.build.v1, but is another class.
BuildRequest = cast(type[snix_build.BuildRequest], _CLASSES["BuildRequest"])
Build: Any = _CLASSES["Build"]
