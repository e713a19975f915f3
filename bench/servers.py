# SPDX-License-Identifier: MIT
"""Server processes of the proxy benchmarks: starts, observes and kills them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from bench.corpora import ROOT

_TICKS = os.sysconf("SC_CLK_TCK")


class Process:
    """A server.

    Attributes:
        port: where it serves.
    """

    def __init__(self, command: Sequence[str], cpu: int | None = None) -> None:
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if cpu is not None:
            os.sched_setaffinity(self._process.pid, {cpu})
        self.port = self._wait_for_port()
        # A proxy drops lines of a log that nobody reads, which takes less time.
        self._reader = threading.Thread(target=self._discard_output, daemon=True)
        self._reader.start()

    def _wait_for_port(self) -> int:
        """Wait for the line with its address."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if found := re.search(r"127\.0\.0\.1:(\d+)", line):
                return int(found[1])
        raise RuntimeError(f"a server ended with status {self._process.wait()}")

    def _discard_output(self) -> None:
        assert self._process.stdout is not None
        while os.read(self._process.stdout.fileno(), 1 << 16):
            pass

    def cpu_seconds(self) -> float:
        """What it used of CPUs so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        self._reader.join()


def peer(role: str, corpus: Path, *words: str, cpu: int | None = None) -> Process:
    """A server of `bench.peers.python.rpc`."""
    module = "bench.peers.python.rpc"
    return Process([sys.executable, "-m", module, role, str(corpus), *words], cpu)


def proxy(upstream: int, *options: str, cpu: int | None = None) -> Process:
    """`tvix-build serve` in front of a builder, both on this machine."""
    command = [sys.executable, "-m", "tvix_build", "serve", *options]
    command += ["--listen", "grpc+http://127.0.0.1:0"]
    command += ["--upstream", f"grpc+http://127.0.0.1:{upstream}"]
    return Process(command, cpu)
