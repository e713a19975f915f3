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
    found = re.search(
        r"^ARG BASE=(\S+)$", (PACKAGING / "container/Containerfile").read_text(), re.M
    )
    assert found
    return found[1]


def base_options() -> list[str]:
    """Return the options for a base image that can be had here: of Debian's packages, or pulled."""
    tool = next(filter(shutil.which, ("podman", "docker")), None)
    if tool is None:
        pytest.skip("needs podman or docker: apt install podman mmdebstrap")
    if tool == "podman" and shutil.which("mmdebstrap") and os.geteuid() == 0:
        return ["--debian"]
    pulled = subprocess.run([tool, "pull", base_image()], capture_output=True, timeout=LIMIT)
    if pulled.returncode:
        pytest.skip(f"{tool} cannot pull {base_image()}: {pulled.stderr.decode().strip()}")
    return []


def test_the_image_builds_and_runs() -> None:
    wheel = Path(os.environ["WHEEL"]).resolve()
    script = PACKAGING / "build_image"
    command: list[str | Path] = [script, *base_options(), wheel, "tvix-build-test"]
    subprocess.run(command, check=True, timeout=LIMIT)
