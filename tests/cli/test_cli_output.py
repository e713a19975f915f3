# SPDX-License-Identifier: MIT
"""What the command line leaves behind: whole files or none, also when it is interrupted.

Memory is measured here, too.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from cli_support import (
    COMMAND,
    SUFFIXES,
    compressed,
    decompressed,
    delimited,
    encoded,
    environment,
    invalid_request,
    make,
    request,
    run,
    run_process,
    start,
)
from process_support import MEASURE, MEGABYTE, MEMORY, peak
from waiting import LIMIT, wait_until

pytestmark = pytest.mark.slow

STREAM = ("validate", "--input-format", "binpbs")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("old", [None, b"as it was"])
def test_interrupted_run(tmp_path: Path, number: signal.Signals, old: bytes | None) -> None:
    output = tmp_path / "report.ndjson"
    if old is not None:
        output.write_bytes(old)
    process = start(*STREAM, "--output", output, "-")
    assert process.stdin
    assert process.stderr
    data = delimited(encoded(request(index)) for index in range(1000))
    while not any(path.suffix == ".tmp" for path in tmp_path.iterdir()):
        assert process.poll() is None
        process.stdin.write(data)
    process.stdin.write(data * 40)
    process.stdin.flush()
    process.send_signal(number)
    status = process.wait(timeout=LIMIT)
    word = b"interrupted" if number == signal.SIGINT else b"terminated"
    assert (status, process.stderr.read()) == (128 + number, b"tvix-build: " + word + b"\n")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == ([] if old is None else [old])
    close(process)


@pytest.mark.parametrize("compression", SUFFIXES)
def test_interrupted_canonicalize(tmp_path: Path, compression: str) -> None:
    output = tmp_path / f"out.binpbs{compression}"
    process = start("canonicalize", "--input-format", "binpbs", "-", output)
    assert process.stdin
    assert process.stderr
    while not list(tmp_path.iterdir()):
        process.stdin.write(delimited([encoded(request())]))
        process.stdin.flush()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=LIMIT) == 130
    assert process.stderr.read() == b"tvix-build: interrupted\n"
    assert list(tmp_path.iterdir()) == []
    close(process)


def test_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *COMMAND, *STREAM, "--output"]
    output = tmp_path / "report.ndjson"
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [*command, output, "-"], stdin=pipe, stdout=pipe, stderr=pipe, env=environment()
    )
    assert process.stdin
    wait_until(lambda: any(tmp_path.iterdir()) or process.poll() is not None)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.stdin.write(delimited([encoded(request())]))
    process.stdin.close()
    assert process.wait(timeout=LIMIT) == 0
    assert len(output.read_bytes().splitlines()) == 1
    close(process)


def close(process: subprocess.Popen[bytes]) -> None:
    """Close the pipes to a process that has ended."""
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("command", ["validate", "digest", "show", "canonicalize"])
def test_nobody_reads_stdout(tmp_path: Path, command: str, unbuffered: bool) -> None:
    path = make(tmp_path, "requests.binpbs", [request(number) for number in range(3000)])
    extra = {
        "validate": ("--output", "-"),
        "canonicalize": ("--output-format", "binpbs"),
    }.get(command, ())
    last = ("-",) if command == "canonicalize" else ()
    process = start(command, *extra, path, *last, unbuffered=unbuffered)
    assert process.stdout
    assert process.stderr
    assert process.stdout.read(10)
    process.stdout.close()
    assert process.wait(timeout=LIMIT) == 128 + signal.SIGPIPE
    assert process.stderr.read() == b""
    close(process)


def test_nobody_reads_the_summary(tmp_path: Path) -> None:
    path = make(tmp_path, "request.binpb", [request()])
    reader, writer = os.pipe()
    os.close(reader)
    process = start("validate", path, stdout=writer)
    os.close(writer)
    assert process.wait(timeout=LIMIT) == 128 + signal.SIGPIPE
    assert process.stderr
    assert process.stderr.read() == b""
    close(process)


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("command", ["validate", "digest", "show", "canonicalize"])
def test_full_disk(tmp_path: Path, command: str, unbuffered: bool) -> None:
    path = make(tmp_path, "requests.binpbs", [request(number) for number in range(300)])
    options: dict[str, tuple[str, ...]] = {
        "validate": ("--output", "/dev/full"),
        "canonicalize": ("--output-format", "binpbs"),
    }
    last = ("/dev/full",) if command == "canonicalize" else ()
    name = "/dev/full" if command in options else "standard output"
    with open("/dev/full", "wb") as full:
        arguments = [command, *options.get(command, ()), path, *last]
        process = start(*arguments, stdout=full, unbuffered=unbuffered)
        assert process.stderr
        assert process.stderr.read().decode() == f"tvix-build: {name}: No space left on device\n"
        assert process.wait(timeout=LIMIT) == 2
    close(process)


@pytest.mark.parametrize("arguments", [("validate",), ("validate", "--output", "-"), ("--help",)])
def test_full_stdout(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    path = make(tmp_path, "request.binpb", [request()])
    arguments = arguments if arguments == ("--help",) else (*arguments, str(path))
    with open("/dev/full", "wb") as full:
        process = start(*arguments, stdout=full)
        assert process.wait(timeout=LIMIT) == 2
    assert process.stderr
    assert process.stderr.read() == b"tvix-build: standard output: No space left on device\n"
    close(process)


def test_closed_stdout(tmp_path: Path) -> None:
    path = make(tmp_path, "request.binpb", [request()])
    for arguments in (("validate",), ("validate", "--output", "-"), ("digest",), ("show",)):
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, *arguments, str(path)],
            env=environment(),
            stderr=subprocess.PIPE,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == 2
        assert done.stderr == (b"tvix-build: standard output: it is closed\n")


def test_output_that_cannot_be_made(tmp_path: Path) -> None:
    path = make(tmp_path, "request.binpb", [request()])
    (tmp_path / "directory").mkdir()
    for output, reason in (
        (tmp_path / "missing" / "report.ndjson", "No such file or directory"),
        (path / "report.ndjson", "Not a directory"),
        (tmp_path / "directory", "Is a directory"),
    ):
        result = run("validate", "--output", output, path)
        assert (result.status, result.stdout) == (2, b"")
        assert result.stderr == f"tvix-build: {output}: {reason}\n"
    assert sorted(tmp_path.iterdir()) == [tmp_path / "directory", path]


@pytest.mark.parametrize("compression", SUFFIXES)
def test_report_is_compressed_as_its_name_says(tmp_path: Path, compression: str) -> None:
    source, report = tmp_path / "source.binpb", tmp_path / f"report.ndjson{compression}"
    source.write_bytes(encoded(request()))
    assert run("validate", "--output", report, source).status == 0
    lines = run("validate", "--output", "-", source).stdout
    assert decompressed(report.read_bytes(), compression) == lines


def test_output_has_the_usual_permissions(tmp_path: Path) -> None:
    path = make(tmp_path, "request.binpb", [request()])
    output = tmp_path / "report.ndjson"
    old = os.umask(0o027)
    try:
        assert run("validate", "--output", output, path).status == 0
    finally:
        os.umask(old)
    assert output.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("mode", [0o600, 0o604, 0o666, 0o444])
def test_output_has_the_permissions_of_the_file_that_it_replaces(tmp_path: Path, mode: int) -> None:
    path = make(tmp_path, "request.binpb", [request()])
    path.chmod(mode)
    assert run("canonicalize", path, path).status == 0
    assert path.stat().st_mode & 0o777 == mode


def test_output_through_a_symlink(tmp_path: Path) -> None:
    path = make(tmp_path, "request.binpb", [request()])
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.ndjson"
    link.symlink_to("real/report.ndjson")
    assert run("validate", "--output", link, path).status == 0
    assert link.is_symlink()
    assert len((tmp_path / "real/report.ndjson").read_bytes().splitlines()) == 1


def test_output_to_what_is_no_regular_file(tmp_path: Path) -> None:
    path = make(tmp_path, "request.binpb", [request()])
    assert run("validate", "--output", "/dev/null", path).status == 0
    result = run_process("validate", "--output", "/dev/stderr", path)
    assert (result.status, result.stderr[:11]) == (0, '{"source": ')
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    process = start("validate", "--output", pipe, path)
    with pipe.open("rb") as reader:
        assert len(reader.read().splitlines()) == 1
    assert process.wait(timeout=LIMIT) == 0
    assert sorted(tmp_path.iterdir()) == [pipe, path]
    close(process)


def test_output_replaces_its_own_input(tmp_path: Path) -> None:
    path = make(tmp_path, "requests.binpbs", [request(1, outputs=["b", "a"])])
    assert run("canonicalize", path, path).status == 0
    assert path.read_bytes() == delimited([encoded(request(1, outputs=["a", "b"]))])


@pytest.mark.exhaustive
@pytest.mark.parametrize("what", ["valid", "invalid"])
@pytest.mark.parametrize("options", [(), ("--output",)])
def test_memory_of_a_long_stream(tmp_path: Path, what: str, options: tuple[str, ...]) -> None:
    message = request() if what == "valid" else invalid_request()
    data = delimited([encoded(message)] * 8000)
    megabytes = 300 if what == "valid" and not options else 12
    output = (tmp_path / "report.ndjson",) if options else ()
    assert peak([*STREAM, *options, *map(str, output), "-"], data, megabytes) < MEMORY


@pytest.mark.exhaustive
@pytest.mark.parametrize("compression", SUFFIXES[1:])
def test_memory_of_what_expands_much(tmp_path: Path, compression: str) -> None:
    message = encoded(request(command_args=["x" * MEGABYTE]))
    path = tmp_path / f"requests.binpbs{compression}"
    path.write_bytes(compressed(delimited([message] * 256), compression))
    assert path.stat().st_size < MEGABYTE
    assert peak(["validate", str(path)], b"", 0) < MEMORY


@pytest.mark.exhaustive
def test_memory_of_many_violations() -> None:
    data = delimited([encoded(request(command_args=[], outputs=[""] * 100))] * 4000)
    assert peak([*STREAM, "--output", "/dev/null", "-"], data, 3) < MEMORY * 4 // 3


@pytest.mark.exhaustive
def test_memory_of_tiny_records() -> None:
    command = [*STREAM, "--kind", "directory", "--output", "/dev/null", "-"]
    assert peak(command, bytes(MEGABYTE), 4) < MEMORY


def test_measure_sees_memory() -> None:
    """The test above would see what it looks for."""
    code = "x = bytearray(200 << 20)"
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, sys.executable, "-c", code],
        capture_output=True,
        check=True,
    )
    assert int(done.stdout.split()[1]) * 1024 > 200 * MEGABYTE
    assert resource.getpagesize() > 0
