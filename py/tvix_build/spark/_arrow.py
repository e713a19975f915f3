# SPDX-License-Identifier: MIT
"""Maps Arrow batches to Arrow batches in Spark tasks. Imported by the executors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tvix_build._core.batch import BatchReport, check_batch
from tvix_build._core.blake3 import blake3_many
from tvix_build._core.digests import Digests
from tvix_build._core.engine import DIGEST_SIZE, VIOLATION_LIMIT
from tvix_build._core.report import NULL, Kind, Schema, ViolationCode

# Rows per batch, so few that all their violations fit in memory and in an Arrow array.
_ROWS = 1 << 11


def results(batches: Iterator[Any], place: int, kind: Kind, schema: Schema) -> Iterator[Any]:
    """Yield the batches with the results instead of the column of messages."""
    for batch in _pieces(batches):
        kept = [column for i, column in enumerate(batch.columns) if i != place]
        names = [name for i, name in enumerate(batch.schema.names) if i != place]
        found = _results(batch.column(place), kind, schema)
        yield pa.RecordBatch.from_arrays(kept + found.columns, names + found.schema.names)


def names(batches: Iterator[Any], kind: Kind, schema: Schema) -> Iterator[Any]:
    """Yield the digest and the BLAKE3 hash of each message in batches of one column."""
    for batch in _pieces(batches):
        messages = batch.column(0)
        present = messages.drop_null()
        found = pa.record_batch(_reports(present, kind, schema))
        digests = found.column("digest").cast(pa.binary())
        odd = pc.invert(found.column("canonical"))
        others = [message.as_buffer() for message in present.filter(odd)]
        hashes = blake3_many(others, threads=1)
        encodings = pc.replace_with_mask(digests, odd, _rows(hashes, len(others)))
        pairs = pa.RecordBatch.from_arrays([digests, encodings], ["digest", "encoding"])
        yield _with_nulls(messages, pairs, {"digest": None, "encoding": None})


def _pieces(batches: Iterator[Any]) -> Iterator[Any]:
    for batch in batches:
        for begin in range(0, max(len(batch), 1), _ROWS):
            yield batch.slice(begin, _ROWS)


def _reports(messages: Any, kind: Kind, schema: Schema) -> BatchReport:
    """Check an array without nulls in one thread, because Spark runs one task per CPU."""
    return check_batch(messages, kind=kind, threads=1, schema=schema)


def _results(messages: Any, kind: Kind, schema: Schema) -> Any:
    reports = _reports(messages.drop_null(), kind, schema)
    found = pa.record_batch(reports)
    columns = {name: found.column(name) for name in found.schema.names}
    columns["digest"] = columns["digest"].cast(pa.binary())  # Spark has no fixed_size_binary.
    columns["violation_count"] = _counts(reports, columns["violations"])
    null = {"code": ViolationCode.MALFORMED.value, "path": "", "message": NULL}
    row = {
        "valid": False,
        "canonical": False,
        "digest": None,
        "violations": [null],
        "violation_count": 1,
    }
    made = pa.RecordBatch.from_arrays(list(columns.values()), list(columns))
    return _with_nulls(messages, made, row)


def _counts(reports: BatchReport, violations: Any) -> Any:
    """Return the total numbers of violations. Only a full list may be incomplete."""
    counts = pc.list_value_length(violations).cast(pa.int64())
    full = pc.equal(counts, VIOLATION_LIMIT)
    totals = [reports[i].violation_count for i in pc.indices_nonzero(full).to_pylist()]
    return pc.replace_with_mask(counts, full, pa.array(totals, pa.int64())) if totals else counts


def _with_nulls(messages: Any, rows: Any, null: dict[str, Any]) -> Any:
    """Return the rows of the messages that are not null, and the row `null` for the others."""
    if not messages.null_count:
        return rows
    there = messages.is_valid()
    places = pc.subtract(pc.cumulative_sum(there.cast(pa.int64())), 1)
    last = pa.Table.from_pylist([null], rows.schema)
    both = pa.concat_tables([pa.Table.from_batches([rows]), last]).combine_chunks()
    return both.take(pc.if_else(there, places, len(rows))).combine_chunks().to_batches()[0]


def _rows(hashes: Digests, count: int) -> Any:
    """Return n x 32 bytes as an array."""
    buffers = [None, pa.py_buffer(hashes)]
    return pa.Array.from_buffers(pa.binary(DIGEST_SIZE), count, buffers).cast(pa.binary())
