# SPDX-License-Identifier: MIT
"""How much memory tvix_build needs for a batch beyond its input.

usage: python -m bench.peers.python.memory CORPUS [the options of batch.py]
Prints one JSON object: bytes of the input, of the results, and how far the resident memory grew at
its peak.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

from bench.peers.python.batch import parse


def resident(key: str) -> int:
    """A value of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return 1024 * int(value.split()[0])
    raise KeyError(key)


def main() -> None:
    """Measures the corpus that the command line names."""
    corpus, repeat = parse(sys.argv[1:])
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # The peak starts at what is resident now.
    before = resident("VmRSS")
    found = repeat()
    peak = resident("VmHWM")
    result = {
        "input": sum(corpus.ends) - sum(corpus.begins),
        "results": len(corpus.begins) + len(memoryview(found.digests).cast("B")),
        "growth": peak - before,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
