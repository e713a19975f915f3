# SPDX-License-Identifier: MIT
"""The services of all schemas, as a table: what is called, what goes in, what comes out."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tvix_build._report import Kind, MessageType, Schema, message_type


@dataclass(frozen=True, eq=False)
class Service:
    """The BuildService of one schema; its one method is DoBuild.

    Attributes:
        schema: its id, such as `tvix.build.v1@2024`.
        name: as calls and health checks say it.
        method: the path of DoBuild.
        module: of its descriptors; None where two schemas have the same names.
    """

    schema: str
    name: str
    module: str | None

    def answer_class(self) -> type[Message]:
        """The class of the messages that come out."""
        assert self.module
        services = importlib.import_module(self.module).DESCRIPTOR.services_by_name
        method = services["BuildService"].methods_by_name["DoBuild"]
        return GetMessageClass(method.output_type)

    @property
    def request(self) -> MessageType:
        """What goes in."""
        return message_type(Kind.BUILD_REQUEST, Schema(self.schema))

    @property
    def answer(self) -> MessageType:
        """What comes out."""
        return message_type(Kind.BUILD, Schema(self.schema))

    @property
    def method(self) -> str:
        return f"/{self.name}/DoBuild"


SERVICES = {
    service.schema: service
    for service in [
        Service("tvix.build.v1", "tvix.build.v1.BuildService", "tvix.build.protos.rpc_build_pb2"),
    ]
}
DEFAULT = "tvix.build.v1"
