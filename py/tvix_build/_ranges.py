# SPDX-License-Identifier: MIT
"""Many pieces of memory: separate ones, or ranges of one buffer."""

from __future__ import annotations

from array import array
from typing import Any, TypeAlias

from tvix_build import _engine
from tvix_build._engine import Messages

BytesLike: TypeAlias = bytes | bytearray | memoryview
"""A contiguous buffer of bytes."""
Offsets: TypeAlias = Any
"""Unsigned integers: a buffer of 64-bit ones (array("Q"), NumPy's uint64) is used as it is, a
sequence copied."""


def messages_of(data: Any, offsets: Offsets | tuple[Offsets, Offsets]) -> Messages:
    """The messages in a buffer that n + 1 offsets say, or a pair of n begins and n ends.

    Raises:
        ValueError: if the offsets are of another type, or there are none.
    """
    if isinstance(offsets, tuple) and len(offsets) == 2 and not isinstance(offsets[0], int):
        return _engine.messages(data, _integers(offsets[0]), _integers(offsets[1]))
    return _engine.messages(data, _integers(offsets))


def _integers(numbers: Offsets) -> Any:
    try:
        view = memoryview(numbers)
    except TypeError:
        try:
            return array("Q", numbers)
        except OverflowError as error:
            raise ValueError(
                f"expected offsets as unsigned 64-bit integers, found another one: {error}"
            ) from None
    if view.format not in ("Q", "L", "N") or view.itemsize != 8 or not view.contiguous:
        raise ValueError(
            "expected offsets as unsigned 64-bit integers, back to back, found a buffer of format "
            f"{view.format!r} with items of {view.itemsize} bytes"
        )
    return numbers


def count_of(items: Any) -> int:
    """How many items there will be, unless somebody changes them meanwhile; 0 if that is
    unknown."""
    return len(items) if hasattr(items, "__len__") else 0
