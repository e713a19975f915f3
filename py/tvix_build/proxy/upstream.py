# SPDX-License-Identifier: MIT
"""The builders at the end of the chain: one forwards calls to a server, one builds nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from tvix_build.proxy.builder_protocol import Call, Response
from tvix_build.proxy.listening import ServeError
from tvix_build.proxy.shared.addresses import Address
from tvix_build.proxy.shared.channels import channel_options
from tvix_build.proxy.shared.checks import InvalidResponseError
from tvix_build.proxy.shared.services import Service
from tvix_build.proxy.status import StatusError, invalid_response, status_error

_LONGEST_SECONDS = 10 * 365 * 86400


class Upstream:
    """Forwards calls to a server, all over one connection. Create it within the event loop.

    Args:
        address: the address of the server.
        credentials: the TLS credentials, for a `grpc+https` address.
        max_message_size: the largest response to accept, in bytes.
        timeout: the limit of a call in seconds; None for no limit.

    Attributes:
        address: the address of the server.
    """

    def __init__(
        self,
        address: Address,
        credentials: grpc.ChannelCredentials | None,
        max_message_size: int,
        timeout: float | None = None,
    ) -> None:
        options = channel_options(address, max_message_size)
        if address.tls:
            credentials = credentials or grpc.ssl_channel_credentials()
            self._channel = grpc.aio.secure_channel(address.target, credentials, options)
        else:
            self._channel = grpc.aio.insecure_channel(address.target, options)
        self.address = address
        self._timeout = timeout
        self._health: grpc.aio.UnaryUnaryMultiCallable[
            health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
        ] = self._channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        self._methods: dict[Service, _Methods] = {}
        self._trusted: set[Service] = set()

    async def connect(self) -> None:
        """Connect now, if the address says so, and otherwise with the first call.

        Raises:
            ServeError: if the server is unreachable.
        """
        if not self.address.wait:
            return
        state = self._channel.get_state(try_to_connect=True)
        while state is not grpc.ChannelConnectivity.READY:
            if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                raise ServeError(f"{self.address.text}: cannot connect to the builder")
            await self._channel.wait_for_state_change(state)
            state = self._channel.get_state(try_to_connect=True)

    async def build(self, call: Call) -> Response:
        """Forward a call.

        Raises:
            StatusError: with the status and the metadata of the server, if the call fails; or if
                the server does not respond with one message.
        """
        methods = self._methods.get(call.service)
        if methods is None:
            methods = self._methods[call.service] = _Methods(self._channel, call.service.method)
        if call.updates is not None:
            read = methods.forward_updates
        elif call.service in self._trusted:
            read = methods.read_message
        else:
            read = methods.read_only_message
        remaining = _remaining(call)
        timeout = self._timeout
        if timeout is None or (remaining is not None and remaining < timeout):
            timeout = remaining
        try:
            response = await read(call, timeout)
        except BaseException as error:
            self._trusted.discard(call.service)
            if not isinstance(error, grpc.aio.AioRpcError):
                raise
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and timeout != remaining:
                raise status_error(
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                    "UPSTREAM_TIMEOUT",
                    f"the builder did not respond within {self._timeout:g} seconds",
                ) from None
            raise StatusError(
                error.code(), error.details() or "", tuple(error.trailing_metadata()), "upstream"
            ) from None
        self._trusted.add(call.service)
        return response

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection."""
        return self._channel.get_state() is grpc.ChannelConnectivity.READY

    async def is_healthy(self, service: Service, timeout: float) -> bool:
        """Return whether the server says that a service is healthy, or responds without having the
        health service or its status."""
        request = health_pb2.HealthCheckRequest(service=service.name)
        try:
            response = await self._health(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            return error.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND)
        return response.status == health_pb2.HealthCheckResponse.SERVING

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()


class _Methods:
    """The method of a service, with the ways to read its response.

    gRPC reads one message of a unary response, and waits for the end in vain if there is another
    one, as from a builder that streams updates. To read every response as a stream costs a fifth
    of the CPU time of a call, so only the first one and the first one after a failure are.

    All methods raise an AioRpcError if the call fails, and a StatusError if the response is wrong.
    """

    def __init__(self, channel: grpc.aio.Channel, name: str) -> None:
        self._unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(name)
        self._stream: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(name)

    async def read_message(self, call: Call, timeout: float | None) -> Response:
        """Return a response, of which gRPC reads one message."""
        # From a tuple, gRPC would make the same after a slow check of its type.
        metadata = grpc.aio.Metadata(*call.metadata)
        rpc = self._unary(call.request, timeout=timeout, metadata=metadata)
        data: Any = await rpc
        if data is None:
            raise _invalid("no message")
        initial, trailing = await rpc.initial_metadata(), await rpc.trailing_metadata()
        return Response(data, tuple(initial), tuple(trailing))

    async def read_only_message(self, call: Call, timeout: float | None) -> Response:
        """Return a response that has one message and no other."""
        with self._streaming(call, timeout) as rpc:
            data = await rpc.read()
            if data is grpc.aio.EOF:
                raise _invalid("no message")
            if await rpc.read() is not grpc.aio.EOF:
                raise _invalid("several messages")
            initial, trailing = await rpc.initial_metadata(), await rpc.trailing_metadata()
            return Response(data, tuple(initial), tuple(trailing))

    async def forward_updates(self, call: Call, timeout: float | None) -> Response:
        """Forward updates. The next one is read when the caller had room for the last."""
        assert call.updates is not None
        with self._streaming(call, timeout) as rpc:
            await call.updates.begin(tuple(await rpc.initial_metadata()))
            while (update := await rpc.read()) is not grpc.aio.EOF:
                await call.updates.send(update)
            return Response(b"", (), tuple(await rpc.trailing_metadata()))

    @contextmanager
    def _streaming(self, call: Call, timeout: float | None) -> Iterator[Any]:
        rpc = self._stream(call.request, timeout=timeout, metadata=call.metadata)
        try:
            yield rpc
        finally:
            rpc.cancel()


def _invalid(found: str) -> StatusError:
    return invalid_response(InvalidResponseError(f"expected one message, found {found}"))


def _remaining(call: Call) -> float | None:
    """Return the seconds until the deadline; None for the longest deadlines of Go and Java, which
    exceed what gRPC can represent."""
    remaining = call.remaining()
    return None if remaining is None or remaining > _LONGEST_SECONDS else remaining


class CheckOnly:
    """Builds nothing. Rejects each call with UNIMPLEMENTED."""

    async def build(self, call: Call) -> Response:
        """Reject a call.

        Raises:
            StatusError: always.
        """
        raise status_error(
            grpc.StatusCode.UNIMPLEMENTED,
            "CHECK_ONLY",
            "the request is valid; this proxy has no builder",
        )
