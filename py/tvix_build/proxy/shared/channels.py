# SPDX-License-Identifier: MIT
"""gRPC channel options of clients and servers."""

from __future__ import annotations

from typing import TypeAlias

Options: TypeAlias = "list[tuple[str, int]]"

MAX_MESSAGE_SIZE = 16 << 20
"""The default limit of a message, in bytes."""
# A build may be silent for hours, and a peer may disappear without closing the connection. By
# default, servers treat more than one ping in five minutes as abuse.
_PING_MILLISECONDS = 330_000
_SERVER_PING_MILLISECONDS = 60_000
_PING_TIMEOUT_MILLISECONDS = 20_000
_RECONNECT_MILLISECONDS = 2_000


def channel_options(max_message_size: int) -> Options:
    """Return the options of a client."""
    return [
        ("grpc.max_receive_message_length", max_message_size),
        ("grpc.max_send_message_length", -1),
        ("grpc.keepalive_time_ms", _PING_MILLISECONDS),
        ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_MILLISECONDS),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_reconnect_backoff_ms", _RECONNECT_MILLISECONDS),
    ]


def server_options(max_message_size: int) -> Options:
    """Return the options of a server."""
    return [
        ("grpc.max_receive_message_length", max_message_size),
        ("grpc.max_send_message_length", -1),
        ("grpc.keepalive_time_ms", _SERVER_PING_MILLISECONDS),
        ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_MILLISECONDS),
        ("grpc.http2.max_pings_without_data", 0),
        # Clients may ping as often as the server does.
        ("grpc.http2.min_ping_interval_without_data_ms", _SERVER_PING_MILLISECONDS),
        # Binding a port that another server uses is an error.
        ("grpc.so_reuseport", 0),
    ]
