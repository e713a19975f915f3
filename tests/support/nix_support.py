# SPDX-License-Identifier: MIT
"""Runs real Nix with a store of its own, and with its sandbox."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import which

import pytest

CONFIGURATION = """
build-users-group =
cores = 0
sandbox = true
sandbox-fallback = false
sandbox-paths = /bin/sh={busybox}
substitute = false
"""
_MISSING = [
    *([] if which("nix-build") else ["nix-build: apt install nix-bin"]),
    *([] if os.getuid() == 0 else ["root for Nix's sandbox in another store"]),
]
needs_nix_sandbox = pytest.mark.skipif(bool(_MISSING), reason=f"needs {', '.join(_MISSING)}")


@dataclass(frozen=True)
class NixStore:
    """A store of Nix in a directory, with the outputs of all derivations."""

    directory: Path

    def run(self, *command: str) -> list[str]:
        """Run a command of Nix, and return its words."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "NIX_CONF_DIR": str(self.directory),
            "NIX_USER_CONF_FILES": "",
            "NIX_CONFIG": CONFIGURATION.format(busybox=which("busybox")),
        }
        done = subprocess.run(
            [*command, "--store", str(self.directory)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout.split()

    def path(self, store_path: str) -> Path:
        return self.directory / store_path.lstrip("/")


@contextmanager
def nix_store(directory: Path) -> Iterator[NixStore]:
    """Yield a store in a directory, whose files are writable at the end: Nix makes them
    read-only."""
    try:
        yield NixStore(directory)
    finally:
        subprocess.run(["chmod", "-R", "u+w", directory], check=True)
