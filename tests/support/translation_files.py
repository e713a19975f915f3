# SPDX-License-Identifier: MIT
"""Reads tests/translations/*.json; make_vectors.py describes the format."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvix_build._core.report import SchemaLike

TRANSLATIONS = Path(__file__).absolute().parents[1] / "translations"


@dataclass(frozen=True)
class Pair:
    """A request in tvix.build.v1 and in the later schemas."""

    name: str
    network_access: bool
    first: bytes
    later: bytes


@dataclass(frozen=True)
class Refusal:
    """A request that is not translated."""

    name: str
    schema: SchemaLike
    network_access: bool
    data: bytes
    reasons: list[str]
    violations: list[tuple[str, str]]


def _rows(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((TRANSLATIONS / name).read_text("ascii"))["vectors"]
    return rows


PAIRS = [
    Pair(
        row["name"],
        row["network_access"],
        bytes.fromhex(row["hex"]),
        bytes.fromhex(row["later_hex"]),
    )
    for row in _rows("pairs.json")
]
REFUSALS = [
    Refusal(
        row["name"],
        row["schema"],
        row["network_access"],
        bytes.fromhex(row["hex"]),
        row["reasons"],
        [(code, path) for code, path in row["violations"]],
    )
    for row in _rows("refusals.json")
]
