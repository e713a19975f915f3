# SPDX-License-Identifier: MIT
"""Finds references: which byte strings of a set occur in a stream."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate

from tvix_build._core.ranges import BytesLike
from tvix_build._native import ffi, lib


class ReferenceScanner:
    """Finds which needles occur in streams of bytes, also across the borders of chunks. The GIL is
    released while it scans. One thread at a time may use it.

    Args:
        needles: the byte strings to find; a str is encoded as UTF-8.

    Raises:
        ValueError: if a needle is empty.
    """

    def __init__(self, needles: Sequence[str | bytes]) -> None:
        encoded = [one.encode() if isinstance(one, str) else one for one in needles]
        if not all(encoded):
            raise ValueError(f"expected needles that are not empty, found {list(needles)!r}")
        ends = array("Q")
        end = 0
        for one in encoded:
            end += len(one)
            ends.append(end)
        self._count = len(encoded)
        scanner = lib.tvixb_references_new(
            b"".join(encoded), ffi.from_buffer("uint64_t[]", ends), self._count
        )
        if scanner == ffi.NULL:
            raise MemoryError
        self._scanner = ffi.gc(scanner, lib.tvixb_references_free)

    def scan(self, data: BytesLike) -> None:
        """Scan the next bytes of the stream."""
        with ffi.from_buffer("uint8_t[]", data) as pointer:
            lib.tvixb_references_scan(self._scanner, pointer, len(pointer))

    def end_stream(self) -> None:
        """End the stream. The next bytes begin another stream."""
        lib.tvixb_references_end_stream(self._scanner)

    @property
    def found(self) -> list[int]:
        """The indices of the needles that were found in any stream, ascending."""
        found = ffi.buffer(lib.tvixb_references_found(self._scanner), self._count)
        return [index for index, one in enumerate(bytes(found)) if one]


def find_replaced(
    old: BytesLike,
    old_begins: Iterable[int],
    new: BytesLike,
    new_begins: Iterable[int],
    sizes: Iterable[int],
    pairs: Sequence[bytes],
    width: int,
) -> bytes:
    """Return for each range 1 if its bytes in `new` are those in `old` with some occurrences of
    strings replaced, else 0.

    Args:
        old: a byte string.
        old_begins: where the ranges begin in it.
        new: another byte string.
        new_begins: where the ranges begin there.
        sizes: the sizes of the ranges.
        pairs: for each range, the strings that are replaced, each followed by its replacement.
        width: the length of each string.
    """
    ends = accumulate(len(one) // (2 * width) for one in pairs)
    numbers = [array("Q", found) for found in (old_begins, new_begins, sizes, ends)]
    first, second, lengths, pair_ends = (ffi.from_buffer("uint64_t[]", one) for one in numbers)
    replaced = ffi.new("uint8_t[]", len(pairs))
    lib.tvixb_references_replaced(
        *(ffi.from_buffer("uint8_t[]", old), first, ffi.from_buffer("uint8_t[]", new), second),
        *(lengths, b"".join(pairs), pair_ends, width, len(pairs), replaced),
    )
    return bytes(ffi.buffer(replaced))


def replace_all(data: bytes, pairs: bytes, width: int) -> bytes:
    """Return data in which strings are replaced, from its beginning on, without a look at what has
    been replaced.

    Args:
        data: a byte string.
        pairs: the strings, each followed by its replacement.
        width: the length of each string, at least 4.
    """
    if not pairs:
        return data
    target = bytearray(data)
    pointer = ffi.from_buffer("uint8_t[]", target)
    lib.tvixb_references_replace(pointer, len(data), pairs, len(pairs) // (2 * width), width)
    return bytes(target)
