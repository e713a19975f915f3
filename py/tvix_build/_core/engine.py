# SPDX-License-Identifier: MIT
"""The native engine, as functions on buffers. Only this module, `arrow` and `file_hashing` import
the extension. It does not use protobuf.

Thread safety: each call has its own context. The engine runs without the GIL. tvix_build.h
describes what happens if another thread changes a buffer during a call.
"""

from __future__ import annotations

import ctypes
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import count, takewhile
from typing import Any, NamedTuple, TypeAlias

from tvix_build._core.report import TYPES, MessageType, Violation, ViolationCode
from tvix_build._native import ffi, lib

Buffer: TypeAlias = Any
"""A contiguous object with the buffer protocol."""

DIGEST_SIZE: int = lib.TVIXB_DIGEST_SIZE
VIOLATION_SIZE: int = ffi.sizeof("tvixb_violation")
VIOLATION_LIMIT: int = lib.TVIXB_VIOLATION_LIMIT


class Verdict(IntEnum):
    """The verdict of the engine on a message (`tvixb_verdict`)."""

    CANONICAL = lib.TVIXB_CANONICAL
    VALID = lib.TVIXB_VALID
    UNSORTED = lib.TVIXB_UNSORTED
    INVALID = lib.TVIXB_INVALID
    MALFORMED = lib.TVIXB_MALFORMED


KINDS: dict[str, Any] = {
    ffi.string(lib.tvixb_kind_name(kind)).decode(): kind
    for kind in takewhile(bool, map(lib.tvixb_kind_at, count()))
}
"""The kinds of the engine by their names."""
_KINDS = {found: KINDS[found.full_name] for found in TYPES}
_ANY: int = lib.TVIXB_ANY
_CODES = {
    code: ViolationCode(ffi.string(lib.tvixb_code_name(code)).decode())
    for code in range(len(ViolationCode))
}
_CANONICAL = int(Verdict.CANONICAL)
_TEXT_SIZE = 1024  # the limit of a path and of a message


class Messages(NamedTuple):
    """Messages in memory, as arguments of the engine: message i is `data[begins[i]:ends[i]]`."""

    data: Any
    size: int
    begins: Any
    ends: Any
    number: int
    """The number of messages."""
    owner: object
    """An object that keeps the memory alive, in addition to the pointers."""


def messages(data: Buffer, begins: Buffer, ends: Buffer | None = None) -> Messages:
    """Return the messages `data[begins[i]:ends[i]]`. The offsets are in bytes, in buffers of
    unsigned 64-bit integers, which are copied if they are not aligned. Without `ends`, `begins` has
    n + 1 offsets, and each message ends where the next one begins.

    Raises:
        ValueError: if the numbers of begins and ends differ.
    """
    begins = _aligned(begins)
    number = len(begins)
    if ends is None:
        if not number:
            raise ValueError("expected n + 1 offsets, found none")
        number -= 1
        ends = begins + 1
    else:
        ends = _aligned(ends)
        if len(ends) != number:
            raise ValueError(f"expected {number} ends, one for each begin, found {len(ends)}")
    data = ffi.from_buffer("uint8_t[]", data)
    return Messages(data, len(data), begins, ends, number, None)


def _aligned(offsets: Buffer) -> Any:
    """Return the offsets in a buffer, copied if the buffer is not aligned."""
    pointer = ffi.from_buffer("uint64_t[]", offsets)
    if address_of(pointer) % ffi.alignof("uint64_t"):
        return ffi.from_buffer("uint64_t[]", array("Q", memoryview(offsets).tobytes()))
    return pointer


def size_of(kind: MessageType, some: Messages) -> int:
    """Return an upper limit of the size of the canonical encodings of messages, in bytes."""
    native = _KINDS[kind]
    size: int = lib.tvixb_encoded_room(native, some.size, some.begins, some.ends, some.number)
    return size


def pieces_of(whole: Messages) -> Iterator[Messages]:
    """Yield messages in pieces of a few hundred microseconds of work."""
    data, size, begins, ends, left, _ = whole
    while left:
        number = lib.tvixb_piece_of_ranges(begins, ends, left)
        if number == whole.number:
            yield whole
            return
        yield Messages(data, size, begins, ends, number, whole)
        begins += number
        ends += number
        left -= number


