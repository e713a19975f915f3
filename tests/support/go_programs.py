# SPDX-License-Identifier: MIT
"""Compiles programs in Go with the packages of Debian."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from waiting import LIMIT

ROOT = Path(__file__).parents[2]
CONSUMERS = ROOT / "tests/consumers/go"
GO_PATH = Path("/usr/share/gocode")
"""Where Debian installs the sources of Go packages."""


def needs_go(*, grpc: bool = False) -> pytest.MarkDecorator:
    """Return the mark of tests that compile programs, which may use gRPC."""
    packages = "golang-go, golang-google-protobuf-dev, protobuf-compiler, protoc-gen-go"
    if grpc:
        packages += (
            ", golang-google-grpc-dev, golang-github-golang-protobuf-1-5-dev, protoc-gen-go-grpc"
        )
    return pytest.mark.skipif(not _has_packages(grpc), reason=f"needs Debian's {packages}")


def compile_program(
    directory: Path, source: Path, protos: Sequence[Path], *, grpc: bool = False
) -> Path:
    """Compile a program in an empty directory. The packages of the protos have the names that the
    protos give them."""
    sources = directory / "src"
    sources.mkdir()
    plugins = ("go", "go-grpc") if grpc else ("go",)
    outputs = [f"--{plugin}_out={sources}" for plugin in plugins]
    _run("protoc", f"-I{ROOT / 'proto'}", *outputs, *protos)
    program = directory / source.stem
    _run(
        *("go", "build", "-o", program, source),
        GO111MODULE="off",
        GOCACHE=str(directory / "cache"),
        GOFLAGS="-p=1",
        GOPATH=f"{directory}:{GO_PATH}",
    )
    return program


def _has_packages(grpc: bool) -> bool:
    programs = ["go", "protoc", "protoc-gen-go", *["protoc-gen-go-grpc"] * grpc]
    # With golang-github-golang-protobuf-1-3-dev, which has no registry, gRPC panics.
    packages = ["google.golang.org/protobuf"]
    if grpc:
        packages += ["google.golang.org/grpc", "github.com/golang/protobuf/proto/registry.go"]
    if not all(map(shutil.which, programs)):
        return False
    if not all((GO_PATH / "src" / name).exists() for name in packages):
        return False
    # protoc-gen-go 1.3, for the old interface of Go's protobuf, has no --version.
    version = subprocess.run(["protoc-gen-go", "--version"], capture_output=True, check=False)
    return version.returncode == 0


def _run(*command: str | Path, **variables: str) -> None:
    subprocess.run(command, env={**os.environ, **variables}, check=True, timeout=LIMIT)
