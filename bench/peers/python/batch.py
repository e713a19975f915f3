# SPDX-License-Identifier: MIT
"""tvix_build itself, from Python: the whole corpus in one call.

usage: python -m bench.peers.python.batch CORPUS [--items KIND] [--table] [--size N] [--threads N]
KIND is buffer (one, with offsets), list (of bytes), or the type of an Arrow array, as binary_view.
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
    parser.add_argument("--items", default="buffer")
    parser.add_argument("--table", action="store_true", help="the report as an Arrow table")
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
    if arguments.items != "buffer":
        array = _arrow_array(corpus, arguments.items)
        return corpus, lambda: _findings(tvix_build.check_batch(array, **options), arguments.table)
    ranges = (corpus.begins, corpus.ends)
    return corpus, lambda: _findings(tvix_build.check_batch(corpus.data, offsets=ranges, **options))


def _arrow_array(corpus: Corpus, kind: str) -> Any:
    """The messages, of an Arrow type by the name that pyarrow has for it."""
    import pyarrow

    return pyarrow.array(corpus.messages(), getattr(pyarrow, kind)())


def _findings(report: tvix_build.BatchReport, as_table: bool = False) -> Findings:
    if as_table:
        import pyarrow

        assert pyarrow.table(report).num_rows == len(report)
    return Findings(report.valid_count, report.digests)


def _in_pieces(corpus: Corpus, size: int, options: dict[str, Any]) -> Findings:
    """Checks the given number of messages a call. Keeps no digests."""
    begins, ends = memoryview(corpus.begins), memoryview(corpus.ends)
    valid = 0
    for i in range(0, len(begins), size):
        ranges = (begins[i : i + size], ends[i : i + size])
        valid += tvix_build.check_batch(corpus.data, offsets=ranges, **options).valid_count
    return Findings(valid, b"")


if __name__ == "__main__":
    parsed, repeat = parse(sys.argv[1:])
    serve(parsed, timed(repeat))
