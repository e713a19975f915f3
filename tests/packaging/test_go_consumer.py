# SPDX-License-Identifier: MIT
"""Go's protobuf parses canonical requests and serializes them to the same bytes, which are the
input of the digest."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from waiting import LIMIT

ROOT = Path(__file__).parents[2]
SCHEMAS = ("tvix.build.v1", "snix.build.v1")
GO_PATH = Path("/usr/share/gocode")
"""Where Debian installs the sources of Go packages."""


def has_packages() -> bool:
    """Return whether Debian's packages for Go and protobuf are installed."""
    programs = all(map(shutil.which, ["go", "protoc", "protoc-gen-go"]))
    if not programs or not (GO_PATH / "src/google.golang.org/protobuf").exists():
        return False
    # protoc-gen-go 1.3, for the old interface of Go's protobuf, has no --version.
    version = subprocess.run(["protoc-gen-go", "--version"], capture_output=True, check=False)
    return version.returncode == 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not has_packages(),
        reason="needs Debian's golang-go, golang-google-protobuf-dev, protobuf-compiler and "
        "protoc-gen-go",
    ),
]


def run(*command: str | Path, stdin: str = "", **variables: str) -> str:
    """Return the output of a command."""
    done = subprocess.run(
        command,
        input=stdin,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=LIMIT,
    )
    return done.stdout


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the compiled consumer. Its packages have the names that the protos give them."""
    directory = tmp_path_factory.mktemp("go")
    sources = directory / "src"
    sources.mkdir()
    protos = ROOT.glob("proto/*/*/protos/[bc]*.proto")
    run("protoc", f"-I{ROOT / 'proto'}", f"--go_out={sources}", *protos)
    run(
        *("go", "build", "-o", directory / "round_trip"),
        ROOT / "tests/consumers/go/round_trip.go",
        GO111MODULE="off",
        GOCACHE=str(directory / "cache"),
        GOFLAGS="-p=1",
        GOPATH=f"{directory}:{GO_PATH}",
    )
    return directory / "round_trip"


def canonical_requests() -> list[tuple[str, bytes]]:
    """Return the schemas and bytes of the example requests and of all canonical vectors."""
    examples = (ROOT / "examples" / "requests").glob("*.binpb")
    requests = [("tvix.build.v1", path.read_bytes()) for path in sorted(examples)]
    for path in sorted((ROOT / "tests" / "vectors").glob("*.json")):
        for vector in json.loads(path.read_text())["vectors"]:
            schema = vector.get("schema", "tvix.build.v1")
            if vector["kind"] == "build-request" and vector["canonical"] and schema in SCHEMAS:
                requests.append((schema, bytes.fromhex(vector["hex"])))
    return requests


def test_canonical_bytes_survive(program: Path) -> None:
    requests = canonical_requests()
    lines = [f"{schema} {data.hex()}\n" for schema, data in requests]
    assert {schema for schema, _ in requests} == set(SCHEMAS)
    written = [bytes.fromhex(line) for line in run(program, stdin="".join(lines)).split()]
    assert written == [data for _, data in requests]
