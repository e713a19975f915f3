# SPDX-License-Identifier: MIT
"""Frames of HTTP/2 made by hand, for clients that no library would be."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA_FRAME, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
BEGINNING = PREFACE + struct.pack(">I", 0)[1:] + bytes([SETTINGS, 0, 0, 0, 0, 0])
"""The first bytes of a client: the preface and empty settings."""
_HEADER = struct.Struct(">BBI")
_PIECE = 16384


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return an encoded frame."""
    return struct.pack(">I", len(payload))[1:] + _HEADER.pack(kind, flags, stream) + payload


def integer(value: int, bits: int, flags: int) -> bytes:
    """Return an integer of HPACK with a prefix of some bits, after flags."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([flags | value])
    found = bytearray([flags | most])
    value -= most
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def field(name: bytes, value: bytes, flags: int = 0) -> bytes:
    """Return an encoded header, not compressed; with the flag 0x40, later headers can refer to
    it."""
    return bytes([flags]) + integer(len(name), 7, 0) + name + integer(len(value), 7, 0) + value


def headers(path: str, more: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """Return the encoded headers of a call."""
    return b"".join(
        field(name, value)
        for name, value in [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.encode()),
            (b":authority", b"proxy"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            *more,
        ]
    )


def message(data: bytes, size: int | None = None, compressed: bool = False) -> bytes:
    """Return a message of gRPC with its length, or with another length."""
    return bytes([compressed]) + struct.pack(">I", len(data) if size is None else size) + data


def data_frames(stream: int, body: bytes, end: bool = True) -> bytes:
    """Return the frames of a body, which ends the stream."""
    pieces = [body[at : at + _PIECE] for at in range(0, len(body), _PIECE)]
    return b"".join(
        frame(DATA_FRAME, END_STREAM if end and piece is pieces[-1] else 0, stream, piece)
        for piece in pieces
    )


def unpack_frame(data: bytes, begin: int) -> tuple[int, int, int, bytes, int] | None:
    """Return the frame that begins at an offset: type, flags, stream, payload and its end; None if
    it is not complete."""
    payload = begin + 3 + _HEADER.size
    end = payload + int.from_bytes(data[begin : begin + 3], "big")
    if len(data) < payload or len(data) < end:
        return None
    kind, flags, stream = _HEADER.unpack_from(data, begin + 3)
    return kind, flags, stream, data[payload:end], end


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, int, int, bytes]:
    """Return the next frame: type, flags, stream and payload.

    Raises:
        asyncio.IncompleteReadError: if the connection is closed.
    """
    size = int.from_bytes(await reader.readexactly(3), "big")
    kind, flags, stream = _HEADER.unpack(await reader.readexactly(_HEADER.size))
    return kind, flags, stream, await reader.readexactly(size)
