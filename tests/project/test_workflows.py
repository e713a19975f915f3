# SPDX-License-Identifier: MIT
"""The workflows run commands that exist, and nothing that is documented nowhere."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ELSEWHERE = (
    "apt-get update && apt-get install --yes git",
    ".venv/bin/pip install 'protobuf==${{ matrix.protobuf }}'",
    "mkdir published && mv dist/*.whl dist/*.tar.gz published/",
)
"""Steps that are no command of this project."""


def commands(workflow: Path) -> list[str]:
    """The steps of a workflow that run a command; each is one line."""
    text = workflow.read_text()
    found = re.findall(r"^ +- run: (.*)$", text, re.MULTILINE)
    assert len(found) == text.count("run:")
    return found


def make_targets() -> set[str]:
    """The commands of the Makefile."""
    return set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_there_are_workflows() -> None:
    assert [workflow.name for workflow in WORKFLOWS] == ["release.yml", "test.yml"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_steps_run_what_exists_and_is_documented(workflow: Path) -> None:
    pages = [
        (ROOT / page).read_text() for page in ("CONTRIBUTING.md", "docs/bazel.md", "docs/qa.md")
    ]
    for command in commands(workflow):
        if command in ELSEWHERE:
            continue
        if command.startswith("make "):
            assert command.removeprefix("make ") in make_targets()
        else:
            assert os.access(ROOT / command.split()[0], os.X_OK), command
        assert any(command in page for page in pages), command


def test_makefile_runs_scripts_that_exist() -> None:
    for script in re.findall(r"^\t(tools/\w+|bench/\w+)", (ROOT / "Makefile").read_text(), re.M):
        assert os.access(ROOT / script, os.X_OK), script


def test_contributing_names_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for path in re.findall(r"`((?:native|py|tests|docs|proto|examples|tools|\.ci)/[\w./]*)`", text):
        if "NAME" in path:
            continue
        assert (ROOT / path).exists(), path
