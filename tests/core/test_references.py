# SPDX-License-Identifier: MIT
"""The reference scan, compared with a plain search. tests/native/references_test.c does the same
with more rounds."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvix_build._core.references import ReferenceScanner, replace_all

ALPHABET = b"0123456789abcdfghijklmnpqrsvwxyz"  # of the hashes of Nix


def find(needles: list[bytes], chunks: list[bytes]) -> list[int]:
    scanner = ReferenceScanner(needles)
    for chunk in chunks:
        scanner.scan(chunk)
    return scanner.found


@given(
    needles=st.lists(st.text("ab", min_size=1, max_size=9).map(str.encode), max_size=20),
    chunks=st.lists(st.text("abc", max_size=20).map(str.encode), max_size=20),
)
def test_it_finds_what_a_plain_search_finds(needles: list[bytes], chunks: list[bytes]) -> None:
    stream = b"".join(chunks)
    assert find(needles, chunks) == [i for i, one in enumerate(needles) if one in stream]


@given(
    data=st.text("ab", max_size=60).map(str.encode),
    pairs=st.dictionaries(
        st.text("ab", min_size=4, max_size=4).map(str.encode),
        st.text("abc", min_size=4, max_size=4).map(str.encode),
        max_size=5,
    ),
)
def test_it_replaces_what_a_regular_expression_replaces(
    data: bytes, pairs: dict[bytes, bytes]
) -> None:
    expected = data
    if pairs:
        expected = re.sub(b"|".join(pairs), lambda found: pairs[found[0]], data)
    joined = b"".join(old + new for old, new in pairs.items())
    assert replace_all(data, joined, 4) == expected


def test_hashes_of_nix_in_large_files() -> None:
    source = random.Random(1)
    needles = [bytes(source.choices(ALPHABET, k=32)) for _ in range(1000)]
    expected = set(source.sample(range(1000), 100))
    for letters in (bytes(range(256)), ALPHABET, b" \n" + ALPHABET):
        stream = bytearray(source.choices(letters, k=200_000))
        places = source.sample(range(0, len(stream) - 32, 64), 100)
        for index, place in zip(sorted(expected), places, strict=True):
            stream[place : place + 32] = needles[index]
        for size in (7, 31, 32, 33, 4096, len(stream)):
            chunks = [bytes(stream[i : i + size]) for i in range(0, len(stream), size)]
            assert set(find(needles, chunks)) == expected


def test_a_needle_is_not_found_across_streams() -> None:
    scanner = ReferenceScanner(["abc", "bc", b"\xff"])
    scanner.scan(b"ab")
    scanner.end_stream()
    scanner.scan(bytearray(b"c\xff"))
    assert scanner.found == [2]
    scanner.scan(memoryview(b"bc"))
    assert scanner.found == [1, 2]


def test_equal_needles_are_both_found() -> None:
    assert find([b"aa", b"b", b"aa", b"a"], [b"xa", b"a"]) == [0, 2, 3]


def test_no_needles() -> None:
    assert find([], [b"data", b""]) == []


def test_an_empty_needle_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"expected needles that are not empty, found \['a', ''\]"):
        ReferenceScanner(["a", ""])
