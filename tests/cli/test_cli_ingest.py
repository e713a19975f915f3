# SPDX-License-Identifier: MIT
"""`tvix-build ingest`: nodes for people and programs, blobs, errors."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from blake3 import blake3
from google.protobuf import json_format
from google.protobuf.proto import parse_length_prefixed

from cli_support import Result, decompressed, run
from tvix.castore.protos.castore_pb2 import Directory, Node
from tvix_build.castore import ChangedError
from tvix_build.cli import ingest

WORDS = b"words\n"
LARGE = bytes(range(256)) * (17 << 12)  # 17 MiB, hashed by several threads


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Some files, directories and links."""
    root = tmp_path / "tree"
    (root / "inner").mkdir(parents=True)
    (root / "inner" / "words").write_bytes(WORDS)
    (root / "script").write_bytes(b"#!/bin/sh\n")
    (root / "script").chmod(0o755)
    (root / "large").write_bytes(LARGE)
    (root / "same").write_bytes(WORDS)
    (root / "link").symlink_to("inner/words")
    return root


def columns(result: Result) -> list[list[str]]:
    """The lines on stdout in words."""
    return [line.split() for line in result.stdout.decode().splitlines()]


def test_lines(tree: Path) -> None:
    paths = (tree, tree / "script", tree / "same", tree / "link")
    result = run("ingest", *paths)
    assert (result.status, result.stderr) == (0, "")
    directory, *others = columns(result)
    assert (directory[0], directory[2:]) == ("directory", ["6", "tree"])
    assert others == [
        ["executable", blake3(b"#!/bin/sh\n").hexdigest(), "10", "script"],
        ["file", blake3(WORDS).hexdigest(), "6", "same"],
        ["symlink", "-", "-", "link", "->", "inner/words"],
    ]


def test_ndjson(tree: Path) -> None:
    result = run("ingest", "tree/same", "tree/link", "--output", "nodes.ndjson", cwd=tree.parent)
    assert result.status == 0
    assert len(columns(result)) == 2
    text = (tree.parent / "nodes.ndjson").read_text()
    same, link = map(json.loads, text.splitlines())
    assert same["path"] == str(tree / "same")
    node = json_format.ParseDict(same["node"], Node())
    assert (node.file.name, node.file.digest) == (b"same", blake3(WORDS).digest())
    assert link["path"] == str(tree / "link")
    assert json_format.ParseDict(link["node"], Node()).symlink.target == b"inner/words"
    alone = run("ingest", "tree/same", "tree/link", "-o", "-", cwd=tree.parent)
    assert alone.stdout.decode() == text


def test_a_directory_that_stands_for_the_store(tree: Path) -> None:
    (tree.parent / "link").symlink_to("tree")
    output = run("ingest", "tree/same", "inner/", "--store", "link", "-o", "-", cwd=tree.parent)
    assert output.status == 2
    assert "expected a path directly in link, found inner/" not in output.stdout.decode()
    assert [one["path"] for one in output.lines] == ["/nix/store/same"]
    inside = run("ingest", "link/inner/", "--store", "tree", "-o", "-", cwd=tree.parent)
    assert (inside.status, inside.stderr) == (0, "")
    assert [one["path"] for one in inside.lines] == ["/nix/store/inner"]
    for path in ("tree", "tree/inner/words"):
        result = run("ingest", path, "--store", "tree", "-o", "-", cwd=tree.parent)
        assert (result.status, result.stdout) == (2, b"")
        assert f"expected a path directly in tree, found {path}" in result.stderr


@pytest.mark.parametrize("suffix", ["", ".zst"])
def test_binpbs(tree: Path, suffix: str) -> None:
    file = tree.parent / f"nodes.binpbs{suffix}"
    assert run("ingest", tree, tree / "same", "--output", file).status == 0
    stream = io.BytesIO(decompressed(file.read_bytes(), suffix))
    nodes = [parse_length_prefixed(Node, stream) for _ in range(3)]
    assert nodes[0] is not None
    assert nodes[0].directory.size == 6
    assert nodes[1] is not None
    assert nodes[1].file.name == b"same"
    assert nodes[2] is None


