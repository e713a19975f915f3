# SPDX-License-Identifier: MIT
"""The command line on long streams, which are read, checked and written at the same time.

Each test runs on all CPUs and on one, where all is done in turn.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import IO

import pytest
from google.protobuf import json_format

from cli_support import (
    compressed,
    decompressed,
    delimited,
    digest,
    encoded,
    request,
    run,
    start,
    unsorted_request,
)
from tvix.build.protos.build_pb2 import BuildRequest
from tvix_build import records
from tvix_build.records.windows import WINDOW
from waiting import LIMIT

pytestmark = pytest.mark.slow

STREAM = ("--input-format", "binpbs", "--output", "-", "-")


@pytest.fixture(autouse=True, params=["all CPUs", "one CPU"])
def cpus(request: pytest.FixtureRequest) -> Iterator[None]:
    """What the processes may use that a test starts."""
    usable = os.sched_getaffinity(0)
    if request.param == "one CPU":
        os.sched_setaffinity(0, {min(usable)})
    yield
    os.sched_setaffinity(0, usable)


def of_many_sizes() -> list[BuildRequest]:
    """Requests of 25 MB in all: most are short, some longer than what is read at once."""
    source = random.Random(1)
    sizes = [source.choice([100, 10_000, 100_000]) for _ in range(300)]
    sizes[20:20] = [3 << 20, 1 << 20, (1 << 20) + 1, 5 << 20]
    return [
        request(number, command_args=[source.randbytes(size // 2).hex()])
        for number, size in enumerate(sizes)
    ]


def said(lines: list[bytes]) -> list[tuple[int, int, str]]:
    """Index, offset and digest of each record."""
    found = map(json.loads, lines)
    return [(line["index"], line["offset"], line["digest"]) for line in found]


def expected(messages: list[BuildRequest]) -> list[tuple[int, int, str]]:
    """The results of canonical messages."""
    sizes = [len(delimited([encoded(message)])) for message in messages]
    offsets = accumulate(sizes[:-1], initial=0)
    return list(zip(range(len(messages)), offsets, map(digest, messages), strict=True))


@pytest.mark.parametrize("compression", ["", ".zst"])
def test_records_of_many_sizes(tmp_path: Path, compression: str) -> None:
    messages = of_many_sizes()
    path = tmp_path / "requests.binpbs"
    data = compressed(delimited(map(encoded, messages)), compression)
    path.write_bytes(data)
    result = run("validate", "--output", "-", path)
    assert (result.status, result.stderr) == (0, "")
    assert said(result.stdout.splitlines()) == expected(messages)
    assert run("validate", *STREAM, stdin=data).stdout == result.stdout.replace(
        json.dumps(str(path)).encode(), b'"-"'
    )
    assert run("digest", path).stdout.split()[::2] == [
        line["digest"].encode() for line in result.lines
    ]


def test_a_file_of_one_message_is_in_memory_once(tmp_path: Path) -> None:
    size = 8 * WINDOW
    path = tmp_path / "request.binpb"
    path.write_bytes(encoded(request(command_args=["x" * size])))
    tracemalloc.start()
    try:
        (batch,) = records.read(path)
        assert tracemalloc.get_traced_memory()[1] < size + 2 * WINDOW
    finally:
        tracemalloc.stop()
    assert batch.record(0) == path.read_bytes()


@pytest.mark.parametrize("compression", ["", ".zst"])
def test_all_before_the_damage_is_said(tmp_path: Path, compression: str) -> None:
    messages = [*of_many_sizes(), unsorted_request()]
    data = delimited(map(encoded, messages))
    for tail, reason in [
        (b"\xff" * 8, "expected the length of a record"),
        (b"\x05abc", "expected a message of 5 bytes, found the end of the file after 3"),
    ]:
        path = tmp_path / f"requests.binpbs{compression}"
        path.write_bytes(compressed(data + tail, compression))
        result = run("validate", "--output", "-", path)
        assert result.status == 2
        assert said(result.stdout.splitlines())[:-1] == expected(messages)[:-1]
        assert result.lines[-1]["violations"][0]["code"] == "not_sorted"
        place = f"tvix-build: {path}[{len(messages)}] at byte {len(data)}: "
        assert result.stderr.startswith(place + reason)


def test_canonicalize_keeps_the_order(tmp_path: Path) -> None:
    messages = of_many_sizes()
    path = tmp_path / "requests.binpbs"
    data = delimited(map(encoded, messages))
    path.write_bytes(data)
    target = tmp_path / "canonical.binpbs.zst"
    assert run("canonicalize", path, target).status == 0
    assert decompressed(target.read_bytes(), ".zst") == data


def test_many_records_for_one(tmp_path: Path) -> None:
    path = tmp_path / "requests.binpbs"
    path.write_bytes(delimited(map(encoded, of_many_sizes())))
    result = run("canonicalize", path, tmp_path / "request.binpb")
    assert result.status == 2
    assert "expected one record for a .binpb file, found several" in result.stderr
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("command", ["validate", "digest"])
@pytest.mark.parametrize("form", ["binpbs", "ndjson"])
def test_writer_that_pauses(command: str, form: str) -> None:
    """The results of the written records arrive before more records are written."""
    output = ("--output", "-") if command == "validate" else ()
    process = start(command, *output, "--input-format", form, "-")
    stdin, stdout, _ = pipes(process)
    messages = [request(number) for number in range(4)]
    if form == "binpbs":
        data = delimited(map(encoded, messages))
    else:
        lines = (json_format.MessageToJson(message, indent=None) for message in messages)
        data = "".join(f"{line}\n" for line in lines).encode()
    size = len(data) // 4
    for number in range(3):
        written = size * number + size // 2 * (number > 0)
        stdin.write(data[written : size * (number + 1) + size // 2])  # and half of the next one
        stdin.flush()
        assert digest(request(number)).encode() in stdout.readline()
    stdin.close()
    assert process.wait(timeout=LIMIT) == (2 if form == "binpbs" else 1)
    close(process)


def test_interrupt_while_the_writer_pauses() -> None:
    process = start("validate", *STREAM)
    stdin, stdout, stderr = pipes(process)
    stdin.write(delimited(map(encoded, of_many_sizes()[:100])))
    stdin.flush()
    stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=LIMIT) == 130
    assert stderr.read() == b"tvix-build: interrupted\n"
    close(process)


def test_nobody_reads_while_the_writer_pauses() -> None:
    process = start("validate", *STREAM)
    stdin, stdout, stderr = pipes(process)
    stdout.close()
    stdin.write(delimited([encoded(request())] * 10))
    stdin.flush()
    assert process.wait(timeout=LIMIT) == 128 + signal.SIGPIPE
    assert stderr.read() == b""
    close(process)


def pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
    """Stdin, stdout and stderr of a process."""
    assert process.stdin
    assert process.stdout
    assert process.stderr
    return process.stdin, process.stdout, process.stderr


def close(process: subprocess.Popen[bytes]) -> None:
    """Close the pipes to a process that has ended."""
    for pipe in pipes(process):
        with suppress(BrokenPipeError):
            pipe.close()
