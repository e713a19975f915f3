# SPDX-License-Identifier: MIT
"""`tvix-build store` as processes, against protobuf, PyPI's blake3 and plain sqlite3."""

from __future__ import annotations

import signal
import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from google.protobuf import json_format

from cli_support import (
    delimited,
    digest,
    encoded,
    invalid_request,
    make,
    request,
    run,
    start,
    unsorted_request,
)
from tvix.build.protos.build_pb2 import BuildRequest

SORTED = request(1, outputs=["a", "b"])  # what unsorted_request() is in canonical form


def rows(store: Path) -> dict[str, bytes]:
    """What plain sqlite3 finds in a store."""
    with closing(sqlite3.connect(store)) as connection:
        return dict(connection.execute("SELECT lower(hex(digest)), encoding FROM request"))


def test_add(tmp_path: Path) -> None:
    make(tmp_path, "one.json", [request(7)])
    make(tmp_path, "many.binpbs.zst", [request(1), unsorted_request(), request(1)])
    store = tmp_path / "store"
    files = ("one.json", "many.binpbs.zst")
    result = run("store", "add", "store", *files, cwd=tmp_path)
    assert (result.status, result.stderr) == (0, "")
    expected = run("digest", *files, cwd=tmp_path)
    assert result.stdout == expected.stdout
    wanted = {digest(one): encoded(one) for one in (request(7), request(1), SORTED)}
    assert rows(store) == wanted
    again = run("store", "add", store, "-", "--input-format", "binpb", stdin=encoded(request(7)))
    assert again.stdout.decode() == f"{digest(request(7))}  -\n"
    assert rows(store) == wanted


def test_add_stores_all_but_what_is_invalid(tmp_path: Path) -> None:
    many = make(tmp_path, "many.binpbs", [request(1), invalid_request(), request(2)])
    result = run("store", "add", tmp_path / "store", many)
    assert result.status == 1
    assert result.stdout.decode().splitlines() == [
        f"{digest(request(number))}  {many}[{i}]" for number, i in ((1, 0), (2, 2))
    ]
    assert f"{many}[1] at byte " in result.stderr
    assert "outputs[0]: invalid_name" in result.stderr
    assert rows(tmp_path / "store").keys() == {digest(request(1)), digest(request(2))}


def test_add_of_damaged_files(tmp_path: Path) -> None:
    data = delimited([encoded(request(1)), encoded(request(2))])[:-1]
    options = ("--input-format", "binpbs")
    result = run("store", "add", *options, tmp_path / "store", "-", stdin=data)
    assert result.status == 2
    assert "[1] at byte" in result.stderr
    assert rows(tmp_path / "store").keys() == {digest(request(1))}
    assert run("store", "add", tmp_path / "store", tmp_path / "none.binpb").status == 2


def test_get(tmp_path: Path) -> None:
    many = make(tmp_path, "many.binpbs", [request(number) for number in range(20)])
    store = tmp_path / "store"
    assert run("store", "add", store, many).status == 0
    one = digest(request(3))
    target = tmp_path / "one.binpb"
    result = run("store", "get", store, one[:12], "-o", target)
    assert (result.status, result.stdout, result.stderr) == (0, b"", "")
    assert target.read_bytes() == encoded(request(3))
    result = run("store", "get", store, one, "--output-format", "json")
    assert json_format.Parse(result.stdout, BuildRequest()) == request(3)
    names = [digest(request(number)) for number in (5, 3, 5)]
    result = run("store", "get", store, *names, "--output-format", "binpbs")
    assert result.stdout == delimited(encoded(request(number)) for number in (5, 3, 5))


def test_get_what_is_not_there(tmp_path: Path) -> None:
    store = tmp_path / "store"
    many = make(tmp_path, "many.binpbs", [request(number) for number in range(20)])
    run("store", "add", store, many)
    names = sorted(rows(store))
    # Of 20 digests, two begin alike.
    shared = next(a[0] for a, b in pairwise(names) if a[0] == b[0])
    target = tmp_path / "out.binpbs"
    result = run("store", "get", store, names[0], "0" * 64, shared, "-o", target)
    assert (result.status, result.stdout) == (1, b"")
    first, second = result.stderr.splitlines()
    assert first == f"tvix-build: {store}: no request with the digest {'0' * 64}"
    assert f"several digests begin with {shared}, such as " in second
    assert not target.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("xyz", "--output-format", "binpb"),
        ("00", "11", "--output-format", "binpb"),
        ("00",),
        ("00", "-o", "out.unknown"),
        (),
    ],
)
def test_wrong_usage_of_get(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    run("store", "add", "store", "-", "--input-format", "binpbs", cwd=tmp_path)
    result = run("store", "get", "store", *arguments, cwd=tmp_path)
    assert (result.status, result.stdout) == (2, b"")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_list(tmp_path: Path) -> None:
    messages = [request(number) for number in range(30)]
    many = make(tmp_path, "many.ndjson", messages)
    run("store", "add", tmp_path / "store", many)
    result = run("store", "list", tmp_path / "store")
    assert result.status == 0
    assert result.stdout.decode().splitlines() == sorted(
        f"{digest(message)}  {len(encoded(message))}" for message in messages
    )


def test_verify(tmp_path: Path) -> None:
    store = tmp_path / "store"
    run("store", "add", store, make(tmp_path, "many.binpbs", [request(1), request(2)]))
    result = run("store", "verify", store)
    assert (result.status, result.stdout) == (0, b"2 requests, 0 builds, no damage\n")
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute(
            "UPDATE request SET encoding = ? WHERE digest = ?",
            (encoded(request(3)), bytes.fromhex(digest(request(1)))),
        )
    result = run("store", "verify", store)
    assert result.status == 1
    (line,) = result.stdout.decode().splitlines()
    assert line.startswith(f"{digest(request(1))}: expected ")
    assert line.endswith(digest(request(3)))
    result = run("store", "get", store, digest(request(1)), "--output-format", "binpb")
    assert (result.status, result.stdout) == (2, b"")
    assert "damaged" in result.stderr


@pytest.mark.parametrize("command", ["list", "verify", "get"])
def test_what_is_no_store(tmp_path: Path, command: str) -> None:
    digests = ("00", "--output-format", "binpb") if command == "get" else ()
    missing = tmp_path / "missing"
    result = run("store", command, missing, *digests)
    assert (result.status, result.stdout) == (2, b"")
    assert result.stderr == f"tvix-build: {missing}: no such file\n"
    assert not missing.exists()
    foreign = make(tmp_path, "request.binpb", [request()])
    result = run("store", command, foreign, *digests)
    assert result.status == 2
    assert str(foreign) in result.stderr
    assert foreign.read_bytes() == encoded(request())


def test_what_was_printed_survives_a_kill(tmp_path: Path) -> None:
    store = tmp_path / "store"
    process = start("store", "add", store, "-", "--input-format", "binpbs")
    assert process.stdin
    assert process.stdout
    process.stdin.write(delimited([encoded(request(1))]))
    process.stdin.flush()
    printed = process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert printed.decode() == f"{digest(request(1))}  -[0]\n"
    assert run("store", "verify", store).stdout == b"1 requests, 0 builds, no damage\n"
    assert rows(store) == {digest(request(1)): encoded(request(1))}


def test_help() -> None:
    assert b"list" in run("store", "--help").stdout
    for command in ("add", "get", "list", "verify"):
        text = run("store", command, "-h").stdout.decode()
        assert f"  tvix-build store {command} " in text, "an example"
