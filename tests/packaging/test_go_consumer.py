# SPDX-License-Identifier: MIT
"""Go's protobuf parses canonical requests and serializes them to the same bytes, which are the
input of the digest."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from go_programs import CONSUMERS, ROOT, compile_program, needs_go
from waiting import LIMIT

SCHEMAS = ("tvix.build.v1", "snix.build.v1")

pytestmark = [pytest.mark.slow, needs_go()]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the compiled consumer."""
    protos = [*ROOT.glob("proto/*/*/protos/[bc]*.proto")]
    return compile_program(tmp_path_factory.mktemp("go"), CONSUMERS / "round_trip.go", protos)


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
    done = subprocess.run(
        [program],
        input="".join(lines),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=LIMIT,
    )
    written = [bytes.fromhex(line) for line in done.stdout.split()]
    assert written == [data for _, data in requests]
