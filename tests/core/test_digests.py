# SPDX-License-Identifier: MIT
"""Digests are BLAKE3 of messages of every length, alone and hashed together with others."""

from __future__ import annotations

import random

import pytest
from blake3 import blake3

import tvix_build
from vector_sources.digests import request_of_length

EVERY = range(2, 4200)
LONG = (8191, 8192, 8193, 16383, 16384, 16385, 31744, 65536, 65537, 102400, 1 << 20, (1 << 20) + 1)


def _digests(messages: list[bytes]) -> bytes:
    return b"".join(blake3(data).digest() for data in messages)


@pytest.fixture(scope="module")
def of_every_length() -> list[bytes]:
    return [request_of_length(length) for length in (*EVERY, *LONG)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_batches_of_every_length(seed: int, of_every_length: list[bytes]) -> None:
    """Shuffled, so that messages of unlike lengths are neighbours."""
    messages = list(of_every_length)
    random.Random(seed).shuffle(messages)
    report = tvix_build.check_batch(messages)
    assert report.canonical_count == len(messages)
    assert bytes(report.digests) == _digests(messages)


@pytest.mark.parametrize("count", [*range(1, 34), 63, 64, 65])
@pytest.mark.parametrize("length", [2, 64, 1024, 1025, 3000])
def test_batches_of_one_length(count: int, length: int) -> None:
    """Of any number, so that lanes are left over."""
    data = request_of_length(length)
    assert bytes(tvix_build.check_batch([data] * count).digests) == blake3(data).digest() * count


@pytest.mark.parametrize("length", [*range(2, 200), 1023, 1024, 1025, *LONG])
def test_single(length: int) -> None:
    data = request_of_length(length)
    assert tvix_build.digest(data) == blake3(data).digest()


def test_refused_among_others() -> None:
    """A message without a digest takes none from its neighbours."""
    good = [request_of_length(length) for length in range(2, 1100, 7)]
    mixed = [data for message in good for data in (message, b"\x12\x01/", b"\xff")]
    report = tvix_build.check_batch(mixed)
    assert [one.digest for one in report[::3]] == [blake3(data).digest() for data in good]
    assert {one.digest for one in report[1::3]} == {None} == {one.digest for one in report[2::3]}


def test_unsorted_among_others() -> None:
    """Digests of encodings that had to be made, between those of the bytes as they came."""
    plain = [request_of_length(length) for length in range(2, 2100, 13)]
    tail, sorted_tail = b"\x12\x01b\x12\x01a", b"\x12\x01a\x12\x01b"
    mixed = [data for message in plain for data in (message, message + tail)]
    expected = [data for message in plain for data in (message, message + sorted_tail)]
    assert bytes(tvix_build.check_batch(mixed).digests) == _digests(expected)
