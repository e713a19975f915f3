# SPDX-License-Identifier: MIT
"""Checks many messages with as few calls of the engine as possible."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from google.protobuf.message import Message

from tvix_build import _engine
from tvix_build._engine import DIGEST_SIZE, Results, Verdict, ViolationsOf
from tvix_build._report import Kind, Report, refusal

if TYPE_CHECKING:
    from tvix_build._arrow import ArrowLike

BytesLike: TypeAlias = bytes | bytearray | memoryview
"""A contiguous buffer of bytes."""
Offsets: TypeAlias = Any
"""Unsigned integers: a buffer of 64-bit ones (array("Q"), NumPy's uint64) is used as it is, a
sequence copied."""

# Messages are joined to pieces of about this many bytes, so that a piece is in the cache when the
# engine reads it.
_JOINED_SIZE = 256 * 1024

_KIND_BY_NAME = {kind.full_name: kind for kind in Kind}
_VALID = bytes(verdict <= Verdict.VALID for verdict in Verdict)
_CANONICAL = bytes(verdict == Verdict.CANONICAL for verdict in Verdict)
_HAS_DIGEST = frozenset({Verdict.CANONICAL, Verdict.VALID, Verdict.UNSORTED})


def kind_of(item: object, kind: Kind | str | None) -> Kind:
    """The kind of a message or of bytes, checked against what the caller says.

    Raises:
        TypeError: if the item is neither a message of a known kind nor bytes-like, or a message of
            another kind.
        ValueError: if there is no such kind.
    """
    wanted = None if kind is None else Kind(kind)
    if isinstance(item, Message):
        name = item.DESCRIPTOR.full_name
        found = _KIND_BY_NAME.get(name)
        if found is None or wanted not in (None, found):
            expected = wanted.full_name if wanted else "one of " + ", ".join(_KIND_BY_NAME)
            raise TypeError(f"expected {expected}, found a message {name}")
        return found
    if isinstance(item, (bytes, bytearray, memoryview)):
        return wanted or Kind.BUILD_REQUEST
    raise TypeError(f"expected a message or bytes, found {type(item).__name__}")


def serialized(item: BytesLike | Message) -> BytesLike:
    """The bytes of an item."""
    return item.SerializeToString(deterministic=True) if isinstance(item, Message) else item


class BatchReport:
    """Reports on n messages, in order, like a list. They are made when asked for; the buffers hold
    no object a message.

    Also an Arrow table (PyCapsule interface) of the columns `valid`, `canonical`, `digest` (null
    where there is none) and `violations`: `pyarrow.table(report)`.
    """

    # Not a collections.abc.Sequence: polars takes those apart into objects, Arrow or not.

    def __init__(self, kind: Kind, results: Results) -> None:
        self._kind = kind
        self._results = results
        self._invalid: array[int] | None = None

    def __len__(self) -> int:
        return len(self._results.verdicts)

    @overload
    def __getitem__(self, index: int) -> Report: ...
    @overload
    def __getitem__(self, index: slice) -> list[Report]: ...
    def __getitem__(self, index: int | slice) -> Report | list[Report]:
        if isinstance(index, slice):
            return [self._report(i) for i in range(*index.indices(len(self)))]
        return self._report(range(len(self))[index])

    def __iter__(self) -> Iterator[Report]:
        return map(self._report, range(len(self)))

    def __repr__(self) -> str:
        return f"<BatchReport: {self.valid_count} of {len(self)} {self._kind.value} valid>"

    def _report(self, i: int) -> Report:
        verdict = self._results.verdicts[i]
        digest = None
        if verdict in _HAS_DIGEST:
            digest = bytes(self._results.digests[i * DIGEST_SIZE : (i + 1) * DIGEST_SIZE])
        if verdict <= Verdict.VALID:
            return Report(True, verdict == Verdict.CANONICAL, digest, (), 0)
        rows = self._results.by_message
        row = rows[bisect_left(rows, i, key=_message_of)]
        violations = _engine.describe(self._kind, self._results.violations, row.first, row.kept)
        return Report(False, False, digest, violations, row.total)

    @property
    def valid(self) -> memoryview[bool]:
        """n bools (format "?"): which messages are valid."""
        return memoryview(self._results.verdicts.translate(_table(_VALID))).cast("?")

    @property
    def canonical(self) -> memoryview[bool]:
        """n bools (format "?"): which messages are valid and encoded canonically."""
        return memoryview(self._results.verdicts.translate(_table(_CANONICAL))).cast("?")

    @property
    def digests(self) -> memoryview[int]:
        """n x 32 bytes, read-only; zeros where a message has no digest."""
        view = memoryview(self._results.digests).toreadonly()
        return view.cast("B", (len(self), DIGEST_SIZE)) if len(self) else view

    @property
    def invalid(self) -> Sequence[int]:
        """The indices of the messages that are not valid, ascending."""
        if self._invalid is None:
            self._invalid = array("Q", map(_message_of, self._results.by_message))
        return self._invalid

    @property
    def valid_count(self) -> int:
        """How many messages are valid."""
        return len(self) - len(self._results.by_message)

    @property
    def canonical_count(self) -> int:
        """How many messages are valid and encoded canonically."""
        return self._results.verdicts.count(Verdict.CANONICAL)

    def __arrow_c_schema__(self) -> Any:
        from tvix_build import _arrow

        return _arrow.report_schema()

    def __arrow_c_array__(self, requested_schema: Any = None) -> tuple[Any, Any]:
        # A requested schema is a wish; consumers cast.
        from tvix_build import _arrow

        return _arrow.report_array(self._kind, self._results)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        from tvix_build import _arrow

        return _arrow.report_stream(self._kind, self._results)


class CanonicalBatch(Sequence[bytes]):
    """The canonical encodings of n messages, in order, each made when asked for.

    Attributes:
        data: all of them, back to back.
        offsets: n + 1 offsets in `data`, in bytes.
    """

    def __init__(self, results: Results) -> None:
        self.data = results.encoded
        self.offsets = results.offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        return self.data[self.offsets[i] : self.offsets[i + 1]]


def check_batch(
    items: Iterable[BytesLike | Message] | BytesLike | ArrowLike,
    kind: Kind | str | None = None,
    offsets: Offsets | tuple[Offsets, Offsets] | None = None,
) -> BatchReport:
    """Check many messages of one kind.

    Args:
        items: bytes-like objects or messages; an Arrow array or stream (PyCapsule interface) of
            binary, large_binary or binary_view, which is not copied; or, with `offsets`, one buffer
            that holds all of them.
        kind: the messages' kind; inferred from the first one if that is a message, else a
            BuildRequest.
        offsets: n + 1 ascending offsets in bytes, message i being `items[offsets[i]:offsets[i +
            1]]`; or a tuple `(begins, ends)` of n each, message i being `items[begins[i]:ends[i]]`.

    Returns:
        A report on each, in order. A bad message stops nothing.

    Raises:
        TypeError: if an item is neither bytes-like nor a message of the kind.
        ValueError: if there is no such kind, an Arrow array has a null, or offsets do not lie
            within the buffer.
    """
    kind, results = _run(_engine.check, items, kind, offsets)
    return BatchReport(kind, results)


def canonicalize_batch(
    items: Iterable[BytesLike | Message] | BytesLike | ArrowLike,
    kind: Kind | str | None = None,
    offsets: Offsets | tuple[Offsets, Offsets] | None = None,
) -> CanonicalBatch:
    """The canonical encodings of many messages of one kind. Arguments as for `check_batch`.

    Raises:
        InvalidMessage: for the first message that has none; its `index` says which.
        TypeError, ValueError: as `check_batch`.
    """
    kind, results = _run(_engine.canonicalize, items, kind, offsets)
    reports = BatchReport(kind, results)
    for i in reports.invalid:
        if results.verdicts[i] != Verdict.UNSORTED:
            raise refusal(reports[i], i)
    return CanonicalBatch(results)


def _message_of(row: ViolationsOf) -> int:
    return row.message


def _table(flags: bytes) -> bytes:
    return flags.ljust(256, b"\0")


def _run(
    function: Any,
    items: Iterable[BytesLike | Message] | BytesLike | ArrowLike,
    kind: Kind | str | None,
    offsets: Offsets | tuple[Offsets, Offsets] | None,
) -> tuple[Kind, Results]:
    if offsets is not None:
        kind = kind_of(items, kind)
        return kind, function(kind, items, *_ranges(offsets))
    if isinstance(items, (bytes, bytearray, memoryview, Message)):
        raise TypeError("expected several messages, or a buffer and offsets; found one message")
    joined = _Joined(function, kind)
    if hasattr(items, "__arrow_c_stream__") or hasattr(items, "__arrow_c_array__"):
        from tvix_build import _arrow

        _arrow.for_each_piece(items, joined.add_ranges)
        return joined.finish()
    for item in items:
        joined.add(item)
    return joined.finish()


def _ranges(offsets: Offsets | tuple[Offsets, Offsets]) -> tuple[Any, Any]:
    """Begins and ends as buffers of unsigned 64-bit integers."""
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


class _Joined:
    """Joins items to pieces, runs the engine on each, and joins the results."""

    def __init__(self, function: Any, kind: Kind | str | None) -> None:
        self._function = function
        self._kind = None if kind is None else Kind(kind)
        self._pieces: list[BytesLike] = []
        self._offsets = array("Q", [0])
        self._verdicts = bytearray()
        self._digests = bytearray()
        self._by_message: list[ViolationsOf] = []
        self._violations: list[bytes] = []
        self._violation_count = 0
        self._encoded: list[bytes] = []
        self._encoded_offsets = array("Q", [0])

    def add(self, item: BytesLike | Message) -> None:
        """Add the next item."""
        kind = kind_of(item, self._kind)
        self._kind = kind
        piece = serialized(item)
        size = piece.nbytes if isinstance(piece, memoryview) else len(piece)
        self._pieces.append(piece)
        self._offsets.append(self._offsets[-1] + size)
        if self._offsets[-1] >= _JOINED_SIZE:
            self._flush(kind)

    def add_ranges(self, data: Any, begins: Any, ends: Any) -> None:
        """Add the messages `data[begins[i]:ends[i]]`, as they lie there."""
        self._kind = self._kind or Kind.BUILD_REQUEST
        self._append(self._function(self._kind, data, begins, ends))

    def finish(self) -> tuple[Kind, Results]:
        """The results of all items, and their kind."""
        kind = self._kind or Kind.BUILD_REQUEST
        self._flush(kind)
        return kind, Results(
            self._verdicts,
            self._digests,
            self._by_message,
            b"".join(self._violations),
            b"".join(self._encoded),
            self._encoded_offsets,
        )

    def _flush(self, kind: Kind) -> None:
        view = memoryview(self._offsets)
        self._append(self._function(kind, b"".join(self._pieces), view[:-1], view[1:]))
        view.release()
        self._pieces.clear()
        self._offsets = array("Q", [0])

    def _append(self, results: Results) -> None:
        base = len(self._verdicts)
        self._verdicts += results.verdicts
        self._digests += results.digests
        for row in results.by_message:
            first = self._violation_count + row.first
            self._by_message.append(ViolationsOf(base + row.message, first, row.kept, row.total))
        self._violations.append(results.violations)
        self._violation_count += sum(row.kept for row in results.by_message)
        start = self._encoded_offsets[-1]
        self._encoded.append(results.encoded)
        self._encoded_offsets.extend(start + offset for offset in results.offsets[1:])
