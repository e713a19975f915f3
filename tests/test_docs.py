# SPDX-License-Identifier: MIT
"""The documentation is true: its examples run, its tables name what there is, its links lead on."""

from __future__ import annotations

import contextlib
import doctest
import io
import re
from pathlib import Path

import pytest

import tvix_build
from tvix_build import ViolationCode

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "docs/canonical-form.md"]


def read(page: str) -> str:
    """The text of a page."""
    return (ROOT / page).read_text()


def test_readme_example_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", read("README.md"), re.DOTALL)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(example, "README.md", "exec"), {})
    digest, violation = printed.getvalue().splitlines()
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert violation.startswith("outputs[1]: invalid_name: expected a path component")


def test_docstring_example_runs() -> None:
    assert doctest.testmod(tvix_build) == doctest.TestResults(failed=0, attempted=3)


def test_canonical_form_lists_the_codes_in_order() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| [^|]* \|", read("docs/canonical-form.md"), re.MULTILINE)
    codes = [code.value for code in ViolationCode]
    assert [row for row in rows if row in codes] == codes


def test_readme_names_the_public_interface() -> None:
    text = read("README.md")
    exceptions = {"__version__", "BatchReport", "CanonicalBatch", "Error", "Kind"}
    exceptions |= {"Violation", "ViolationCode"}
    assert [
        name for name in tvix_build.__all__ if name not in text and name not in exceptions
    ] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", read(page)):
        assert ((ROOT / page).parent / target).exists(), target
