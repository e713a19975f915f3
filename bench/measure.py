# SPDX-License-Identifier: MIT
"""Runs peers side by side: each in a process of its own, turn by turn, so that what disturbs the
machine disturbs all alike."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.corpora import ROOT

_MOST_REPETITIONS = 2000


@dataclass(frozen=True)
class Peer:
    """A program that reads a corpus and does repetitions on command (bench/README.md).

    Attributes:
        name: what the report calls it.
        command: the program and its arguments, the word "CORPUS" among them.
        pinned: whether it stays on one CPU.
        environment: variables added to those of this process.
        hashes: whether it gives digests to compare.
    """

    name: str
    command: list[str]
    pinned: bool = True
    environment: dict[str, str] = field(default_factory=dict)
    hashes: bool = True


@dataclass(frozen=True)
class Sample:
    """What was measured of one peer and one corpus.

    Attributes:
        requests, bytes: of the corpus.
        rounds: seconds of each repetition, by round.
        valid: how many requests the peer holds valid.
        digest: BLAKE3 of all digests, in hex.
    """

    requests: int
    bytes: int
    rounds: list[list[float]]
    valid: int
    digest: str

    @property
    def seconds(self) -> float:
        """The median of all repetitions."""
        return statistics.median(self._all())

    def spread(self) -> tuple[float, float]:
        """The fastest and the slowest round (its median), in seconds."""
        medians = [statistics.median(seconds) for seconds in self.rounds]
        return min(medians), max(medians)

    def _all(self) -> list[float]:
        return [seconds for seconds_of_round in self.rounds for seconds in seconds_of_round]


@dataclass(frozen=True)
class Ratio:
    """How many times faster: the median of the rounds, the least and the greatest."""

    median: float
    least: float
    greatest: float


def ratio(of: Sample, to: Sample) -> Ratio:
    """How many times faster `of` is than `to`, in bytes a second, round by round."""
    work = of.bytes / to.bytes
    rounds = [
        work * statistics.median(slow) / statistics.median(fast)
        for fast, slow in zip(of.rounds, to.rounds, strict=True)
    ]
    return Ratio(statistics.median(rounds), min(rounds), max(rounds))


class DisagreementError(Exception):
    """Two peers do not give the same verdicts or digests."""


class Process:
    """A peer that runs."""

    def __init__(self, peer: Peer, corpus: Path, cpu: int) -> None:
        self.peer = peer
        self._process = subprocess.Popen(
            [str(corpus) if word == "CORPUS" else word for word in peer.command],
            cwd=ROOT,
            env={**os.environ, **peer.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if peer.pinned:
            os.sched_setaffinity(self._process.pid, {cpu})

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def ask(self, command: str) -> dict[str, Any]:
        """The response to a line of the protocol."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(command + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.peer.name} ended with status {process.wait()}")
        response = json.loads(line)
        assert isinstance(response, dict)
        return response

    def digests(self, file: Path) -> list[bytes]:
        """The digest of each message of the last repetition."""
        self.ask(f"digests {file}")
        data = file.read_bytes()
        return [data[i : i + 32] for i in range(0, len(data), 32)]


@dataclass(frozen=True)
class Race:
    """How long peers are measured.

    Attributes:
        rounds: how many turns each peer has.
        turn: seconds that a turn lasts, unless one repetition lasts longer.
        directory: for files that explain a disagreement.
    """

    rounds: int
    turn: float
    directory: Path

    def run(self, peers: list[Peer], corpus: Path) -> dict[str, Sample]:
        """Measure peers on a corpus; by name.

        Raises:
            DisagreementError: if they do not find the same.
        """
        cpu = max(os.sched_getaffinity(0))
        processes: list[Process] = []
        try:
            processes.extend(Process(peer, corpus, cpu) for peer in peers)
            first = [process.ask("run 1") for process in processes]
            self._compare(processes, first)
            counts = [repetitions(response["seconds"][0], self.turn) for response in first]
            rounds: list[list[list[float]]] = [[] for _ in peers]
            for _ in range(self.rounds):
                for i, process in enumerate(processes):
                    response = process.ask(f"run {counts[i]}")
                    rounds[i].append(response["seconds"])
                    if response["digest"] != first[i]["digest"]:
                        raise DisagreementError(f"{peers[i].name} disagrees with itself")
        finally:
            for process in processes:
                process.stop()
        return {
            peer.name: Sample(
                response["requests"],
                response["bytes"],
                seconds,
                response["valid"],
                response["digest"],
            )
            for peer, response, seconds in zip(peers, first, rounds, strict=True)
        }

    def _compare(self, processes: list[Process], responses: list[dict[str, Any]]) -> None:
        reference = responses[0]
        for process, response in zip(processes[1:], responses[1:], strict=True):
            keys = ["requests", "bytes", "valid", *["digest"] * process.peer.hashes]
            if any(response[key] != reference[key] for key in keys):
                raise DisagreementError(
                    self._difference(processes[0], process, reference, response)
                )

    def _difference(
        self, a: Process, b: Process, of_a: dict[str, Any], of_b: dict[str, Any]
    ) -> str:
        of_each = [a.digests(self.directory / "a.digests"), b.digests(self.directory / "b.digests")]
        pairs = enumerate(zip(*of_each, strict=False))
        wrong = [i for i, (x, y) in pairs if x != y]
        return (
            f"{a.peer.name} and {b.peer.name} disagree: {of_a['valid']} and {of_b['valid']} of "
            f"{of_a['requests']} and {of_b['requests']} messages are valid, {len(wrong)} digests "
            f"differ, the first that of message {wrong[0] if wrong else '-'}"
        )


def repetitions(seconds: float, turn: float) -> int:
    return min(max(1, math.ceil(turn / max(seconds, 1e-9))), _MOST_REPETITIONS)
