# SPDX-License-Identifier: MIT
"""tvix_build and the reference agree on canonical messages, on mutants of them and on any bytes.

A case is one message of one batch: decoded, checked and encoded by both, singly and as part of
the batch. The ordinary run has more than 100,000 of them; TVIX_BUILD_CASE_FACTOR multiplies that
(batches.py). A failure names the smallest bytes that still show it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

import random_messages
import reference
import strategies
import tvix_build
from batches import KINDS, run, smallest
from engine import disagreement, of_report
from strategies import Batch

# Batches and messages in a batch, for each kind.
MUTANTS = (400, 100)
CANONICAL = (40, 5)
RANDOM = (50, 200)
# Messages, for each kind.
LARGE = 100

#: Codes that mutants must show of each kind, beside those of every kind.
CODES_OF_KIND = {
    "build-request": {"output_is_input", "required", "invalid_path", "invalid_env_key"},
    "build": {"missing_output", "unexpected_output", "output_is_input", "required"},
    "directory": {"size_overflow"},
}
CODES_OF_ALL = {
    *("malformed", "unknown_field", "invalid_name", "invalid_digest"),
    *("invalid_symlink_target", "not_sorted", "duplicate"),
}


def test_enough_cases() -> None:
    cases = sum(batches * size for batches, size in (MUTANTS, CANONICAL, RANDOM))
    assert cases * len(KINDS) >= 100_000


@pytest.mark.parametrize("kind", KINDS)
def test_canonical_messages(kind: str) -> None:
    batches, size = CANONICAL
    cases = run(strategies.canonical_batches(kind, size), batches, _comparing(kind, Counter()))
    assert cases >= batches * size


@pytest.mark.parametrize("kind", KINDS)
def test_mutants(kind: str) -> None:
    seen: Counter[str] = Counter()
    batches, size = MUTANTS
    cases = run(strategies.mutant_batches(kind, size), batches, _comparing(kind, seen))
    assert cases >= batches * size
    # The mutator does its work: every sort of message is there, and not by chance alone.
    expected = {"canonical", "valid", "unsorted", *CODES_OF_ALL, *CODES_OF_KIND[kind]}
    assert {what: seen[what] for what in expected if seen[what] < 50} == {}


@pytest.mark.parametrize("kind", KINDS)
def test_large_lists(kind: str) -> None:
    """Lists of up to 2,000 elements, which an engine may sort and search by other means."""
    rng = random.Random(kind)
    seen: Counter[str] = Counter()
    messages = Batch(random_messages.large_message(rng, kind) for _ in range(LARGE))
    _comparing(kind, seen)(messages)
    assert seen["unsorted"] > LARGE / 10
    assert seen["duplicate"] > LARGE / 10


@pytest.mark.parametrize("kind", KINDS)
def test_random_bytes(kind: str) -> None:
    batches, size = RANDOM
    cases = run(strategies.random_batches(size), batches, _comparing(kind, Counter()))
    assert cases >= batches * size


def _comparing(kind: str, seen: Counter[str]) -> Callable[[Batch], None]:
    """A check of a batch that also counts what the reference has `seen`."""

    def compare(batch: Batch) -> None:
        reports = tvix_build.check_batch(batch, kind=tvix_build.Kind(kind))
        assert len(reports) == len(batch)
        for data, report in zip(batch, reports, strict=True):
            found = disagreement(data, kind)
            if found is not None:
                _report_smallest(data, kind)
            single = of_report(tvix_build.check(data, tvix_build.Kind(kind)))
            assert of_report(report) == single, f"{kind} in a batch: {data.hex()}"
            _count(report, seen)

    return compare


def _report_smallest(data: bytes, kind: str) -> None:
    least = smallest(data, lambda shorter: disagreement(shorter, kind) is not None)
    found = disagreement(least, kind)
    assert found is not None
    raise AssertionError(
        f"{kind} {least.hex()}: {found.what}\n"
        f"tvix_build: {found.engine}\nreference:  {found.reference}\nout of {data.hex()}"
    )


def _count(report: tvix_build.Report, seen: Counter[str]) -> None:
    if report.canonical:
        seen["canonical"] += 1
    elif report.valid:
        seen["valid"] += 1
    elif report.digest is not None:
        seen["unsorted"] += 1
    seen.update({found.code.value for found in report.violations})


def test_disagreement_is_found_and_made_small() -> None:
    """The comparison itself: a reference that forgot a rule is found out."""
    forgetful = reference.check

    def check(data: bytes, kind: str) -> reference.ReferenceReport:
        report = forgetful(data, kind)
        violations = [found for found in report.violations if found[0] != "invalid_arg"]
        return reference.ReferenceReport(report.valid, report.canonical, report.digest, violations)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "check", check)
        batch = Batch([b"\x0a\x02sh", b"\x0a\x03a\0b\x12\x03out"])
        with pytest.raises(AssertionError, match="build-request 0a03610062: check"):
            _comparing("build-request", Counter())(batch)
