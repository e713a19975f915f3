# SPDX-License-Identifier: MIT
"""Runs commands of the documentation."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from cli_support import COMMAND, environment

ROOT = Path(__file__).absolute().parents[2]


def commands(page: str, heading: str) -> list[str]:
    """Return the commands in a section of a page: the text of each block."""
    _, _, section = (ROOT / page).read_text().partition(f"\n## {heading}\n")
    return re.findall(r"^```sh\n(.*?)^```", section.partition("\n## ")[0], re.DOTALL | re.MULTILINE)


def link_checkout(directory: Path) -> None:
    """Make a directory like a checkout for commands, with the examples and the programs that
    `variables` adds to the PATH."""
    for name in ("examples", "requirements"):
        (directory / name).symlink_to(ROOT / name)
    (directory / "bin").mkdir()
    for name, command in {"tvix-build": COMMAND, "python3": (sys.executable,)}.items():
        add_program(directory, name, f'exec {shlex.join(command)} "$@"')


def add_program(directory: Path, name: str, script: str) -> None:
    """Add a program, or replace one that was added."""
    program = directory / "bin" / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def variables(directory: Path) -> dict[str, str]:
    """Return the environment of commands in a directory of `link_checkout`."""
    return {**environment(), "PATH": f"{directory}/bin:{os.environ['PATH']}"}


def shell(
    commands: str, directory: Path, *, stderr: int = subprocess.PIPE, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run commands in a directory of `link_checkout`, up to the first that fails."""
    return subprocess.run(
        ["sh", "-euc", commands],
        cwd=directory,
        env=variables(directory),
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        check=False,
        **options,
    )
