# SPDX-License-Identifier: MIT
"""`compare_nodes`, with trees on disk and against a comparison of their paths."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tvix_build.castore import CastoreStore, MissingError, compare_nodes


@pytest.fixture
def castore(tmp_path: Path) -> Iterator[CastoreStore]:
    with CastoreStore(tmp_path / "castore") as opened:
        yield opened


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    """Two equal trees."""
    tree = tmp_path / "a"
    (tree / "b/c").mkdir(parents=True)
    (tree / "b.txt").write_bytes(b"text")
    (tree / "b/run").write_bytes(b"#!/bin/sh\n")
    (tree / "b/run").chmod(0o755)
    (tree / "b/c/link").symlink_to("../run")
    shutil.copytree(tree, tmp_path / "z", symlinks=True)
    return tree, tmp_path / "z"


def compare(castore: CastoreStore, trees: tuple[Path, Path]) -> list[tuple[str, str]]:
    first, second = (castore.ingest(tree) for tree in trees)
    return [(path.decode(), message) for path, message in compare_nodes(castore, first, second)]


def test_equal_trees(castore: CastoreStore, trees: tuple[Path, Path]) -> None:
    assert compare(castore, trees) == []


def test_all_differences(castore: CastoreStore, trees: tuple[Path, Path]) -> None:
    other = trees[1]
    (other / "b.txt").unlink()
    (other / "b.txt").symlink_to("b")
    (other / "b/run").chmod(0o644)
    (other / "b/c/link").unlink()
    (other / "b/c/link").symlink_to("run\n")
    (trees[0] / "b/old").touch()
    (other / "b/new").touch()
    assert compare(castore, trees) == [
        ("b/new", "unexpected entry"),
        ("b/old", "expected an entry, found none"),
        ("b/c/link", "expected the target '../run', found 'run\\n'"),
        ("b/run", "expected an executable file, found a file that is not executable"),
        ("b.txt", "expected a file, found a symlink"),
    ]


def test_the_roots(castore: CastoreStore, trees: tuple[Path, Path]) -> None:
    file = trees[1] / "b.txt"
    assert compare(castore, (trees[0], file)) == [("", "expected a directory, found a file")]
    assert compare(castore, (trees[0] / "b.txt", file)) == []
    file.write_bytes(b"other")
    ((path, message),) = compare(castore, (trees[0] / "b.txt", file))
    assert path == ""
    assert message.startswith("contents differ: expected the blob ")


def test_a_missing_directory(castore: CastoreStore, trees: tuple[Path, Path]) -> None:
    first = castore.ingest(trees[0])
    castore.collect_garbage([], grace_seconds=-1)
    second = castore.ingest(trees[1] / "b")
    with pytest.raises(MissingError):
        list(compare_nodes(castore, first, second))
