# SPDX-License-Identifier: MIT
"""Reads batches from Arrow arrays, and exports reports as Arrow arrays, by the Arrow PyCapsule
interface. No Arrow library is needed. This module is imported only when Arrow is used.

Capsules own the structs of the Arrow C interface. The destructor of a capsule, written in C,
releases a struct that was not consumed.
"""

from __future__ import annotations

import ctypes
import os
from array import array
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias

from tvix_build._core.engine import Buffer, Results, address_of
from tvix_build._core.report import MessageType
from tvix_build._native import ffi, lib


class ArrowArrayLike(Protocol):
    """An Arrow array: pyarrow.Array, nanoarrow.Array and others."""

    def __arrow_c_array__(self, requested_schema: Any = None) -> tuple[Any, Any]:
        """Return the capsules of the schema and the array."""


class ArrowStreamLike(Protocol):
    """Arrow arrays of one type: pyarrow.ChunkedArray, polars.Series and others."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """Return the capsule of a stream."""


ArrowLike: TypeAlias = ArrowArrayLike | ArrowStreamLike
Ranges: TypeAlias = tuple[Buffer, Buffer, Buffer]
"""Messages: data, begins and ends, as for `engine.messages`. They are valid while they are
referenced."""

_EXPECTED = "expected an Arrow array of binary, large_binary, binary_view or a dictionary of these"
_LAYOUTS = {
    "z": lib.TVIXB_ARROW_BINARY,
    "Z": lib.TVIXB_ARROW_LARGE_BINARY,
    "vz": lib.TVIXB_ARROW_BINARY_VIEW,
}
_INDICES = {
    "c": lib.TVIXB_ARROW_INT8,
    "C": lib.TVIXB_ARROW_UINT8,
    "s": lib.TVIXB_ARROW_INT16,
    "S": lib.TVIXB_ARROW_UINT16,
    "i": lib.TVIXB_ARROW_INT32,
    "I": lib.TVIXB_ARROW_UINT32,
    "l": lib.TVIXB_ARROW_INT64,
    "L": lib.TVIXB_ARROW_UINT64,
}
_NULL = "n"
_BAD_RANGE = "the message is not within its Arrow buffer"
# Messages per call of the engine. Limits the memory for their ranges to 4 MiB.
_PIECE = 1 << 18


class _Layout(NamedTuple):
    """The layout of messages in an array of a type."""

    values: int | None
    """The layout of the values; None for the null type."""
    indices: int | None
    """The type of the indices; None without a dictionary."""


def ranges(items: Any) -> Iterator[Ranges]:
    """Yield the messages of an Arrow array or stream in pieces, without copying them. An extension
    type is read as its storage type. A message of a dictionary is the range of its value.

    Raises:
        TypeError: if the elements are not binary.
        ValueError: if an element is null, or is not within its buffer.
        OSError: if the stream fails.
    """
    # A stream has all chunks; an object with several chunks may not export one array.
    if hasattr(items, "__arrow_c_stream__"):
        yield from _ranges_of_stream(items.__arrow_c_stream__())
        return
    schema_capsule, array_capsule = items.__arrow_c_array__()
    schema = _struct(schema_capsule, "struct ArrowSchema *", lib.tvixb_capsule_schema)
    chunk = _struct(array_capsule, "struct ArrowArray *", lib.tvixb_capsule_array)
    yield from _ranges_of_chunk(chunk, array_capsule, _layout_of(schema), 0)


def _ranges_of_stream(capsule: object) -> Iterator[Ranges]:
    stream = _struct(capsule, "struct ArrowArrayStream *", lib.tvixb_capsule_stream)
    schema = _new("struct ArrowSchema *")
    _check_stream(stream, stream.get_schema(stream, schema))
    layout = _layout_of(schema)
    first = 0
    while True:
        chunk = _new("struct ArrowArray *")
        _check_stream(stream, stream.get_next(stream, chunk))
        if not chunk.release:
            return
        yield from _ranges_of_chunk(chunk, chunk, layout, first)
        first += chunk.length


def _new(struct: str) -> Any:
    """Return an empty struct, which is released when it is no longer referenced."""
    return ffi.gc(ffi.new(struct), _release)


def _release(struct: Any) -> None:
    if struct.release:
        struct.release(struct)


def _check_stream(stream: Any, error: int) -> None:
    if error:
        text = stream.get_last_error(stream)
        found = ffi.string(text).decode(errors="replace") if text else os.strerror(error)
        raise OSError(error, f"the Arrow stream failed: {found}")


def _layout_of(schema: Any) -> _Layout:
    index = _INDICES.get(_format(schema)) if schema.dictionary else None
    found = _format(schema.dictionary or schema)
    if found == _NULL:
        return _Layout(None, None)
    nested = schema.dictionary and schema.dictionary.dictionary
    if found not in _LAYOUTS or nested or (schema.dictionary and index is None):
        what = "a struct or table, " if found == "+s" else ""
        of = "a dictionary of " if schema.dictionary else ""
        raise TypeError(f"{_EXPECTED}, found {of}{what}format {found!r}")
    return _Layout(_LAYOUTS[found], index)


def _format(schema: Any) -> str:
    return str(ffi.string(schema.format).decode(errors="replace"))


def _ranges_of_chunk(chunk: Any, owner: object, layout: _Layout, first: int) -> Iterator[Ranges]:
    """Yield the messages of a chunk. `first` is the index of its first message in the array or
    stream; `owner` keeps the chunk alive."""
    if chunk.length < 0:
        raise ValueError(f"expected a length of an Arrow array, found {chunk.length}")
    if not chunk.length:
        return
    if layout.values is None:
        _check_ranges(lib.TVIXB_ARROW_NULL, first)
    span = ffi.new("tvixb_arrow_span *")
    place: _Place = partial(lib.tvixb_arrow_ranges, chunk, layout.values)
    if layout.indices is not None:
        place = _placing_by_index(chunk, layout, first, span)
    for start in range(0, chunk.length, _PIECE):
        count = min(_PIECE, chunk.length - start)
        begins, ends = _integers(count), _integers(count)
        with ffi.from_buffer("uint64_t[]", begins) as b, ffi.from_buffer("uint64_t[]", ends) as e:
            status = place(start, count, b, e, span)
        _check_ranges(status, first + span.bad_message)
        yield _buffer(span, owner), begins, ends


_Place: TypeAlias = Callable[[int, int, Any, Any, Any], int]
"""`tvixb_arrow_ranges` with a chunk and its layout as first arguments."""


def _placing_by_index(chunk: Any, layout: _Layout, first: int, span: Any) -> _Place:
    """Return this function for a chunk with a dictionary, and set `span` to its values."""
    values = chunk.dictionary
    if not values or values.length < 0:
        _check_ranges(lib.TVIXB_ARROW_BAD_ARRAY, first)
    count = values.length
    begins = ffi.from_buffer("uint64_t[]", _integers(count))
    ends = ffi.from_buffer("uint64_t[]", _integers(count))
    status = lib.tvixb_arrow_values(values, layout.values, begins, ends, span)
    if status == lib.TVIXB_ARROW_BAD_RANGE:
        value = f"value {span.bad_message} of the dictionary of message {first}"
        raise ValueError(f"{value}: {_BAD_RANGE}")
    _check_ranges(status, first)
    bad_message = ffi.addressof(span, "bad_message")

    def place(start: int, number: int, b: Any, e: Any, _: Any) -> int:
        status: int = lib.tvixb_arrow_take(
            chunk, layout.indices, start, number, begins, ends, count, b, e, bad_message
        )
        return status

    return place


def _integers(count: int) -> array[int]:
    return array("Q", bytes(8 * count))


def _buffer(span: Any, owner: object) -> Buffer:
    """Return the bytes of a span, with a reference to their owner, so that a thread can still use
    them after an error in another thread."""
    if not span.size:
        return b""
    return ffi.buffer(ffi.gc(span.data, lambda _, owner=owner: None), span.size)


def _check_ranges(status: int, message: int) -> None:
    if status == lib.TVIXB_ARROW_NULL:
        raise ValueError(f"message {message}: expected a message, found null")
    if status == lib.TVIXB_ARROW_BAD_RANGE:
        raise ValueError(f"message {message}: {_BAD_RANGE}")
    if status == lib.TVIXB_ARROW_BAD_ARRAY:
        raise ValueError(f"{_EXPECTED}, found an array with missing buffers")


def report_schema() -> Any:
    """Return the schema of `report_array` as a capsule."""
    capsule, schema = _new_capsule("schema")
    _check_report(lib.tvixb_arrow_report_schema(schema))
    return capsule


def report_array(kind: MessageType, results: Results) -> tuple[Any, Any]:
    """Return a report as a struct array: the capsules of the schema and of the array, a copy."""
    capsule, report = _new_capsule("array")
    _fill(kind, results, report)
    return report_schema(), capsule


def report_stream(kind: MessageType, results: Results) -> Any:
    """Return a report as a stream of one struct array: a capsule of a copy."""
    capsule, stream = _new_capsule("stream")
    report = _new("struct ArrowArray *")
    _fill(kind, results, report)
    _check_report(lib.tvixb_arrow_report_stream(report, stream))
    return capsule


def _fill(kind: MessageType, results: Results, report: Any) -> None:
    with (
        ffi.from_buffer("uint8_t[]", results.verdicts) as verdicts,
        ffi.from_buffer("uint8_t[]", results.digests) as digests,
        ffi.from_buffer("tvixb_violations_of[]", results.by_message) as by_message,
        ffi.from_buffer("tvixb_violation[]", results.violations) as violations,
    ):
        status = lib.tvixb_arrow_report_array(
            lib.tvixb_kind_find(kind.full_name.encode()),
            verdicts,
            digests,
            len(verdicts),
            by_message,
            len(by_message),
            violations,
            len(violations),
            report,
        )
    _check_report(status)


def _check_report(status: int) -> None:
    if status == lib.TVIXB_ARROW_OUT_OF_MEMORY:
        raise MemoryError
    if status == lib.TVIXB_ARROW_TOO_LARGE:
        raise OverflowError(
            "expected less than 2 GiB of violations, the limit of an Arrow array, found more; "
            "check fewer messages at a time"
        )


# Own prototypes, because the attributes of ctypes.pythonapi's functions are shared.
_capsule_new = ctypes.PYFUNCTYPE(
    ctypes.py_object, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p
)(("PyCapsule_New", ctypes.pythonapi))
_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _new_capsule(noun: str) -> tuple[Any, Any]:
    """Return the capsule of a new struct, and a pointer to it. `noun`: schema, array or stream."""
    struct = getattr(lib, f"tvixb_capsule_new_{noun}")()
    if not struct:
        raise MemoryError
    name = getattr(lib, f"tvixb_capsule_{noun}")
    free = ffi.addressof(lib, f"tvixb_capsule_free_{noun}")
    return _capsule_new(address_of(struct), address_of(name), address_of(free)), struct


def _struct(capsule: object, struct: str, name: Any) -> Any:
    """Return the struct in a capsule. The capsule owns it, and its destructor releases it."""
    pointer = ffi.cast(struct, _capsule_pointer(capsule, address_of(name)))
    if not pointer.release:
        raise ValueError(f"this {struct[7:-2]} has already been consumed")
    return pointer
