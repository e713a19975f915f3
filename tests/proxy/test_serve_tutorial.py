# SPDX-License-Identifier: MIT
"""The commands of the tutorial about plans, as they stand: a server builds programs of C."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from builders_support import needs_sandbox
from pages import add_program, commands, link_checkout, shell, variables
from serving import socket_directory
from waiting import LIMIT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc"),
]

MAKE, CHANGE, SERVE, SUBMIT, WATCH = commands(
    "docs/tutorials.md", "Send a graph of builds to a server"
)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory for the commands, with a short path for the socket."""
    with socket_directory() as path:
        directory = Path(path)
        link_checkout(directory)
        yield directory


def run(block: str, directory: Path, *, status: int = 0) -> str:
    """Run commands, and return what they print."""
    done = shell(block, directory, timeout=LIMIT)
    assert done.returncode == status, done.stderr
    return done.stdout


def make_plans(directory: Path) -> str:
    """Run the commands before those of the server, and return the digest of the plan."""
    shown = run(MAKE, directory)
    digest = shown.split("  plan.binpb\n")[0].rsplit("\n", 1)[-1]
    assert len(digest) == 64
    for line in ("steps              12", "refs               13", "depth               6"):
        assert f"\n{line}\n" in shown
    compared = run(CHANGE, directory, status=1)
    assert "results.txt: source expressions.txt" in compared
    assert "check.txt: source expressions.txt" in compared
    return digest


@contextmanager
def serving(directory: Path) -> Iterator[None]:
    """Run the commands that start the server, until it listens."""
    *before, serve = SERVE.removesuffix(" &\n").splitlines()
    run("\n".join(before), directory)
    server = subprocess.Popen(
        ["sh", "-euc", f"exec {serve}"],
        cwd=directory,
        env=variables(directory),
        stderr=subprocess.PIPE,
    )
    try:
        assert server.stderr is not None
        assert b"addresses" in server.stderr.readline()
        yield
    finally:
        server.kill()
        server.communicate()


@needs_sandbox
def test_the_tutorial(directory: Path) -> None:
    digest = make_plans(directory)
    with serving(directory):
        assert run(SUBMIT, directory) == ""
        assert (directory / "digest").read_text() == f"{digest}\n"
        lines = run(WATCH, directory).splitlines()
    assert any(
        line.endswith(" finished: 12 built, 0 cached, 0 failed, 0 skipped") for line in lines
    )
    assert any(line.startswith(f"{digest}  succeeded  ") for line in lines)
    assert lines[-2:] == ["5 results are right", "42"]


def test_without_user_namespaces(directory: Path) -> None:
    message = "bwrap: No permissions to create new namespace"
    add_program(directory, "bwrap", f"echo {message} >&2; exit 1")
    add_program(directory, "busybox", "exit 1")
    digest = make_plans(directory)
    watch, listing, *_ = WATCH.splitlines()
    with serving(directory):
        run(SUBMIT, directory)
        lines = run(watch, directory, status=1).splitlines()
        listed = run(listing, directory)
    failures = [line for line in lines if " failed " in line]
    assert len(failures) == 4
    for line in failures:
        assert f": cannot make a sandbox: {message}: install bubblewrap 0.8 or newer" in line
        assert "allow user namespaces (sysctl " in line
        assert "attempts failed" not in line
    assert lines[-1].endswith(" finished: 0 built, 0 cached, 4 failed, 8 skipped")
    assert listed.startswith(f"{digest}  failed ")
