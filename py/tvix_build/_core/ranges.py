# SPDX-License-Identifier: MIT
"""Accepts buffers as arguments: separate ones, or ranges of one buffer."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, TypeAlias

from tvix_build._core import engine
from tvix_build._core.engine import Messages

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

BytesLike: TypeAlias = "ReadableBuffer"
"""A C-contiguous buffer of bytes, such as bytes, bytearray, memoryview, array("B"), mmap or a NumPy
array of uint8."""
Offsets: TypeAlias = Any
"""Unsigned integers. A buffer of 64-bit integers (array("Q"), a NumPy array of uint64) is not
copied if it is aligned to 8 bytes. A sequence is copied."""


def bytes_view(x: object) -> memoryview | None:
    """Return the memory of a bytes-like object; None for any other object.

    A buffer without dimensions is a number and not bytes-like.
    """
    try:
        view = memoryview(x)  # type: ignore[arg-type]
    except (TypeError, BufferError):
        return None
    of_bytes = view.itemsize == 1 and view.format.lstrip("@=<>!") in ("B", "b", "c")
    return view if of_bytes and view.c_contiguous and view.ndim else None


def bytes_like(x: object, expected: str = "a bytes-like object") -> memoryview:
    """Return the memory of a bytes-like object.

    Raises:
        TypeError: if the object is not bytes-like.
    """
    view = bytes_view(x)
    if view is not None:
        return view
    found = type(x).__name__
    try:
        view = memoryview(x)  # type: ignore[arg-type]
    except (TypeError, BufferError):
        raise TypeError(f"expected {expected}, found {found}") from None
    layout = "" if view.c_contiguous else " that is not C-contiguous"
    raise TypeError(
        f"expected {expected} (a C-contiguous buffer of bytes), found {found}: a buffer of format "
        f"{view.format!r} with {view.ndim} dimension{'s' if view.ndim != 1 else ''}{layout}"
    )


def bytes_of(x: object, expected: str = "a bytes-like object") -> bytes:
    """Return a bytes object itself, or a copy of a bytes-like object. Raises as `bytes_like`."""
    return x if type(x) is bytes else bytes(bytes_like(x, expected))


def is_one_buffer(x: object) -> bool:
    """Return whether an object is one bytes-like object. A matrix is several: its rows."""
    view = bytes_view(x)
    return view is not None and view.ndim == 1


def messages_of(data: Any, offsets: Offsets | tuple[Offsets, Offsets]) -> Messages:
    """Return the messages in a buffer. `offsets` are n + 1 offsets, or a pair of n begins and n
    ends.

    Raises:
        TypeError: if the buffer is not bytes-like.
        ValueError: if the offsets have another type, or there are none.
    """
    data = bytes_like(data)
    if isinstance(offsets, tuple) and len(offsets) == 2 and not isinstance(offsets[0], int):
        return engine.messages(data, _integers(offsets[0]), _integers(offsets[1]))
    return engine.messages(data, _integers(offsets))


def _integers(numbers: Offsets) -> Any:
    try:
        view = memoryview(numbers)
    except TypeError:
        try:
            return array("Q", numbers)
        except OverflowError as error:
            raise ValueError(
                f"expected offsets as unsigned 64-bit integers, found another value: {error}"
            ) from None
    if view.format not in ("Q", "L", "N") or view.itemsize != 8 or not view.contiguous:
        raise ValueError(
            "expected offsets as unsigned 64-bit integers, back to back, found a buffer of format "
            f"{view.format!r} with items of {view.itemsize} bytes"
        )
    return numbers


def count_of(items: Any) -> int:
    """Return the number of items, which may change later; 0 if it is unknown."""
    return len(items) if hasattr(items, "__len__") else 0
