# SPDX-License-Identifier: MIT
"""Batches from Arrow arrays, and reports as an Arrow array, through the Arrow PyCapsule interface.
That needs no Arrow library. Imported when Arrow is used, not before.

Besides `_engine`, the only module that imports the extension. The structs of Arrow's C interface
live in capsules; a capsule's destructor, which is C, releases what nobody consumed.
"""

from __future__ import annotations

import ctypes
import os
from array import array
from collections.abc import Iterator
from typing import Any, Protocol, TypeAlias

from tvix_build._engine import Buffer, Results
from tvix_build._native import ffi, lib
from tvix_build._report import MessageType


class ArrowArrayLike(Protocol):
    """An Arrow array: pyarrow.Array, nanoarrow.Array and others."""

    def __arrow_c_array__(self, requested_schema: Any = None) -> tuple[Any, Any]:
        """Capsules of schema and array."""


class ArrowStreamLike(Protocol):
    """Arrow arrays of one type: pyarrow.ChunkedArray, polars.Series and others."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """A capsule of a stream."""


ArrowLike: TypeAlias = ArrowArrayLike | ArrowStreamLike
Ranges: TypeAlias = tuple[Buffer, Buffer, Buffer]
"""Messages: data, begins and ends, as for `_engine.messages`. They last as long as anybody refers
to them."""

_EXPECTED = "expected an Arrow array of binary, large_binary or binary_view"
_LAYOUTS = {
    "z": lib.TVIXB_ARROW_BINARY,
    "Z": lib.TVIXB_ARROW_LARGE_BINARY,
    "vz": lib.TVIXB_ARROW_BINARY_VIEW,
}
# So many messages go to the engine in one call. Bounds the memory for their ranges to 4 MiB.
_PIECE = 1 << 18


def ranges(items: Any) -> Iterator[Ranges]:
    """All messages of an Arrow array or stream, so many at a time, without copying them.

    Raises:
        TypeError: if the elements are not binary.
        ValueError: if one of them is null, or does not lie in its buffer.
        OSError: if the stream fails.
    """
    # A stream has all chunks; an object of several may refuse to be one array.
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
    """A struct for others to fill, released when nobody refers to it any more."""
    return ffi.gc(ffi.new(struct), _release)


def _release(struct: Any) -> None:
    if struct.release:
        struct.release(struct)


def _check_stream(stream: Any, error: int) -> None:
    if error:
        text = stream.get_last_error(stream)
        found = ffi.string(text).decode(errors="replace") if text else os.strerror(error)
        raise OSError(error, f"expected the next part of an Arrow stream, found: {found}")


def _layout_of(schema: Any) -> int:
    found = ffi.string(schema.format).decode(errors="replace")
    if schema.dictionary:
        raise TypeError(f"{_EXPECTED}, found a dictionary")
    if found not in _LAYOUTS:
        what = "a struct or table, format" if found == "+s" else "format"
        raise TypeError(f"{_EXPECTED}, found {what} {found!r}")
    layout: int = _LAYOUTS[found]
    return layout


def _ranges_of_chunk(chunk: Any, owner: object, layout: int, first: int) -> Iterator[Ranges]:
    """`first` is how many messages come before the chunk, which lives as long as its owner."""
    if chunk.length < 0:
        raise ValueError(f"expected the length of an Arrow array, found {chunk.length}")
    for start in range(0, chunk.length, _PIECE):
        count = min(_PIECE, chunk.length - start)
        begins = array("Q", bytes(8 * count))
        ends = array("Q", bytes(8 * count))
        span = ffi.new("tvixb_arrow_span *")
        with ffi.from_buffer("uint64_t[]", begins) as b, ffi.from_buffer("uint64_t[]", ends) as e:
            status = lib.tvixb_arrow_ranges(chunk, layout, start, count, b, e, span)
        _check_ranges(status, first + span.bad_message)
        yield _buffer(span, owner), begins, ends


def _buffer(span: Any, owner: object) -> Buffer:
    """The bytes of a span; refers to their owner, so that a thread may use them after an error in
    another one."""
    if not span.size:
        return b""
    return ffi.buffer(ffi.gc(span.data, lambda _, owner=owner: None), span.size)


def _check_ranges(status: int, message: int) -> None:
    if status == lib.TVIXB_ARROW_NULL:
        raise ValueError(f"message {message}: expected a message, found null")
    if status == lib.TVIXB_ARROW_BAD_RANGE:
        raise ValueError(
            f"message {message}: expected a range within its Arrow buffer, found one that is not"
        )
    if status == lib.TVIXB_ARROW_BAD_ARRAY:
        raise ValueError(f"{_EXPECTED}, found one without the buffers that its type has")


def report_schema() -> Any:
    """The schema of `report_array`, as a capsule."""
    capsule, schema = _new_capsule("schema")
    _check_report(lib.tvixb_arrow_report_schema(schema))
    return capsule


def report_array(kind: MessageType, results: Results) -> tuple[Any, Any]:
    """A report as a struct array: capsules of schema and array, which hold copies."""
    capsule, report = _new_capsule("array")
    _fill(kind, results, report)
    return report_schema(), capsule


def report_stream(kind: MessageType, results: Results) -> Any:
    """A report as a stream of one struct array: a capsule, which holds copies."""
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
            "expected violations of less than 2 GiB, as fit an Arrow array, found more; check "
            "fewer messages at once"
        )


# Prototypes of their own: the attributes of ctypes.pythonapi's functions are everybody's.
_capsule_new = ctypes.PYFUNCTYPE(
    ctypes.py_object, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p
)(("PyCapsule_New", ctypes.pythonapi))
_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _address(pointer: Any) -> int:
    return int(ffi.cast("uintptr_t", pointer))


def _new_capsule(noun: str) -> tuple[Any, Any]:
    """A capsule of a new struct, and a pointer to the struct. `noun`: schema, array or stream."""
    struct = getattr(lib, f"tvixb_capsule_new_{noun}")()
    if not struct:
        raise MemoryError
    name = getattr(lib, f"tvixb_capsule_{noun}")
    free = ffi.addressof(lib, f"tvixb_capsule_free_{noun}")
    return _capsule_new(_address(struct), _address(name), _address(free)), struct


def _struct(capsule: object, struct: str, name: Any) -> Any:
    """What a capsule holds. It stays the capsule's, whose destructor releases it."""
    pointer = ffi.cast(struct, _capsule_pointer(capsule, _address(name)))
    if not pointer.release:
        raise ValueError(f"expected a {struct[7:-2]}, found one that was consumed before")
    return pointer