def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff\x1b"
    os.mkdir(path)
    result = run("ingest", os.fsdecode(path), "-o", tmp_path / "nodes.ndjson")
    assert columns(result)[0][3] == "\\xff\\x1b"
    line = json.loads((tmp_path / "nodes.ndjson").read_text())
    assert line["path"] == f"{tmp_path}/\\xff\x1b"
    assert json_format.ParseDict(line["node"], Node()).directory.name == b"\xff\x1b"


def read(blobs: Path, digest: bytes) -> bytes:
    """The blob of a digest, which is that of its contents."""
    data = (blobs / digest.hex()[:2] / digest.hex()).read_bytes()
    assert blake3(data).digest() == digest
    return data


def test_blobs(tree: Path) -> None:
    blobs = tree.parent / "a" / "blobs"
    output = run("ingest", tree, "--blobs", blobs, "-o", "-")
    node = json_format.ParseDict(output.lines[0]["node"], Node())
    root = Directory.FromString(read(blobs, node.directory.digest))
    inner = Directory.FromString(read(blobs, root.directories[0].digest))
    assert [read(blobs, file.digest) for file in root.files] == [LARGE, WORDS, b"#!/bin/sh\n"]
    assert read(blobs, inner.files[0].digest) == WORDS
    files = [path for path in blobs.rglob("*") if path.is_file()]
    assert len(files) == 5
    # Again: nothing is written.
    before = {path: path.stat().st_mtime_ns for path in blobs.rglob("*")}
    assert run("ingest", tree, "--blobs", blobs).status == 0
    assert {path: path.stat().st_mtime_ns for path in blobs.rglob("*")} == before


@pytest.mark.parametrize("contents", [b"other", LARGE + b"x"])
def test_no_blob_of_something_else(tmp_path: Path, contents: bytes) -> None:
    """A file that is another one when it is copied."""
    file = tmp_path / "file"
    file.write_bytes(contents)
    with pytest.raises(ChangedError, match="file: changed while it was read"):
        ingest._copy(os.fsencode(file), blake3(WORDS).digest(), str(tmp_path / "copy"))
    blobs = ingest.Blobs(str(tmp_path / "blobs"))
    digest = blake3(WORDS).digest()
    with pytest.raises(ChangedError):
        blobs.put(digest, lambda target: ingest._copy(os.fsencode(file), digest, target))
    assert list((tmp_path / "blobs").iterdir()) == []


def test_errors_stop_nothing_else(tree: Path) -> None:
    os.mkfifo(tree / "inner" / "pipe")
    missing = tree / "missing"
    result = run("ingest", missing, tree, "/", tree / "same", "--output", tree.parent / "n.ndjson")
    assert result.status == 2
    assert [line[3] for line in columns(result)] == ["same"]
    assert result.stderr.splitlines() == [
        f"tvix-build: {missing}: No such file or directory",
        f"tvix-build: {tree}/inner/pipe: expected a file, directory or symbolic link, found a pipe",
        "tvix-build: / has no last component, so its node has no name",
    ]
    (line,) = (tree.parent / "n.ndjson").read_text().splitlines()
    assert json.loads(line)["path"] == str(tree / "same")


def test_output_that_cannot_be_written(tree: Path) -> None:
    result = run("ingest", tree, "--blobs", tree / "same")
    assert result.status == 2
    assert f"{tree}/same: File exists" in result.stderr
    blobs = tree.parent / "blobs"
    digest = blake3(WORDS).hexdigest()
    blobs.mkdir()
    (blobs / digest[:2]).write_bytes(b"in the way")
    result = run("ingest", tree / "same", "--blobs", blobs)
    assert result.status == 2
    assert f"{blobs}/{digest[:2]}/{digest}: " in result.stderr
    assert [path.name for path in blobs.iterdir()] == [digest[:2]]


def test_usage(tree: Path) -> None:
    result = run("ingest", tree, "--output", "nodes.txt")
    assert result.status == 2
    assert "expected a name such as x.ndjson or x.binpbs, found 'nodes.txt'" in result.stderr
    assert run("ingest").status == 2
