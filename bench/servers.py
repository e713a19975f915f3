# SPDX-License-Identifier: MIT
"""Server processes of the proxy benchmarks: starts, observes and kills them."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.corpora import ROOT

_TICKS = os.sysconf("SC_CLK_TCK")


class Process:
    """A server.

    Attributes:
        port: where it serves.
    """

    def __init__(
        self, command: Sequence[str], cpu: int | None = None, log: Path | None = None
    ) -> None:
        with open(log or os.devnull, "ab") as errors:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        if cpu is not None:
            os.sched_setaffinity(self._process.pid, {cpu})
        self.port = 0

    def wait_for_port(self) -> int:
        """Wait until it serves."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a server ended with status {self._process.wait()}")
        self.port = int(line)
        return self.port

    def cpu_seconds(self) -> float:
        """What it used of CPUs so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def resident(self) -> int:
        """The memory that it has in use, in bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        assert found
        return int(found[1]) << 10

    def terminate(self) -> int:
        """Have it end by itself; its exit status."""
        self._process.terminate()
        return self._process.wait()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()


def peer(role: str, corpus: Path, *words: str, cpu: int | None = None) -> Process:
    """A server of `bench.peers.python.rpc`."""
    module = "bench.peers.python.rpc"
    process = Process([sys.executable, "-m", module, role, str(corpus), *words], cpu)
    process.wait_for_port()
    return process


def proxy(
    port: int, upstream: int, *options: str, cpu: int | None = None, log: Path | None = None
) -> Process:
    """`tvix-build serve` in front of a builder, both on this machine."""
    command = [sys.executable, "-m", "tvix_build", "serve", *options]
    command += ["--listen", f"grpc+http://127.0.0.1:{port}"]
    command += ["--upstream", f"grpc+http://127.0.0.1:{upstream}"]
    process = Process(command, cpu, log)
    process.port = port
    return process


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
