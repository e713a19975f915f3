# SPDX-License-Identifier: MIT
"""Checks many messages with few calls of the engine."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NoReturn, overload

from google.protobuf.message import Message

from tvix_build._core import engine
from tvix_build._core.digests import Digests
from tvix_build._core.engine import (
    DIGEST_SIZE,
    Encodings,
    Found,
    Messages,
    Results,
    Verdict,
)
from tvix_build._core.names import publish
from tvix_build._core.pieces import Batch
from tvix_build._core.ranges import (
    BytesLike,
    Offsets,
    bytes_like,
    count_of,
    is_one_buffer,
    messages_of,
)
from tvix_build._core.report import (
    TYPES,
    Kind,
    KindLike,
    MessageType,
    Report,
    Schema,
    SchemaLike,
    message_type,
    refusal,
    summary,
)
from tvix_build._version import __version__

if TYPE_CHECKING:
    from tvix_build._core.arrow import ArrowLike

_TYPE_BY_NAME = {
    found.full_name: found for found in TYPES if found.schema != Schema.TVIX_BUILD_V1_2024
}
# The types of classes that have been seen, as message descriptors are slow. A process that creates
# many classes of a message does not keep all of them.
_TYPE_BY_CLASS: dict[type, MessageType] = {bytes: message_type()}
_CLASS_LIMIT = 64
# For bytes.translate: verdicts to bools.
_VALID = bytes(verdict <= Verdict.VALID for verdict in range(256))
_CANONICAL = bytes(verdict == Verdict.CANONICAL for verdict in range(256))


def type_of(item: object, kind: KindLike | None, schema: SchemaLike | None) -> MessageType:
    """Return the type of a message or of bytes.

    Raises:
        TypeError: if the item is neither a message of a known type nor bytes-like, or is a message
            of another kind or schema than the given ones.
        ValueError: if the kind or the schema is unknown.
    """
    if kind is None and schema is None:
        known_type = _TYPE_BY_CLASS.get(type(item))
        if known_type:
            return known_type
    kind = None if kind is None else Kind(kind)
    schema = None if schema is None else Schema(schema)
    if isinstance(item, Message):
        name = item.DESCRIPTOR.full_name
        found = _TYPE_BY_NAME.get(name)
        if found is None:
            known = ", ".join(_TYPE_BY_NAME)
            raise TypeError(f"expected one of {known}, found a message {name}")
        # tvix.build.v1@2024 has the same Directory as tvix.build.v1.
        wanted = message_type(kind or found.kind, schema or found.schema)
        if wanted.full_name != name:
            has_module = wanted.full_name in _TYPE_BY_NAME
            suffix = "" if has_module else " as bytes, as the schema has no Python module"
            raise TypeError(f"expected {wanted}{suffix}, found a message {name}")
        if wanted is found and len(_TYPE_BY_CLASS) < _CLASS_LIMIT:
            _TYPE_BY_CLASS[type(item)] = found
        return wanted
    if type(item) is not bytes:
        bytes_like(item, "a message or a bytes-like object")
    return message_type(kind, schema)


def serialized(item: BytesLike | Message) -> bytes | memoryview:
    """Return the bytes of an item that `type_of` accepts. A bytes-like object is not copied."""
    if type(item) is bytes:
        return item
    if isinstance(item, Message):
        return item.SerializeToString()  # The messages have no maps, so this is deterministic.
    return bytes_like(item)


def report_of(
    kind: MessageType,
    verdict: int,
    digest: bytes,
    found: Found | Results | None,
    message: int = 0,
) -> Report:
    """Return the report on message `message` of the results of the engine."""
    if verdict <= Verdict.VALID:
        return Report(True, verdict == Verdict.CANONICAL, digest, (), 0)
    assert found
    row = 4 * bisect_left(memoryview(found.by_message)[::4], message)
    _, first, kept, total = found.by_message[row : row + 4]
    violations = engine.describe(kind, found.violations, first, kept)
    return Report(False, False, digest if verdict == Verdict.UNSORTED else None, violations, total)


class BatchReport:
    """The reports on n messages, in order, like a list. Each report is created on access.

    It is also an Arrow table (PyCapsule interface) with the columns `valid`, `canonical`, `digest`
    (null for a message without a digest) and `violations`: `pyarrow.table(report)`.
    """

    # Not a collections.abc.Sequence, which polars converts to objects instead of using Arrow.

    def __init__(self, kind: MessageType, results: Results) -> None:
        self._kind = kind
        self._results = results

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

    def __bool__(self) -> NoReturn:
        """Raise TypeError: `if check_batch(messages)` could mean that there are messages or that
        all are valid.

        Raises:
            TypeError: always.
        """
        raise TypeError("a BatchReport has no truth value; use all(report.valid) or len(report)")

    def __repr__(self) -> str:
        return f"<BatchReport: {self.valid_count} of {len(self)} valid, kind {self._kind.kind}>"

    def _repr_html_(self) -> str:
        from tvix_build._core.html import table

        rows = ((str(i), summary(self[i])) for i in self.invalid)
        return table(repr(self)[1:-1], "", ("index", "violation"), rows, len(self.invalid))

    def _report(self, i: int) -> Report:
        results = self._results
        digest = bytes(results.digests[i * DIGEST_SIZE : (i + 1) * DIGEST_SIZE])
        return report_of(self._kind, results.verdicts[i], digest, results, i)

    def __reduce__(self) -> tuple[Callable[..., BatchReport], tuple[Any, ...]]:
        verdicts, digests, by_message, violations = self._results
        results = bytes(verdicts), bytes(digests), by_message, violations
        return _batch_report, (__version__, self._kind.kind, self._kind.schema, *results)

    @cached_property
    def valid(self) -> memoryview[bool]:
        """Whether each message is valid: n bools (format "?"), read-only."""
        return memoryview(bytes(self._results.verdicts.translate(_VALID))).cast("?")

    @cached_property
    def canonical(self) -> memoryview[bool]:
        """Whether each message is valid and canonical: n bools (format "?"), read-only."""
        return memoryview(bytes(self._results.verdicts.translate(_CANONICAL))).cast("?")

    @cached_property
    def digests(self) -> Digests:
        """The digests of the messages, 32 bytes each, read-only; zeros for no digest."""
        return Digests(self._results.digests)

    @property
    def invalid(self) -> Sequence[int]:
        """The indices of the invalid messages, ascending."""
        return memoryview(self._results.by_message)[::4]

    @property
    def valid_count(self) -> int:
        """The number of valid messages."""
        return len(self) - len(self.invalid)

    @property
    def canonical_count(self) -> int:
        """The number of messages that are valid and canonical."""
        return self._results.verdicts.count(Verdict.CANONICAL)

    def __arrow_c_schema__(self) -> Any:
        from tvix_build._core import arrow

        return arrow.report_schema()

    def __arrow_c_array__(self, requested_schema: Any = None) -> tuple[Any, Any]:
        # A requested schema may be ignored; consumers cast.
        from tvix_build._core import arrow

        return arrow.report_array(self._kind, self._results)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        from tvix_build._core import arrow

        return arrow.report_stream(self._kind, self._results)


def _batch_report(
    version: str,
    kind: Kind,
    schema: Schema,
    verdicts: bytes,
    digests: bytes,
    by_message: array[int],
    violations: bytes,
) -> BatchReport:
    """Unpickle a report. The violations are internal records of one version of the engine."""
    if version != __version__:
        raise ValueError(
            f"expected a report pickled by tvix_build {__version__}, found version {version}"
        )
    results = Results(bytearray(verdicts), memoryview(digests), by_message, violations)
    return BatchReport(message_type(kind, schema), results)


class CanonicalBatch(Sequence[bytes]):
    """The canonical encodings of n messages, in order. Each bytes object is created on access.

    Attributes:
        data: all encodings, back to back, read-only.
        offsets: n + 1 offsets in `data`, in bytes.
    """

    def __init__(self, data: memoryview[int], offsets: array[int]) -> None:
        self.data: memoryview[int] = data
        self.offsets: array[int] = offsets

    def __repr__(self) -> str:
        return f"<CanonicalBatch: {len(self)} messages, {len(self.data)} bytes>"

    def __reduce__(self) -> tuple[Callable[..., CanonicalBatch], tuple[Any, ...]]:
        return _canonical_batch, (bytes(self.data), self.offsets)

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
        return bytes(self.data[self.offsets[i] : self.offsets[i + 1]])


def _canonical_batch(data: bytes, offsets: array[int]) -> CanonicalBatch:
    return CanonicalBatch(memoryview(data), offsets)


def check_batch(
    messages: Iterable[BytesLike | Message] | BytesLike | ArrowLike,
    *,
    kind: KindLike | None = None,
    schema: SchemaLike | None = None,
    offsets: Offsets | tuple[Offsets, Offsets] | None = None,
    threads: int | None = None,
) -> BatchReport:
    """Check many messages of one kind, and return their reports.

    Args:
        messages: bytes-like objects or protobuf messages; an Arrow array or stream (PyCapsule
            interface) of binary, large_binary, binary_view, or an extension type or a dictionary of
            these; or, with `offsets`, one buffer with all messages. Bytes objects, buffers and
            Arrow arrays are not copied.
        kind: the kind of the messages; by default, the kind of the first item if it is a protobuf
            message, otherwise a BuildRequest.
        offsets: n + 1 ascending offsets in bytes, where message i is
            `messages[offsets[i]:offsets[i + 1]]`; or a tuple `(begins, ends)` of n offsets each,
            where message i is `messages[begins[i]:ends[i]]`.
        threads: the number of threads, at least 1; by default the number of CPUs that this process
            may use. The results do not depend on it.
        schema: the schema of the messages; by default, the schema of the first item if it is a
            protobuf message, otherwise tvix.build.v1.

    Returns:
        The reports, in order, including those of invalid messages.

    Raises:
        TypeError: if an item is neither bytes-like nor a message of the kind and the schema.
        ValueError: if the kind or the schema is unknown, an Arrow array has a null, or an offset is
            outside of the buffer.
    """
    found, batch = _run(messages, kind, schema, offsets, threads, keep=False)
    return BatchReport(found, batch.results())


def canonicalize_batch(
    messages: Iterable[BytesLike | Message] | BytesLike | ArrowLike,
    *,
    kind: KindLike | None = None,
    schema: SchemaLike | None = None,
    offsets: Offsets | tuple[Offsets, Offsets] | None = None,
    threads: int | None = None,
) -> CanonicalBatch:
    """Return the canonical encodings of many messages of one kind. Arguments as for `check_batch`.

    Raises:
        ValidationError: for the first message without a canonical encoding; `index` is its index.
        TypeError, ValueError: as `check_batch`.
    """
    found, batch = _run(messages, kind, schema, offsets, threads, keep=True)
    results = batch.results()
    reports = BatchReport(found, results)
    for i in reports.invalid:
        if results.verdicts[i] != Verdict.UNSORTED:
            raise refusal(reports[i], i)
    return CanonicalBatch(*batch.encodings())


def _run(
    items: Iterable[BytesLike | Message] | BytesLike | ArrowLike,
    kind: KindLike | None,
    schema: SchemaLike | None,
    offsets: Offsets | tuple[Offsets, Offsets] | None,
    threads: int | None,
    keep: bool,
) -> tuple[MessageType, Batch]:
    convert = _Converter(kind, schema)
    pieces: Iterable[Messages]
    encodings = Encodings() if keep else None
    if offsets is not None:
        convert.found = type_of(items, kind, schema)
        whole = messages_of(items, offsets)
        count, pieces = whole.number, engine.pieces_of(whole)
        encodings = Encodings(engine.size_of(convert.found, whole)) if keep else None
    elif isinstance(items, Message) or is_one_buffer(items):
        raise TypeError("expected a list of messages, or a buffer with offsets=, found one message")
    elif hasattr(items, "__arrow_c_stream__") or hasattr(items, "__arrow_c_array__"):
        count, pieces = count_of(items), _pieces_of_arrow(items)
    else:
        count, pieces = count_of(items), engine.pieces_of_items(items, convert)
    with Batch(threads, count, encodings) as batch:
        for piece in pieces:
            found = convert.type  # The first piece determines the type.
            batch.add(partial(engine.run, found), piece, found)
    return convert.type, batch


class _Converter:
    """Converts items to bytes, and determines the common type of all items."""

    def __init__(self, kind: KindLike | None, schema: SchemaLike | None) -> None:
        self._given = (
            None if kind is None else Kind(kind),
            None if schema is None else Schema(schema),
        )
        self.found: MessageType | None = None

    @property
    def type(self) -> MessageType:
        """The type of the items."""
        return self.found or message_type(*self._given)

    def __call__(self, item: BytesLike | Message, index: int) -> bytes:
        if index and not self.found:
            self.found = self.type  # The first item was bytes.
        kind, schema = (self.found.kind, self.found.schema) if self.found else self._given
        try:
            self.found = type_of(item, kind, schema)
        except TypeError as error:
            raise TypeError(f"message {index}: {error}") from None
        return bytes(serialized(item))


def _pieces_of_arrow(items: Any) -> Iterator[Messages]:
    from tvix_build._core import arrow

    for ranges in arrow.ranges(items):
        yield from engine.pieces_of(engine.messages(*ranges))


publish("tvix_build", BatchReport, CanonicalBatch, canonicalize_batch, check_batch)
