# SPDX-License-Identifier: MIT
"""Messages and offsets made to be slow, large or wrong (hostile.py): the results of small ones are
what the reference says, of large ones what follows from that; memory is bounded as promised.

TVIX_BUILD_HOSTILE_PARTS is how many parts large ones have, 400,000 if unset.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable
from typing import Any

import pytest
from blake3 import blake3

import engine
import hostile
import reference
import tvix_build
import wire
from batches import KINDS
from cli_support import environment

PARTS = int(os.environ.get("TVIX_BUILD_HOSTILE_PARTS", "400000")) // 1584 * 1584


@pytest.mark.parametrize("n", [0, 1, 2, 99, 1584])
@pytest.mark.parametrize("name", hostile.MAKERS)
def test_small(name: str, n: int) -> None:
    assert engine.disagreement(hostile.MAKERS[name](n), *hostile.type_of(name)) is None


def violations(name: str, n: int) -> int:
    """How many violations n parts have, as far as that is linear in n."""
    one, two = (
        len(reference.check(hostile.MAKERS[name](count), *hostile.type_of(name)).violations)
        for count in (1584, 3168)
    )
    return one + (two - one) * (n // 1584 - 1)


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("name", hostile.MAKERS)
def test_large(name: str) -> None:
    size, memory, kept, _, count, valid, digest, _ = hostile.measure(name, PARTS, environment())
    assert int(count) == violations(name, PARTS)
    assert valid == str(count == "0")
    if name in hostile.UNSORTED:
        expected = hostile.UNSORTED[name][1](PARTS)
        assert digest == blake3(expected).hexdigest()
    # Elements and their sort keys; vectors double; a normalized message.
    assert int(memory) <= 2 * (24 + 32) * PARTS + 4 * int(size) + (8 << 20)
    # A context keeps 2 MiB, and Python some objects.
    assert int(kept) <= 4 << 20


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [1, 98, 99, 100, 101, 5000])
def test_deep_groups(kind: str, depth: int) -> None:
    for data in (
        wire.nested_groups(9, depth),
        wire.tag(9, wire.GROUP) * depth,
        wire.blob(1, wire.nested_groups(9, depth)),
        wire.blob(4, wire.blob(3, wire.nested_groups(9, depth))),
    ):
        assert engine.disagreement(data, kind) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("power", [7, 14, 28, 31, 32, 35, 63, 64])
def test_lengths_that_lie(kind: str, power: int) -> None:
    for length in range((1 << power) - 2, (1 << power) + 2):
        for field in (1, 2, 4, 9):
            data = wire.tag(field, wire.LEN) + wire.varint(length) + b"\0" * 3
            assert engine.disagreement(data, kind) is None
            assert engine.disagreement(wire.blob(field, data), kind) is None


@pytest.mark.parametrize(
    "offsets",
    [
        [0, 3, 2, 4],
        [4, 0],
        [0, 5],
        [0, 2, 1 << 63],
        [0, 2**64 - 1],
        [2**64 - 1, 0],
        [2**64 - 1, 2**64 - 1],
        [(1 << 63) + 1, (1 << 63) + 3],
    ],
)
@pytest.mark.parametrize(
    "call", [tvix_build.check_batch, tvix_build.canonicalize_batch, tvix_build.blake3_many]
)
@pytest.mark.parametrize("threads", [1, 2])
def test_offsets_that_lie(call: Callable[..., Any], offsets: list[int], threads: int) -> None:
    data = b"\x0a\x02sh"
    pair = (array("Q", offsets[:-1]), array("Q", offsets[1:]))
    for said in (array("Q", offsets), pair):
        with pytest.raises(ValueError, match="expected") as caught:
            call(data, offsets=said, threads=threads)
        assert not isinstance(caught.value, tvix_build.ValidationError)
    # Many good ones before them, so that they are in another thread's piece.
    begins = array("Q", [0] * 100_000) + pair[0]
    ends = array("Q", [4] * 100_000) + pair[1]
    with pytest.raises(ValueError, match="expected") as caught:
        call(data, offsets=(begins, ends), threads=threads)
    assert not isinstance(caught.value, tvix_build.ValidationError)
