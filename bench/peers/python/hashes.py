# SPDX-License-Identifier: MIT
"""BLAKE3 of the messages of a corpus as they are, from Python.

usage: python -m bench.peers.python.hashes CORPUS loop|list|buffer
loop: PyPI's blake3, one after the other. list, buffer: tvix_build.blake3_many of a list of bytes,
of one buffer with offsets.
"""

from __future__ import annotations

import sys
from pathlib import Path

from blake3 import blake3

import tvix_build
from bench.peers.python.serve import Corpus, Findings, serve, timed


def main() -> None:
    """Serves the corpus that the command line names."""
    corpus = Corpus.read(Path(sys.argv[1]))
    messages = corpus.messages()
    count = len(messages)

    def loop() -> Findings:
        return Findings(count, b"".join([blake3(data).digest() for data in messages]))

    def of_list() -> Findings:
        return Findings(count, tvix_build.blake3_many(messages))

    def of_buffer() -> Findings:
        ranges = (corpus.begins, corpus.ends)
        return Findings(count, tvix_build.blake3_many(corpus.data, offsets=ranges))

    ways = {"loop": loop, "list": of_list, "buffer": of_buffer}
    serve(corpus, timed(ways[sys.argv[2]]))


if __name__ == "__main__":
    main()
