# SPDX-License-Identifier: MIT
"""The reference holds to the vectors, to facts known beforehand, and to bytes made by hand."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

import make_vectors
import mutations
import reference
import strategies
import trees
from batches import KINDS, run, smallest
from strategies import Batch
from vector_files import PATHS, ROWS, Row
from vector_sources.topic import Topic


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_vector(row: Row) -> None:
    report = reference.check(row.data, row.kind)
    assert report.violations == row.violations
    assert (report.valid, report.canonical, report.digest) == (row.valid, row.canonical, row.digest)
    if row.encoding is not None:
        assert reference.canonicalize(row.data, row.kind) == row.encoding
        return
    with pytest.raises(reference.RefusedError) as refusal:
        reference.canonicalize(row.data, row.kind)
    forbidding = [found for found in row.violations if found[0] != "not_sorted"]
    assert refusal.value.violations == forbidding


# ---- the vectors' files


@pytest.mark.parametrize("topic", make_vectors.TOPICS, ids=lambda topic: topic.name)
def test_vectors_are_up_to_date(topic: Topic) -> None:
    path = make_vectors.VECTORS / f"{topic.name}.json"
    assert path.read_text("ascii") == make_vectors.to_json(topic), "run tests/make_vectors.py"


def test_no_other_vectors() -> None:
    assert {path.stem for path in PATHS} == {topic.name for topic in make_vectors.TOPICS}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_vectors_have_a_line_each(path: Path) -> None:
    """What a reader may rely on that knows no JSON."""
    keys = ["name", "about", "kind", "hex", "valid", "canonical", "digest"]
    keys += ["canonical_hex", "violations"]
    lines = path.read_text("ascii").splitlines()
    assert lines[0].startswith('{"origin": "')
    assert lines[1].startswith('"about": "')
    assert lines[2] == '"vectors": ['
    assert lines[-1] == "]}"
    rows = [json.loads(line.removesuffix(",")) for line in lines[3:-1]]
    assert len({row["name"] for row in rows}) == len(rows)
    assert all(list(row) == keys for row in rows)
    assert "\\" not in path.read_text("ascii")


def test_vectors_show_every_code() -> None:
    assert {code for row in ROWS for code, _ in row.violations} == set(reference.CODES)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_show_every_outcome(kind: str) -> None:
    outcomes = {(row.valid, row.canonical, row.digest is None) for row in ROWS if row.kind == kind}
    canonical, valid, unsorted, refused = (
        (True, True, False),
        (True, False, False),
        (False, False, False),
        (False, False, True),
    )
    assert outcomes == {canonical, valid, unsorted, refused}


# ---- facts


def test_digest_of_the_empty_directory() -> None:
    """BLAKE3 of nothing, as the BLAKE3 paper's vectors and upstream's fixtures have it."""
    digest = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    report = reference.check(b"", "directory")
    assert report == reference.ReferenceReport(True, True, bytes.fromhex(digest), [])


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="kind must be"):
        reference.check(b"", "request")


# ---- protobuf's encoding against bytes made by hand


@pytest.mark.parametrize("kind", KINDS)
def test_hand_made_encoding_is_canonical(kind: str) -> None:
    def check(batch: Batch) -> None:
        for data in batch:
            report = reference.check(data, kind)
            assert report.violations == [], data.hex()
            assert report.canonical, data.hex()

    assert run(strategies.canonical_batches(kind, 5), 40, check) >= 200


@pytest.mark.parametrize("kind", KINDS)
def test_canonical_encoding_is_a_fixed_point(kind: str) -> None:
    encoded = 0

    def check(batch: Batch) -> None:
        nonlocal encoded
        for data in batch:
            report = reference.check(data, kind)
            if report.digest is None:
                continue
            encoded += 1
            encoding = reference.canonicalize(data, kind)
            expected = reference.ReferenceReport(True, True, report.digest, [])
            assert reference.check(encoding, kind) == expected, data.hex()

    run(strategies.mutant_batches(kind, 100), 30, check)
    assert encoded >= 1000


# ---- the tools of the tests


def test_mutator_is_repeatable() -> None:
    base = [trees.Field(1, 2, b"sh"), trees.Field(2, 2, b"out")]

    def make() -> list[bytes]:
        rng = random.Random(1)
        return [mutations.mutant(rng, "build-request", base) for _ in range(50)]

    assert make() == make()
    assert trees.encode(base) == b"\x0a\x02sh\x12\x03out"


def test_smallest() -> None:
    assert smallest(b"abcxdefy" * 9, lambda data: {*b"xy"} <= {*data}) in (b"xy", b"yx")


def test_make_vectors_finds_a_wrong_expectation() -> None:
    topic = Topic("wrong", "build-request", "expectations that are wrong")
    topic.canonical("valid", "has no command", b"")
    topic.unsorted(
        "encoding", "is in order", b"\x0a\x00\x12\x01b\x12\x01a", b"\x0a\x00", "outputs[1]"
    )
    topic.malformed("malformed", "decodes", b"\x0a\x00")
    assert all(make_vectors.disagreement(vector) for vector in topic.vectors)
