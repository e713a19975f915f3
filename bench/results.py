# SPDX-License-Identifier: MIT
"""What a run of the comparison found, for the report."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bench.measure import Sample


@dataclass(frozen=True)
class Memory:
    """Bytes that a batch's input and results have, and by how much the process grew at most."""

    input: int
    results: int
    growth: int


@dataclass(frozen=True)
class Results:
    """Everything that was measured.

    Attributes:
        machine: names and values.
        races: by the name of the race, then of the peer.
        memory: by the name of the batch.
        resident: bytes that the command line had in use at most, by the size of its file.
        notes: what was left out, and why.
    """

    machine: dict[str, str]
    races: dict[str, dict[str, Sample]]
    memory: dict[str, Memory]
    resident: dict[str, int]
    notes: list[str]

    def as_json(self) -> dict[str, Any]:
        """As plain values, for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Results:
        """What `as_json` gave."""
        races = {
            name: {peer: Sample(**sample) for peer, sample in samples.items()}
            for name, samples in values["races"].items()
        }
        memory = {name: Memory(**numbers) for name, numbers in values["memory"].items()}
        return cls(values["machine"], races, memory, values["resident"], values["notes"])
