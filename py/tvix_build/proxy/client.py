# SPDX-License-Identifier: MIT
"""Clients of a builder, or of a door before it (`tvix-build serve`). Needs grpcio:
`pip install 'tvix-build[grpc]'`.

    from tvix_build.proxy.client import BuildService

    with BuildService("grpc+unix:/run/builder.sock") as builder:
        build = builder.do_build(request, timeout=3600)

What is sent is checked first, and what comes back is, too. Where the server refuses a call or
cannot be reached, gRPC's own errors say so: `grpc.RpcError`, with status and metadata.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias, cast, overload

import grpc
import grpc.aio
from google.protobuf.message import Message

from tvix_build import Kind, Schema
from tvix_build._batch import serialized, type_of
from tvix_build._ranges import BytesLike
from tvix_build.proxy.shared.addresses import Address, parse
from tvix_build.proxy.shared.channels import MAX_MESSAGE_SIZE, channel_options
from tvix_build.proxy.shared.checks import (
    DIGEST_KEY,
    Checked,
    InvalidAnswer,
    check_answer,
    check_answer_aside,
    check_request,
    check_request_aside,
)
from tvix_build.proxy.shared.services import SERVICES, Service

if TYPE_CHECKING:
    from snix.build.protos import build_pb2 as snix_build_pb2
    from tvix.build.protos.build_pb2 import Build, BuildRequest

__all__ = ["AsyncBuildService", "BuildService", "InvalidAnswer"]

_Method: TypeAlias = Any  # gRPC's, from bytes to bytes
Metadata: TypeAlias = "Iterable[tuple[str, str | bytes]]"


class BuildService:
    """A server's BuildService. Threads may share one; close it, or use it as a context manager.

    Args:
        address: where the server is: `grpc+http://HOST:PORT`, `grpc+https://HOST:PORT` or
            `grpc+unix:/PATH`.
        schema: which one the server speaks.
        credentials: of TLS, from `grpc.ssl_channel_credentials`; for `grpc+https` only. Without,
            the certificates that gRPC trusts.
        max_message_size: the most bytes that an answer may have.

    Raises:
        ValueError: if the address has none of these forms, there is no such schema, or there are
            credentials for an address without TLS.
    """

    def __init__(
        self,
        address: str,
        *,
        schema: Schema | str = Schema.TVIX_BUILD_V1,
        credentials: grpc.ChannelCredentials | None = None,
        max_message_size: int = MAX_MESSAGE_SIZE,
    ) -> None:
        self._service, place, credentials = _where(address, schema, credentials)
        options = channel_options(max_message_size)
        self._channel = (
            grpc.secure_channel(place.target, credentials, options)
            if credentials
            else grpc.insecure_channel(place.target, options)
        )
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
        """Have a request built. It is sent in its canonical encoding, with its digest as metadata.

        Args:
            request: a BuildRequest of the schema, or the bytes of one.
            timeout: seconds after which to give up; the server is told.
            metadata: for the server.

        Returns:
            The answer, checked: a message for a message; for bytes, its canonical encoding.

        Raises:
            InvalidMessage: if the request is not valid. Nothing is sent.
            InvalidAnswer: if the answer is not, or not one to this request.
            grpc.RpcError: if the server refuses the call or cannot be reached, or time is up.
            TypeError: if the request is neither bytes-like nor a message of the schema.
        """
        checked = check_request(self._service, _bytes_of(self._service, request))
        answer = self._method(
            checked.encoding, timeout=timeout, metadata=_metadata(checked, metadata)
        )
        return _result(
            request, check_answer(self._service, answer, checked.encoding), self._service
        )

    def close(self) -> None:
        """Close the connection; calls that still run are cancelled."""
        self._channel.close()

    def __enter__(self) -> BuildService:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncBuildService:
    """As `BuildService`, for asyncio. It is made, used and closed within one event loop; any number
    of calls may run at once, and cancelling one cancels it at the server."""

    def __init__(
        self,
        address: str,
        *,
        schema: Schema | str = Schema.TVIX_BUILD_V1,
        credentials: grpc.ChannelCredentials | None = None,
        max_message_size: int = MAX_MESSAGE_SIZE,
    ) -> None:
        self._service, place, credentials = _where(address, schema, credentials)
        options = channel_options(max_message_size)
        self._channel = (
            grpc.aio.secure_channel(place.target, credentials, options)
            if credentials
            else grpc.aio.insecure_channel(place.target, options)
        )
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
        checked = await check_request_aside(service, _bytes_of(service, request))
        answer = await self._method(
            checked.encoding, timeout=timeout, metadata=_metadata(checked, metadata)
        )
        return _result(
            request, await check_answer_aside(service, answer, checked.encoding), service
        )

    async def close(self) -> None:
        """Close the connection; calls that still run are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> AsyncBuildService:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _where(
    address: str, schema: Schema | str, credentials: grpc.ChannelCredentials | None
) -> tuple[Service, Address, grpc.ChannelCredentials | None]:
    """What is called, where, and with which credentials; none without TLS."""
    service = SERVICES[Schema(schema)]
    place = parse(address)
    if place.tls:
        credentials = credentials or grpc.ssl_channel_credentials()
    elif credentials is not None:
        raise ValueError(f"expected grpc+https://… with credentials, found {address!r}")
    return service, place, credentials


def _bytes_of(service: Service, request: Message | BytesLike) -> bytes:
    type_of(request, Kind.BUILD_REQUEST, service.request.schema)
    return bytes(serialized(request))


def _metadata(checked: Checked, metadata: Metadata) -> tuple[tuple[str, str | bytes], ...]:
    return (*metadata, (DIGEST_KEY, checked.digest.hex()))


def _result(
    request: Message | BytesLike, answer: bytes, service: Service
) -> Build | snix_build_pb2.BuildResponse | bytes:
    if not isinstance(request, Message):
        return answer
    message: Any = service.answer_class().FromString(answer)
    return cast("Build | snix_build_pb2.BuildResponse", message)
