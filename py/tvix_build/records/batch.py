# SPDX-License-Identifier: MIT
"""The type of a batch of records."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from tvix_build._core.batch import BatchReport, CanonicalBatch, canonicalize_batch, check_batch
from tvix_build._core.report import Kind, MessageType, Report, Schema, Violation, ViolationCode
from tvix_build.records.source import Source

BATCH_RECORDS = 1 << 11  # so few that all their violations fit in memory
UNPARSED = b"\xff"  # malformed in every type

if TYPE_CHECKING:
    Integers: TypeAlias = array[int]
else:  # Annotations are evaluated, and Python 3.11 has no array[int].
    Integers = array


@dataclass(eq=False)
class Batch:
    """Successive records of one file: record i is `buffer[begins[i]:ends[i]]`.

    `len(batch)` is the number of records, and iterating yields the records as bytes. A batch is
    valid while it is referenced.

    Attributes:
        buffer: the memory with the records.
        begins, ends: the offsets of the records in the buffer, in bytes.
        first: the index of record 0 in the file.
        consumed: the bytes of the file that have been read so far.
        unpacked: the bytes of the uncompressed file before the batch; in a table, the bytes of all
            messages so far.
        reasons: why a text or a null cannot be parsed, by i. Such a record is a malformed message.
    """

    _source: Source
    _type: MessageType
    buffer: memoryview
    begins: Integers
    ends: Integers
    first: int
    consumed: int = 0
    unpacked: int = 0
    reasons: dict[int, str] = field(default_factory=dict)
    _base: int | None = 0
    """The offset of the buffer in the uncompressed file; None in a table."""
    _offsets: list[int] | None = None
    """The offset of each record, if the buffer is not a part of the file."""

    def __len__(self) -> int:
        return len(self.begins)

    def __iter__(self) -> Iterator[bytes]:
        return (self.record(i) for i in range(len(self)))

    def __repr__(self) -> str:
        return f"<{len(self)} records of {self._source.path}, the first is {self.first}>"

    @property
    def path(self) -> str:
        """The path of the file; `-` for standard input."""
        return self._source.path

    @property
    def kind(self) -> Kind:
        """The kind of the records."""
        return self._type.kind

    @property
    def schema(self) -> Schema:
        """The schema of the records."""
        return self._type.schema

    def record(self, i: int) -> bytes:
        """Return the bytes of record i."""
        return bytes(self.buffer[self.begins[i] : self.ends[i]])

    def name(self, i: int) -> str:
        """Return the name of record i: FILE[INDEX], or FILE if the format holds one record."""
        return self._source.record_name(self.first + i)

    def offset(self, i: int) -> int | None:
        """Return the offset of record i in the uncompressed file, including its length prefix, in
        bytes; None in a table.
        """
        if self._offsets is not None:
            return self._offsets[i]
        return None if self._base is None else self._base + (self.ends[i - 1] if i else 0)

    def place(self, i: int) -> str:
        """Return the place of record i as text: its name and its offset in the uncompressed
        file."""
        return self._source.place(self.first + i, self.offset(i))

    def check(self, *, threads: int | None = None) -> BatchReport:
        """Check all records, as `tvix_build.check_batch`."""
        return check_batch(
            self.buffer,
            kind=self.kind,
            schema=self.schema,
            offsets=(self.begins, self.ends),
            threads=threads,
        )

    def canonicalize(self, *, threads: int | None = None) -> CanonicalBatch:
        """Return the canonical encodings of all records, as `tvix_build.canonicalize_batch`.

        Raises:
            ValidationError: for the first record without a canonical encoding; `index` is its
                index.
        """
        return canonicalize_batch(
            self.buffer,
            kind=self.kind,
            schema=self.schema,
            offsets=(self.begins, self.ends),
            threads=threads,
        )

    def report(self, i: int, report: Report) -> Report:
        """Return the report of record i, for which `check` returned `report`. If the record is a
        text or a null that cannot be parsed, the violation is the reason.
        """
        if i not in self.reasons:
            return report
        violation = Violation(ViolationCode.MALFORMED, "", self.reasons[i])
        return Report(False, False, None, (violation,), 1)

    def only(self, i: int) -> Batch:
        """Return a batch with only record i."""
        here = slice(i, i + 1)
        offset = self.offset(i)
        return replace(
            self,
            begins=self.begins[here],
            ends=self.ends[here],
            first=self.first + i,
            reasons={0: self.reasons[i]} if i in self.reasons else {},
            _base=None,
            _offsets=None if offset is None else [offset],
        )
