# SPDX-License-Identifier: MIT
"""Runs the command line to measure its memory, and to test what it leaves after a signal."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import IO

import pytest

from cli_support import COMMAND, environment
from waiting import LIMIT

MEGABYTE = 1 << 20
MEMORY = 150 * MEGABYTE


def feed(pipe: IO[bytes], data: bytes, times: int) -> Thread:
    """Write `data` to a pipe `times` times, in a thread, until that is done or nobody reads."""

    def write() -> None:
        with suppress(OSError):
            for _ in range(times):
                pipe.write(data)
            pipe.close()

    thread = Thread(target=write, daemon=True)
    thread.start()
    return thread


MEASURE = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(status, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak(arguments: list[str], data: bytes, megabytes: int) -> int:
    """Run a command that reads `data` repeatedly. Return its peak memory in bytes."""
    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("AddressSanitizer needs additional memory")
    process = subprocess.Popen(
        [sys.executable, "-c", MEASURE, *COMMAND, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
    )
    assert process.stdin
    assert process.stdout
    feeder = feed(process.stdin, data, megabytes * MEGABYTE // max(len(data), 1))
    status, size = map(int, process.stdout.read().split())
    feeder.join(timeout=LIMIT)
    assert process.wait(timeout=LIMIT) == 0
    assert status in (0, 1)
    process.stdout.close()
    return size * 1024


# Runs main() repeatedly. A signal interrupts each run, one event in these files later each time.
EVERY_LINE = """
import os, signal, sys
from tvix_build import __main__ as program

TRACED = ("output.py", "temporary.py", "ingest.py", "writing.py", "table_output.py")

def run(event):
    seen = 0
    def trace(frame, kind, _):
        nonlocal seen
        if os.path.basename(frame.f_code.co_filename) not in TRACED:
            return None
        seen += 1
        if seen == event:
            signal.raise_signal(signal.SIGINT)
        return trace
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.settrace(trace)
    try:
        return program.main(sys.argv[1:]), seen
    finally:
        sys.settrace(None)

def files():
    return {
        name: open(os.path.join(directory, name), "rb").read()
        for directory, _, names in os.walk("out") for name in names
    }

stderr = os.dup(2)
program.main(sys.argv[1:])
whole = files()
event, seen = 0, 1
while event <= seen:
    event += 1
    os.system("rm -rf out; mkdir out")
    status, seen = run(event)
    assert status == (130 if event <= seen else 0), (event, status)
    assert files().items() <= whole.items(), (event, set(files()) - set(whole))
os.write(stderr, b"%d events\\n" % seen)
"""


def end_at_every_line(directory: Path, *arguments: str | Path) -> int:
    """Run a command that writes to `out` in a directory, and interrupt it by a signal at every line
    of the code that makes files. Fail unless each file is then complete or absent. Return the
    number of lines."""
    done = subprocess.run(
        [sys.executable, "-c", EVERY_LINE, *map(str, arguments)],
        cwd=directory,
        env=environment(),
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    (events,) = (line for line in done.stderr.splitlines() if line.endswith(b" events"))
    return int(events.split()[0])
