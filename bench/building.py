# SPDX-License-Identifier: MIT
"""Builds the peers, and tvix_build as its users get it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from bench.corpora import ROOT

DIRECTORY = ROOT / "build" / "bench"
PEERS = ROOT / "bench" / "peers"
#: Debian's, like all compilers here, whatever else is installed.
CARGO = os.environ.get("CARGO", "/usr/bin/cargo")
RUSTC = os.environ.get("RUSTC", "/usr/bin/rustc")

_CRATES = Path("/usr/share/cargo/registry")
_C_FLAGS = ["-O3", "-march=native", "-Wall", "-Wextra"]
_ASSEMBLY = ["sse2", "sse41", "avx2", "avx512"]
_ENGINE = [PEERS / "c" / "engine.c", *sorted((ROOT / "native").glob("*.c"))]


def blake3_directory() -> Path:
    """The official C code: BLAKE3_C_DIR, else Debian's."""
    named = os.environ.get("BLAKE3_C_DIR")
    return Path(named) if named else max(_CRATES.glob("blake3-*")) / "c"


def install_tvix_build() -> None:
    """Installs the checkout into this environment, from a copy that the build may write to."""
    parts = ["native", "proto", "py", "setup.py", "pyproject.toml", "LICENSE", "README.md"]
    copied = DIRECTORY / "source"
    shutil.rmtree(copied, ignore_errors=True)
    copied.mkdir(parents=True)
    ignore = shutil.ignore_patterns("tvix", "__pycache__", "*.so", "*.egg-info")
    for name in parts:
        if (ROOT / name).is_dir():
            # proto/tvix is a source, py/tvix made by setup.py.
            shutil.copytree(ROOT / name, copied / name, ignore=ignore if name == "py" else None)
        else:
            shutil.copy(ROOT / name, copied / name)
    files = sorted(path for path in copied.rglob("*") if path.is_file())
    contents = hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()
    stamp = DIRECTORY / "installed"
    if stamp.exists() and stamp.read_text() == contents:
        return
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps"]
    subprocess.run([*pip, str(copied)], check=True)
    stamp.write_text(contents)


class Builder:
    """Builds into a directory what is not there yet, or older than its sources.

    Attributes:
        rust_upstream, rust_light, cpp, official, engine: the programs.
        engine_of_any_level: the engine, which TVIXB_CPU_LEVEL tells what the CPU has.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._blake3 = blake3_directory()
        self.rust_upstream = directory / "rust" / "release" / "upstream"
        self.rust_light = directory / "rust" / "release" / "light"
        self.cpp = directory / "cpp" / "peer"
        self.official = directory / "c" / "official"
        self.engine = directory / "c" / "engine"
        self.engine_of_any_level = directory / "c" / "engine_of_any_level"

    def build(self) -> None:
        """Build everything."""
        self._build_rust()
        blake3 = self._build_blake3()
        self._build_cpp(blake3)
        self._build_c(self.official, PEERS.glob("c/official.c"), blake3)
        self.build_engine()
        self._build_c(self.engine_of_any_level, _ENGINE, blake3, "-DTVIXB_TEST_BUILD")

    def build_engine(self) -> None:
        """Build the engine alone."""
        self._build_c(self.engine, _ENGINE, self._build_blake3())

    def _build_rust(self) -> None:
        subprocess.run(
            [CARGO, "build", "--release", "--locked", "--quiet"],
            cwd=PEERS / "rust",
            env={**os.environ, "RUSTC": RUSTC, "CARGO_TARGET_DIR": str(self._directory / "rust")},
            check=True,
        )

    def _build_blake3(self) -> list[Path]:
        """The object files of the official C code."""
        names = ["blake3.c", "blake3_dispatch.c", "blake3_portable.c"]
        names += [f"blake3_{name}_x86-64_unix.S" for name in _ASSEMBLY]
        objects = []
        for name in names:
            source = self._blake3 / name
            target = self._directory / "blake3" / f"{name}.o"
            self._compile(target, [source], ["gcc", *_C_FLAGS, "-c", str(source)])
            objects.append(target)
        return objects

    def _build_cpp(self, blake3: list[Path]) -> None:
        generated = self.cpp.parent / "generated"
        protos = sorted((ROOT / "proto").rglob("*.proto"))
        protos = [path for path in protos if not path.name.startswith("rpc_")]
        generated.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["protoc", f"-I{ROOT / 'proto'}", f"--cpp_out={generated}", *map(str, protos)],
            check=True,
        )
        source = PEERS / "cpp" / "peer.cc"
        inputs = [source, *sorted(generated.rglob("*.cc")), *blake3]
        self._compile(
            self.cpp,
            [source, *protos],
            [
                *["g++", "-std=c++17", *_C_FLAGS, f"-I{generated}", f"-I{self._blake3}"],
                *map(str, inputs),
                *["-l:libprotobuf.a", "-pthread"],
            ],
        )

    def _build_c(
        self, program: Path, sources: Iterable[Path], blake3: list[Path], *options: str
    ) -> None:
        sources = [PEERS / "c" / "peer.c", *sources]
        headers = [*PEERS.glob("c/*.h"), *(ROOT / "native").glob("*.h")]
        includes = [f"-I{PEERS / 'c'}", f"-I{ROOT / 'native'}", f"-I{self._blake3}"]
        command = ["gcc", "-std=gnu11", "-O3", *options, *includes]
        self._compile(
            program, [*sources, *headers], [*command, *map(str, [*sources, *blake3]), "-pthread"]
        )

    def _compile(self, target: Path, sources: Iterable[Path], command: list[str]) -> None:
        """Runs the command if the target is older than a source."""
        newest = max(path.stat().st_mtime for path in sources)
        if target.exists() and target.stat().st_mtime > newest:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([*command, "-o", str(target)], check=True)
