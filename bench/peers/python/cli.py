# SPDX-License-Identifier: MIT
"""The command line: `tvix-build validate` on a corpus, less what it takes on a single request.

usage: python -m bench.peers.python.cli CORPUS
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.corpora import delimited
from bench.peers.python.serve import Corpus, Findings, serve


def seconds(file: Path) -> float:
    """How long `tvix-build validate` takes."""
    start = time.perf_counter()
    command = [str(Path(sys.executable).with_name("tvix-build")), "validate", str(file)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Serves the corpus that the command line names."""
    path = Path(sys.argv[1])
    corpus = Corpus.read(path)
    with tempfile.TemporaryDirectory() as directory:
        single = Path(directory, "single.binpbs")
        single.write_bytes(delimited(corpus.data[corpus.begins[0] : corpus.ends[0]]))

        def repeat() -> tuple[float, Findings]:
            taken = seconds(path) - seconds(single)
            return taken, Findings(len(corpus.begins), b"")  # All valid, or it would have failed.

        serve(corpus, repeat)


if __name__ == "__main__":
    main()
