# SPDX-License-Identifier: MIT
"""The builders at the end of the chain: one that forwards to a server, one that refuses."""

from __future__ import annotations

import grpc
import grpc.aio

from tvix_build.proxy.builder_protocol import Answer, Call
from tvix_build.proxy.shared.addresses import Address
from tvix_build.proxy.shared.channels import channel_options
from tvix_build.proxy.shared.services import Service
from tvix_build.proxy.status import Refusal, refusal


class Upstream:
    """Forwards calls to a server, all over one connection; made within the event loop.

    Args:
        address: where it is.
        credentials: of TLS, for an address that says so.
        max_message_size: the most bytes that an answer may have.
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

    async def build(self, call: Call) -> Answer:
        """Forward a call; what the server refuses is refused with its own status and metadata."""
        method = self._methods.get(call.service)
        if method is None:
            method = self._methods[call.service] = self._channel.unary_unary(call.service.method)
        rpc = method(call.request, timeout=call.remaining(), metadata=call.metadata)
        try:
            data = await rpc
        except grpc.aio.AioRpcError as error:
            raise Refusal(
                error.code(), error.details() or "", tuple(error.trailing_metadata()), "upstream"
            ) from None
        before, after = await rpc.initial_metadata(), await rpc.trailing_metadata()
        return Answer(data, tuple(before), tuple(after))

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()


class CheckOnly:
    """Builds nothing: the request was checked, and that is all."""

    async def build(self, call: Call) -> Answer:
        """Refuse a call."""
        raise refusal(
            grpc.StatusCode.UNIMPLEMENTED, "CHECK_ONLY", "the request is valid; nothing builds here"
        )
