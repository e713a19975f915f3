# SPDX-License-Identifier: MIT
"""The command line and files that are truncated, corrupt or unreadable.

Whatever is whole before the damage is reported, and the exit status is 2.
"""

from __future__ import annotations

import json
import os
import re
import stat
from itertools import accumulate
from pathlib import Path

import pytest

from cli_support import (
    SUFFIXES,
    Result,
    compressed,
    delimited,
    digest,
    encoded,
    make,
    request,
    run,
    varint,
    written,
)
from tvix.build.protos.build_pb2 import BuildRequest

MESSAGES = [BuildRequest(command_args=["a"]), BuildRequest(command_args=["b" * 140])]
RECORDS = [delimited([encoded(message)]) for message in MESSAGES]
STREAM = b"".join(RECORDS)
COMPRESSIONS = SUFFIXES[1:]


def digests(result: Result) -> list[str]:
    return [said["digest"] for said in result.lines]


def test_stream_truncated_at_every_byte(tmp_path: Path) -> None:
    ends = list(accumulate(map(len, RECORDS), initial=0))
    for size in range(len(STREAM) + 1):
        (tmp_path / f"{size:04}.binpbs").write_bytes(STREAM[:size])
    result = run("validate", "--output", "-", ".", cwd=tmp_path)
    assert result.status == 2
    said: dict[str, list[str]] = {}
    for record in result.lines:
        said.setdefault(record["source"], []).append(record["digest"])
    complained = {line.split(": ")[1] for line in result.stderr.splitlines()}
    expected = set()
    for size in range(len(STREAM) + 1):
        name = f"./{size:04}.binpbs"
        whole = sum(end <= size for end in ends[1:])
        assert said.get(name, []) == list(map(digest, MESSAGES[:whole]))
        if size not in ends:
            expected.add(f"{name}[{whole}] at byte {ends[whole]}")
    assert complained == expected


@pytest.mark.parametrize("size", [*range(len(RECORDS[0]) + 3), len(STREAM) - 1, len(STREAM)])
def test_exit_status_of_a_truncated_stream(size: int) -> None:
    result = run("validate", "--input-format", "binpbs", "--output", "-", "-", stdin=STREAM[:size])
    assert result.status == (0 if size in (0, len(RECORDS[0]), len(STREAM)) else 2)
    assert len(result.stderr.splitlines()) == (result.status == 2)


@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        (b"\x80", "expected a length prefix, found the end of the file after 1 bytes of it"),
        (b"\x05abc", "expected a message of 5 bytes, found the end of the file after 3"),
        (b"\xff\xff\xff\xff\x07", "expected a message of 2147483647 bytes, found the end"),
        (b"\xff\xff\xff\xff\x08abc", "expected "),
        (b"\xff\xff\xff\xff\xff\x01abc", "expected "),
        (b"\x80\x80\x80\x80\x80\x80\x80", "expected "),
    ],
)
def test_damage_says_where(tmp_path: Path, tail: bytes, reason: str) -> None:
    path = tmp_path / "requests.binpbs"
    path.write_bytes(STREAM + tail)
    result = run("validate", "--output", "-", path)
    assert result.status == 2
    assert digests(result) == list(map(digest, MESSAGES))
    place = f"tvix-build: {path}[2] at byte {len(STREAM)}: "
    assert result.stderr.startswith(place + reason), result.stderr
    assert ", found " in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("suffix", [".binpbs", ".ndjson", ".binpb", ".json", ".txtpb"])
def test_compressed_file_truncated_at_every_byte(
    tmp_path: Path, suffix: str, compression: str
) -> None:
    data = compressed(written([request()], suffix), compression)
    for size in range(len(data)):
        (tmp_path / f"{size:04}{suffix}{compression}").write_bytes(data[:size])
    result = run("validate", "--output", "-", ".", cwd=tmp_path)
    assert result.status == 2
    complained = [line.split(": ")[1] for line in result.stderr.splitlines()]
    if suffix in (".binpbs", ".ndjson"):
        complained = [place.partition("[")[0] for place in complained]
    assert complained == [f"./{size:04}{suffix}{compression}" for size in range(len(data))]
    for said in result.lines:  # All of the record was there before what was cut off.
        assert (said["index"], said["digest"]) == (0, digest(request()))
    if suffix in (".binpb", ".json", ".txtpb"):
        assert result.lines == []


