# SPDX-License-Identifier: MIT
"""Compares the speed of the checkout with that of a commit: both are built, then measured in turns
on the same corpora, and their digests are compared. The table on standard output has a row for each
workload; a ratio above 1 means that the checkout is faster."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import machine
from bench.building import DIRECTORY, copy_sources, install
from bench.compare import CLOSURE, DERIVATIONS, DIRECT, SHUFFLED, TINY, Corpus
from bench.corpora import ROOT, Cache, NoDataError
from bench.measure import Peer, Race, ratio

BEFORE, AFTER = "before", "after"
ROUNDS, QUICK_ROUNDS, TURN = 9, 3, 0.3
"""TURN is in seconds."""


@dataclass(frozen=True)
class Tree:
    """A version of the project, built.

    Attributes:
        sources: the directory of a checkout.
        site: the directory with the installed package.
        engine: the program that runs the C core alone.
    """

    sources: Path
    site: Path
    engine: Path

    @classmethod
    def build(cls, sources: Path, directory: Path) -> Tree:
        """Build the package and the program, with the sources' own benchmark code for C."""
        site, programs = directory / "site", directory / "programs"
        copied = directory / "source"
        copy_sources(sources, copied)
        install(copied, "--target", str(site), "--upgrade")
        code = "import sys, pathlib; from bench.building import Builder\n"
        code += "Builder(pathlib.Path(sys.argv[1])).build_engine()"
        subprocess.run([sys.executable, "-c", code, str(programs)], cwd=sources, check=True)
        return cls(sources, site, programs / "c" / "engine")

    def python(self, name: str, module: str, *words: str, hashes: bool = True) -> Peer:
        """A Python peer of the checkout that imports this version of the package."""
        command = [sys.executable, "-m", f"bench.peers.python.{module}", "CORPUS", *words]
        path = os.pathsep.join([str(self.site), str(ROOT)])
        return Peer(name, command, environment={"PYTHONPATH": path}, hashes=hashes)


def unpack(commit: str, directory: Path) -> Path:
    """Unpack the files of a commit into an empty directory below `directory`."""
    unpacked = directory / "checkout"
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir(parents=True)
    archive = subprocess.run(
        ["git", "archive", commit], cwd=ROOT, check=True, stdout=subprocess.PIPE
    )
    subprocess.run(["tar", "-x"], cwd=unpacked, input=archive.stdout, check=True)
    return unpacked


def workloads(before: Tree, after: Tree) -> Iterator[tuple[str, Corpus, list[Peer]]]:
    """Yield the name, the corpus and the two peers of each workload."""
    both = [(BEFORE, before), (AFTER, after)]
    for corpus in (DIRECT, CLOSURE, SHUFFLED, TINY):
        peers = [Peer(name, [str(tree.engine), "CORPUS"]) for name, tree in both]
        yield f"C core, {corpus.name}", corpus, peers
    for items in ("buffer", "list"):
        words = ("--items", items, "--threads", "1")
        yield (
            f"check_batch, {items}",
            DIRECT,
            [tree.python(name, "batch", *words) for name, tree in both],
        )
    for call in ("check", "digest", "check-message", "build-request", "malformed"):
        yield call, TINY, [tree.python(name, "single", call) for name, tree in both]
    peers = [tree.python(name, "derivations", "from-drv") for name, tree in both]
    yield "tvix-build from-drv", DERIVATIONS, peers


def measure(before: Tree, after: Tree, rounds: int) -> Iterator[str]:
    """Yield the rows of the table."""
    cache = Cache(DIRECTORY / "corpora")
    for name, corpus, peers in workloads(before, after):
        try:
            file = cache.get(corpus.name, corpus.make)
        except NoDataError as error:
            print(f"bench/against: {name} skipped: {error}", file=sys.stderr)
            continue
        samples = Race(rounds, TURN, DIRECTORY).run(peers, file)
        found = ratio(samples[AFTER], samples[BEFORE])
        each = [samples[one].seconds / samples[one].requests * 1e6 for one in (BEFORE, AFTER)]
        cells = [name, *(f"{one:.3f}" for one in each)]
        cells.append(f"**{found.median:.2f}** ({found.least:.2f}-{found.greatest:.2f})")
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(prog="bench/against", description=__doc__)
    parser.add_argument("commit", help="what `git archive` accepts")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds, not {ROUNDS}")
    arguments = parser.parse_args()
    directory = DIRECTORY / "against"
    before = Tree.build(unpack(arguments.commit, directory), directory / BEFORE)
    after = Tree.build(ROOT, directory / AFTER)
    rounds = QUICK_ROUNDS if arguments.quick else ROUNDS
    print(f"{machine.cpu()}, load {machine.busy():.1f}, one thread, {rounds} rounds\n")
    print(f"| workload | us a message at {arguments.commit} | us now | ratio |")
    print("| --- | --: | --: | --: |")
    for row in measure(before, after, rounds):
        print(row, flush=True)


if __name__ == "__main__":
    main()
