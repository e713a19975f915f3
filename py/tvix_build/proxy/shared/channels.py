# SPDX-License-Identifier: MIT
"""gRPC channel options of clients and servers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TypeAlias

from tvix_build.proxy.shared.addresses import Address

Options: TypeAlias = "list[tuple[str, int | str]]"

MAX_MESSAGE_SIZE = 16 << 20
"""The default limit of a message, in bytes."""
# A build may be silent for hours, and a peer may disappear without closing the connection. By
# default, servers treat more than one ping in five minutes as abuse.
PING_SECONDS = 330.0
"""The default interval of a client's pings."""
_PING_TIMEOUT_SECONDS = 20.0
_RECONNECT_MILLISECONDS = 2_000
_METADATA_SIZE = 1 << 20
"""The limit of metadata from a server. gRPC's own limit of 8 KiB is less than details of a status
may have, and above it calls fail at random."""
_LOOKAHEAD_SIZE = 1 << 16
_PENDING_CALLS, _PENDING_SECONDS = 4000, 120
_UNLIMITED_MILLISECONDS = (1 << 31) - 1


@dataclass(frozen=True)
class Connections:
    """The limits of the connections of a server. Times are in seconds.

    Attributes:
        max_streams: the limit of concurrent calls of a connection.
        max_connections: the limit of connections to an address, with TLS handshakes in progress.
        max_connection_age: when a connection is closed; its calls may continue. None for never.
        max_connection_idle: when a connection without calls is closed; None for never.
        handshake_timeout: the limit of a TLS handshake.
        keepalive_time: the silence of a connection with calls after which the server pings.
        keepalive_timeout: the limit of the response to a ping.
        min_ping_interval: the shortest interval of pings that a client may send.
        compression: whether requests may be compressed.
    """

    max_streams: int = 100
    max_connections: int = 10_000
    max_connection_age: float | None = None
    max_connection_idle: float | None = None
    handshake_timeout: float = 20.0
    keepalive_time: float = 60.0
    keepalive_timeout: float = _PING_TIMEOUT_SECONDS
    min_ping_interval: float = 5.0
    compression: bool = True


@dataclass(frozen=True)
class Memory:
    """The limits of the messages in memory.

    Attributes:
        max_buffered: the limit of the bytes of all messages, after decompression. A message that
            is not complete counts as the largest one.
        upload_timeout: the seconds that a request may take to arrive.
    """

    max_buffered: int = 16 * MAX_MESSAGE_SIZE
    upload_timeout: float = 60.0


def channel_options(
    address: Address | None,
    max_message_size: int,
    keepalive_time: float = PING_SECONDS,
    keepalive_timeout: float = _PING_TIMEOUT_SECONDS,
) -> Options:
    """Return the options of a client of an address, which is None if it is of another form."""
    options: Options = [
        ("grpc.max_receive_message_length", max_message_size),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", _METADATA_SIZE),
        ("grpc.keepalive_time_ms", _milliseconds(keepalive_time)),
        ("grpc.keepalive_timeout_ms", _milliseconds(keepalive_timeout)),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_reconnect_backoff_ms", _RECONNECT_MILLISECONDS),
    ]
    if address is not None and address.path:
        # The default is the path in percent encoding, which is no authority of HTTP/2.
        options.append(("grpc.default_authority", "localhost"))
    if address is not None and address.is_local and "grpc_proxy" not in os.environ:
        options.append(("grpc.enable_http_proxy", 0))
    return options


def server_options(
    max_message_size: int, connections: Connections, shares_ports: bool = False
) -> Options:
    """Return the options of a server. If it shares ports, other processes may listen on them."""
    options: Options = [
        ("grpc.max_receive_message_length", max_message_size),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", connections.max_streams),
        ("grpc.max_allowed_incoming_connections", connections.max_connections),
        ("grpc.max_connection_age_ms", _milliseconds(connections.max_connection_age)),
        ("grpc.max_connection_idle_ms", _milliseconds(connections.max_connection_idle)),
        ("grpc.server_handshake_timeout_ms", _milliseconds(connections.handshake_timeout)),
        ("grpc.keepalive_time_ms", _milliseconds(connections.keepalive_time)),
        ("grpc.keepalive_timeout_ms", _milliseconds(connections.keepalive_timeout)),
        ("grpc.http2.max_pings_without_data", 0),
        (
            "grpc.http2.min_ping_interval_without_data_ms",
            _milliseconds(connections.min_ping_interval),
        ),
        # What a call may send before the proxy reads its request. Otherwise, gRPC allows 4 MiB.
        ("grpc.http2.lookahead_bytes", _LOOKAHEAD_SIZE),
        ("grpc.http2.bdp_probe", 0),
        # Of more calls that have arrived and wait for the process, gRPC cancels some at random, and
        # those that wait for longer.
        ("grpc.server.max_pending_requests", _PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", 2 * _PENDING_CALLS),
        ("grpc.server_max_unrequested_time_in_server", _PENDING_SECONDS),
        # Otherwise, binding a port that another server uses is an error.
        ("grpc.so_reuseport", int(shares_ports)),
    ]
    if not connections.compression:
        options.append(("grpc.compression_enabled_algorithms_bitset", 1))  # identity only
    return options


def _milliseconds(seconds: float | None) -> int:
    """Return a time as gRPC's options have it; None is unlimited."""
    if seconds is None:
        return _UNLIMITED_MILLISECONDS
    return min(int(seconds * 1000), _UNLIMITED_MILLISECONDS)
