# SPDX-License-Identifier: MIT
"""Reads large blobs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

_PIECE = 1 << 20  # bytes


def read_rest(file: BinaryIO) -> Iterator[bytes]:
    """Yield the rest of an open file in pieces."""
    while piece := file.read(_PIECE):
        yield piece


def read_pieces(file: BinaryIO) -> Iterator[bytes]:
    """Yield the contents of an open file in pieces, and close it."""
    with file:
        yield from read_rest(file)
