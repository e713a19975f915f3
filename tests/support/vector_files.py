# SPDX-License-Identifier: MIT
"""Reads tests/vectors/*.json; make_vectors.py describes the format."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tvix_build._core.report import KindLike, SchemaLike

VECTORS = Path(__file__).absolute().parents[1] / "vectors"


@dataclass(frozen=True)
class Row:
    """A vector."""

    file: str
    name: str
    kind: KindLike
    data: bytes
    valid: bool
    canonical: bool
    digest: bytes | None
    encoding: bytes | None
    violations: list[tuple[str, str]]
    schema: SchemaLike
    request: bytes | None  # the request of a response

    @property
    def id(self) -> str:
        return f"{self.file}-{self.name}"


def load(path: Path) -> list[Row]:
    """Return the vectors of a file."""
    rows = []
    for row in json.loads(path.read_text("ascii"))["vectors"]:
        rows.append(
            Row(
                path.stem,
                row["name"],
                row["kind"],
                bytes.fromhex(row["hex"]),
                row["valid"],
                row["canonical"],
                None if row["digest"] is None else bytes.fromhex(row["digest"]),
                None if row["canonical_hex"] is None else bytes.fromhex(row["canonical_hex"]),
                [(code, place) for code, place in row["violations"]],
                row.get("schema", "tvix.build.v1"),
                bytes.fromhex(row["request_hex"]) if "request_hex" in row else None,
            )
        )
    return rows


PATHS = sorted(VECTORS.glob("*.json"))
ROWS = [row for path in PATHS for row in load(path)]
