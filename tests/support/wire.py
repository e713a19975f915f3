# SPDX-License-Identifier: MIT
"""Writes protobuf's wire format by hand, canonical or not, and knows nothing of a schema."""

from __future__ import annotations

VARINT = 0
FIXED64 = 1
LEN = 2
GROUP = 3
END_GROUP = 4
FIXED32 = 5


def varint(value: int, length: int = 0) -> bytes:
    """`value` (not negative) as a varint: the shortest, or padded with zeroes to `length` bytes."""
    out = bytearray()
    while value > 0x7F or len(out) + 1 < length:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def tag(field: int, wire_type: int, length: int = 0) -> bytes:
    """The tag of a field, as a varint of `length` bytes or the shortest."""
    return varint(field << 3 | wire_type, length)


def number(field: int, value: int, length: int = 0) -> bytes:
    """A uint64 or bool; `length` as for varint()."""
    return tag(field, VARINT) + varint(value, length)


def blob(field: int, *parts: bytes | str) -> bytes:
    """A string, bytes or an embedded message, made of `parts`."""
    content = b"".join(part.encode() if isinstance(part, str) else part for part in parts)
    return tag(field, LEN) + varint(len(content)) + content


def group(field: int, *parts: bytes) -> bytes:
    """A group of fields."""
    return tag(field, GROUP) + b"".join(parts) + tag(field, END_GROUP)


def nested_groups(field: int, depth: int) -> bytes:
    """`depth` groups, each but the first inside the one before it."""
    return tag(field, GROUP) * depth + tag(field, END_GROUP) * depth


def fixed32(field: int, value: int = 0) -> bytes:
    """Four bytes, little-endian."""
    return tag(field, FIXED32) + value.to_bytes(4, "little")


def fixed64(field: int, value: int = 0) -> bytes:
    """Eight bytes, little-endian."""
    return tag(field, FIXED64) + value.to_bytes(8, "little")