def address_of(pointer: Any) -> int:
    """Return the address in a cffi pointer."""
    return int(ffi.cast("uintptr_t", pointer))


def _python_function(name: str, *arguments: Any) -> Callable[..., Any]:
    """Return a function of the extension that returns a Python object, with these ctypes of its
    arguments. It is called with the GIL held, because cffi cannot pass Python objects."""
    signature = ctypes.PYFUNCTYPE(ctypes.py_object, *arguments)
    return signature(address_of(ffi.addressof(lib, name)))


_piece_of_items = _python_function(
    "tvixb_piece_of_items", ctypes.py_object, ctypes.c_ssize_t, ctypes.py_object
)


def pieces_of_items(items: Any, convert: Callable[[Any, int], bytes]) -> Iterator[Messages]:
    """Yield the bytes objects of an iterable in pieces, without copying them. An item of another
    type is replaced by the result of `convert(item, index)`."""
    source = items if type(items) is list else iter(items)
    first = 0
    while True:
        owner = _piece_of_items(source, first, convert)
        piece = ffi.from_buffer("tvixb_piece *", owner[1])
        number = piece.number
        if number:
            yield Messages(piece.data, piece.size, piece.begins, piece.ends, number, owner)
        if piece.last:
            return
        first += number


class Rows(NamedTuple):
    """The memory for the results of some messages. A table and encodings own it."""

    verdicts: Any
    digests: Any
    encodings: Any = ffi.NULL


class Table:
    """The verdicts and digests of messages, in order. `count` is their expected number.

    The memory is not cleared, so that the engine touches it first, without the GIL.
    """

    def __init__(self, count: int) -> None:
        self._blocks: deque[tuple[bytearray, Any, int]] = deque()
        self._begin(count)

    def _begin(self, count: int) -> None:
        self._verdicts = bytearray(count)
        self._digests = _new_uninitialized("uint8_t[]", count * DIGEST_SIZE)
        self._verdicts_pointer = ffi.from_buffer("uint8_t[]", self._verdicts)
        self._capacity = count
        self._used = 0

    def _end(self) -> None:
        if self._used:
            self._blocks.append((self._verdicts, self._digests, self._used))

    def rows(self, count: int) -> Rows:
        """Return memory for the results of the next `count` messages."""
        if self._used + count > self._capacity:
            self._end()
            self._begin(max(count, _BLOCK_COUNT))
        begin = self._used
        self._used += count
        if not begin:
            return Rows(self._verdicts_pointer, self._digests)
        return Rows(self._verdicts_pointer + begin, self._digests + begin * DIGEST_SIZE)

    def finish(self) -> tuple[bytearray, memoryview[int]]:
        """Return the verdicts and the digests of all messages."""
        if self._used == self._capacity and not self._blocks:
            return self._verdicts, memoryview(ffi.buffer(self._digests))
        self._end()
        verdicts, digests = bytearray(), bytearray()
        while self._blocks:  # Free each block before the next one is copied.
            some_verdicts, some_digests, count = self._blocks.popleft()
            verdicts += memoryview(some_verdicts)[:count]
            digests += ffi.buffer(some_digests, count * DIGEST_SIZE)
        return verdicts, memoryview(digests)


class Encodings:
    """The canonical encodings of messages, in order. `size` is their expected size in bytes.

    The memory is not cleared, as in a table.
    """

    def __init__(self, size: int = 0) -> None:
        self._size = size
        self._block = _new_uninitialized("uint8_t[]", size)
        self._used = 0
        self._pieces: list[_Encoded] = []

    def add(self, kind: MessageType, some: Messages) -> Any:
        """Return memory for the encodings of some messages."""
        size = size_of(kind, some)
        if size > self._size - self._used:
            self._size = max(size, _BLOCK_SIZE)
            self._block = _new_uninitialized("uint8_t[]", self._size)
            self._used = 0
        first = self._pieces[-1].end if self._pieces else 0
        ends = ffi.new("uint64_t[]", some.number)
        data = self._block + self._used
        native = ffi.new("tvixb_encodings *", (data, size, ends, first))
        self._pieces.append(_Encoded(native, ends, first + size, self._block))
        self._used += size
        return native

    def finish(self) -> tuple[memoryview[int], array[int]]:
        """Return all encodings, back to back and read-only, and n + 1 offsets."""
        offsets = array("Q", [0])
        whole = True
        for piece in self._pieces:
            native = piece.native
            shift = offsets[-1] - native.first
            ends = array("Q")
            ends.frombytes(ffi.buffer(piece.ends))
            offsets.extend(ends if not shift else array("Q", [end + shift for end in ends]))
            whole = whole and piece.block is self._block and offsets[-1] == piece.end
        if whole:
            return memoryview(ffi.buffer(self._block, offsets[-1])).toreadonly(), offsets
        data = bytearray()
        for piece in self._pieces:
            native = piece.native
            data += ffi.buffer(native.data, piece.ends[len(piece.ends) - 1] - native.first)
        return memoryview(data).toreadonly(), offsets


