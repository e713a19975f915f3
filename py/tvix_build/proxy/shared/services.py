# SPDX-License-Identifier: MIT
"""The BuildService of each schema: its name, its request and its response."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tvix_build._core.report import Kind, MessageType, Schema, message_type


@dataclass(frozen=True, eq=False)
class Service:
    """The BuildService of one schema. Its only method is DoBuild.

    Attributes:
        schema: the schema of its messages.
        name: the full name of the service, as in calls and health checks.
        module: the module with its descriptors; None if another schema has messages of the same
            names.
        streams: whether the response is a stream of BuildUpdate. The descriptors have the response
            that is not.
        label: the schema as in `--schema`; the same as `schema`, unless the response is a stream.
        castore: the package of the castore services of the schema.
        method: the path of DoBuild.
        request, response: the types of the messages.
        response_has_request: whether a response has the request as its first field.
    """

    schema: Schema
    name: str
    module: str | None
    response_has_request: bool
    streams: bool = False
    label: str = ""
    castore: str = field(init=False)
    method: str = field(init=False)
    request: MessageType = field(init=False)
    response: MessageType = field(init=False)

    def __post_init__(self) -> None:
        for name, value in {
            "label": self.label or self.schema.value,
            "castore": f"{self.name.partition('.')[0]}.castore.v1",
            "method": f"/{self.name}/DoBuild",
            "request": message_type(Kind.BUILD_REQUEST, self.schema),
            "response": message_type(Kind.BUILD, self.schema),
        }.items():
            object.__setattr__(self, name, value)

    def response_class(self) -> type[Message]:
        """Return the protobuf class of the response."""
        assert self.module
        services = importlib.import_module(self.module).DESCRIPTOR.services_by_name
        method = services["BuildService"].methods_by_name["DoBuild"]
        return GetMessageClass(method.output_type)


SERVICES: dict[str, Service] = {
    service.label: service
    for service in [
        Service(
            Schema.TVIX_BUILD_V1,
            "tvix.build.v1.BuildService",
            "tvix.build.protos.rpc_build_pb2",
            response_has_request=True,
        ),
        Service(
            Schema.TVIX_BUILD_V1_2024, "tvix.build.v1.BuildService", None, response_has_request=True
        ),
        Service(
            Schema.SNIX_BUILD_V1,
            "snix.build.v1.BuildService",
            "snix.build.protos.rpc_build_pb2",
            response_has_request=False,
        ),
        Service(
            Schema.SNIX_BUILD_V1,
            "snix.build.v1.BuildService",
            "snix.build.protos.rpc_build_pb2",
            response_has_request=False,
            streams=True,
            label="snix.build.v1@2026",
        ),
    ]
}
