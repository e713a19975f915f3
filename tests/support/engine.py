# SPDX-License-Identifier: MIT
"""Converts reports of tvix_build and of the reference to a form to compare."""

from __future__ import annotations

from dataclasses import dataclass

import reference
import tvix_build

#: Maximum number of violations that a report lists. It counts all of them.
LISTED = 100

# valid, canonical, digest, violations listed, total number of violations
Outcome = tuple[bool, bool, "bytes | None", list[tuple[str, str]], int]


def of_report(report: tvix_build.Report) -> Outcome:
    violations = [(found.code.value, found.path) for found in report.violations]
    return report.valid, report.canonical, report.digest, violations, report.violation_count


def of_reference(report: reference.ReferenceReport) -> Outcome:
    listed = report.violations[:LISTED]
    return report.valid, report.canonical, report.digest, listed, len(report.violations)


@dataclass(frozen=True)
class Disagreement:
    """A difference between the engine and the reference."""

    what: str
    engine: object
    reference: object


def disagreement(data: bytes, kind: str, schema: str = "tvix.build.v1") -> Disagreement | None:
    """Return how check() or canonicalize() differs from the reference on `data`; None if equal."""
    expected_report = reference.check(data, kind, schema)
    expected = of_reference(expected_report)
    found = of_report(
        tvix_build.check(data, kind=tvix_build.Kind(kind), schema=tvix_build.Schema(schema))
    )
    if found != expected:
        return Disagreement("check", found, expected)
    refused = expected_report.digest is None
    expected_bytes = None if refused else reference.canonicalize(data, kind, schema)
    found_bytes = _canonical_or_none(data, kind, schema)
    if found_bytes != expected_bytes:
        return Disagreement("canonicalize", found_bytes, expected_bytes)
    return None


def _canonical_or_none(data: bytes, kind: str, schema: str) -> bytes | None:
    try:
        return tvix_build.canonicalize(
            data, kind=tvix_build.Kind(kind), schema=tvix_build.Schema(schema)
        )
    except tvix_build.ValidationError:
        return None