class _Encoded(NamedTuple):
    """The encodings of a piece of a batch. `end` is their end if they fill their memory."""

    native: Any
    ends: Any
    end: int
    block: Any


_new_uninitialized = ffi.new_allocator(should_clear_after_alloc=False)
# Messages in a block of a table, and bytes in a block of encodings, if their number is unknown.
_BLOCK_COUNT = 1 << 16
_BLOCK_SIZE = 1 << 24


class _Context:
    """A native context, and the memory for the arguments of a call."""

    def __init__(self) -> None:
        self.native = ffi.gc(lib.tvixb_context_new(), lib.tvixb_context_free)
        if not self.native:
            raise MemoryError
        self.results = ffi.new("tvixb_results *")
        self.count = ffi.new("size_t *")
        # For a single message.
        self.begin = ffi.new("uint64_t *")
        self.end = ffi.new("uint64_t *")
        self.verdict = ffi.new("uint8_t *")
        self.digest = ffi.new("uint8_t[]", DIGEST_SIZE)
        self.verdict_alone = ffi.new("tvixb_results *", (self.verdict, ffi.NULL, ffi.NULL))


# The contexts that are not in use. A thread takes one for each call.
_contexts: list[_Context] = []
_CONTEXT_LIMIT = 64


def _take_context() -> _Context:
    try:
        return _contexts.pop()
    except IndexError:
        return _Context()


def _return_context(context: _Context) -> None:
    if len(_contexts) < _CONTEXT_LIMIT:
        _contexts.append(context)


_NO_MESSAGES = array("Q")


class Found(NamedTuple):
    """The violations in messages.

    Attributes:
        by_message: four numbers for each message with violations, ascending: the index of the
            message, the index of its first record, the number of its records, and the total
            number of its violations.
        violations: the records of the engine, for `describe`.
    """

    by_message: array[int] = _NO_MESSAGES
    violations: bytes = b""


class Results(NamedTuple):
    """The results of n messages.

    Attributes:
        verdicts: n bytes, each a Verdict.
        digests: n x 32 bytes; zeros for a message without a digest.
        by_message, violations: as in `Found`.
    """

    verdicts: bytearray
    digests: memoryview[int]
    by_message: array[int] = _NO_MESSAGES
    violations: bytes = b""


def run(kind: MessageType, some: Messages, rows: Rows, first: int = 0) -> Found | None:
    """Check messages, write the results to the rows, and return the violations; None if there are
    none. `first` is the index of the first message in errors.

    Raises:
        ValueError: if a range is outside of the data, or changes during the call.
        MemoryError: if there is not enough memory.
    """
    context = _take_context()
    try:
        return _run(context, kind, some, rows, first)
    finally:
        _return_context(context)


def run_one(
    kind: MessageType,
    data: Buffer,
    encodings: Encodings | None = None,
    request: tuple[int, int] | None = None,
) -> tuple[int, bytes, Found | None]:
    """Check one message, and return its verdict, its digest and its violations. Its canonical
    encoding is added to `encodings`. `request` has the numbers of outputs and needles in the
    request of a response, if they are known.

    Raises:
        MemoryError: if there is not enough memory.
    """
    data = ffi.from_buffer("uint8_t[]", data)
    context = _take_context()
    try:
        size = context.end[0] = len(data)
        one = Messages(data, size, context.begin, context.end, 1, None)
        room = encodings.add(kind, one) if encodings else ffi.NULL
        if request:
            lib.tvixb_context_set_request(context.native, *request)
        found = _run(context, kind, one, Rows(context.verdict, context.digest, room), 0)
        return context.verdict[0], ffi.buffer(context.digest)[:], found
    finally:
        if request:
            lib.tvixb_context_set_request(context.native, _ANY, _ANY)
        _return_context(context)


