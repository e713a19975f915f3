# SPDX-License-Identifier: MIT
"""The commands of docs/first-change.md change a rule. `tools/test_editable` also runs its commands
that need a network, in a clone."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cli_support import environment
from waiting import LIMIT

ROOT = Path(__file__).parents[2]
PAGE = "docs/first-change.md"
QUICK = "make pytest-quick"  # It runs the tests of the whole project.


def commands() -> list[str]:
    """Return the commands of the page that change the rule."""
    _, *blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / PAGE).read_text(), re.DOTALL | re.M)
    return [line for line in "".join(blocks).splitlines() if line != QUICK]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a copy of the tree, in which `.venv` uses this Python and its packages."""
    tree = tmp_path / "tvix-build"
    tree.mkdir()
    for name in ("LICENSE", "Makefile", "README.md", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, tree / name)
    for name in ("docs", "native", "proto", "py", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for copied in [tree, *tree.rglob("*")]:
        copied.chmod(0o755)  # Bazel's files are read-only.
    python = tree / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    packages = shlex.quote(environment()["PYTHONPATH"])
    path = f"{tree}/py:${{PYTHONPATH:+$PYTHONPATH:}}{packages}"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return tree


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_commands_change_the_rule(clone: Path) -> None:
    variables = dict(os.environ)
    variables.pop("PYTHONPATH", None)
    for blake3 in ROOT.parent.glob("*tvix_build_blake3/c"):  # Bazel's
        variables["BLAKE3_C_DIR"] = str(blake3)
    for command in commands():
        done = subprocess.run(
            ["bash", "-euc", command],
            cwd=clone,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=LIMIT,
        )
        failed = 1 if command.endswith("# fails") else 0
        assert done.returncode == failed, f"{command}\n{done.stdout}"


def test_the_rest_of_the_page_prepares_and_checks() -> None:
    text = (ROOT / PAGE).read_text()
    assert len(commands()) == 8
    assert text.count(QUICK) == 2