@pytest.mark.slow
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_records_before_a_cut_in_a_compressed_stream(tmp_path: Path, compression: str) -> None:
    messages = [
        request(number, command_args=[os.urandom(300).hex() for _ in range(4)])
        for number in range(600)
    ]
    path = make(tmp_path, f"requests.binpbs{compression}", messages)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    output = tmp_path / "report.ndjson"
    result = run("validate", "--output", output, path)
    assert result.status == 2
    said = [json.loads(line)["digest"] for line in output.read_bytes().splitlines()]
    assert 200 < len(said) < 400
    assert said == list(map(digest, messages[: len(said)]))
    offset = len(delimited(map(encoded, messages[: len(said)])))
    assert f"{path}[{len(said)}] at byte {offset}: " in result.stderr
    assert " is truncated" in result.stderr
    assert b"files not read to the end" in result.stdout


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_corrupt_checksum(tmp_path: Path, compression: str) -> None:
    data = bytearray(compressed(STREAM, compression))
    data[-6 if compression == ".gz" else -1] ^= 0xFF
    path = tmp_path / f"requests.binpbs{compression}"
    path.write_bytes(data)
    result = run("validate", "--output", "-", path)
    assert result.status == 2
    assert digests(result) == list(map(digest, MESSAGES))[: len(result.lines)]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_any_flipped_byte_is_found_or_harmless(tmp_path: Path, compression: str) -> None:
    data = compressed(STREAM, compression)
    for place in range(len(data)):
        path = tmp_path / f"{place:04}.binpbs{compression}"
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
    result = run("validate", "--output", "-", ".", cwd=tmp_path)
    assert result.status == 2
    known = list(map(digest, MESSAGES))
    assert {said["digest"] for said in result.lines if said["valid"]} <= set(known)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("garbage", [b"x", b"garbage behind the end", b"\0" * 5])
def test_trailing_garbage(tmp_path: Path, compression: str, garbage: bytes) -> None:
    if compression == ".gz" and not garbage.strip(b"\0"):
        garbage += b"x"  # Zeros alone are the padding of tapes.
    path = tmp_path / f"requests.binpbs{compression}"
    path.write_bytes(compressed(STREAM, compression) + garbage)
    result = run("validate", "--output", "-", path)
    assert (result.status, len(result.lines)) == (2, 2)
    place = re.escape(f"[2] at byte {len(STREAM)}: ")
    assert re.search(f"{place}(expected |an? .* is (truncated|corrupt))", result.stderr)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("data", [b"", STREAM])
def test_suffix_of_a_compression_that_is_not(tmp_path: Path, compression: str, data: bytes) -> None:
    path = tmp_path / f"requests.binpbs{compression}"
    path.write_bytes(data)
    result = run("validate", path)
    assert result.status == 2
    reason = r"\[0\] at byte 0: (expected |an? .* is (truncated|corrupt))"
    assert re.search(reason, result.stderr)


def test_damage_in_one_file_does_not_stop_the_others(tmp_path: Path) -> None:
    first = tmp_path / "first.binpbs"
    first.write_bytes(STREAM[:-1])
    second = make(tmp_path, "second.ndjson", [request(2), request(3)])
    result = run("validate", "--output", "-", first, second)
    assert result.status == 2
    assert digests(result) == list(map(digest, [MESSAGES[0], request(2), request(3)]))


def test_last_line_of_a_damaged_file_is_not_a_record(tmp_path: Path) -> None:
    text = written([request(number) for number in range(3)], ".ndjson")
    path = tmp_path / "requests.ndjson.gz"
    cut = text[: len(text) * 5 // 6]
    path.write_bytes(compressed(cut, ".gz")[:-8])
    result = run("validate", "--output", "-", path)
    assert (result.status, len(result.lines)) == (2, 2)
    offset = text.index(b"\n", text.index(b"\n") + 1) + 1
    assert f"[2] at byte {offset}: a gzip member is truncated" in result.stderr


def test_unreadable_files(tmp_path: Path) -> None:
    directory = tmp_path / "directory.binpb"
    directory.mkdir()
    assert run("validate", directory).status == 2
    assert run("show", directory).status == 2
    assert run("canonicalize", directory, tmp_path / "x.binpb").status == 2
    assert run("digest", tmp_path / "missing.binpb").status == 2
    if os.geteuid():  # The superuser may read everything.
        path = make(tmp_path, "secret.binpb", [request()])
        path.chmod(stat.S_IWUSR)
        assert "Permission denied" in run("validate", path).stderr


def test_closed_stdin() -> None:
    command = ("validate", "--input-format", "binpbs", "-")
    result = run(*command, stdin=None)
    assert (result.status, result.stderr) == (2, "tvix-build: -: stdin is closed\n")


def test_impossible_length_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "requests.binpbs"
    path.write_bytes(varint((1 << 28) - 1) + b"x")
    assert "expected a message of 268435455 bytes" in run("validate", path).stderr


def test_zstd_frame_with_a_large_window() -> None:
    """A window of 2 GiB, which a decoder would allocate, is refused."""
    window = bytes([(31 - 10) << 3])
    block = (1 << 3 | 1).to_bytes(3, "little") + b"x"
    frame = b"\x28\xb5\x2f\xfd\x00" + window + block
    result = run("validate", "--input-format", "binpbs", "-", stdin=frame)
    assert result.status == 2
    assert result.stderr.startswith("tvix-build: -[0] at byte 0: a zstd frame is corrupt: ")
