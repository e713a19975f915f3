# SPDX-License-Identifier: MIT
"""24,960 requests made from nixpkgs are valid, canonical and keep their digests, but for 25.

Those 25 say what cannot be: an output that is an input. Their derivation's output is fixed
(a source that curl fetches), another derivation fetches the same, and that one is in the closure
of build inputs that the request was given as its inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from blake3 import blake3

import real_data
import reference
import tvix_build
from bench.corpora import messages_of, shuffled
from engine import Outcome, of_reference, of_report
from tvix.build.protos.build_pb2 import BuildRequest
from tvix.castore.protos.castore_pb2 import Node

pytestmark = pytest.mark.together

#: File, number of requests, and how many of them have an output that is an input.
FILES = {
    "direct.binpbs": (20_800, 0),
    "closure.binpbs": (4_160, 25),
}

#: The reference is slow: it checks only one request in this number.
SAMPLE = 100
#: One request in this number is translated, which takes longer than checking it.
TRANSLATED = 5


@dataclass(frozen=True)
class Requests:
    """The requests of a file: all, and by whether an output is an input."""

    all: list[bytes]
    good: list[bytes]
    clashing: list[bytes]


@pytest.fixture(scope="module", params=FILES)
def requests(request: pytest.FixtureRequest) -> Requests:
    stream = real_data.read(request.param)
    messages = list(messages_of(stream))
    clashing = [data for data in messages if _clash(BuildRequest.FromString(data))]
    good = [data for data in messages if data not in clashing]
    assert (len(messages), len(clashing)) == FILES[request.param]
    return Requests(messages, good, clashing)


def _name(node: Node) -> str:
    member = getattr(node, node.WhichOneof("node") or "file")
    return bytes(member.name).decode()


def _clash(request: BuildRequest) -> set[str]:
    """The outputs that are inputs."""
    return set(request.outputs) & {_name(node) for node in request.inputs}


@pytest.mark.slow
def test_valid_canonical_and_digest(requests: Requests) -> None:
    batch = tvix_build.check_batch(requests.good)
    assert batch.valid_count == batch.canonical_count == len(requests.good)
    assert list(batch.invalid) == []
    assert bytes(batch.digests) == b"".join(blake3(data).digest() for data in requests.good)


def test_all_at_once(requests: Requests) -> None:
    """The 25 among the others, which they leave alone."""
    batch = tvix_build.check_batch(requests.all)
    assert batch.valid_count == batch.canonical_count == len(requests.good)
    assert [requests.all[i] for i in batch.invalid] == requests.clashing


def test_output_is_input(requests: Requests) -> None:
    """Nothing else is wrong with the 25: without the input they are canonical."""
    for data in requests.clashing:
        outcome: Outcome = (False, False, None, [("output_is_input", "outputs[0]")], 1)
        assert of_report(tvix_build.check(data)) == outcome
        assert of_reference(reference.check(data, "build-request")) == outcome
        message = BuildRequest.FromString(data)
        clash = _clash(message)
        kept = [node for node in message.inputs if _name(node) not in clash]
        del message.inputs[:]
        message.inputs.extend(kept)
        mended = message.SerializeToString(deterministic=True)
        outcome_mended: Outcome = (True, True, blake3(mended).digest(), [], 0)
        assert of_report(tvix_build.check(mended)) == outcome_mended


@pytest.mark.slow
def test_shuffled_come_back(requests: Requests) -> None:
    disorder = list(shuffled(requests.good))
    moved = sum(data != other for data, other in zip(requests.good, disorder, strict=True))
    assert moved > 0.9 * len(requests.good)
    assert list(tvix_build.canonicalize_batch(disorder)) == requests.good


@pytest.mark.exhaustive
def test_translated_there_and_back(requests: Requests) -> None:
    sample = requests.good[::TRANSLATED]
    later = [tvix_build.convert(data, to="snix.build.v1") for data in sample]
    batch = tvix_build.check_batch(later, schema="snix.build.v1")
    assert batch.canonical_count == len(sample)
    back = [tvix_build.convert(data, to="tvix.build.v1", schema="snix.build.v1") for data in later]
    assert back == sample


@pytest.mark.slow
def test_reference_agrees(requests: Requests) -> None:
    sample = requests.good[::SAMPLE]
    for data, disorder in zip(sample, shuffled(sample), strict=True):
        for variant in (data, disorder):
            expected = of_reference(reference.check(variant, "build-request"))
            assert of_report(tvix_build.check(variant)) == expected
            assert reference.canonicalize(variant, "build-request") == data
