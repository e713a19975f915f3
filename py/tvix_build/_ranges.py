# SPDX-License-Identifier: MIT
"""Many pieces of memory: separate ones, or ranges of one buffer."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, islice
from typing import Any, TypeAlias

BytesLike: TypeAlias = bytes | bytearray | memoryview
"""A contiguous buffer of bytes."""
Offsets: TypeAlias = Any
"""Unsigned integers: a buffer of 64-bit ones (array("Q"), NumPy's uint64) is used as it is, a
sequence copied."""

# Separate buffers are joined to about this many bytes, so that they are in the cache when the
# engine reads them; never to more than the limit, unless one alone is larger.
_JOINED_SIZE = 256 * 1024
_JOINED_LIMIT = 4 * _JOINED_SIZE
_JOINED_COUNT = 4096


def size_of(data: BytesLike) -> int:
    """Its size in bytes."""
    return data.nbytes if isinstance(data, memoryview) else len(data)


def ranges_of(offsets: Offsets | tuple[Offsets, Offsets]) -> tuple[Any, Any]:
    """Begins and ends, as buffers of unsigned 64-bit integers, from n + 1 offsets or a pair.

    Raises:
        ValueError: if they are of another type, or there are none.
    """
    if isinstance(offsets, tuple) and len(offsets) == 2 and not isinstance(offsets[0], int):
        return _integers(offsets[0]), _integers(offsets[1])
    view = memoryview(_integers(offsets))
    if len(view) == 0:
        raise ValueError("expected n + 1 offsets, found none")
    return view[:-1], view[1:]


def _integers(numbers: Offsets) -> Any:
    try:
        view = memoryview(numbers)
    except TypeError:
        return array("Q", numbers)
    if view.format not in ("Q", "L", "N") or view.itemsize != 8 or not view.contiguous:
        raise ValueError(
            "expected offsets as unsigned 64-bit integers, found a buffer of format "
            f"{view.format!r} with items of {view.itemsize} bytes"
        )
    return view


def join(
    items: Iterable[Any], data_of: Callable[[Any], BytesLike]
) -> Iterator[tuple[bytes, array[int]]]:
    """Join many buffers to a few: each with n + 1 offsets of what is in it, in order.

    `data_of` gives an item's data; for what is just bytes it is not called after the first one.
    """
    iterator = iter(items)
    count = 16
    while chunk := list(islice(iterator, count)):
        if {*map(type, chunk)} == {bytes}:
            data_of(chunk[0])
            data = chunk
            ends = array("Q", accumulate(map(len, data), initial=0))
        else:
            data = [data_of(item) for item in chunk]
            ends = array("Q", accumulate(map(size_of, data), initial=0))
        if ends[-1] <= _JOINED_LIMIT:
            yield b"".join(data), ends
        else:
            yield from _join_large(data)
        count = min(max(1, _JOINED_SIZE * len(chunk) // (ends[-1] or 1)), 2 * count, _JOINED_COUNT)


def _join_large(data: list[BytesLike]) -> Iterator[tuple[bytes, array[int]]]:
    joined: list[BytesLike] = []
    offsets = array("Q", [0])
    for item in data:
        if joined and offsets[-1] + size_of(item) > _JOINED_LIMIT:
            yield b"".join(joined), offsets
            joined, offsets = [], array("Q", [0])
        joined.append(item)
        offsets.append(offsets[-1] + size_of(item))
    yield b"".join(joined), offsets
