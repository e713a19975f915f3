# SPDX-License-Identifier: MIT
"""The image of the proxy builds from the wheel, and runs with a read-only root."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from waiting import LIMIT

PACKAGING = Path(__file__).parents[2] / "packaging"

pytestmark = pytest.mark.skipif(
    "WHEEL" not in os.environ, reason="needs the wheel that Bazel built"
)


def base_image() -> str:
    """Return the image on which it is based."""
    found = re.search(r"^FROM (\S+) AS", (PACKAGING / "container/Containerfile").read_text(), re.M)
    assert found
    return found[1]


def test_the_image_builds() -> None:
    tool = next(filter(shutil.which, ("podman", "buildah", "docker")), None)
    if tool is None:
        pytest.skip("needs podman, buildah or docker: apt install podman")
    pulled = subprocess.run([tool, "pull", base_image()], capture_output=True, timeout=LIMIT)
    if pulled.returncode:
        pytest.skip(f"{tool} cannot pull {base_image()}: {pulled.stderr.decode().strip()}")
    wheel = Path(os.environ["WHEEL"]).resolve()
    command: list[str | Path] = [PACKAGING / "build_image", wheel, "tvix-build-test"]
    subprocess.run(command, check=True, timeout=LIMIT)
