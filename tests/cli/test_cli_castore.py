# SPDX-License-Identifier: MIT
"""`tvix-build castore`, compared with the files that it stores and with PyPI's blake3."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from blake3 import blake3

from cli_support import run, run_process

EMPTY = blake3(b"").hexdigest()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "b/c").mkdir(parents=True)
    (root / "a.txt").write_bytes(b"contents\n")
    (root / "b/run").write_bytes(b"#!/bin/sh\n")
    (root / "b/run").chmod(0o755)
    (root / "b/c/link").symlink_to("../run")
    return root


def add(tmp_path: Path, path: Path) -> str:
    """Add a path, and return its digest."""
    result = run("castore", "add", tmp_path / "store", path)
    assert (result.status, result.stderr) == (0, "")
    return result.stdout.decode().split()[1]


def test_add_prints_what_ingest_prints(tmp_path: Path, tree: Path) -> None:
    paths = (tree, tree / "a.txt", tree / "b/run", tree / "b/c/link")
    nodes = tmp_path / "nodes.ndjson"
    result = run("castore", "add", tmp_path / "store", *paths, "-o", nodes)
    assert (result.status, result.stderr) == (0, "")
    expected = run("ingest", *paths, "-o", tmp_path / "expected.ndjson")
    assert result.stdout == expected.stdout
    assert nodes.read_bytes() == (tmp_path / "expected.ndjson").read_bytes()
    assert json.loads(nodes.read_bytes().splitlines()[0])["path"] == str(tree)
    again = run("castore", "add", tmp_path / "store", *paths)
    assert again.stdout == expected.stdout


def test_add_stores_all_but_what_cannot_be_read(tmp_path: Path, tree: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    result = run("castore", "add", "store", "none", "pipe", tree / "a.txt", cwd=tmp_path)
    assert result.status == 2
    assert "pipe: expected a file, directory or symbolic link, found a pipe" in result.stderr
    assert "none: No such file or directory" in result.stderr
    digest = blake3(b"contents\n").hexdigest()
    assert digest in result.stdout.decode()
    assert run("castore", "cat", "store", digest, cwd=tmp_path).stdout == b"contents\n"


@pytest.mark.parametrize("method", ["auto", "hard-link", "copy"])
def test_get(tmp_path: Path, tree: Path, method: str) -> None:
    digest = add(tmp_path, tree)
    store = tmp_path / "store"
    result = run("castore", "get", store, digest[:20], tmp_path / "out", "--method", method)
    assert (result.status, result.stdout, result.stderr) == (0, b"", "")
    assert add(tmp_path, tmp_path / "out") == digest
    result = run("castore", "get", store, digest, tmp_path / "out", "--method", method)
    assert result.status == 2
    assert result.stderr == f"tvix-build: {tmp_path}/out: File exists\n"
    blob = blake3(b"contents\n").hexdigest()
    for options, mode in (((), 0o444), (("--executable",), 0o555)):
        target = tmp_path / f"file-{mode}"
        assert run("castore", "get", store, blob, target, *options).status == 0
        assert target.read_bytes() == b"contents\n"
        assert target.stat().st_mode & 0o777 == mode


def test_empty_directory_comes_before_the_empty_blob(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "directory").mkdir()
    store = tmp_path / "store"
    assert add(tmp_path, tmp_path / "file") == EMPTY
    assert run("castore", "get", store, EMPTY, tmp_path / "a").status == 0
    assert (tmp_path / "a").is_file()
    assert add(tmp_path, tmp_path / "directory") == EMPTY
    assert run("castore", "get", store, EMPTY, tmp_path / "b").status == 0
    assert (tmp_path / "b").is_dir()
    assert run("castore", "cat", store, EMPTY).stdout == b""
    assert run("castore", "ls", store, EMPTY).stdout == b""


def test_ls(tmp_path: Path, tree: Path) -> None:
    digest = add(tmp_path, tree)
    result = run("castore", "ls", tmp_path / "store", digest)
    expected = run("ingest", tree / "a.txt", tree / "b").stdout
    assert (result.status, result.stdout) == (0, expected)
    result = run("castore", "ls", "-R", tmp_path / "store", digest)
    lines = [line.split(None, 3) for line in result.stdout.decode().splitlines()]
    assert [(kind, name) for kind, _, _, name in lines] == [
        ("file", "a.txt"),
        ("directory", "b"),
        ("directory", "b/c"),
        ("executable", "b/run"),
        ("symlink", "b/c/link -> ../run"),
    ]


def test_cat(tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    (tmp_path / "file").write_bytes(data)
    digest = add(tmp_path, tmp_path / "file")
    assert run("castore", "cat", tmp_path / "store", digest.upper()[:30]).stdout == data
    assert run_process("castore", "cat", tmp_path / "store", digest).stdout == data


@pytest.mark.parametrize("command", ["get", "ls", "cat", "gc"])
def test_digest_that_matches_nothing(tmp_path: Path, tree: Path, command: str) -> None:
    store = tmp_path / "store"
    root = add(tmp_path, tree)
    target = (tmp_path / "out",) if command == "get" else ()
    result = run("castore", command, store, "0" * 64, *target)
    assert (result.status, result.stdout) == (1, b"")
    assert result.stderr == f"tvix-build: no blob or Directory with the digest {'0' * 64}\n"
    result = run("castore", command, store, "x", *target)
    assert result.status == 2
    assert "expected 1 to 64 hex digits, found 'x'" in result.stderr
    wrong = {"ls": blake3(b"contents\n").hexdigest(), "cat": root}.get(command)
    if wrong:
        result = run("castore", command, store, wrong)
        assert (result.status, result.stdout) == (1, b"")
        assert f"with the digest {wrong}" in result.stderr


def test_ambiguous_prefix(tmp_path: Path) -> None:
    for i in range(20):
        (tmp_path / "tree").mkdir(exist_ok=True)
        (tmp_path / "tree" / f"{i}").write_bytes(b"%d" % i)
    add(tmp_path, tmp_path / "tree")
    first = [blake3(b"%d" % i).hexdigest()[0] for i in range(20)]
    shared = next(digit for digit in first if first.count(digit) > 1)
    result = run("castore", "cat", tmp_path / "store", shared)
    assert (result.status, result.stdout) == (1, b"")
    assert f"several digests begin with {shared}, such as " in result.stderr


def test_verify(tmp_path: Path, tree: Path) -> None:
    add(tmp_path, tree)
    store = tmp_path / "store"
    result = run("castore", "verify", store)
    assert (result.status, result.stdout) == (0, b"no damage\n")
    digest = blake3(b"contents\n").hexdigest()
    blob = store / "blobs" / digest[:2] / digest[2:]
    blob.chmod(0o644)
    blob.write_bytes(b"changed\n")
    blob.chmod(0o444)
    result = run("castore", "verify", store)
    found = blake3(b"changed\n").hexdigest()
    assert result.status == 1
    assert result.stdout.decode() == f"{blob}: expected this digest, found {found}\n"
    blob.unlink()
    assert run("castore", "verify", store).status == 1
    add(tmp_path, tree)
    assert run("castore", "verify", store).status == 0


def test_gc(tmp_path: Path, tree: Path) -> None:
    root = add(tmp_path, tree / "b")
    add(tmp_path, tree)
    store = tmp_path / "store"
    result = run("castore", "gc", store, root)
    text = "removed 0 blobs and 0 Directories, 0.0 MB; 5 objects are left\n"
    assert (result.status, result.stdout.decode()) == (0, text)
    # Nothing that was added before this second is recent.
    result = run("castore", "gc", store, root, "--grace", "0")
    assert result.status == 0
    assert run("castore", "gc", store).status == 2
    assert run("castore", "ls", store, root).status == 0


@pytest.mark.parametrize("command", ["get", "ls", "cat", "gc", "verify"])
def test_no_store(tmp_path: Path, command: str) -> None:
    digest = () if command == "verify" else ("00",)
    target = ("out",) if command == "get" else ()
    result = run("castore", command, "none", *digest, *target, cwd=tmp_path)
    assert (result.status, result.stdout) == (2, b"")
    expected = "none: expected a castore store, found no file castore.version in it; create one"
    assert result.stderr.startswith(f"tvix-build: {expected}")
