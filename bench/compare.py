# SPDX-License-Identifier: MIT
"""The whole comparison (bench/run): builds the peers, makes the corpora, runs everything in one go
with digests compared, and writes the report to bench/results."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from bench import corpora, machine
from bench.building import DIRECTORY, Builder
from bench.corpora import ROOT, Cache, NoDataError
from bench.measure import Peer, Race
from bench.results import Memory, Results

RESULTS = ROOT / "bench" / "results"

HASH_SIZES = [64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]
HASH_TOTAL = 4 << 20
PEAK_SIZE = 256 << 10
LIST_LENGTHS = [100, 1000, 10_000, 100_000, 1_000_000]
BATCH_SIZES = [1, 10, 100, 1000, 10_000, 100_000]
SINGLE_CALLS = {
    "check": "blake3",
    "digest": "blake3",
    "check-message": "serialize",
    "build-request": "construct",
}
"""Calls of bench.peers.python.single, and the call with which each is compared."""


@dataclass(frozen=True)
class Corpus:
    """A corpus by name, and how to make it."""

    name: str
    make: Callable[[], Iterable[bytes]]


DIRECT = Corpus("direct", partial(corpora.nixpkgs, "direct"))
CLOSURE = Corpus("closure", partial(corpora.nixpkgs, "closure"))
TINY = Corpus("tiny", partial(corpora.tiny, 200_000))
LONG = Corpus(
    "direct-long", lambda: chain.from_iterable(corpora.nixpkgs("direct") for _ in range(16))
)
MILLION = Corpus("million", partial(corpora.unsorted, 1, 1_000_000))
PREFIX = Corpus("prefix", partial(corpora.common_prefix, 4, 100_000))
SHUFFLED = Corpus("direct-shuffled", lambda: corpora.shuffled(corpora.nixpkgs("direct")))
DERIVATIONS = Corpus("derivations", corpora.derivations)
CORPORA = [
    DIRECT,
    CLOSURE,
    SHUFFLED,
    Corpus("closure-shuffled", lambda: corpora.shuffled(corpora.nixpkgs("closure"))),
    TINY,
    MILLION,
    PREFIX,
]
_CORPORA_WITH_ALL = {"direct", "closure", "tiny"}
"""Where tvix_build is measured in every way."""


class Comparison:
    """All races, one after the other; what they find goes to `results`."""

    def __init__(self, builder: Builder, quick: bool) -> None:
        self._builder = builder
        self._quick = quick
        self._cache = Cache(DIRECTORY / "corpora")
        self.results = Results(machine.describe(), {}, {}, {}, [])

    # ---- the peers

    def _tvix_build(self, name: str, *options: str, threads: int = 1, hashes: bool = True) -> Peer:
        words = ["CORPUS", *options]
        if threads:
            words += ["--threads", str(threads)]
        return _python(name, "batch", *words, pinned=threads == 1, hashes=hashes)

    def _others(self) -> list[Peer]:
        builder = self._builder
        return [
            _python("Python", "upb", "CORPUS"),
            Peer("C++", [str(builder.cpp), "CORPUS"]),
            Peer("Rust as upstream", [str(builder.rust_upstream), "CORPUS"]),
            Peer("Rust light", [str(builder.rust_light), "CORPUS"]),
        ]

    # ---- the races

    def run(self) -> None:
        """Measure everything."""
        self._rules()
        self._corpora()
        self._arrow()
        self._levels()
        self._violations()
        self._hashes()
        self._list_lengths()
        self._batch_sizes()
        self._single_calls()
        self._memory()
        self._command_line()
        self._files()
        self._derivations()

    def _rules(self) -> None:
        """No figures: do all follow the same rules? Decoders differ, so that not all vectors do."""
        files = ("rules_build_request", "sorting", "utf8")
        vectors = Corpus("vectors", partial(corpora.vectors, *files))
        self._race("rules", vectors, [self._tvix_build("tvix_build"), *self._others()], 1, 1, 0)

    def _corpora(self) -> None:
        for corpus in CORPORA:
            if self._quick and corpus.name == "closure-shuffled":
                continue
            peers = [self._tvix_build("tvix_build")]
            if corpus.name in _CORPORA_WITH_ALL:
                peers.append(self._tvix_build("tvix_build, list of bytes", "--items", "list"))
                peers.append(Peer("tvix_build, C core", [str(self._builder.engine), "CORPUS"]))
                peers.append(self._tvix_build("tvix_build, two threads", threads=2))
            self._race(f"corpus/{corpus.name}", corpus, [*peers, *self._others()], 5, 2, 0.3)

    def _arrow(self) -> None:
        peers = [self._tvix_build("one buffer")]
        for kind in ("binary", "large_binary", "binary_view"):
            peers.append(self._tvix_build(kind, "--items", kind))
        peers.append(
            self._tvix_build("binary with the report as a table", "--items", "binary", "--table")
        )
        self._race("arrow", DIRECT, peers, 5, 2, 0.3)

    def _levels(self) -> None:
        if not machine.has("avx512f"):
            self._note("AVX2 to AVX-512 skipped: this CPU has no AVX-512.")
            return
        engine = [str(self._builder.engine_of_any_level), "CORPUS"]
        peers = [
            Peer(name, engine, environment={"TVIXB_CPU_LEVEL": level})
            for name, level in [("AVX2", "avx2"), ("AVX-512", "avx512")]
        ]
        self._race("level", DIRECT, peers, 7, 3, 0.3)

    def _violations(self) -> None:
        engine = str(self._builder.engine)
        peers = [Peer(f"{kept} kept", [engine, "CORPUS", kept]) for kept in ("100", "1")]
        self._race("violations", DIRECT, peers, 7, 3, 0.3)

    def _hashes(self) -> None:
        official = Peer("official C", [str(self._builder.official), "CORPUS"])
        peers = [
            official,
            _python("PyPI blake3", "hashes", "CORPUS", "loop"),
            _python("blake3_many", "hashes", "CORPUS", "buffer"),
            _python("blake3_many, list of bytes", "hashes", "CORPUS", "list"),
        ]
        for size in HASH_SIZES:
            blobs = Corpus(f"blobs-{size}", partial(corpora.blobs, size, HASH_TOTAL))
            self._race(f"hash/{size}", blobs, peers, 7, 3, 0.1)
        peak = Corpus("blobs-peak", partial(corpora.blobs, PEAK_SIZE, PEAK_SIZE))
        self._race("peak", peak, [official], 7, 3, 0.1)

    def _list_lengths(self) -> None:
        for length in LIST_LENGTHS:
            if length == 1_000_000:
                continue  # It is a corpus.
            make = partial(corpora.unsorted, 200_000 // length, length)
            peers = [self._tvix_build("tvix_build"), *self._others()]
            if self._quick:
                peers = [peer for peer in peers if peer.name != "Python"]
            self._race(f"length/{length}", Corpus(f"unsorted-{length}", make), peers, 3, 2, 0.1)

    def _batch_sizes(self) -> None:
        peers = [
            self._tvix_build(str(size), "--size", str(size), hashes=False) for size in BATCH_SIZES
        ]
        self._race("batch", TINY, peers, 3, 2, 0.1)

    def _single_calls(self) -> None:
        """One call for each message, against calls that check nothing."""
        for call, peer in SINGLE_CALLS.items():
            peers = [_python(name, "single", "CORPUS", name) for name in (call, peer)]
            self._race(f"single/{call}", TINY, peers, 7, 3, 0.1)

    def _race(
        self, name: str, corpus: Corpus, peers: list[Peer], rounds: int, quick: int, turn: float
    ) -> None:
        """Measures peers on a corpus for a number of rounds; `quick` ones with --quick."""
        start = time.monotonic()
        try:
            file = self._cache.get(corpus.name, corpus.make)
        except NoDataError as error:
            self._note(f"{corpus.name} skipped: {error}.")
            return
        race = Race(quick if self._quick else rounds, turn, DIRECTORY)
        self.results.races[name] = race.run(peers, file)
        _say(f"{name}: {time.monotonic() - start:.1f} s")

    def _memory(self) -> None:
        one, two = ["--threads", "1"], ["--threads", "2"]
        for name, corpus, options in [
            ("direct", DIRECT, one),
            ("direct, list of bytes", DIRECT, ["--items", "list", *one]),
            ("closure", CLOSURE, one),
            ("tiny", TINY, one),
            ("one request, 1M inputs", MILLION, one),
            ("closure, two threads", CLOSURE, two),
        ]:
            try:
                file = self._cache.get(corpus.name, corpus.make)
            except NoDataError:
                continue
            command = [sys.executable, "-m", "bench.peers.python.memory", str(file), *options]
            run = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
            self.results.memory[name] = Memory(**json.loads(run.stdout))
        _say("memory")

    def _command_line(self) -> None:
        """Against the engine with as many threads: one a CPU, and one."""
        for name, threads in [("command line", 0), ("command line, one CPU", 1)]:
            peers = [
                _python("tvix-build validate", "cli", "CORPUS", pinned=threads == 1, hashes=False),
                self._tvix_build("check_batch", threads=threads, hashes=False),
            ]
            self._race(name, LONG, peers, 5, 2, 0)
        if "command line" in self.results.races:
            for corpus in (DIRECT, LONG):
                file = self._cache.get(corpus.name, corpus.make)
                self.results.resident[f"{file.stat().st_size / 1e6:,.0f} MB"] = _resident(file)

    def _files(self) -> None:
        """Whole processes, with files that were read before, on all CPUs."""
        files = Corpus("small-files", partial(corpora.small_files, 100_000))
        peers = [
            _python(name, "files", "CORPUS", word, pinned=False, hashes=False)
            for name, word in [("tvix-build ingest", "ingest"), ("b3sum", "b3sum")]
        ]
        self._race("files", files, peers, 5, 2, 0)

    def _derivations(self) -> None:
        """Whole processes, one CPU."""
        peers = [
            _python(name, "derivations", "CORPUS", word)
            for name, word in [("tvix-build from-drv", "from-drv"), ("plain Python", "plain")]
        ]
        self._race("derivations", DERIVATIONS, peers, 3, 1, 0)

    def _note(self, text: str) -> None:
        if text not in self.results.notes:
            self.results.notes.append(text)


def _python(name: str, module: str, *words: str, pinned: bool = True, hashes: bool = True) -> Peer:
    command = [sys.executable, "-m", f"bench.peers.python.{module}", *words]
    return Peer(name, command, pinned, hashes=hashes)


def _resident(file: Path) -> int:
    """The most memory that `tvix-build validate` has in use, in bytes."""
    command = [sys.executable, "-m", "bench.peers.python.resident", str(file)]
    run = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return int(run.stdout.splitlines()[-1])


def _say(text: str) -> None:
    print(f"bench/run: {text}", file=sys.stderr, flush=True)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: about two minutes")
    parser.add_argument(
        "--output", type=Path, default=RESULTS, help="directory of the report (%(default)s)"
    )
    parser.add_argument("--again", action="store_true", help="only write the last report again")
    arguments = parser.parse_args()
    saved = DIRECTORY / "results.json"
    if not arguments.again:
        load = machine.busy()
        builder = Builder(DIRECTORY)
        builder.build()
        _say("everything is built")
        comparison = Comparison(builder, arguments.quick)
        start = time.monotonic()
        comparison.run()
        results = comparison.results
        results.machine["Load before the run"] = f"{load:.1f}"
        results.machine["Duration"] = f"{time.monotonic() - start:.0f} s" + (
            " (--quick)" if arguments.quick else ""
        )
        saved.write_text(json.dumps(results.as_json()))
    from bench import report

    report.write(Results.from_json(json.loads(saved.read_text())), arguments.output)
    _say(f"{arguments.output / 'README.md'}")


if __name__ == "__main__":
    main()
