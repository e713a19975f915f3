# SPDX-License-Identifier: MIT
"""Writes the protobuf wire format, canonical or not, independent of schemas."""

from __future__ import annotations

VARINT = 0
FIXED64 = 1
LEN = 2
GROUP = 3
END_GROUP = 4
FIXED32 = 5


def varint(value: int, length: int = 0) -> bytes:
    """Return a `value` >= 0 as the shortest varint, or padded with zeros to `length` bytes."""
    out = bytearray()
    while value > 0x7F or len(out) + 1 < length:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def tag(field: int, wire_type: int, length: int = 0) -> bytes:
    """Return the tag of a field; `length` as for varint()."""
    return varint(field << 3 | wire_type, length)


def number(field: int, value: int, length: int = 0) -> bytes:
    """Return a uint64 or bool field; `length` as for varint()."""
    return tag(field, VARINT) + varint(value, length)


def blob(field: int, *parts: bytes | str) -> bytes:
    """Return a string, bytes or message field with the content `parts`."""
    content = b"".join(part.encode() if isinstance(part, str) else part for part in parts)
    return tag(field, LEN) + varint(len(content)) + content


def group(field: int, *parts: bytes) -> bytes:
    """Return a group of fields."""
    return tag(field, GROUP) + b"".join(parts) + tag(field, END_GROUP)


def nested_groups(field: int, depth: int) -> bytes:
    """Return `depth` nested groups."""
    return tag(field, GROUP) * depth + tag(field, END_GROUP) * depth


def fixed32(field: int, value: int = 0) -> bytes:
    """Return a field of four bytes, little-endian."""
    return tag(field, FIXED32) + value.to_bytes(4, "little")


def fixed64(field: int, value: int = 0) -> bytes:
    """Return a field of eight bytes, little-endian."""
    return tag(field, FIXED64) + value.to_bytes(8, "little")
