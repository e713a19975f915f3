# SPDX-License-Identifier: MIT
"""Encodes numbers of the protobuf wire format, for which protobuf has no public function."""

from __future__ import annotations


def varint(value: int) -> bytes:
    """Return the shortest encoding of a number, at least 0."""
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)
