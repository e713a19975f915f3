# SPDX-License-Identifier: MIT
"""The examples in C and C++ say what the Python package says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import tvix_build

EXAMPLES = Path(__file__).parents[2] / "examples"
REQUESTS = sorted([*EXAMPLES.glob("requests/*.binpb"), *EXAMPLES.glob("broken/requests/*.binpb")])

pytestmark = pytest.mark.skipif(
    not (EXAMPLES / "digest").exists(), reason="needs the programs that Bazel built"
)


def run(program: str, request: Path) -> tuple[int, str]:
    """Exit status and output of a program that reads the request."""
    with request.open("rb") as file:
        result = subprocess.run(EXAMPLES / program, stdin=file, capture_output=True, text=True)
    return result.returncode, result.stdout


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda path: path.name)
def test_digest(request_: Path) -> None:
    report = tvix_build.check(request_.read_bytes())
    digest = report.digest or bytes(32)
    assert run("digest", request_) == (int(not report.valid), digest.hex() + "\n")


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda path: path.name)
def test_violations(request_: Path) -> None:
    report = tvix_build.check(request_.read_bytes())
    lines = [f"{violation.path}: {violation.message}\n" for violation in report.violations]
    assert run("violations", request_) == (int(not report.valid), "".join(lines))
