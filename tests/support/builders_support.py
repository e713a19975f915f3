# SPDX-License-Identifier: MIT
"""Builds requests in the sandbox."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from shutil import which
from typing import Any

import pytest

import tvix_build
from snix.build.protos.build_pb2 import BuildRequest
from tvix_build.builders.run import REMEDY

BUSYBOX = "00000000000000000000000000000000-busybox"
PYTHON = "/usr/bin/python3"
APPLETS = (
    "cat",
    "chmod",
    "dd",
    "env",
    "ln",
    "ls",
    "mkdir",
    "mkfifo",
    "mv",
    "rm",
    "sleep",
    "yes",
)


def _why_not() -> str | None:
    """Return why this machine has no sandboxes; None if it has them."""
    for name in ("bwrap", "busybox"):
        if which(name) is None:
            return f"{name} is not installed: {REMEDY}"
    options = (
        "--unshare-all",
        "--unshare-user",
        "--disable-userns",
        "--ro-bind",
        "/",
        "/",
        "--proc",
        "/proc",
    )
    command = ["bwrap", *options, "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"{done.stderr}: {REMEDY}" if done.returncode else None


WHY_NOT = _why_not()
needs_sandbox = pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")


def python_paths() -> list[str]:
    """Return the host paths that Debian's Python needs."""
    return [path for path in ("/lib", "/lib64", "/usr") if os.path.exists(path)]


def request(
    script: str,
    *,
    outputs: Sequence[str] = ("out",),
    inputs: Sequence[Any] = (),
    environment: dict[str, str | bytes] | None = None,
    **changes: Any,
) -> BuildRequest:
    """Return a request whose command is a script of the shell, in the layout of Nix."""
    fields: dict[str, Any] = {
        "command_args": ["/bin/sh", "-euc", script],
        "outputs": [f"nix/store/{name}" for name in outputs],
        "inputs": [tvix_entry(node) for node in inputs],
        "environment_vars": {"PATH": f"/nix/store/{BUSYBOX}/bin", **(environment or {})},
        "system": f"{os.uname().machine}-linux",
        "schema": "snix.build.v1",
        "working_dir": "build",
        "scratch_paths": ["build", "nix/store"],
        "inputs_dir": "nix/store",
        "provide_bin_sh": True,
    }
    made = tvix_build.build_request(**{**fields, **changes})
    assert isinstance(made, BuildRequest)
    return made


def tvix_entry(node: Any) -> Any:
    """Return a castore node as an Entry of snix."""
    from snix.castore.protos.castore_pb2 import Entry

    return Entry.FromString(node.SerializeToString())


def busybox_input(castore: Any, directory: Path) -> Any:
    """Add a package with the applets of busybox to a castore, and return its node."""
    binaries = directory / BUSYBOX / "bin"
    binaries.mkdir(parents=True)
    program = which("busybox")
    assert program
    (binaries / "busybox").write_bytes(Path(program).read_bytes())
    (binaries / "busybox").chmod(0o755)
    for name in APPLETS:
        (binaries / name).symlink_to("busybox")
    return castore.ingest(directory / BUSYBOX)
