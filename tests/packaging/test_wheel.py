# SPDX-License-Identifier: MIT
"""The wheels that Bazel and setuptools build have the same contents and metadata.

Setuptools makes a source distribution, and the wheel from that alone, without a network. The
extension is compared by the symbols that it exports, and both are hardened alike.
"""

from __future__ import annotations

import email
import hashlib
import os
import re
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


def pin_blake3(sums: Path, blake3: Path) -> None:
    """Require the version that Bazel uses, because both wheels must have the same code."""
    sums.chmod(0o644)
    names = [line.split()[1] for line in sums.read_text().splitlines()]
    digests = {name: hashlib.sha256((blake3 / name).read_bytes()).hexdigest() for name in names}
    sums.write_text("".join(f"{digest}  {name}\n" for name, digest in digests.items()))


def build_with_setuptools(directory: Path) -> Path:
    """Build the wheel from a source distribution of a copy of the source tree in `directory`."""
    tree = directory / "tree"
    tree.mkdir()
    for name in ("LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, tree / name)
    (tree / "docs").mkdir()
    shutil.copy(ROOT / "docs/tvix-build.1", tree / "docs")
    generated = shutil.ignore_patterns("*_pb2*", "*.so", "__pycache__")
    for name in ("native", "proto", "py"):
        shutil.copytree(ROOT / name, tree / name, ignore=generated)
    # Of a module the repository's name has its module in front.
    (blake3,) = ROOT.parent.glob("*tvix_build_blake3/c")
    pin_blake3(tree / "py" / "blake3.sha256", blake3)
    call_backend("build_sdist", tree, blake3)
    (sdist,) = directory.glob("*.tar.gz")
    shutil.unpack_archive(sdist, directory)
    call_backend("build_wheel", directory / sdist.name.removesuffix(".tar.gz"), Path("/nowhere"))
    return next(directory.glob("*.whl"))


@pytest.fixture(scope="module")
def bazel() -> Wheel:
    return Wheel(ROOT / os.environ["WHEEL"])


@pytest.fixture(scope="module")
def setuptools(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    return Wheel(build_with_setuptools(tmp_path_factory.mktemp("setuptools")))


def read_extension(wheel: Wheel, directory: Path, *command: str) -> list[str]:
    """The lines that a program of binutils writes of a wheel's extension."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]} of binutils")
    library = directory / "library.so"
    library.write_bytes(wheel.files[EXTENSION])
    found = subprocess.run([*command, str(library)], check=True, capture_output=True, text=True)
    return found.stdout.splitlines()


def symbols(wheel: Wheel, directory: Path, which: str) -> set[str]:
    """The dynamic symbols of a wheel's extension, --defined-only or --undefined-only."""
    lines = read_extension(wheel, directory, "nm", "--dynamic", which, "--format=just-symbols")
    return {line.partition("@")[0] for line in lines}


def segments(wheel: Wheel, directory: Path) -> dict[str, list[str]]:
    """The flags of a wheel's extension's segments ("R", "RW", "R E", "RWE"), by type."""
    found: dict[str, list[str]] = {}
    for line in read_extension(wheel, directory, "readelf", "--program-headers", "--wide"):
        if match := re.match(r"  ([A-Z_]+) +(?:0x[0-9a-f]+ +){5}([RWE ]+?) +0x", line):
            found.setdefault(match[1], []).append(match[2])
    return found


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


@pytest.fixture(params=["bazel", "setuptools"])
def either(request: pytest.FixtureRequest) -> Wheel:
    """One wheel, then the other."""
    wheel: Wheel = request.getfixturevalue(request.param)
    return wheel


def test_exports_only_the_init_function(either: Wheel, tmp_path: Path) -> None:
    assert symbols(either, tmp_path, "--defined-only") == {"PyInit__native"}


def test_runs_with_glibc_2_28(either: Wheel, tmp_path: Path) -> None:
    """Which is what the wheels that tools/wheels makes promise."""
    lines = read_extension(either, tmp_path, "readelf", "--version-info", "--wide")
    versions = re.findall(r"Name: GLIBC_(\d+)\.(\d+)", "\n".join(lines))
    assert (2, 2) <= max((int(major), int(minor)) for major, minor in versions) <= (2, 28)


def test_checks_its_stack_and_its_copies(either: Wheel, tmp_path: Path) -> None:
    """Functions that the compiler calls for -fstack-protector and _FORTIFY_SOURCE."""
    wanted = {"__stack_chk_fail", "__memcpy_chk", "__vsnprintf_chk"}
    assert wanted <= symbols(either, tmp_path, "--undefined-only")


def test_nothing_is_both_writable_and_executable(either: Wheel, tmp_path: Path) -> None:
    found = segments(either, tmp_path)
    assert found["GNU_STACK"] == ["RW"]
    assert "R E" in found["LOAD"]
    assert "RWE" not in found["LOAD"]


def test_relocations_are_read_only_once_loaded(either: Wheel, tmp_path: Path) -> None:
    """Full RELRO: the segment, and nothing that is bound later; no code is relocated."""
    assert "GNU_RELRO" in segments(either, tmp_path)
    dynamic = "\n".join(read_extension(either, tmp_path, "readelf", "--dynamic", "--wide"))
    assert "BIND_NOW" in dynamic
    assert "TEXTREL" not in dynamic


@pytest.mark.parametrize(
    "name",
    [
        EXTENSION,
        "tvix_build/plan/v1/plan_pb2.py",
        "tvix_build/plan/v1/plan_pb2.pyi",
        "tvix_build/plan/v1/rpc_plan_pb2.py",
        "tvix_build/py.typed",
        "reapi/protos/py.typed",
        "reapi/protos/remote_execution_pb2.pyi",
        "snix/build/protos/build_pb2.pyi",
        "snix/build/protos/rpc_build_pb2_grpc.py",
        "snix/castore/protos/py.typed",
        "snix/castore/protos/rpc_castore_pb2_grpc.py",
        "tvix/build/protos/build_pb2.pyi",
        "tvix/build/protos/py.typed",
        "tvix/build/protos/rpc_build_pb2_grpc.py",
        "tvix/castore/protos/castore_pb2.py",
        "tvix/castore/protos/py.typed",
        "tvix/castore/protos/rpc_castore_pb2_grpc.py",
    ],
)
def test_has(bazel: Wheel, name: str) -> None:
    assert name in bazel.files


@pytest.mark.parametrize(
    ("namespace", "within"),
    [
        ("reapi", {"reapi/protos"}),
        ("snix", {"snix/build/protos", "snix/castore/protos"}),
        ("tvix", {"tvix/build/protos", "tvix/castore/protos"}),
    ],
)
def test_is_a_namespace(bazel: Wheel, namespace: str, within: set[str]) -> None:
    files = [name for name in bazel.files if name.startswith(f"{namespace}/")]
    assert {name.rpartition("/")[0] for name in files} == within
    assert [name for name in files if "__init__" in name] == []
