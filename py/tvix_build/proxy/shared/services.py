# SPDX-License-Identifier: MIT
"""The services of all schemas, as a table: what is called, what goes in, what comes out."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tvix_build._report import Kind, MessageType, Schema, message_type


@dataclass(frozen=True, eq=False)
class Service:
    """The BuildService of one schema; its one method is DoBuild.

    Attributes:
        schema: of its messages.
        name: as calls and health checks say it.
        module: of its descriptors; None where another schema has the same names.
        method: the path of DoBuild.
        request, answer: what goes in and comes out.
        names_request: whether an answer has its request in it, as its first field.
    """

    schema: Schema
    name: str
    module: str | None
    names_request: bool
    method: str = field(init=False)
    request: MessageType = field(init=False)
    answer: MessageType = field(init=False)

    def __post_init__(self) -> None:
        for name, value in {
            "method": f"/{self.name}/DoBuild",
            "request": message_type(Kind.BUILD_REQUEST, self.schema),
            "answer": message_type(Kind.BUILD, self.schema),
        }.items():
            object.__setattr__(self, name, value)

    def answer_class(self) -> type[Message]:
        """The class of the messages that come out."""
        assert self.module
        services = importlib.import_module(self.module).DESCRIPTOR.services_by_name
        method = services["BuildService"].methods_by_name["DoBuild"]
        return GetMessageClass(method.output_type)


SERVICES = {
    service.schema: service
    for service in [
        Service(
            Schema.TVIX_BUILD_V1,
            "tvix.build.v1.BuildService",
            "tvix.build.protos.rpc_build_pb2",
            names_request=True,
        ),
        Service(Schema.TVIX_BUILD_V1_2024, "tvix.build.v1.BuildService", None, names_request=True),
        Service(
            Schema.SNIX_BUILD_V1,
            "snix.build.v1.BuildService",
            "snix.build.protos.rpc_build_pb2",
            names_request=False,
        ),
    ]
}
