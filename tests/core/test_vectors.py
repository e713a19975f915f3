# SPDX-License-Identifier: MIT
"""tvix_build says of every vector what the vector says."""

from __future__ import annotations

import re
from array import array
from itertools import accumulate
from typing import TypedDict

import pytest

import tvix_build
from batches import TYPES
from engine import LISTED, of_report
from tvix_build._core import engine
from tvix_build._core.report import KindLike, SchemaLike, message_type
from vector_files import ROWS, Row

#: Rows that are checked alone, not as a response to a request.
ALONE = [row for row in ROWS if row.request is None]


class Type(TypedDict):
    """What a row is, as keyword arguments."""

    kind: tvix_build.Kind
    schema: tvix_build.Schema


def _type(row: Row) -> Type:
    return Type(kind=tvix_build.Kind(row.kind), schema=tvix_build.Schema(row.schema))


def _rows(kind: KindLike, schema: SchemaLike) -> list[Row]:
    """All rows of one sort, for a batch."""
    return [row for row in ALONE if (row.kind, row.schema) == (kind, schema)]


def _check(row: Row) -> tvix_build.Report:
    return tvix_build.check(row.data, **_type(row), request=row.request)


def _expected(row: Row) -> tuple[object, ...]:
    count = len(row.violations)
    return row.valid, row.canonical, row.digest, row.violations[:LISTED], count


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_check(row: Row) -> None:
    assert of_report(_check(row)) == _expected(row)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_validate(row: Row) -> None:
    if row.valid:
        tvix_build.validate(row.data, **_type(row), request=row.request)
        return
    with pytest.raises(tvix_build.ValidationError) as refusal:
        tvix_build.validate(row.data, **_type(row), request=row.request)
    found = [(found.code.value, found.path) for found in refusal.value.violations]
    assert found == row.violations[:LISTED]


@pytest.mark.slow
@pytest.mark.parametrize("row", ALONE, ids=lambda row: row.id)
def test_canonicalize_and_digest(row: Row) -> None:
    if row.encoding is not None:
        assert tvix_build.canonicalize(row.data, **_type(row)) == row.encoding
        assert tvix_build.digest(row.data, **_type(row)) == row.digest
        return
    forbidding = [found for found in row.violations[:LISTED] if found[0] != "not_sorted"]
    for function in (tvix_build.canonicalize, tvix_build.digest):
        with pytest.raises(tvix_build.ValidationError) as refusal:
            function(row.data, **_type(row))
        found = [(found.code.value, found.path) for found in refusal.value.violations]
        assert found == forbidding


def test_canonical_without_a_digest() -> None:
    for row in ALONE:
        assert engine.is_canonical(message_type(**_type(row)), row.data) == row.canonical, row.id


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_messages_of_violations(row: Row) -> None:
    """Each violation says what was expected and found, and names no message of another schema.
    Those of plans may name the schemas of requests."""
    own = {message_type(**_type(row)).full_name}
    if row.kind in (tvix_build.Kind.STEP, tvix_build.Kind.PLAN):
        own |= set(tvix_build.Schema)
    for found in _check(row).violations:
        assert re.fullmatch("expected .+, found .+", found.message)
        assert set(re.findall(r"[a-z_]+\.[a-z]+\.v1[@.\w]*", found.message)) <= own


@pytest.mark.parametrize("form", ["list", "offsets", "ranges"])
@pytest.mark.parametrize(("kind", "schema"), TYPES)
def test_check_batch(kind: KindLike, schema: SchemaLike, form: str) -> None:
    """All vectors of a kind at once, as a list and as ranges of one buffer."""
    rows = _rows(kind, schema)
    items = [row.data for row in rows]
    ends = array("Q", accumulate(map(len, items)))
    begins = array("Q", [0, *ends[:-1]])
    if form == "list":
        batch = tvix_build.check_batch(items, kind=kind, schema=schema)
    else:
        offsets = array("Q", [0, *ends]) if form == "offsets" else (begins, ends)
        buffer = b"".join(items)
        batch = tvix_build.check_batch(buffer, kind=kind, schema=schema, offsets=offsets)

    assert len(batch) == len(rows)
    assert [of_report(report) for report in batch] == [_expected(row) for row in rows]
    assert of_report(batch[len(rows) // 2]) == _expected(rows[len(rows) // 2])
    assert list(batch.valid) == [row.valid for row in rows]
    assert list(batch.canonical) == [row.canonical for row in rows]
    assert list(batch.invalid) == [i for i, row in enumerate(rows) if not row.valid]
    assert batch.valid_count == sum(row.valid for row in rows)
    assert batch.canonical_count == sum(row.canonical for row in rows)
    digests = bytes(batch.digests)
    for i, row in enumerate(rows):
        assert row.digest is None or digests[32 * i : 32 * i + 32] == row.digest


@pytest.mark.parametrize(("kind", "schema"), TYPES)
def test_canonicalize_batch(kind: KindLike, schema: SchemaLike) -> None:
    rows = [row for row in _rows(kind, schema) if row.encoding is not None]
    items = [row.data for row in rows]
    encodings = tvix_build.canonicalize_batch(items, kind=kind, schema=schema)
    assert list(encodings) == [row.encoding for row in rows]


@pytest.mark.parametrize(("kind", "schema"), TYPES)
def test_canonicalize_batch_names_the_first_refused(kind: KindLike, schema: SchemaLike) -> None:
    rows = _rows(kind, schema)
    rows.sort(key=lambda row: row.encoding is None)
    first = next(i for i, row in enumerate(rows) if row.encoding is None)
    with pytest.raises(tvix_build.ValidationError) as refusal:
        tvix_build.canonicalize_batch([row.data for row in rows], kind=kind, schema=schema)
    assert refusal.value.index == first
