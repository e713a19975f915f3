# SPDX-License-Identifier: MIT
"""tvix_build and the reference agree on canonical messages, on mutants of them and on any bytes.

A case is one message of one batch: decoded, checked and encoded by both, singly and as part of
the batch. The ordinary run has more than 16,000 of them; TVIX_BUILD_CASE_FACTOR multiplies that
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
from batches import FIRST, SNIX, TVIX_2024, TYPES, run, smallest
from engine import disagreement, of_reference, of_report
from strategies import Batch
from tvix_build._core.report import KindLike, SchemaLike
from wire import blob

pytestmark = pytest.mark.slow

# Batches and messages in a batch, for each kind in each schema.
MUTANTS = (12, 100)
CANONICAL = (3, 5)
RANDOM = (2, 200)
RESPONSES = (5, 100)
# Messages, for each kind in each schema.
LARGE = 20
# How many of the mutants must show what they are made to show.
SHOWN = 1

#: Codes that mutants must show of each kind, beside those of every kind.
_CODES_OF_LATER_REQUEST = {
    *("output_is_input", "required", "invalid_path", "invalid_env_key", "invalid_needle"),
}
CODES_OF_TYPE = {
    ("build-request", FIRST): {"output_is_input", "required", "invalid_path", "invalid_env_key"},
    ("build", FIRST): {"missing_output", "unexpected_output", "output_is_input", "required"},
    ("directory", FIRST): {"size_overflow"},
    ("build-request", TVIX_2024): _CODES_OF_LATER_REQUEST,
    ("build", TVIX_2024): {
        *("missing_output", "unexpected_output", "output_is_input", "required"),
        *("invalid_needle", "needles_mismatch"),
    },
    ("build-request", SNIX): _CODES_OF_LATER_REQUEST,
    ("build", SNIX): {"required"},
    ("directory", SNIX): {"size_overflow"},
    ("step", FIRST): {"output_is_input", "required", "invalid_path", "invalid_env_key"},
    ("plan", FIRST): {"unknown_step", "unreachable_step", "required"},
}
CODES_OF_ALL = {
    *("malformed", "unknown_field", "invalid_name", "invalid_digest"),
    *("invalid_symlink_target", "not_sorted", "duplicate"),
}

of_every_type = pytest.mark.parametrize(("kind", "schema"), TYPES)


def test_enough_cases() -> None:
    cases = sum(batches * size for batches, size in (MUTANTS, CANONICAL, RANDOM))
    assert cases * len(TYPES) >= 16_000


@of_every_type
def test_canonical_messages(kind: KindLike, schema: SchemaLike) -> None:
    batches, size = CANONICAL
    compare = _comparing(kind, Counter(), schema)
    cases = run(strategies.canonical_batches(kind, size, schema), batches, compare)
    assert cases >= batches * size


@of_every_type
def test_mutants(kind: KindLike, schema: SchemaLike) -> None:
    seen: Counter[str] = Counter()
    batches, size = MUTANTS
    compare = _comparing(kind, seen, schema)
    cases = run(strategies.mutant_batches(kind, size, schema), batches, compare)
    assert cases >= batches * size
    # The mutator does its work: every sort of message is there, and not by chance alone.
    expected = {"canonical", "valid", "unsorted", *CODES_OF_ALL, *CODES_OF_TYPE[kind, schema]}
    assert {what: seen[what] for what in expected if seen[what] < SHOWN} == {}


@of_every_type
def test_large_lists(kind: KindLike, schema: SchemaLike) -> None:
    """Lists of up to 2,000 elements, which an engine may sort and search by other means."""
    rng = random.Random(f"{kind} {schema}")
    seen: Counter[str] = Counter()
    messages = Batch(random_messages.large_message(rng, kind, schema) for _ in range(LARGE))
    _comparing(kind, seen, schema)(messages)
    assert seen["unsorted"] > 0
    assert seen["duplicate"] > 0


@of_every_type
def test_random_bytes(kind: KindLike, schema: SchemaLike) -> None:
    batches, size = RANDOM
    compare = _comparing(kind, Counter(), schema)
    cases = run(strategies.random_batches(size), batches, compare)
    assert cases >= batches * size


def test_responses() -> None:
    """Mutants of a BuildResponse as responses to requests of up to five outputs and needles."""
    seen: Counter[str] = Counter()
    rng = random.Random("responses")

    def compare(batch: Batch) -> None:
        for data in batch:
            if reference.is_outdated(data, "build", SNIX):
                continue
            request = request_of_responses(rng.randrange(6), rng.randrange(6))
            report = tvix_build.check(data, kind="build", schema=SNIX, request=request)
            expected = of_reference(reference.check(data, "build", SNIX, request))
            assert of_report(report) == expected, f"{data.hex()} as response to {request.hex()}"
            _count(report, seen)

    batches, size = RESPONSES
    assert run(strategies.mutant_batches("build", size, SNIX), batches, compare) >= batches * size
    expected = {"canonical", "missing_output", "unexpected_output", "invalid_needle"}
    assert {what: seen[what] for what in expected if seen[what] < SHOWN} == {}


def request_of_responses(outputs: int, needles: int) -> bytes:
    """A canonical BuildRequest of snix.build.v1."""
    named = (blob(6, f"{i}") for i in range(outputs))
    return b"".join((blob(2, "sh"), *named, *(blob(10, f"{i}") for i in range(needles))))


def _comparing(
    kind: KindLike, seen: Counter[str], schema: SchemaLike = FIRST
) -> Callable[[Batch], None]:
    """A check of a batch that also counts what the reference has `seen`."""

    def compare(batch: Batch) -> None:
        reports = tvix_build.check_batch(batch, kind=kind, schema=schema)
        assert len(reports) == len(batch)
        for data, report in zip(batch, reports, strict=True):
            found = disagreement(data, kind, schema)
            if found is not None:
                _report_smallest(data, kind, schema)
            single = of_report(tvix_build.check(data, kind=kind, schema=schema))
            assert of_report(report) == single, f"{kind} of {schema} in a batch: {data.hex()}"
            _count(report, seen)

    return compare


def _report_smallest(data: bytes, kind: KindLike, schema: SchemaLike) -> None:
    least = smallest(data, lambda shorter: disagreement(shorter, kind, schema) is not None)
    found = disagreement(least, kind, schema)
    assert found is not None
    raise AssertionError(
        f"{kind} of {schema} {least.hex()}: {found.what}\n"
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

    def check(data: bytes, kind: KindLike, schema: SchemaLike) -> reference.ReferenceReport:
        report = forgetful(data, kind, schema)
        violations = [found for found in report.violations if found[0] != "invalid_arg"]
        return reference.ReferenceReport(report.valid, report.canonical, report.digest, violations)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "check", check)
        batch = Batch([b"\x0a\x02sh", b"\x0a\x03a\0b\x12\x03out"])
        with pytest.raises(
            AssertionError, match=r"build-request of tvix\.build\.v1 0a03610062: check"
        ):
            _comparing("build-request", Counter())(batch)
