# SPDX-License-Identifier: MIT
"""Canonical messages with lengths around the sizes of BLAKE3's blocks and chunks."""

from __future__ import annotations

from vector_sources.parts import args
from vector_sources.topic import BUILD_REQUEST, Topic

TOPIC = Topic(
    "digests",
    BUILD_REQUEST,
    "digests of messages with lengths around the block and chunk sizes of BLAKE3",
)

_PRINTABLE = bytes(range(0x20, 0x7F))


def request_of_length(length: int) -> bytes:
    """Return a canonical BuildRequest of exactly `length` bytes, at least 2.

    It has a long argument, and an empty one if a single argument cannot have the length.
    """
    for overhead in (2, 3, 4, 5):
        content = _printable(max(length - overhead, 0))
        for data in (args(content), args(content[2:], "")):
            if len(data) == length:
                return data
    raise ValueError(f"no request has {length} bytes")


def _printable(length: int) -> bytes:
    return (_PRINTABLE * (length // len(_PRINTABLE) + 1))[:length]


for _length in (2, 3, 63, 64, 65, 127, 128, 129, 130, 131, 192, 193):
    TOPIC.canonical(
        f"bytes_{_length}",
        "length near a multiple of BLAKE3's block size, 64 bytes",
        request_of_length(_length),
    )
for _length in (1023, 1024, 1025, 1088, 1089, 2047, 2048, 2049, 3072, 3073, 4096, 4097):
    TOPIC.canonical(
        f"bytes_{_length}",
        "length near a multiple of BLAKE3's chunk size, 1024 bytes",
        request_of_length(_length),
    )
for _length in (5120, 7168, 8192, 8193):
    TOPIC.canonical(
        f"bytes_{_length}",
        "length that needs a hash tree of several levels",
        request_of_length(_length),
    )
