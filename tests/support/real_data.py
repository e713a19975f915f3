# SPDX-License-Identifier: MIT
"""Requests and derivations made from nixpkgs, which are no part of the project.

They are looked for in the folder that TVIX_BUILD_SHARED_DATA names, else in shared/data beside the
project; without them the tests that want them are skipped.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import zstandard

_FOLDER = Path(
    os.environ.get("TVIX_BUILD_SHARED_DATA")
    or Path(__file__).absolute().parents[3] / "shared" / "data"
)


def read(name: str) -> bytes:
    """The uncompressed bytes of the file `nixpkgs-14.04.NAME.zst`; skips the test without it."""
    path = _FOLDER / f"nixpkgs-14.04.{name}.zst"
    if not path.exists():
        pytest.skip(f"no real data: {path.name} is not in TVIX_BUILD_SHARED_DATA")
    with path.open("rb") as file:
        return zstandard.ZstdDecompressor().stream_reader(file).read()
