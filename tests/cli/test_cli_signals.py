# SPDX-License-Identifier: MIT
"""The command line ended by signals: at random moments of each command that writes, and at every
line of the code that makes files.

TVIX_BUILD_SIGNAL_TRIALS is how many random moments, 30 if unset.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

import pytest
from blake3 import blake3

from cli_support import (
    delimited,
    encoded,
    make,
    request,
    run_process,
    run_python,
    start,
)
from derivations_support import EXAMPLES
from process_support import end_at_every_line
from waiting import LIMIT

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

TRIALS = int(os.environ.get("TVIX_BUILD_SIGNAL_TRIALS", "30"))
NODES = EXAMPLES[0].parents[1] / "nodes.ndjson"
COMMANDS = {
    "validate": ("validate", "in/many.binpbs", "--output", "out/report.ndjson"),
    "canonicalize": ("canonicalize", "in/many.binpbs", "out/many.ndjson.gz"),
    "from-drv": ("from-drv", EXAMPLES[0].parent, "--nodes", NODES, "-o", "out/drv.binpbs"),
    "ingest": ("ingest", "in", "--output", "out/nodes.ndjson", "--blobs", "out/blobs"),
    "store": ("store", "add", "out/store", "in/many.binpbs"),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `in`, what the commands read."""
    directory = tmp_path_factory.mktemp("signals")
    (directory / "in").mkdir()
    make(directory / "in", "many.binpbs", [request(number) for number in range(3000)])
    for number in range(100):
        (directory / "in" / f"{number}").write_bytes(b"%d" % number)
    return directory


def files(directory: Path) -> dict[str, bytes]:
    """What is in a directory, by path; a store's own files are left out."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and not path.name.startswith("store")
    }


def stored(store: Path) -> set[str]:
    """The digests in a store, which is undamaged."""
    with closing(sqlite3.connect(store)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if not connection.execute("SELECT 1 FROM sqlite_schema").fetchall():
            return set()
        rows = connection.execute("SELECT lower(hex(digest)), encoding FROM request").fetchall()
    assert all(blake3(encoding).hexdigest() == digest for digest, encoding in rows)
    return {digest for digest, _ in rows}


def empty(inputs: Path) -> Path:
    """An empty directory `out` beside `in`."""
    subprocess.run(["rm", "-rf", inputs / "out"], check=True)
    (inputs / "out").mkdir()
    return inputs / "out"


def trials() -> Iterator[tuple[str, signal.Signals, float]]:
    """Command, signal, and when it comes as a part of the time that the command takes."""
    choose = random.Random(6)
    for number in count():
        command = list(COMMANDS)[number % len(COMMANDS)]
        yield command, choose.choice([signal.SIGINT, signal.SIGTERM]), choose.uniform(0.2, 1.1)


def test_random_moments(inputs: Path) -> None:
    whole: dict[str, dict[str, bytes]] = {}
    seconds: dict[str, float] = {}
    for name, command in COMMANDS.items():
        out = empty(inputs)
        begin = time.monotonic()
        assert run_process(*command, cwd=inputs).status == 0
        seconds[name] = time.monotonic() - begin
        whole[name] = files(out)
    ended = 0
    for trial, (name, number, part) in enumerate(trials()):
        if trial >= TRIALS and ended > TRIALS // 5:
            break
        assert trial < 10 * TRIALS
        out = empty(inputs)
        begin = time.monotonic()
        process = start(*COMMANDS[name], cwd=inputs)
        with suppress(subprocess.TimeoutExpired):
            process.wait(part * seconds[name])
            seconds[name] = time.monotonic() - begin  # The machine is faster than before.
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=LIMIT)
        # Before the program's first line the signal is Python's own: it ends the process, or is
        # lost in code whose exceptions Python only prints.
        if process.returncode not in (0, 128 + number):
            assert process.returncode == -number or b"KeyboardInterrupt" in stderr, stderr
            assert not files(out)
            seconds[name] *= 1.5  # It is slower.
        else:
            assert b"Traceback" not in stderr or b"KeyboardInterrupt" in stderr, stderr
            ended += process.returncode != 0
        assert files(out).items() <= whole[name].items()
        if name == "store" and (out / "store").exists():
            printed = {line[:64].decode() for line in stdout.splitlines() if len(line) > 64}
            assert printed <= stored(out / "store")


@pytest.mark.parametrize("name", ["canonicalize", "ingest"])
def test_every_line(inputs: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "many.binpbs").write_bytes(delimited([encoded(request())]))
    empty(tmp_path)
    assert end_at_every_line(tmp_path, *COMMANDS[name]) > 50


# Has the signal come where Python only prints exceptions: in the callback of a weak reference.
LOST = """
import signal, sys, time, weakref
from tvix_build.__main__ import main
from tvix_build.cli import group

class Thing:
    pass

def run(_):
    thing = Thing()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGTERM))
    del thing
    time.sleep(SECONDS)
    return 0

group.run = run
sys.exit(main([]))
"""


# Has it come where Python makes another exception of it: while a class is made.
CHANGED = """
import signal, sys, time
from tvix_build.__main__ import main
from tvix_build.cli import group

class Name:
    def __set_name__(self, owner, name):
        signal.raise_signal(signal.SIGTERM)
        time.sleep(SECONDS)

def run(_):
    type("Thing", (), {"name": Name()})
    return 0

group.run = run
sys.exit(main([]))
"""


# Has cleaning up after the signal fail.
FAILED = """
import errno, signal, sys
from tvix_build.__main__ import main
from tvix_build.cli import group

def run(_):
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        raise OSError(errno.ENOSPC, "No space left on device", "out")

group.run = run
sys.exit(main([]))
"""


# The first in two ways: it comes again while the program runs, or that ends before.
@pytest.mark.parametrize(
    ("program", "complaint"),
    [
        (LOST.replace("SECONDS", str(LIMIT)), ""),
        (LOST.replace("SECONDS", "0"), ""),
        (CHANGED.replace("SECONDS", str(LIMIT)), ""),
        (FAILED, "tvix-build: out: No space left on device\n"),
    ],
)
def test_exception_that_does_not_arrive(program: str, complaint: str) -> None:
    done = run_python(program)
    assert (done.status, done.stderr) == (143, f"{complaint}tvix-build: terminated\n")
