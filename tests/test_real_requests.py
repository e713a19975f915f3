# SPDX-License-Identifier: MIT
"""24,960 requests made from nixpkgs are valid, canonical and keep their digests.

The data is looked for in the folder that TVIX_BUILD_SHARED_DATA names, else in shared/data beside
the project; without it these tests are skipped.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from blake3 import blake3

import reference
import tvix_build
from engine import of_reference, of_report
from tvix.build.protos.build_pb2 import BuildRequest

DATA = Path(
    os.environ.get("TVIX_BUILD_SHARED_DATA")
    or Path(__file__).absolute().parents[2] / "shared" / "data"
)

#: File and number of requests.
FILES = {
    "nixpkgs-14.04.direct.binpbs.zst": 20_800,
    "nixpkgs-14.04.closure.binpbs.zst": 4_160,
}

#: The reference is slow: it looks at each so many-th request only.
SAMPLE = 50


def _split(stream: bytes) -> Iterator[bytes]:
    """The messages of a size-delimited stream."""
    at = 0
    while at < len(stream):
        size = shift = 0
        while True:
            byte = stream[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        yield stream[at : at + size]
        at += size


@pytest.fixture(scope="module", params=FILES)
def requests(request: pytest.FixtureRequest) -> list[bytes]:
    path = DATA / request.param
    if not path.exists():
        pytest.skip(f"no real requests: {request.param} is not in TVIX_BUILD_SHARED_DATA")
    with path.open("rb") as file:
        stream = zstandard.ZstdDecompressor().stream_reader(file).read()
    messages = list(_split(stream))
    assert len(messages) == FILES[request.param]
    return messages


def _shuffled(data: bytes, rng: random.Random) -> bytes:
    """The same request with its sorted lists in disorder."""
    message = BuildRequest.FromString(data)
    message.outputs.sort(key=lambda _: rng.random())
    message.environment_vars.sort(key=lambda _: rng.random())
    message.inputs.sort(key=lambda _: rng.random())
    return message.SerializeToString()


def test_valid_canonical_and_digest(requests: list[bytes]) -> None:
    batch = tvix_build.check_batch(requests)
    assert batch.valid_count == batch.canonical_count == len(requests)
    assert list(batch.invalid) == []
    assert bytes(batch.digests) == b"".join(blake3(data).digest() for data in requests)


def test_shuffled_come_back(requests: list[bytes]) -> None:
    rng = random.Random(2014)
    disorder = [_shuffled(data, rng) for data in requests]
    moved = sum(data != shuffled for data, shuffled in zip(requests, disorder, strict=True))
    assert moved > 0.9 * len(requests)
    assert list(tvix_build.canonicalize_batch(disorder)) == requests


def test_reference_agrees(requests: list[bytes]) -> None:
    rng = random.Random(14)
    for data in requests[::SAMPLE]:
        for variant in (data, _shuffled(data, rng)):
            expected = of_reference(reference.check(variant, "build-request"))
            assert of_report(tvix_build.check(variant)) == expected
            assert reference.canonicalize(variant, "build-request") == data
