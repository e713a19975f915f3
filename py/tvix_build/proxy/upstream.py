# SPDX-License-Identifier: MIT
"""The builders at the end of the chain: one forwards calls to a server, one builds nothing."""

from __future__ import annotations

import grpc
import grpc.aio

from tvix_build.proxy.builder_protocol import Call, Response
from tvix_build.proxy.shared.addresses import Address
from tvix_build.proxy.shared.channels import channel_options
from tvix_build.proxy.shared.services import Service
from tvix_build.proxy.status import StatusError, status_error


class Upstream:
    """Forwards calls to a server, all over one connection. Create it within the event loop.

    Args:
        address: the address of the server.
        credentials: the TLS credentials, for a `grpc+https` address.
        max_message_size: the largest response to accept, in bytes.
    """

    def __init__(
        self,
        address: Address,
        credentials: grpc.ChannelCredentials | None,
        max_message_size: int,
    ) -> None:
        options = channel_options(max_message_size)
        if address.tls:
            credentials = credentials or grpc.ssl_channel_credentials()
            self._channel = grpc.aio.secure_channel(address.target, credentials, options)
        else:
            self._channel = grpc.aio.insecure_channel(address.target, options)
        self._methods: dict[Service, grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = {}

    async def build(self, call: Call) -> Response:
        """Forward a call.

        Raises:
            StatusError: with the status and the metadata of the server, if the call fails.
        """
        method = self._methods.get(call.service)
        if method is None:
            method = self._methods[call.service] = self._channel.unary_unary(call.service.method)
        rpc = method(call.request, timeout=call.remaining(), metadata=call.metadata)
        try:
            data = await rpc
        except grpc.aio.AioRpcError as error:
            raise StatusError(
                error.code(), error.details() or "", tuple(error.trailing_metadata()), "upstream"
            ) from None
        initial, trailing = await rpc.initial_metadata(), await rpc.trailing_metadata()
        return Response(data, tuple(initial), tuple(trailing))

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()


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