SingleDetails: TypeAlias = tuple[bytes | None, tuple[tuple[int, str, str], ...], int]
"""The digest of a message or None, its violations and their total number. `violations_of` converts
the violations."""

_new_single = _python_function("tvixb_single_new", ctypes.c_void_p)
_singles = {kind: _new_single(address_of(native)) for kind, native in _KINDS.items()}
single_digest: dict[MessageType, Callable[[Buffer], bytes | SingleDetails | None]] = {
    kind: functions[0] for kind, functions in _singles.items()
}
"""For each type, the fastest check of a single message: a function that returns the digest of a
canonical message, or else the details. It returns None if the argument is not a bytes object of at
most 16 KiB: call `run_one`."""
single_canonical: dict[MessageType, Callable[[Buffer], bytes | SingleDetails | None]] = {
    kind: functions[1] for kind, functions in _singles.items()
}
"""As `single_digest`, but the functions return canonical encodings."""


def violations_of(found: tuple[tuple[int, str, str], ...]) -> tuple[Violation, ...]:
    """Return the violations in the details of a single message."""
    return tuple(Violation(_CODES[code], path, text) for code, path, text in found)


def is_canonical(kind: MessageType, data: bytes, request: tuple[int, int] | None = None) -> bool:
    """Return whether a message is canonical, without hashing it. `request` as for `run_one`.

    Raises:
        MemoryError: if there is not enough memory.
    """
    if request is None and (found := single_canonical[kind](data)) is not None:
        return found is data
    context = _take_context()
    try:
        if request:
            lib.tvixb_context_set_request(context.native, *request)
        size = context.end[0] = len(data)
        begin, end, results = context.begin, context.end, context.verdict_alone
        if lib.tvixb_check(context.native, _KINDS[kind], data, size, begin, end, 1, results):
            raise MemoryError
        return bool(context.verdict[0] == _CANONICAL)
    finally:
        if request:
            lib.tvixb_context_set_request(context.native, _ANY, _ANY)
        _return_context(context)


def blake3(some: Messages, rows: Rows, first: int = 0) -> None:
    """Write the BLAKE3 digests of messages with any contents, and no verdicts.

    Raises:
        ValueError: if a range is outside of the data, or changes during the call.
    """
    data, size, begins, ends, n, _ = some
    status = lib.tvixb_blake3_many(data, size, begins, ends, n, rows.digests)
    if status:
        raise _error(status, some, first)


ByteRows: type = _python_function("tvixb_byte_rows_type")()
"""A base class whose objects export rows of 32 bytes as a read-only buffer."""
_new_byte_rows = _python_function(
    "tvixb_byte_rows_new",
    ctypes.py_object,
    ctypes.c_void_p,
    ctypes.c_ssize_t,
    ctypes.py_object,
)


