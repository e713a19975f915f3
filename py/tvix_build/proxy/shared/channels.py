# SPDX-License-Identifier: MIT
"""Options of connections, for both ends."""

from __future__ import annotations

from typing import TypeAlias

Options: TypeAlias = "list[tuple[str, int]]"

MAX_MESSAGE_SIZE = 16 << 20
"""What client and door take unless told otherwise, in bytes."""
# A build may say nothing for hours, and a peer vanish without a word. Servers count more than a
# ping in five minutes as abuse, unless told otherwise.
_PING_MILLISECONDS = 330_000
_SERVER_PING_MILLISECONDS = 60_000
_PING_TIMEOUT_MILLISECONDS = 20_000
_RECONNECT_MILLISECONDS = 2_000


def channel_options(max_message_size: int) -> Options:
    """For a client."""
    return [
        ("grpc.max_receive_message_length", max_message_size),
        ("grpc.max_send_message_length", -1),
        ("grpc.keepalive_time_ms", _PING_MILLISECONDS),
        ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_MILLISECONDS),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_reconnect_backoff_ms", _RECONNECT_MILLISECONDS),
    ]


def server_options(max_message_size: int) -> Options:
    """For a server."""
    return [
        ("grpc.max_receive_message_length", max_message_size),
        ("grpc.max_send_message_length", -1),
        ("grpc.keepalive_time_ms", _SERVER_PING_MILLISECONDS),
        ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_MILLISECONDS),
        ("grpc.http2.max_pings_without_data", 0),
        # Clients may ask as often as they are asked.
        ("grpc.http2.min_ping_interval_without_data_ms", _SERVER_PING_MILLISECONDS),
        # A port that another server has is an error.
        ("grpc.so_reuseport", 0),
    ]
