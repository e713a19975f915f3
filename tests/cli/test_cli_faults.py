# SPDX-License-Identifier: MIT
"""The command line where files cannot be written or read to their end: every output is there whole
or not at all, and what was there before stays."""

from __future__ import annotations

import errno
import os
import resource
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from builders_support import needs_sandbox
from cli_support import COMMAND, digest, environment, make, request, run, start
from derivations_support import EXAMPLES
from tvix_build.castore import CastoreStore
from waiting import LIMIT

pytestmark = pytest.mark.slow

NODES = EXAMPLES[0].parents[1] / "nodes.ndjson"
FROM_DRV = ("from-drv", EXAMPLES[0].parent, "--nodes", NODES, "-o")
REQUESTS = [request(number) for number in range(300)]
# What writes a file, whose name follows.
WRITERS = {
    "validate": ("validate", "in/many.binpbs", "--output"),
    "canonicalize": ("canonicalize", "in/many.binpbs"),
    "from-drv": FROM_DRV,
    "ingest": ("ingest", *(f"in/{number}" for number in range(20)), "--output"),
    "get": ("store", "get", "in/store", *map(digest, REQUESTS[:20]), "-o"),
}
EIO = "/proc/self/mem"  # Nothing is mapped at its beginning, so reading it fails.


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with `in`, what the commands read, and `out`, which is empty."""
    (tmp_path / "out").mkdir()
    (tmp_path / "in").mkdir()
    make(tmp_path / "in", "many.binpbs", REQUESTS)
    for number in range(20):
        (tmp_path / "in" / f"{number}").write_bytes(b"%d" % number * 100)
    return tmp_path


def run_with_room(directory: Path, room: int, *arguments: str | Path) -> tuple[int, bytes, str]:
    """Exit status, stdout and stderr of a process whose files have at most `room` bytes."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    with start(*arguments, cwd=directory, preexec_fn=limit) as process:
        stdout, stderr = process.communicate(timeout=LIMIT)
    assert b"Traceback" not in stderr
    return process.returncode, stdout, stderr.decode()


