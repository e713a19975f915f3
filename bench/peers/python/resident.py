# SPDX-License-Identifier: MIT
"""How much memory the command line has in use at most.

usage: python -m bench.peers.python.resident CORPUS
Prints bytes, after what `tvix-build validate CORPUS` prints.
"""

from __future__ import annotations

import sys

from bench.peers.python.memory import resident
from tvix_build.__main__ import main


def measure() -> None:
    """Runs the command line in this process."""
    try:
        main(["validate", sys.argv[1]])
    finally:
        print(resident("VmHWM"))


if __name__ == "__main__":
    measure()
