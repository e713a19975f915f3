# SPDX-License-Identifier: MIT
"""BLAKE3 of many buffers with any contents."""

from __future__ import annotations

from collections.abc import Iterable

from tvix_build._core import engine
from tvix_build._core.digests import Digests
from tvix_build._core.names import publish
from tvix_build._core.pieces import Batch
from tvix_build._core.ranges import (
    BytesLike,
    Offsets,
    bytes_of,
    count_of,
    is_one_buffer,
    messages_of,
)


def blake3_many(
    buffers: Iterable[BytesLike] | BytesLike,
    *,
    offsets: Offsets | tuple[Offsets, Offsets] | None = None,
    threads: int | None = None,
) -> Digests:
    """Return the BLAKE3-256 digests of many buffers.

    The SIMD lanes are filled across buffers: many short buffers are hashed as fast as a long
    one.

    Args:
        buffers: bytes-like objects; or, with `offsets`, one buffer with all of them.
        offsets: n + 1 ascending offsets in bytes, or a tuple `(begins, ends)` of n offsets each.
        threads: the number of threads, at least 1; by default the number of CPUs that this process
            may use.

    Returns:
        The n digests of 32 bytes, read-only. `.tobytes()` returns them back to back.

    Raises:
        TypeError: if an item is not bytes-like, that is, a C-contiguous buffer of bytes.
        ValueError: if an offset is outside of the buffer.
    """
    if offsets is not None:
        messages = messages_of(buffers, offsets)
        count, pieces = messages.number, engine.pieces_of(messages)
    elif is_one_buffer(buffers):
        raise TypeError("expected a list of buffers, or a buffer with offsets=, found one buffer")
    else:
        count, pieces = count_of(buffers), engine.pieces_of_items(buffers, _bytes_of)
    with Batch(threads, count) as batch:
        for piece in pieces:
            batch.add(engine.blake3, piece)
    return Digests(batch.digests())


def _bytes_of(buffer: BytesLike, index: int) -> bytes:
    try:
        return bytes_of(buffer)
    except TypeError as error:
        raise TypeError(f"buffer {index}: {error}") from None


publish("tvix_build", blake3_many)
