# SPDX-License-Identifier: MIT
"""tvix_build itself, from Python: the whole corpus in one call.

usage: python -m bench.peers.python.batch CORPUS [--items buffer|list] [--size N] [--threads N]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tvix_build
from bench.peers.python.serve import Corpus, Findings, serve, timed


def parse(words: list[str]) -> tuple[Corpus, Callable[[], Findings]]:
    """What a command line asks for: the corpus, and what is to be done with it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--items", choices=["buffer", "list"], default="buffer")
    parser.add_argument("--size", type=int, help="messages in a call (default: all)")
    parser.add_argument("--threads", type=int, help="passed on if it is there")
    arguments = parser.parse_args(words)
    corpus = Corpus.read(arguments.corpus)
    options: dict[str, Any] = {}
    if arguments.threads is not None:
        options["threads"] = arguments.threads
    if arguments.size is not None:
        return corpus, lambda: _in_pieces(corpus, arguments.size, options)
    if arguments.items == "list":
        messages = corpus.messages()
        return corpus, lambda: _findings(tvix_build.check_batch(messages, **options))
    ranges = (corpus.begins, corpus.ends)
    return corpus, lambda: _findings(tvix_build.check_batch(corpus.data, offsets=ranges, **options))


def _findings(report: tvix_build.BatchReport) -> Findings:
    return Findings(report.valid_count, report.digests)


def _in_pieces(corpus: Corpus, size: int, options: dict[str, Any]) -> Findings:
    """So many messages a call. Keeps no digests."""
    begins, ends = memoryview(corpus.begins), memoryview(corpus.ends)
    valid = 0
    for i in range(0, len(begins), size):
        ranges = (begins[i : i + size], ends[i : i + size])
        valid += tvix_build.check_batch(corpus.data, offsets=ranges, **options).valid_count
    return Findings(valid, b"")


if __name__ == "__main__":
    parsed, repeat = parse(sys.argv[1:])
    serve(parsed, timed(repeat))
