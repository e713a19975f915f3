# SPDX-License-Identifier: MIT
"""The wheels that Bazel and setuptools build have the same contents and metadata.

Setuptools makes a source distribution, and the wheel from that alone, without a network. The
extension is compared by the symbols that it exports.
"""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
EXTENSION = "tvix_build/_native.abi3.so"

pytestmark = pytest.mark.skipif(
    "WHEEL" not in os.environ, reason="needs the wheel that Bazel built"
)


class Wheel:
    """A wheel's file name and its files."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        with zipfile.ZipFile(path) as archive:
            self.files = {name: archive.read(name) for name in archive.namelist()}

    def code(self) -> dict[str, bytes]:
        """The files but for metadata and extension."""
        return {
            name: data
            for name, data in self.files.items()
            if ".dist-info/" not in name and name != EXTENSION
        }

    def metadata(self, name: str) -> Message:
        """METADATA or WHEEL, parsed."""
        found = [data for path, data in self.files.items() if path.endswith(f".dist-info/{name}")]
        return email.message_from_bytes(found[0])


def call_backend(call: str, tree: Path, blake3: Path) -> None:
    """Calls a hook of setuptools' build backend in a source tree."""
    subprocess.run(
        [sys.executable, "-c", f"from setuptools import build_meta; build_meta.{call}('..')"],
        cwd=tree,
        env={**os.environ, "BLAKE3_C_DIR": str(blake3), "HOME": str(tree.parent)},
        check=True,
        stdout=subprocess.DEVNULL,
    )


def build_with_setuptools(folder: Path) -> Path:
    """Builds the wheel from a source distribution of a copy of the source tree below `folder`."""
    tree = folder / "tree"
    tree.mkdir()
    for name in ("LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, tree / name)
    generated = shutil.ignore_patterns("*_pb2*", "*.so", "__pycache__")
    for name in ("native", "proto", "py"):
        shutil.copytree(ROOT / name, tree / name, ignore=generated)
    # Of a module the repository's name has its module in front.
    (blake3,) = ROOT.parent.glob("*tvix_build_blake3/c")
    call_backend("build_sdist", tree, blake3)
    (sdist,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(sdist, folder)
    call_backend("build_wheel", folder / sdist.name.removesuffix(".tar.gz"), Path("/nowhere"))
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def bazel() -> Wheel:
    return Wheel(ROOT / os.environ["WHEEL"])


@pytest.fixture(scope="module")
def setuptools(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    return Wheel(build_with_setuptools(tmp_path_factory.mktemp("setuptools")))


def exported(wheel: Wheel, folder: Path) -> list[str]:
    """The symbols that a wheel's extension defines for others."""
    library = folder / "library.so"
    library.write_bytes(wheel.files[EXTENSION])
    command = ["nm", "--dynamic", "--defined-only", "--format=just-symbols", str(library)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def test_same_file_name(bazel: Wheel, setuptools: Wheel) -> None:
    assert bazel.name == setuptools.name


def test_same_code(bazel: Wheel, setuptools: Wheel) -> None:
    ours, others = bazel.code(), setuptools.code()
    assert sorted(ours) == sorted(others)
    assert [name for name in ours if ours[name] != others[name]] == []


@pytest.mark.parametrize("name", ["METADATA", "WHEEL"])
def test_same_metadata(bazel: Wheel, setuptools: Wheel, name: str) -> None:
    def comparable(wheel: Wheel) -> list[tuple[str, str]]:
        ignored = {"Dynamic", "Generator"}
        return sorted(
            (key, str(Requirement(value)) if key == "Requires-Dist" else value)
            for key, value in wheel.metadata(name).items()
            if key not in ignored
        )

    assert comparable(bazel) == comparable(setuptools)
    assert bazel.metadata(name).get_payload() == setuptools.metadata(name).get_payload()


def test_exports_only_the_init_function(bazel: Wheel, setuptools: Wheel, tmp_path: Path) -> None:
    assert exported(bazel, tmp_path) == ["PyInit__native"]
    assert exported(setuptools, tmp_path) == ["PyInit__native"]


@pytest.mark.parametrize(
    "name",
    [
        EXTENSION,
        "tvix_build/py.typed",
        "tvix/build/protos/build_pb2.pyi",
        "tvix/build/protos/py.typed",
        "tvix/build/protos/rpc_build_pb2_grpc.py",
        "tvix/castore/protos/castore_pb2.py",
        "tvix/castore/protos/py.typed",
    ],
)
def test_has(bazel: Wheel, name: str) -> None:
    assert name in bazel.files


def test_tvix_is_a_namespace(bazel: Wheel) -> None:
    folders = {name.rpartition("/")[0] for name in bazel.files if name.startswith("tvix/")}
    assert folders == {"tvix/build/protos", "tvix/castore/protos"}
    assert [name for name in bazel.files if name.startswith("tvix/") and "__init__" in name] == []
