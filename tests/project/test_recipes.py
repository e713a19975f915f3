# SPDX-License-Identifier: MIT
"""The recipes of packages and of Buf parse, and name versions and dependencies that are right."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import tvix_build
from waiting import LIMIT

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"


def test_buf_module_has_the_protos() -> None:
    buf = yaml.safe_load((ROOT / "buf.yaml").read_text())
    assert buf["version"] == "v2"
    (module,) = buf["modules"]
    protos = {path.name for path in (ROOT / module["path"]).rglob("*.proto")}
    assert protos == {"build.proto", "castore.proto", "rpc_build.proto"}
    # Exceptions only for names of upstream.
    assert sorted(buf["lint"]["except"]) == [
        "PACKAGE_DIRECTORY_MATCH",
        "RPC_REQUEST_STANDARD_NAME",
        "RPC_RESPONSE_STANDARD_NAME",
    ]


@pytest.mark.skipif(shutil.which("buf") is None, reason="needs buf: npm install @bufbuild/buf")
@pytest.mark.parametrize("command", ["build", "lint"])
def test_buf_accepts_the_module(command: str) -> None:
    subprocess.run(["buf", command], cwd=ROOT, check=True, timeout=LIMIT)


def test_debian_changelog_has_the_version() -> None:
    changelog = (PACKAGING / "debian" / "changelog").read_text()
    assert changelog.startswith(f"tvix-build ({tvix_build.__version__}-")


def test_debian_patch_applies() -> None:
    (patch,) = (PACKAGING / "debian" / "patches").glob("*.patch")
    _, *hunks = patch.read_text().split("\n@@")
    assert hunks
    for hunk in hunks:
        _, *lines = hunk.splitlines()
        before = [line[1:] for line in lines if not line.startswith("+")]
        assert "\n".join(before) in (ROOT / "pyproject.toml").read_text()
