# SPDX-License-Identifier: MIT
"""The native engine, as plain functions on buffers. The only module but `_arrow` that imports the
extension; knows no protobuf.

Thread safety: each thread has a context of its own. The GIL is released while the engine works;
nobody may change the buffers meanwhile.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

from tvix_build._native import ffi, lib
from tvix_build._report import Kind, Violation, ViolationCode

Buffer: TypeAlias = Any
"""Anything with the buffer protocol, contiguous."""

DIGEST_SIZE: int = lib.TVIXB_DIGEST_SIZE
VIOLATION_SIZE: int = ffi.sizeof("tvixb_violation")


class Verdict(IntEnum):
    """What the engine says of one message (`tvixb_verdict`)."""

    CANONICAL = lib.TVIXB_CANONICAL
    VALID = lib.TVIXB_VALID
    UNSORTED = lib.TVIXB_UNSORTED
    INVALID = lib.TVIXB_INVALID
    MALFORMED = lib.TVIXB_MALFORMED


_KINDS = {kind: lib.tvixb_kind_find(kind.full_name.encode()) for kind in Kind}
_CODES = {
    code: ViolationCode(ffi.string(lib.tvixb_code_name(code)).decode())
    for code in range(len(ViolationCode))
}
_TEXT_SIZE = 1024  # No path or message is longer.


class _Local(threading.local):
    def __init__(self) -> None:
        self.context = ffi.gc(lib.tvixb_context_new(), lib.tvixb_context_free)
        if not self.context:
            raise MemoryError


_local = _Local()


@dataclass(frozen=True)
class Results:
    """What the engine found in n messages.

    Attributes:
        verdicts: n bytes, each a Verdict.
        digests: n x 32 bytes; zeros where there is no digest.
        by_message: for each message that has violations, in ascending order, four numbers:
            which it is, the first of its records, how many are kept, how many there are.
        violations: the engine's own records, for `describe`.
        encoded, offsets: of `canonicalize`: the canonical encodings back to back, and n + 1
            offsets.
    """

    verdicts: bytearray
    digests: bytearray
    by_message: array[int]
    violations: bytes
    encoded: bytes = b""
    offsets: Sequence[int] = ()


def check(kind: Kind, data: Buffer, begins: Buffer, ends: Buffer, first: int = 0) -> Results:
    """Check the messages `data[begins[i]:ends[i]]`; offsets in bytes, as buffers of unsigned 64-bit
    integers. An error calls them message `first` and following.

    Raises:
        ValueError: if a range does not lie within the data.
        MemoryError: if memory is out.
    """
    return _run(lib.tvixb_check, kind, data, begins, ends, first, keep=False)


def canonicalize(kind: Kind, data: Buffer, begins: Buffer, ends: Buffer, first: int = 0) -> Results:
    """As `check`; keeps the canonical encodings as well, empty for a message without one."""
    return _run(lib.tvixb_canonicalize, kind, data, begins, ends, first, keep=True)


def blake3(data: Buffer, begins: Buffer, ends: Buffer, digests: Buffer, first: int = 0) -> None:
    """Write the BLAKE3 digests of `data[begins[i]:ends[i]]`, 32 bytes each, to `digests`.

    Raises:
        ValueError: if a range does not lie within the data.
    """
    data, begins, ends = _ranges(data, begins, ends)
    with ffi.from_buffer("uint8_t[]", digests, require_writable=True) as out:
        n = len(begins)
        _check_status(
            lib.tvixb_blake3_many(data, len(data), begins, ends, n, out), data, begins, ends, first
        )


def digest_rows(digests: bytearray) -> memoryview[int]:
    """Digests that lie back to back as n x 32 bytes, read-only and not copied."""
    view = memoryview(digests).toreadonly()
    return view.cast("B", (len(digests) // DIGEST_SIZE, DIGEST_SIZE)) if digests else view


def _ranges(data: Buffer, begins: Buffer, ends: Buffer) -> tuple[Any, Any, Any]:
    begins = ffi.from_buffer("uint64_t[]", begins)
    ends = ffi.from_buffer("uint64_t[]", ends)
    if len(ends) != len(begins):
        raise ValueError(f"expected as many ends as begins, found {len(ends)} for {len(begins)}")
    return ffi.from_buffer("uint8_t[]", data), begins, ends


def _run(
    function: Any, kind: Kind, data: Buffer, begins: Buffer, ends: Buffer, first: int, keep: bool
) -> Results:
    context = _local.context
    data, begins, ends = _ranges(data, begins, ends)
    n = len(begins)
    verdicts = bytearray(n)
    digests = bytearray(n * DIGEST_SIZE)
    results = ffi.new("tvixb_results *")
    # Held in variables: cffi keeps a buffer only as long as its own object lives.
    results.verdicts = verdicts_view = ffi.from_buffer("uint8_t[]", verdicts)
    results.digests = digests_view = ffi.from_buffer("uint8_t[]", digests)
    status = function(context, _KINDS[kind], data, len(data), begins, ends, n, results)
    del verdicts_view, digests_view
    _check_status(status, data, begins, ends, first)
    by_message, violations = _violations(context)
    if not keep:
        return Results(verdicts, digests, by_message, violations)
    return Results(verdicts, digests, by_message, violations, *_encoded(context, n))


def _check_status(status: int, data: Any, begins: Any, ends: Any, first: int) -> None:
    if status == lib.TVIXB_OUT_OF_MEMORY:
        raise MemoryError
    if status == lib.TVIXB_BAD_RANGE:
        size = len(data)
        i = next(i for i in range(len(begins)) if not begins[i] <= ends[i] <= size)
        raise ValueError(
            f"message {first + i}: expected a range within the {size} bytes, "
            f"found {begins[i]} to {ends[i]}"
        )


def _violations(context: Any) -> tuple[array[int], bytes]:
    count = ffi.new("size_t *")
    rows = lib.tvixb_violations_by_message(context, count)
    by_message = array("Q", _copy(rows, count[0] * ffi.sizeof("tvixb_violations_of")))
    records = lib.tvixb_violations(context, count)
    return by_message, _copy(records, count[0] * ffi.sizeof("tvixb_violation"))


def _copy(pointer: Any, size: int) -> bytes:
    return bytes(ffi.buffer(pointer, size)) if size else b""


def rebase(by_message: array[int], messages: int, violations: int) -> None:
    """Make entries of a part of a batch entries of the whole, of which so many messages and
    violations come before the part."""
    with ffi.from_buffer("tvixb_violations_of[]", by_message) as entries:
        lib.tvixb_violations_rebase(entries, len(entries), messages, violations)


def _encoded(context: Any, n: int) -> tuple[bytes, Sequence[int]]:
    pointer = ffi.new("uint64_t **")
    encoded = lib.tvixb_encoded(context, pointer)
    offsets = array("Q", bytes(ffi.buffer(pointer[0], (n + 1) * 8)))
    return _copy(encoded, offsets[n]), offsets


def describe(kind: Kind, violations: bytes, first: int, count: int) -> tuple[Violation, ...]:
    """The engine's records `first` to `first + count`, in words."""
    records = ffi.from_buffer("tvixb_violation[]", violations)
    text = ffi.new("char[]", _TEXT_SIZE)
    found = []
    for i in range(first, first + count):
        record = ffi.addressof(records, i)
        lib.tvixb_violation_path(_KINDS[kind], record, text, _TEXT_SIZE)
        path = ffi.string(text).decode()
        lib.tvixb_violation_message(_KINDS[kind], record, text, _TEXT_SIZE)
        found.append(Violation(_CODES[record.code], path, ffi.string(text).decode()))
    return tuple(found)


