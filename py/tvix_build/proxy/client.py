# SPDX-License-Identifier: MIT
"""Clients of a builder, or of a validating proxy (`tvix-build serve`). They need grpcio:
`pip install 'tvix-build[grpc]'`.

    from tvix_build.proxy.client import BuildService

    with BuildService("grpc+unix:/run/builder.sock") as builder:
        build = builder.do_build(request, timeout=3600)

Requests are validated before they are sent, and responses when they arrive. If a call fails, the
client raises gRPC's own `grpc.RpcError`, with the status and metadata.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias, cast, overload

import grpc
from google.protobuf.message import Message

from tvix_build import Kind, Schema
from tvix_build._core.batch import serialized, type_of
from tvix_build._core.ranges import BytesLike
from tvix_build._core.report import SchemaLike
from tvix_build.proxy.shared.channels import MAX_MESSAGE_SIZE
from tvix_build.proxy.shared.checks import (
    DIGEST_KEY,
    Checked,
    InvalidResponseError,
    check_request,
    check_request_async,
    check_response,
    check_response_async,
)
from tvix_build.proxy.shared.connecting import open_async_channel, open_channel
from tvix_build.proxy.shared.services import SERVICES, Service

if TYPE_CHECKING:
    from google.rpc.error_details_pb2 import BadRequest

    from snix.build.protos import build_pb2 as snix_build_pb2
    from tvix.build.protos.build_pb2 import Build, BuildRequest

__all__ = ["AsyncBuildService", "BuildService", "InvalidResponseError", "bad_request"]

_Method: TypeAlias = Any  # gRPC's multi-callable, from bytes to bytes
Metadata: TypeAlias = "Iterable[tuple[str, str | bytes]]"


class BuildService:
    """A client of BuildService. It is safe to use from several threads. Close it, or use it as a
    context manager.

    Args:
        address: the address of the server: `grpc+http://HOST:PORT`, `grpc+https://HOST:PORT` or
            `grpc+unix:/PATH`.
        schema: the schema of the service.
        credentials: the TLS credentials, made by `grpc.ssl_channel_credentials`, for `grpc+https`
            only. The default trusts the certificate authorities that gRPC trusts.
        max_message_size: the largest response to accept, in bytes.

    Raises:
        ValueError: if the address has none of these forms, the schema is unknown, or `credentials`
            are given for an address without TLS.
    """

    def __init__(
        self,
        address: str,
        *,
        schema: SchemaLike = Schema.TVIX_BUILD_V1,
        credentials: grpc.ChannelCredentials | None = None,
        max_message_size: int = MAX_MESSAGE_SIZE,
    ) -> None:
        self._service = SERVICES[Schema(schema)]
        self._channel = open_channel(address, credentials, max_message_size)
        self._method: _Method = self._channel.unary_unary(self._service.method)

    @overload
    def do_build(
        self, request: BuildRequest, *, timeout: float | None = None, metadata: Metadata = ()
    ) -> Build: ...
    @overload
    def do_build(
        self,
        request: snix_build_pb2.BuildRequest,
        *,
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> snix_build_pb2.BuildResponse: ...
    @overload
    def do_build(
        self, request: BytesLike, *, timeout: float | None = None, metadata: Metadata = ()
    ) -> bytes: ...
    def do_build(
        self,
        request: BuildRequest | snix_build_pb2.BuildRequest | BytesLike,
        *,
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> Build | snix_build_pb2.BuildResponse | bytes:
        """Send a request in its canonical encoding, with its digest as metadata, and return the
        response.

        Args:
            request: a BuildRequest of the schema, as a message or as bytes.
            timeout: the time limit of the call in seconds, which the server also receives as the
                deadline; None for no limit.
            metadata: additional metadata for the server.

        Returns:
            The validated response, as a message if the request is a message, and in canonical
            encoding if the request is bytes.

        Raises:
            ValidationError: if the request is invalid. It is not sent.
            InvalidResponseError: if the response is invalid, or belongs to another request.
            grpc.RpcError: if the server rejects the call or is unreachable, or the call times out.
            TypeError: if the request is neither bytes-like nor a message of the schema.
        """
        checked = check_request(self._service, _bytes_of(self._service, request))
        response = self._method(
            checked.encoding, timeout=timeout, metadata=_metadata(checked, metadata)
        )
        return _result(
            request, check_response(self._service, response, checked.encoding), self._service
        )

    def close(self) -> None:
        """Close the connection and cancel the running calls."""
        self._channel.close()

    def __enter__(self) -> BuildService:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncBuildService:
    """As `BuildService`, for asyncio. Create, use and close it within one event loop. Any number of
    calls may run concurrently. Cancelling a call also cancels it on the server."""

    def __init__(
        self,
        address: str,
        *,
        schema: SchemaLike = Schema.TVIX_BUILD_V1,
        credentials: grpc.ChannelCredentials | None = None,
        max_message_size: int = MAX_MESSAGE_SIZE,
    ) -> None:
        self._service = SERVICES[Schema(schema)]
        self._channel = open_async_channel(address, credentials, max_message_size)
        self._method: _Method = self._channel.unary_unary(self._service.method)

    @overload
    async def do_build(
        self, request: BuildRequest, *, timeout: float | None = None, metadata: Metadata = ()
    ) -> Build: ...
    @overload
    async def do_build(
        self,
        request: snix_build_pb2.BuildRequest,
        *,
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> snix_build_pb2.BuildResponse: ...
    @overload
    async def do_build(
        self, request: BytesLike, *, timeout: float | None = None, metadata: Metadata = ()
    ) -> bytes: ...
    async def do_build(
        self,
        request: BuildRequest | snix_build_pb2.BuildRequest | BytesLike,
        *,
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> Build | snix_build_pb2.BuildResponse | bytes:
        """As `BuildService.do_build`."""
        service = self._service
        checked = await check_request_async(service, _bytes_of(service, request))
        response = await self._method(
            checked.encoding, timeout=timeout, metadata=_metadata(checked, metadata)
        )
        return _result(
            request, await check_response_async(service, response, checked.encoding), service
        )

    async def close(self) -> None:
        """Close the connection and cancel the running calls."""
        await self._channel.close()

    async def __aenter__(self) -> AsyncBuildService:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def bad_request(error: grpc.RpcError) -> BadRequest:
    """Return the violations in the status of a failed call; no violations if the status has no such
    details. The validating proxy sends them with INVALID_ARGUMENT.

    Raises:
        ValueError: if the details of the status are malformed.
    """
    from google.rpc.error_details_pb2 import BadRequest

    from tvix_build.proxy.shared.failures import read_detail

    return read_detail(error, BadRequest())


def _bytes_of(service: Service, request: Message | BytesLike) -> bytes:
    type_of(request, Kind.BUILD_REQUEST, service.request.schema)
    return bytes(serialized(request))


def _metadata(checked: Checked, metadata: Metadata) -> tuple[tuple[str, str | bytes], ...]:
    return (*metadata, (DIGEST_KEY, checked.digest.hex()))


def _result(
    request: Message | BytesLike, response: bytes, service: Service
) -> Build | snix_build_pb2.BuildResponse | bytes:
    if not isinstance(request, Message):
        return response
    message: Any = service.response_class().FromString(response)
    return cast("Build | snix_build_pb2.BuildResponse", message)
