# SPDX-License-Identifier: MIT
"""Runs `tvix-build serve` in a process."""

from __future__ import annotations

import json
import re
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cli_support import start
from waiting import LIMIT


class Proxy:
    """A process of `tvix-build serve`.

    Attributes:
        first: the first line of its log.
        address: where it listens.
        metrics_port: the port of its metrics; 0 without `FREE_METRICS`.
    """

    def __init__(self, *options: str | Path) -> None:
        self.process = start("serve", *options, "--log-level", "debug")
        assert self.process.stderr is not None
        self.lines: list[dict[str, Any]] = []
        self._stderr = self.process.stderr
        self.first = self.line()
        self.address: str = self.first["addresses"][0]
        self.metrics_port: int = self.first.get("metrics_port", 0)

    def line(self) -> dict[str, Any]:
        """Return the next line of its log."""
        line: dict[str, Any] = json.loads(self._stderr.readline())
        return line

    def line_of(self, event: str) -> dict[str, Any]:
        """Return the next line of its log with an event."""
        while True:
            line = self.line()
            if line["event"] == event:
                return line

    def end(self, *signals: signal.Signals) -> int:
        """Send signals and return its exit status."""
        for one in signals:
            self.process.send_signal(one)
        status = self.process.wait(LIMIT)
        text = self._stderr.read().decode()
        assert "Traceback" not in text, text
        self.lines += map(json.loads, text.splitlines())
        return status


@contextmanager
def running_proxy(*options: str | Path) -> Iterator[Proxy]:
    """Run a proxy; it is killed at the end. Its log is printed for a test that fails."""
    proxy = Proxy(*options)
    try:
        yield proxy
    finally:
        status = proxy.process.poll()
        proxy.process.kill()
        log = proxy.process.communicate()[1].decode(errors="replace")
        print(f"exit status of the proxy, before it was killed: {status}", log, sep="\n")


def metric(port: int, name: str) -> int:
    """Return the sum of a metric over all labels, of the server of metrics at a port."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=LIMIT) as response:
        text = response.read().decode()
    values = re.findall(rf"^{name}(?:{{.*}})? (.*)$", text, re.MULTILINE)
    return int(sum(map(float, values)))
