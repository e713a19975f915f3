# SPDX-License-Identifier: MIT
"""Requests and derivations made from nixpkgs, which are not part of the project.

Their directory is TVIX_BUILD_SHARED_DATA or, by default, shared/data beside the project. Tests that
need the files are skipped if they do not exist.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import zstandard

DIRECTORY = Path(
    os.environ.get("TVIX_BUILD_SHARED_DATA")
    or Path(__file__).absolute().parents[3] / "shared" / "data"
)


def read(name: str) -> bytes:
    """Return the decompressed file `nixpkgs-14.04.NAME.zst`. Skip the test if it does not exist."""
    path = DIRECTORY / f"nixpkgs-14.04.{name}.zst"
    if not path.exists():
        pytest.skip(f"no real data: {path.name} is not in TVIX_BUILD_SHARED_DATA")
    with path.open("rb") as file:
        return zstandard.ZstdDecompressor().stream_reader(file).read()
