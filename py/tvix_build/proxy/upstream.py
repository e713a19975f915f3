# SPDX-License-Identifier: MIT
"""The builders at the end of the chain: one forwards calls to a server, one builds nothing."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio

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
    """

    def __init__(
        self,
        address: Address,
        credentials: grpc.ChannelCredentials | None,
        max_message_size: int,
    ) -> None:
        options = channel_options(address, max_message_size)
        if address.tls:
            credentials = credentials or grpc.ssl_channel_credentials()
            self._channel = grpc.aio.secure_channel(address.target, credentials, options)
        else:
            self._channel = grpc.aio.insecure_channel(address.target, options)
        self._address = address
        self._methods: dict[Service, grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = {}

    async def connect(self) -> None:
        """Connect now, if the address says so, and otherwise with the first call.

        Raises:
            ServeError: if the server is unreachable.
        """
        if not self._address.wait:
            return
        state = self._channel.get_state(try_to_connect=True)
        while state is not grpc.ChannelConnectivity.READY:
            if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                raise ServeError(f"{self._address.text}: cannot connect to the builder")
            await self._channel.wait_for_state_change(state)
            state = self._channel.get_state(try_to_connect=True)

    async def build(self, call: Call) -> Response:
        """Forward a call.

        Raises:
            StatusError: with the status and the metadata of the server, if the call fails; or if
                the server responds with no message.
        """
        method = self._methods.get(call.service)
        if method is None:
            method = self._methods[call.service] = self._channel.unary_unary(call.service.method)
        rpc = method(call.request, timeout=_timeout(call), metadata=call.metadata)
        try:
            data: Any = await rpc
        except grpc.aio.AioRpcError as error:
            raise StatusError(
                error.code(), error.details() or "", tuple(error.trailing_metadata()), "upstream"
            ) from None
        if data is None:
            raise invalid_response(InvalidResponseError("expected a message, found no message"))
        initial, trailing = await rpc.initial_metadata(), await rpc.trailing_metadata()
        return Response(data, tuple(initial), tuple(trailing))

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()


def _timeout(call: Call) -> float | None:
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
