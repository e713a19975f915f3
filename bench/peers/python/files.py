# SPDX-License-Identifier: MIT
"""The messages of a corpus as files, 100 a directory: a whole process that hashes all of them.

usage: python -m bench.peers.python.files CORPUS ingest|b3sum
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from bench.peers.python.serve import Corpus, Findings, serve, timed


def write_files(corpus: Corpus, directory: Path) -> list[str]:
    """A file for each message; their paths below the directory, in order."""
    paths = []
    for i, data in enumerate(corpus.messages()):
        path = directory / f"{i // 10_000}/{i // 100:05}/{i:07}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        paths.append(str(path.relative_to(directory)))
    return paths


def main() -> None:
    """Serves the corpus that the command line names."""
    corpus = Corpus.read(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as directory:
        names = "\0".join(write_files(corpus, Path(directory))).encode()

        def run(command: list[str], names: bytes) -> bytes:
            done = subprocess.run(
                command, cwd=directory, input=names, capture_output=True, check=True
            )
            return done.stdout

        def ingest() -> Findings:
            run([str(Path(sys.executable).with_name("tvix-build")), "ingest", "."], b"")
            return Findings(len(corpus.begins), b"")  # A file that it misses would be an error.

        def b3sum() -> Findings:
            lines = run(["xargs", "-0", "b3sum"], names).decode().splitlines()
            return Findings(len(lines), bytes.fromhex("".join(line[:64] for line in lines)))

        serve(corpus, timed(ingest if sys.argv[2] == "ingest" else b3sum))


if __name__ == "__main__":
    main()
