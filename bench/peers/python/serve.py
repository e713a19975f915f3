# SPDX-License-Identifier: MIT
"""The program around a peer in Python: reads a corpus, then does repetitions on command
(bench/README.md)."""

from __future__ import annotations

import json
import sys
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from bench.corpora import split

if TYPE_CHECKING:
    from tvix_build import Digests


@dataclass(frozen=True)
class Corpus:
    """Message i is `data[begins[i]:ends[i]]`."""

    data: bytes
    begins: array[int]
    ends: array[int]

    @classmethod
    def read(cls, path: Path) -> Corpus:
        """The corpus in a file."""
        data = path.read_bytes()
        return cls(data, *split(data))

    def messages(self) -> list[bytes]:
        """The messages, each a copy."""
        return [self.data[b:e] for b, e in zip(self.begins, self.ends, strict=True)]


@dataclass(frozen=True)
class Findings:
    """What a repetition finds out.

    Attributes:
        valid: how many messages are.
        digests: 32 bytes a message, zeros where it has none.
    """

    valid: int
    digests: bytes | bytearray | memoryview | Digests


def timed(repeat: Callable[[], Findings]) -> Callable[[], tuple[float, Findings]]:
    """The same, with the seconds that it takes."""

    def repetition() -> tuple[float, Findings]:
        start = time.perf_counter()
        found = repeat()
        return time.perf_counter() - start, found

    return repetition


def serve(corpus: Corpus, repeat: Callable[[], tuple[float, Findings]]) -> None:
    """Serve repetitions until stdin ends. `repeat` does one; it returns its seconds, too."""
    found = Findings(0, b"")
    for line in sys.stdin:
        command, _, argument = line.rstrip("\n").partition(" ")
        response: dict[str, object] = {}
        if command == "digests":
            Path(argument).write_bytes(found.digests)
        else:
            seconds = []
            for _ in range(int(argument)):
                del found  # Or its memory would be there while the next is made.
                taken, found = repeat()
                seconds.append(taken)
            response = {
                "requests": len(corpus.begins),
                "bytes": sum(corpus.ends) - sum(corpus.begins),
                "seconds": seconds,
                "valid": found.valid,
                "digest": blake3(found.digests).hexdigest(),
            }
        print(json.dumps(response), flush=True)
