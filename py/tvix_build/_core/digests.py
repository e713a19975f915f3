# SPDX-License-Identifier: MIT
"""Digests of many messages in one buffer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

from tvix_build._core import engine
from tvix_build._core.engine import DIGEST_SIZE
from tvix_build._core.names import publish
from tvix_build._core.ranges import BytesLike, bytes_like
from tvix_build._core.report import sentence, short_hex

if TYPE_CHECKING:

    class _ByteRows:
        def __buffer__(self, flags: int, /) -> memoryview: ...
else:
    _ByteRows = engine.ByteRows

_SHOWN = 3  # digests in a repr


class Digests(_ByteRows, Sequence[bytes]):
    """A read-only sequence of n digests: bytes objects of length 32, each created on access.

    It exports a buffer of the shape (n, 32) without a copy: `memoryview(digests)`,
    `numpy.asarray(digests)`. Two sequences of the same bytes are equal.
    """

    __slots__ = ("_data",)
    _data: memoryview[int]

    def __new__(cls, data: BytesLike) -> Digests:
        """Create it from digests that are back to back. The data must not change."""
        view = bytes_like(data).toreadonly()
        if view.nbytes % DIGEST_SIZE:
            raise ValueError(f"expected a multiple of {DIGEST_SIZE} bytes, found {view.nbytes}")
        if view.ndim > 1:
            view = memoryview(view.tobytes())
        self: Digests = engine.new_byte_rows(cls, view)
        self._data = view
        return self

    def __len__(self) -> int:
        return len(self._data) // DIGEST_SIZE

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        begin = DIGEST_SIZE * range(len(self))[index]
        return bytes(self._data[begin : begin + DIGEST_SIZE])

    def __iter__(self) -> Iterator[bytes]:
        data = self._data
        for begin in range(0, len(data), DIGEST_SIZE):
            yield bytes(data[begin : begin + DIGEST_SIZE])

    def __eq__(self, other: object) -> bool:
        return self._data == other._data if isinstance(other, Digests) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.tobytes())

    def __repr__(self) -> str:
        first = [short_hex(digest) for digest in self[:_SHOWN]]
        more = ["…"] if len(self) > _SHOWN else []
        return f"<{sentence(f'Digests: {len(self)}', ', '.join(first + more))}>"

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return type(self), (self.tobytes(),)

    def tobytes(self) -> bytes:
        """Return all digests, back to back."""
        return self._data.tobytes()


publish("tvix_build", Digests)