@pytest.mark.parametrize("name", WRITERS)
def test_full_device(directory: Path, name: str) -> None:
    if name == "get":
        assert run("store", "add", "in/store", "in/many.binpbs", cwd=directory).status == 0
    format_option = ("--output-format", "binpbs") if name not in ("validate", "ingest") else ()
    if name == "ingest":  # It knows the format by the name.
        (directory / "full.binpbs").symlink_to("/dev/full")
    device = "full.binpbs" if name == "ingest" else "/dev/full"
    result = run(*WRITERS[name], device, *format_option, cwd=directory)
    assert result.status == 2
    assert result.stderr.endswith(f"tvix-build: {device}: No space left on device\n")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("validate", "x.ndjson"),
        ("canonicalize", "x.binpbs"),
        ("canonicalize", "x.binpbs.zst"),
        ("canonicalize", "x.binpbs.gz"),
        ("from-drv", "x.binpbs"),
        ("ingest", "x.ndjson.xz"),
    ],
)
def test_file_that_cannot_grow(directory: Path, name: str, file: str) -> None:
    target = directory / "out" / file
    assert run(*WRITERS[name], target, cwd=directory).status == 0
    whole = target.read_bytes()
    for room, old in ((0, None), (len(whole) // 2, b"as it was"), (len(whole) - 1, None)):
        target.unlink(missing_ok=True)
        if old is not None:
            target.write_bytes(old)
        status, _, stderr = run_with_room(directory, room, *WRITERS[name], target)
        assert (status, stderr) == (2, f"tvix-build: {target}: File too large\n")
        left = [path.read_bytes() for path in target.parent.iterdir()]
        assert left == ([] if old is None else [old])
    assert run_with_room(directory, len(whole), *WRITERS[name], target)[0] == 0
    assert target.read_bytes() == whole


def test_blobs_that_cannot_grow(directory: Path) -> None:
    (directory / "in" / "large").write_bytes(bytes(3 << 20))
    blobs = directory / "out"
    status, _, stderr = run_with_room(directory, 1 << 20, "ingest", "in", "--blobs", blobs)
    assert status == 2
    assert stderr.endswith(": File too large\n")
    whole = {path.name: path.read_bytes() for path in (directory / "in").iterdir()}
    for path in blobs.rglob("*"):
        assert path.is_dir() or path.read_bytes() in whole.values(), path


@pytest.mark.parametrize("size", [100_000, 3 << 20], ids=["small", "large"])
def test_castore_that_cannot_grow(directory: Path, size: int) -> None:
    (directory / "in" / "new").write_bytes(bytes(size))
    store = directory / "out" / "store"
    status, stdout, stderr = run_with_room(directory, size - 1, "castore", "add", store, "in")
    assert (status, stdout) == (2, b"")
    assert stderr.startswith(
        f"tvix-build: in/new: cannot be saved: File too large: expected space for {size} bytes; "
        f"free space on the file system of {store}, for example with `tvix-build castore gc`, or "
    )
    with CastoreStore(store) as castore:
        assert not list(castore.verify())
    assert not any((store / "incoming").iterdir())


@needs_sandbox
@pytest.mark.parametrize("size", [1_000_000, 3 << 20], ids=["small", "large"])
def test_castore_on_a_full_disk(directory: Path, size: int) -> None:
    (directory / "in" / "new").write_bytes(bytes(size))
    store = directory / "out"
    disk = ("bwrap", "--dev-bind", "/", "/", "--size", "900000", "--tmpfs", store)
    done = subprocess.run(
        [*disk, *COMMAND, "castore", "add", store, "in"],
        capture_output=True,
        cwd=directory,
        env=environment(),
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().startswith(
        "tvix-build: in/new: cannot be saved: No space left on device: expected space for "
        f"{size} bytes; free space on the file system of {store}, "
    )


@pytest.mark.parametrize("room", [0, 1 << 12, 1 << 15])
def test_store_that_cannot_grow(directory: Path, room: int) -> None:
    store = directory / "out" / "store"
    command = ("store", "add", store, "in/many.binpbs")
    status, stdout, stderr = run_with_room(directory, room, *command)
    assert status == 2, stderr
    printed = [line[:64].decode() for line in stdout.splitlines()]
    if printed:
        with closing(sqlite3.connect(store)) as connection:
            found = connection.execute("SELECT lower(hex(digest)) FROM request").fetchall()
        assert {(one,) for one in printed} <= set(found)
    assert run(*command, cwd=directory).status == 0
    assert run("store", "verify", store).stdout == b"300 requests, 0 builds, no damage\n"


@pytest.mark.parametrize("suffix", ["binpbs", "json"])
def test_file_that_fails_while_it_is_read(directory: Path, suffix: str) -> None:
    broken = directory / f"broken.{suffix}"
    broken.symlink_to(EIO)
    good = make(directory, "good.binpb", [request()])
    for command in (
        ("validate", "--output", "out/x.ndjson", broken, good),
        ("digest", broken, good),
        ("store", "add", "out/store", broken, good),
    ):
        result = run(*command, cwd=directory)
        assert result.status == 2
        assert f"{broken}: " in result.stderr
        assert os.strerror(errno.EIO) in result.stderr
        said = result.stdout.decode() + "".join(
            path.read_text() for path in (directory / "out").glob("x.ndjson")
        )
        assert digest(request()) in said
    for path in (directory / "out").iterdir():
        path.unlink()
    assert run("canonicalize", broken, "out/x.binpbs", cwd=directory).status == 2
    assert run("show", broken).status == 2
    assert not list((directory / "out").iterdir())


def test_inputs_of_from_drv_and_ingest_that_fail(directory: Path) -> None:
    drv = directory / "in" / "00000000000000000000000000000000-x.drv"
    drv.symlink_to(EIO)
    result = run("from-drv", drv, "-o", "out/x.binpbs", cwd=directory)
    assert (result.status, os.strerror(errno.EIO) in result.stderr) == (2, True)
    nodes = directory / "in" / "nodes.binpbs"
    nodes.symlink_to(EIO)
    result = run("from-drv", EXAMPLES[0], "--nodes", nodes, "-o", "out/y.binpbs", cwd=directory)
    assert (result.status, os.strerror(errno.EIO) in result.stderr) == (2, True)
    assert not (directory / "out" / "y.binpbs").exists()
    result = run("ingest", EIO, "in/1", "-o", "-", cwd=directory)
    assert (result.status, len(result.lines)) == (2, 1)
    assert os.strerror(errno.EIO) in result.stderr


@pytest.mark.parametrize("keep", [0, 1, 100_000])
def test_file_that_shrinks_while_it_is_read(directory: Path, keep: int) -> None:
    path = make(directory, "many.binpbs", [request(number) for number in range(20_000)])
    # It waits for the pipe, and the file shrinks after its first records were read.
    reader, writer = os.pipe()
    with start("digest", path, stdout=writer) as process:
        os.close(writer)
        first = os.read(reader, 100)
        os.truncate(path, keep)
        with open(reader, "rb") as pipe:
            rest = pipe.read()
        assert process.stderr
        stderr = process.stderr.read().decode()
    lines = (first + rest).decode().splitlines()
    assert (process.returncode, stderr[:11]) == (2, "tvix-build:"), stderr
    assert f"{path}[{len(lines)}] at byte " in stderr
    assert len(lines) < 20_000
    expected = [f"{digest(request(i))}  {path}[{i}]" for i in range(len(lines))]
    assert lines == expected


def test_file_that_vanishes_or_is_replaced_while_it_is_read(directory: Path) -> None:
    messages = [request(number) for number in range(10_000)]
    path = make(directory, "many.binpbs", messages)
    for replacement in (None, b"something else"):
        reader, writer = os.pipe()
        with start("digest", path, stdout=writer) as process:
            os.close(writer)
            first = os.read(reader, 100)
            path.unlink()
            if replacement is not None:
                path.write_bytes(replacement)
            with open(reader, "rb") as pipe:
                lines = (first + pipe.read()).splitlines()
        assert process.returncode == 0  # What was opened is read.
        assert [line[:64].decode() for line in lines] == list(map(digest, messages))
        path.unlink(missing_ok=True)
        make(directory, "many.binpbs", messages)
