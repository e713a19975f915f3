# SPDX-License-Identifier: MIT
"""The benchmarks' corpora are what they are said to be, and their peer in Python finds the same as
tvix_build."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

import tvix_build
from bench import corpora
from bench.peers.python import upb
from vector_files import ROWS

CORPORA = {
    "tiny": list(corpora.tiny(50)),
    "unsorted": list(corpora.unsorted(3, 300)),
    "common prefix": list(corpora.common_prefix(2, 300)),
    "shuffled": list(corpora.shuffled(corpora.tiny(50))),
}
VECTORS = [row.data for row in ROWS if (row.kind, row.schema) == ("build-request", "tvix.build.v1")]


@pytest.mark.parametrize("messages", [*CORPORA.values(), VECTORS], ids=[*CORPORA, "vectors"])
def test_peer_agrees(messages: Sequence[bytes]) -> None:
    batch = tvix_build.check_batch(messages)
    found = upb.check_all(messages)
    assert (found.valid, found.digests) == (batch.valid_count, bytes(batch.digests))
    for data, report in zip(messages, batch, strict=True):
        verdict, digest = upb.check(data)
        assert (verdict is upb.Verdict.VALID) == report.valid
        assert digest == (report.digest or bytes(32))


def test_tiny_is_canonical() -> None:
    batch = tvix_build.check_batch(CORPORA["tiny"])
    assert batch.canonical_count == len(batch)
    assert 250 < sum(map(len, CORPORA["tiny"])) / len(batch) < 350


@pytest.mark.parametrize("name", ["unsorted", "common prefix"])
def test_nothing_but_order_is_wrong(name: str) -> None:
    for report in tvix_build.check_batch(CORPORA[name]):
        codes = [violation.code.value for violation in report.violations]
        assert codes == ["not_sorted"]


def test_same_each_time() -> None:
    assert list(corpora.tiny(50)) == CORPORA["tiny"]


def test_split() -> None:
    rng = random.Random(3)
    messages = [rng.randbytes(size) for size in (0, 1, 127, 128, 70_000)]
    stream = b"".join(map(corpora.delimited, messages))
    assert list(corpora.messages_of(stream)) == messages
