# SPDX-License-Identifier: MIT
"""BLAKE3 of many pieces of memory at once, whatever is in them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from tvix_build import _engine
from tvix_build._engine import DIGEST_SIZE
from tvix_build._pieces import Workers, for_each_piece, thread_count
from tvix_build._ranges import BytesLike, Offsets, join, ranges_of


def blake3_many(
    buffers: Iterable[BytesLike] | BytesLike,
    offsets: Offsets | tuple[Offsets, Offsets] | None = None,
    threads: int | None = None,
) -> memoryview[int]:
    """The BLAKE3-256 digests of many buffers.

    The lanes of the CPU are filled across buffers, so that many short ones are hashed as fast as a
    long one.

    Args:
        buffers: bytes-like objects; or, with `offsets`, one buffer that holds all of them.
        offsets: n + 1 ascending offsets in bytes, or a tuple `(begins, ends)` of n each.
        threads: how many threads share the work; by default the CPUs that this process may use.

    Returns:
        n x 32 bytes, read-only; `.tobytes()` gives them back to back.

    Raises:
        TypeError: if something is not bytes-like.
        ValueError: if offsets do not lie within the buffer.
    """
    digests = bytearray()

    def take(piece: bytearray) -> None:
        digests.extend(piece)

    with Workers(thread_count(threads), take) as workers:
        if offsets is not None:
            begins, ends = ranges_of(offsets)

            def run(piece_begins: Any, piece_ends: Any, first: int) -> None:
                workers.run(partial(_hash, buffers, piece_begins, piece_ends, first))

            for_each_piece(begins, ends, run)
        elif isinstance(buffers, (bytes, bytearray, memoryview)):
            raise TypeError("expected several buffers, or a buffer and offsets; found one buffer")
        else:
            for data, joined in join(buffers, _same):
                view = memoryview(joined)
                workers.run(partial(_hash, data, view[:-1], view[1:]))
    return _engine.digest_rows(digests)


def _same(buffer: BytesLike) -> BytesLike:
    return buffer


def _hash(data: Any, begins: Any, ends: Any, first: int = 0) -> bytearray:
    digests = bytearray(len(begins) * DIGEST_SIZE)
    _engine.blake3(data, begins, ends, digests, first)
    return digests
