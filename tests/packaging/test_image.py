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


def base_options(tool: str) -> list[str]:
    """Return the options for a base image that can be had here: of Debian's packages, or pulled."""
    if tool == "podman" and shutil.which("mmdebstrap") and os.geteuid() == 0:
        return ["--debian"]
    pulled = subprocess.run([tool, "pull", base_image()], capture_output=True, timeout=LIMIT)
    if pulled.returncode:
        pytest.skip(f"{tool} cannot pull {base_image()}: {pulled.stderr.decode().strip()}")
    return []


def container_tool(directory: Path) -> str:
    """Return a tool that can run containers here. podman may be unable to, as in a container."""
    tool = next(filter(shutil.which, ("podman", "docker")), None)
    if tool is None:
        pytest.skip("needs podman or docker: apt install podman mmdebstrap")
    compiler = shutil.which("cc")
    if tool == "podman" and compiler is not None:
        (directory / "true.c").write_text("int main(void) { return 0; }")
        compiling: list[str | Path] = [
            compiler,
            "-static",
            "-o",
            directory / "true",
            directory / "true.c",
        ]
        subprocess.run(compiling, check=True, timeout=LIMIT)
        command: list[str | Path] = [tool, "run", "--rm", "--network=none"]
        command += ["--rootfs", directory, "/true"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
        if done.returncode:
            pytest.skip(f"podman cannot run containers here: {done.stderr.strip()}")
    return tool


def test_the_image_builds_and_runs(tmp_path: Path) -> None:
    options = base_options(container_tool(tmp_path))
    wheel = Path(os.environ["WHEEL"]).resolve()
    script = PACKAGING / "build_image"
    command: list[str | Path] = [script, *options, wheel, "tvix-build-test"]
    subprocess.run(command, check=True, timeout=LIMIT)
