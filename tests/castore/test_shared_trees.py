# SPDX-License-Identifier: MIT
"""Files and directories of a store that its users share."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_support import environment
from tvix.castore.protos.castore_pb2 import Directory, DirectoryNode, FileNode, Node, SymlinkNode
from tvix_build.castore import CastoreStore, MissingError, node_from_path

MISSING = bytes(32)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CastoreStore]:
    with CastoreStore(tmp_path / "store") as store:
        yield store


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "a" / "empty").mkdir(parents=True)
    (root / "a" / "link").symlink_to("..")
    (root / "program").write_bytes(b"#!/bin/sh\n")
    (root / "program").chmod(0o755)
    (root / "a" / "data").write_bytes(b"data")
    return root


def shared_trees(store: CastoreStore) -> list[Path]:
    return list(Path(store.path).glob("trees/*/*"))


def test_directories_and_files(store: CastoreStore, tree: Path) -> None:
    nodes = [store.ingest(path) for path in (tree, tree / "program", tree / "a/data", tree)]
    with store.shared(nodes) as paths:
        full = [Path(store.path, path) for path in paths]
        assert [node_from_path(path, name=b"x").WhichOneof("node") for path in full] == [
            *("directory", "file", "file", "directory")
        ]
        assert node_from_path(full[0], name=b"tree") == nodes[0]
        assert node_from_path(full[1], name=b"program") == nodes[1]
        assert node_from_path(full[2], name=b"data") == nodes[2]
        assert paths[0] == paths[3]
        inode = (full[0] / "program").stat().st_ino
    with store.shared(nodes) as paths:
        assert Path(store.path, paths[0], "program").stat().st_ino == inode
    assert list(store.verify()) == []
    assert os.listdir(Path(store.path, "uses")) == []


def test_a_symbolic_link_to_the_store(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to("store")
    with CastoreStore(tmp_path / "link") as store:
        node = store.ingest(tree)
        for _ in range(2):
            with store.shared([node]) as (path,):
                assert node_from_path(tmp_path / "link" / path, name=b"tree") == node


def test_what_is_missing(store: CastoreStore) -> None:
    message = Directory(files=[FileNode(name=b"a", digest=MISSING, size=1)])
    digest = store.add_directory(message, check_children=False)
    incomplete = Node(directory=DirectoryNode(digest=digest, size=1))
    for node in (
        incomplete,
        Node(file=FileNode(digest=MISSING)),
        Node(directory=DirectoryNode(digest=MISSING)),
    ):
        with pytest.raises(MissingError), store.shared([node]):
            pass
    link = Node(symlink=SymlinkNode(name=b"a", target=b"b"))
    with pytest.raises(ValueError, match="found symlink"), store.shared([link]):
        pass
    assert shared_trees(store) == []
    assert os.listdir(Path(store.path, "incoming")) == []


def test_an_empty_directory(store: CastoreStore, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    node = store.ingest(tmp_path / "empty")
    for _ in range(2):
        with store.shared([node]) as paths:
            assert os.listdir(Path(store.path, paths[0])) == []


def test_garbage_collection(store: CastoreStore, tree: Path, tmp_path: Path) -> None:
    root, file = store.ingest(tree), store.ingest(tree / "a" / "data")
    with store.shared([root, file]) as paths, CastoreStore(tmp_path / "store") as other:
        assert other.collect_garbage([], grace_seconds=-3600).blobs == 0
        assert node_from_path(Path(store.path, paths[0]), name=b"tree") == root
        assert Path(store.path, paths[1]).read_bytes() == b"data"
    store.collect_garbage([root], grace_seconds=-3600)
    assert len(shared_trees(store)) == 1
    assert store.collect_garbage([], grace_seconds=-3600).kept == 0
    assert shared_trees(store) == []
    assert os.listdir(Path(store.path, "incoming")) == []


def test_the_grace_period(store: CastoreStore, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node, file = store.ingest(tree), store.ingest(tree / "a" / "data")
    used = added = max(path.stat().st_ctime for path in Path(store.path).glob("[bd]*/*/*"))
    while used == added:  # The clock of the file system is coarse.
        with store.shared([node]):
            pass
        used = max(path.stat().st_ctime for path in Path(store.path).glob("directories/*/*"))
    monkeypatch.setattr("tvix_build.castore.store.time.time", lambda: used)
    store.collect_garbage([], grace_seconds=0)
    assert store.closure(node).blobs
    assert store.closure(file).blobs
    monkeypatch.undo()
    assert store.collect_garbage([], grace_seconds=-3600).kept == 0


def test_damage(store: CastoreStore, tree: Path) -> None:
    node = store.ingest(tree)
    with store.shared([node]) as paths:
        pass
    path = Path(store.path, paths[0])
    (path / "new").mkdir()
    (damage,) = store.verify()
    assert (damage.path, damage.digest) == (str(path), node.directory.digest)
    assert "expected the tree of this Directory, found" in damage.message


WORK = """
import random, sys
from contextlib import suppress
from pathlib import Path
from tvix_build.castore import CastoreStore, ChangedError, MissingError, node_from_path
seed, path, rounds, tree = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
rng = random.Random(seed)
with CastoreStore(path) as store:
    for i in range(rounds):
        node = store.ingest(tree)
        print(flush=True)
        with suppress(MissingError), store.shared([node]) as paths:  # another one collected it
            found = None
            while found is None:
                with suppress(ChangedError):  # another one has touched a hard link
                    found = node_from_path(Path(path, paths[0]), name=node.directory.name)
            assert found == node, found
        if rng.randrange(3) == 0:
            store.collect_garbage([], grace_seconds=-3600)
"""


def start(seed: int, store: Path, rounds: int, tree: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", WORK, str(seed), str(store), str(rounds), str(tree)],
        stdout=subprocess.PIPE,
        env=environment(),
    )


@pytest.mark.slow
def test_many_processes_that_collect_garbage(tmp_path: Path, tree: Path) -> None:
    workers = [start(seed, tmp_path / "store", 20, tree) for seed in range(3)]
    for worker in workers:
        worker.communicate()
    assert [worker.returncode for worker in workers] == [0] * 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed(tmp_path: Path, tree: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = tmp_path / "store"
    worker = start(seed, path, 10**6, tree)
    assert worker.stdout is not None
    for _ in range(rng.randrange(1, 10)):
        worker.stdout.readline()
    threading.Event().wait(rng.random() / 50)  # Any moment; nothing depends on it.
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    with CastoreStore(path) as store:
        assert list(store.verify()) == []
        node = store.ingest(tree)
        with store.shared([node]) as paths:
            assert node_from_path(path / paths[0], name=b"tree") == node
        store.collect_garbage([], grace_seconds=-3600)
        assert os.listdir(path / "incoming") == os.listdir(path / "uses") == []