def new_byte_rows(derived: type, data: Buffer) -> Any:
    """Return an object of a class derived from ByteRows, with the rows of `data`, not copied."""
    memory = ffi.from_buffer("uint8_t[]", data)
    return _new_byte_rows(derived, address_of(memory), len(memory) // DIGEST_SIZE, memory)


def _run(
    context: _Context, kind: MessageType, some: Messages, rows: Rows, first: int
) -> Found | None:
    native, results, count = context.native, context.results, context.count
    data, size, begins, ends, n, _ = some
    results.verdicts, results.digests, results.encodings = rows
    status = lib.tvixb_check(native, _KINDS[kind], data, size, begins, ends, n, results)
    if status:
        raise _error(status, some, first)
    found = lib.tvixb_violations_by_message(native, count)
    if not count[0]:
        return None
    by_message = array("Q", _copy(found, count[0] * ffi.sizeof("tvixb_violations_of")))
    found = lib.tvixb_violations(native, count)
    return Found(by_message, _copy(found, count[0] * VIOLATION_SIZE))


def _error(status: int, some: Messages, first: int) -> Exception:
    if status == lib.TVIXB_OUT_OF_MEMORY:
        return MemoryError()
    _, size, begins, ends, n, _ = some
    if status == lib.TVIXB_BAD_RANGE:
        for i in range(n):
            begin, end = begins[i], ends[i]
            if not begin <= end <= size:
                return ValueError(
                    f"message {first + i}: expected a range within the {size} bytes, "
                    f"found {begin} to {end}"
                )
    # All ranges are within the data now, so they have changed.
    return ValueError(
        f"messages {first} to {first + n - 1}: another thread changed the offsets during the call; "
        "pass a copy"
    )


def _copy(pointer: Any, size: int) -> bytes:
    return bytes(ffi.buffer(pointer, size)) if size else b""


def rebase(by_message: array[int], messages: int, violations: int) -> None:
    """Convert entries of a part of a batch to entries of the batch. `messages` and `violations` are
    the numbers of messages and violations before the part."""
    with ffi.from_buffer("tvixb_violations_of[]", by_message) as entries:
        lib.tvixb_violations_rebase(entries, len(entries), messages, violations)


def describe(kind: MessageType, violations: bytes, first: int, count: int) -> tuple[Violation, ...]:
    """Return the records `first` to `first + count` of the engine as violations."""
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
        begins, ends: message i is `buffer[begins[i]:ends[i]]`. Its length is before it, from
            `ends[i - 1]` to `begins[i]`.
        consumed: the end of the last complete record.
        error: why no record can begin at `consumed`; None if the rest is an incomplete record.
    """

    begins: array[int]
    ends: array[int]
    consumed: int
    error: str | None


class Steps(NamedTuple):
    """The steps of a canonical plan, in order.

    Attributes:
        digests: the digests, back to back.
        begins, ends: step i is `data[begins[i]:ends[i]]`.
        output_starts: step i makes the outputs `output_starts[i]` to `output_starts[i + 1]`.
        output_begins, output_ends: the name of output j is `data[output_begins[j]:output_ends[j]]`.
        ref_starts: step i has the references `ref_starts[i]` to `ref_starts[i + 1]`.
        ref_steps, ref_outputs: reference j needs the output `ref_outputs[j]`, which the step
            `ref_steps[j]` makes.
        order: the indices of all steps, each after those that it needs: a walk from the roots,
            depth first, in the order of the references.
    """

    digests: bytes
    begins: list[int]
    ends: list[int]
    output_starts: list[int]
    output_begins: list[int]
    output_ends: list[int]
    ref_starts: list[int]
    ref_steps: list[int]
    ref_outputs: list[int]
    order: list[int]


def read_steps(plan: Buffer) -> Steps | None:
    """Return the steps of a plan; None if it is not canonical.

    Raises:
        MemoryError: if there is not enough memory.
    """
    data = ffi.from_buffer("uint8_t[]", plan)
    context = _Context()  # It is not used again, because it keeps the steps.
    steps = ffi.new("tvixb_steps *")
    if lib.tvixb_check_plan(context.native, data, len(data), context.verdict, ffi.NULL, steps):
        raise MemoryError
    if context.verdict[0] != _CANONICAL:
        return None
    count = steps.count
    refs, outputs = steps.ref_starts[count], steps.output_starts[count]
    return Steps(
        _copy(steps.digests, count * DIGEST_SIZE),
        ffi.unpack(steps.begins, count),
        ffi.unpack(steps.ends, count),
        ffi.unpack(steps.output_starts, count + 1),
        ffi.unpack(steps.output_begins, outputs),
        ffi.unpack(steps.output_ends, outputs),
        ffi.unpack(steps.ref_starts, count + 1),
        ffi.unpack(steps.ref_steps, refs),
        ffi.unpack(steps.ref_outputs, refs),
        ffi.unpack(steps.order, count),
    )


def count_fields(data: Buffer, number: int) -> int:
    """Return the number of top-level fields with this field number in a canonical message."""
    view = ffi.from_buffer("uint8_t[]", data)
    return int(lib.tvixb_count_fields(view, len(view), number))


def find_fields(data: Buffer, number: int) -> tuple[int, int]:
    """Return where the top-level fields with this field number are in a canonical message: their
    range, or an empty range where they would be."""
    view = ffi.from_buffer("uint8_t[]", data)
    range_ = ffi.new("uint64_t[2]")
    lib.tvixb_find_fields(view, len(view), number, range_, range_ + 1)
    return range_[0], range_[1]


def split_delimited(buffer: Buffer, maximum: int = 1 << 16) -> DelimitedSplit:
    """Return the complete records at the beginning of `buffer`, at most `maximum` of them."""
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