@dataclass(frozen=True)
class DelimitedSplit:
    """The records of a piece of a size-delimited stream.

    Attributes:
        begins, ends: message i is `buffer[begins[i]:ends[i]]`; its length stands just before it,
            from `ends[i - 1]` on.
        consumed: where the last whole record ends.
        error: why no record can begin at `consumed`; None if what is left is just the beginning of
            one.
    """

    begins: array[int]
    ends: array[int]
    consumed: int
    error: str | None


def split_delimited(buffer: Buffer, maximum: int = 1 << 16) -> DelimitedSplit:
    """Find the whole records at the beginning of `buffer`, at most `maximum` of them."""
    data = ffi.from_buffer("uint8_t[]", buffer)
    capacity = min(maximum, len(data))
    begins = array("Q", bytes(8 * capacity))
    ends = array("Q", bytes(8 * capacity))
    count = ffi.new("size_t *")
    consumed = ffi.new("size_t *")
    with ffi.from_buffer("uint64_t[]", begins) as b, ffi.from_buffer("uint64_t[]", ends) as e:
        status = lib.tvixb_split_delimited(data, len(data), b, e, capacity, count, consumed)
    del begins[count[0] :], ends[count[0] :]
    error = None
    if status == lib.TVIXB_SPLIT_BAD_LENGTH:
        found = bytes(data[consumed[0] : consumed[0] + 5]).hex(" ")
        error = f"expected the length of a record (a varint up to 2^31 - 1), found {found}"
    return DelimitedSplit(begins, ends, consumed[0], error)
