# SPDX-License-Identifier: MIT
"""Opens the channels of clients."""

from __future__ import annotations

import grpc
import grpc.aio

from tvix_build.proxy.shared.addresses import Address, parse
from tvix_build.proxy.shared.channels import Options, channel_options

_SINGLE_THREADED = "SingleThreadedUnaryStream"
"""`grpc.experimental.ChannelOptions.SingleThreadedUnaryStream`, which the stubs of gRPC lack."""


def open_channel(
    address: str, credentials: grpc.ChannelCredentials | None, max_message_size: int
) -> grpc.Channel:
    """Return a channel to a server. `credentials` are for `grpc+https` only; by default, they trust
    the certificate authorities that gRPC trusts.

    Raises:
        ValueError: if the address has another form, or has no TLS and `credentials` are given.
    """
    place, credentials = _resolve(address, credentials)
    options = channel_options(place, max_message_size)
    return _open(place.target, credentials, options)


def connect(
    target: str, credentials: grpc.ChannelCredentials | None, max_message_size: int
) -> grpc.Channel:
    """Return a channel to a target of gRPC, with TLS if there are credentials. Responses that are
    streams are read by the thread of the caller, not by one that gRPC starts for a call."""
    options = channel_options(None, max_message_size)
    options.append((_SINGLE_THREADED, 1))
    return _open(target, credentials, options)


def _open(
    target: str, credentials: grpc.ChannelCredentials | None, options: Options
) -> grpc.Channel:
    if credentials:
        return grpc.secure_channel(target, credentials, options)
    return grpc.insecure_channel(target, options)


def open_async_channel(
    address: str, credentials: grpc.ChannelCredentials | None, max_message_size: int
) -> grpc.aio.Channel:
    """As `open_channel`, for asyncio."""
    place, credentials = _resolve(address, credentials)
    options = channel_options(place, max_message_size)
    if credentials:
        return grpc.aio.secure_channel(place.target, credentials, options)
    return grpc.aio.insecure_channel(place.target, options)


def _resolve(
    address: str, credentials: grpc.ChannelCredentials | None
) -> tuple[Address, grpc.ChannelCredentials | None]:
    """Return the parsed address and the credentials, which are None without TLS."""
    place = parse(address)
    if place.tls:
        credentials = credentials or grpc.ssl_channel_credentials()
    elif credentials is not None:
        raise ValueError(f"expected a grpc+https:// address with credentials, found {address!r}")
    return place, credentials
