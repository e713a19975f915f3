# SPDX-License-Identifier: MIT
"""BLAKE3 of the messages of a corpus as they are, from Python.

usage: python -m bench.peers.python.hashes CORPUS loop|many
loop: PyPI's blake3, one after the other. many: tvix_build.blake3_many.
"""

from __future__ import annotations

import sys
from pathlib import Path

from blake3 import blake3

import tvix_build
from bench.peers.python.serve import Corpus, Findings, serve


def main() -> None:
    """Serves the corpus that the command line names."""
    corpus = Corpus.read(Path(sys.argv[1]))
    messages = corpus.messages()
    count = len(messages)

    def loop() -> Findings:
        return Findings(count, b"".join([blake3(data).digest() for data in messages]))

    def many() -> Findings:
        return Findings(count, tvix_build.blake3_many(messages))  # type: ignore[attr-defined, unused-ignore]

    serve(corpus, {"loop": loop, "many": many}[sys.argv[2]])


if __name__ == "__main__":
    main()
