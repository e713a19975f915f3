# SPDX-License-Identifier: MIT
"""Sizes of Directories, as specified and as snix counts them since August 2024."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from blake3 import blake3

from cli_support import run
from tvix.castore.protos.castore_pb2 import Directory
from tvix_build.castore import (
    CastoreStore,
    DirectorySizes,
    SizeMismatchError,
    TreeError,
    directory_size,
    node_from_path,
)

SNIX = DirectorySizes.SNIX_2024


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "docs" / "empty").mkdir(parents=True)
    (root / "docs" / "greeting").write_text("hello\n")
    (root / "link").symlink_to("docs")
    return root


def expected(path: Path, factor: int) -> tuple[bytes, int]:
    """Return the digest and the size of a directory whose entries count `factor` times."""
    directory = Directory()
    size = 0
    for name in sorted(os.listdir(path)):
        entry, raw = path / name, name.encode()
        size += factor
        if entry.is_symlink():
            directory.symlinks.add(name=raw, target=os.fsencode(os.readlink(entry)))
        elif entry.is_dir():
            digest, below = expected(entry, factor)
            directory.directories.add(name=raw, digest=digest, size=below)
            size += below
        else:
            data = entry.read_bytes()
            directory.files.add(name=raw, digest=blake3(data).digest(), size=len(data))
    return blake3(directory.SerializeToString(deterministic=True)).digest(), size


@pytest.mark.parametrize(("sizes", "factor"), [("specified", 1), ("snix-2024", 2)])
def test_sizes(tree: Path, tmp_path: Path, sizes: str, factor: int) -> None:
    wanted = expected(tree, factor)
    made = node_from_path(tree, directory_sizes=sizes).directory
    assert (made.digest, made.size) == wanted
    assert made.size == 4 * factor
    with CastoreStore(tmp_path / "store", directory_sizes=sizes) as store:
        assert store.directory_sizes == sizes
        node = store.ingest(tree)
        assert node.directory == made
        assert store.closure(node).directories[made.digest] == made.size
        assert directory_size(store.directory(made.digest), sizes=sizes) == made.size
        directories = [store.directory(one) for one in store.closure(node).directories]
        assert store.add_directories(directories) == made.digest
        assert store.add_directory(directories[-1]) == made.digest
    for command in (("ingest",), ("castore", "add", "store")):
        found = run(*command, "--directory-sizes", sizes, tree, "--output", "-", cwd=tmp_path)
        assert json.loads(found.stdout)["node"]["directory"]["size"] == str(made.size)


def test_a_store_has_one_rule(tree: Path, tmp_path: Path) -> None:
    with CastoreStore(tmp_path / "store", directory_sizes=SNIX) as store:
        node = store.ingest(tree)
        directories = [store.directory(one) for one in store.closure(node).directories]
    with CastoreStore(tmp_path / "store") as store:
        with pytest.raises(SizeMismatchError, match="expected size 6, as the Directory"):
            store.closure(node)
        with pytest.raises(TreeError, match="expected size 2, as the Directory"):
            store.add_directories(directories)


def test_unknown_sizes(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="thrice"):
        node_from_path(tree, directory_sizes="thrice")
    with pytest.raises(ValueError, match="thrice"):
        CastoreStore(tmp_path / "store", directory_sizes="thrice")
    found = run("serve", "--check-only", "--directory-sizes", "snix-2024", cwd=tmp_path)
    assert found.status == 2
    assert "expected --castore with" in " ".join(found.stderr.split())
