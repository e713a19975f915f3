# SPDX-License-Identifier: MIT
"""The store of blobs and Directories, compared with protobuf, PyPI's blake3 and plain Python."""

from __future__ import annotations

import errno
import io
import os
import random
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tvix_build
from cli_support import environment
from snix.castore.protos import castore_pb2 as snix_castore_pb2
from tvix.castore.protos.castore_pb2 import (
    Directory,
    DirectoryNode,
    FileNode,
    Node,
    SymlinkNode,
)
from tvix_build._core import file_hashing
from tvix_build.castore import (
    CastoreError,
    CastoreStore,
    ChangedError,
    LinkMethod,
    MissingError,
    SizeMismatchError,
    TreeError,
    node_from_path,
)

METHODS = [LinkMethod.AUTO, LinkMethod.HARD_LINK, LinkMethod.COPY]
LARGE = (16 << 20) + 5  # hashed by several threads
MISSING = bytes(32)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CastoreStore]:
    with CastoreStore(tmp_path / "store") as store:
        yield store


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with all kinds of nodes."""
    root = tmp_path / "tree"
    (root / "a/b/empty").mkdir(parents=True)
    (root / "same").mkdir()
    (root / "a/link").symlink_to("/etc/passwd")
    (root / "up").symlink_to("..")
    (root / "none").write_bytes(b"")
    for directory in (root, root / "a/b", root / "same"):
        (directory / "program").write_bytes(b"#!/bin/sh\n")
        (directory / "program").chmod(0o755)
        (directory / "data").write_bytes(b"#!/bin/sh\n")
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe")).write_bytes(b"no text")
    for size in (1, 65536, 262143, 262144, 262145, 524288, 524289, 600001):
        (root / "a" / f"size-{size}").write_bytes(random.Random(size).randbytes(size))
    return root


def contents(path: Path) -> dict[str, object]:
    """Return the directories, symbolic links and files below a path."""
    found: dict[str, object] = {}
    below = [] if path.is_symlink() else path.rglob("*")
    for child in [path, *below]:
        status = child.lstat()
        name = str(child.relative_to(path))
        if stat.S_ISLNK(status.st_mode):
            found[name] = ("symlink", os.readlink(child))
        elif stat.S_ISDIR(status.st_mode):
            found[name] = "directory"
        else:
            found[name] = (child.read_bytes(), bool(status.st_mode & stat.S_IXUSR))
    return found


def stored(store: CastoreStore) -> set[str]:
    """Return the paths of all files of a store."""
    root = Path(store._layout.path)
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def damages(store: CastoreStore) -> list[str]:
    return [damage.message for damage in store.verify()]


# ---- blobs and Directories


@pytest.mark.parametrize("size", [0, 1, 262144, 262145, LARGE])
def test_blob(store: CastoreStore, size: int) -> None:
    data = random.Random(size).randbytes(size)
    digest = blake3(data).digest()
    assert not store.has_blob(digest)
    assert store.add_blob(data) == digest
    before = stored(store)
    assert store.add_blob(io.BytesIO(data)) == digest
    assert store.add_blob(memoryview(data)) == digest
    assert stored(store) == before
    assert store.has_blob(digest)
    assert store.blob_size(digest) == size
    with store.open_blob(digest) as file:
        assert file.read() == data
    assert damages(store) == []


def test_blob_of_an_open_file_from_its_position(store: CastoreStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abcdef")
    with (tmp_path / "file").open("rb") as file:
        file.seek(2)
        assert store.add_blob(file) == blake3(b"cdef").digest()


def test_missing_blob(store: CastoreStore) -> None:
    for read in (store.open_blob, store.blob_size, store.directory):
        with pytest.raises(MissingError, match=f"{MISSING.hex()}; add it with ingest") as caught:
            read(MISSING)
        assert caught.value.digest == MISSING
        assert isinstance(caught.value, (tvix_build.Error, KeyError))


@pytest.mark.parametrize(("digest", "error"), [(b"short", ValueError), ("a" * 64, TypeError)])
def test_no_digest(store: CastoreStore, digest: bytes, error: type[Exception]) -> None:
    for read in (store.has_blob, store.open_blob, store.has_directory, store.directory):
        with pytest.raises(error, match="expected a digest"):
            read(digest)


def test_directory(store: CastoreStore) -> None:
    blob = store.add_blob(b"abc")
    inner = Directory(files=[FileNode(name=b"f", digest=blob, size=3)])
    inner_digest = store.add_directory(inner)
    assert inner_digest == blake3(inner.SerializeToString()).digest()
    node = DirectoryNode(name=b"d", digest=inner_digest, size=1)
    links = [SymlinkNode(name=b"z", target=b"t"), SymlinkNode(name=b"y", target=b"t")]
    outer = Directory(directories=[node], symlinks=links)
    digest = store.add_directory(outer.SerializeToString())
    assert store.has_directory(digest)
    assert not store.has_directory(MISSING)
    assert [link.name for link in store.directory(digest).symlinks] == [b"y", b"z"]
    closure = store.closure(Node(directory=DirectoryNode(name=b"r", digest=digest, size=4)))
    assert list(closure.directories.items()) == [(inner_digest, 1), (digest, 4)]
    assert closure.blobs == {blob: 3}
    assert store.add_directory(snix_castore_pb2.Directory()) == blake3(b"").digest()


def test_directory_that_is_not_closed(store: CastoreStore) -> None:
    blob = store.add_blob(b"abc")
    empty = store.add_directory(b"")
    missing = [
        Directory(files=[FileNode(name=b"f", digest=MISSING, size=3)]),
        Directory(directories=[DirectoryNode(name=b"d", digest=MISSING, size=3)]),
    ]
    wrong = [
        Directory(files=[FileNode(name=b"f", digest=blob, size=4)]),
        Directory(directories=[DirectoryNode(name=b"f", digest=empty, size=1)]),
    ]
    for error, some in ((MissingError, missing), (SizeMismatchError, wrong)):
        for directory in some:
            before = stored(store)
            with pytest.raises(error):
                store.add_directory(directory)
            assert stored(store) == before
            digest = store.add_directory(directory, check_children=False)
            size = 1 + sum(node.size for node in directory.directories)
            with pytest.raises(error):
                store.closure(Node(directory=DirectoryNode(name=b"r", digest=digest, size=size)))
    with pytest.raises(tvix_build.ValidationError):
        store.add_directory(Directory(symlinks=[SymlinkNode(name=b"..", target=b"t")]))


def test_directories_of_a_tree(store: CastoreStore) -> None:
    empty = Directory()
    digest = blake3(b"").digest()
    root = Directory(directories=[DirectoryNode(name=b"d", digest=digest, size=0)])
    before = stored(store)
    for directories, message in (
        ([], "expected at least one Directory, found none"),
        ([empty, Directory(symlinks=[SymlinkNode(name=b"a", target=b"b")])], "Directory 0: "),
        ([root], "Directory 0: d: refers to af1349b9"),
    ):
        with pytest.raises(TreeError, match=message):
            store.add_directories(directories)
        assert stored(store) == before
    found = store.add_directories([empty, root.SerializeToString()])
    assert store.directory(found) == root
    assert store.has_directory(digest)


# ---- ingest and materialize


@pytest.mark.parametrize("threads", [1, 3, None])
def test_ingest(store: CastoreStore, tree: Path, threads: int | None) -> None:
    (tree / "large").write_bytes(bytes(LARGE))
    node = store.ingest(tree, threads=threads)
    assert node == node_from_path(tree)
    assert store.closure(node).blobs.keys() == {
        blake3(path.read_bytes()).digest()
        for path in tree.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    before = stored(store)
    assert store.ingest(tree, name="other").directory.digest == node.directory.digest
    assert stored(store) == before
    assert not any("incoming" in path for path in before)
    assert damages(store) == []


@pytest.mark.parametrize("method", METHODS)
def test_materialize(store: CastoreStore, tree: Path, tmp_path: Path, method: LinkMethod) -> None:
    node = store.ingest(tree)
    for name in ("first", "second"):
        store.materialize(node, tmp_path / name, method=method)
        assert contents(tmp_path / name) == contents(tree)
        assert store.ingest(tmp_path / name, name="tree") == node
    for path in (tmp_path / "first").rglob("*"):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            assert stat.S_IMODE(status.st_mode) in (0o444, 0o555)
            assert status.st_mtime == 1
        elif stat.S_ISDIR(status.st_mode):
            assert os.access(path, os.W_OK)
    with pytest.raises(FileExistsError):
        store.materialize(node, tmp_path / "first", method=method)
    assert contents(tmp_path / "first") == contents(tree)
    assert damages(store) == []


def test_hard_links_are_shared_by_executability(
    store: CastoreStore, tree: Path, tmp_path: Path
) -> None:
    node = store.ingest(tree)
    for name in ("first", "second"):
        store.materialize(node, tmp_path / name, method="hard-link")
    inodes = {
        name: {path.stat().st_ino for path in tmp_path.glob(f"[fs]*/**/{name}")}
        for name in ("program", "data")
    }
    assert all(len(some) == 1 for some in inodes.values())
    assert inodes["program"] != inodes["data"]


def test_materialize_one_node(store: CastoreStore, tree: Path, tmp_path: Path) -> None:
    for name in ("up", "none", "program", "a"):
        node = store.ingest(tree / name)
        store.materialize(node, tmp_path / name)
        assert contents(tmp_path / name) == contents(tree / name)
        with pytest.raises(FileExistsError):
            store.materialize(node, tmp_path / name)
    entry = snix_castore_pb2.Entry.FromString(store.ingest(tree).SerializeToString())
    store.materialize(entry, tmp_path / "entry")
    assert contents(tmp_path / "entry") == contents(tree)
    with pytest.raises(ValueError, match="found none"):
        store.materialize(Node(), tmp_path / "empty")
    with pytest.raises(ValueError, match="'symlink' is not a valid LinkMethod"):
        store.materialize(node, tmp_path / "empty", method="symlink")


@pytest.mark.parametrize("method", METHODS)
def test_materialize_what_is_missing(
    store: CastoreStore, tree: Path, tmp_path: Path, method: LinkMethod
) -> None:
    node = store.ingest(tree)
    blob = blake3(b"#!/bin/sh\n").hexdigest()
    (tmp_path / "store/blobs" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(MissingError, match=blob):
        store.materialize(node, tmp_path / "out", method=method)
    assert not (tmp_path / "out").exists()
    for name in ("data", "program"):
        with pytest.raises(MissingError, match=blob):
            store.materialize(node_from_path(tree / name), tmp_path / "out", method=method)
    with pytest.raises(FileNotFoundError):
        store.materialize(node_from_path(tree / "none"), tmp_path / "no/out", method=method)


def test_limit_of_links(
    store: CastoreStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object, **__: object) -> None:
        raise OSError(errno.EMLINK, "too many links")

    (tmp_path / "file").write_bytes(b"data")
    node = store.ingest(tmp_path / "file")
    monkeypatch.setattr(os, "link", link)
    store.materialize(node, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"data"
    with pytest.raises(OSError, match="too many links"):
        store.materialize(node, tmp_path / "other", method="hard-link")


def test_damaged_blob_is_not_made_executable(store: CastoreStore, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"data")
    program.chmod(0o755)
    node = store.ingest(program)
    digits = node.file.digest.hex()
    blob = tmp_path / "store/blobs" / digits[:2] / digits[2:]
    blob.chmod(0o644)
    blob.write_bytes(b"other")
    with pytest.raises(CastoreError, match="damaged: found the digest"):
        store.materialize(node, tmp_path / "out", method="hard-link")


def test_symbolic_links_are_not_followed(
    store: CastoreStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/file").write_bytes(b"secret")
    (tmp_path / "tree/inner").mkdir(parents=True)
    (tmp_path / "tree/inner/file").write_bytes(b"data")
    (tmp_path / "tree/link").symlink_to("../secret")
    store.ingest(tmp_path / "tree")
    assert not store.has_blob(blake3(b"secret").digest())

    original = file_hashing.open_directory

    def swap(name: bytes, directory: int) -> int:
        if name == b"inner":
            (tmp_path / "tree/inner").rename(tmp_path / "moved")
            (tmp_path / "tree/inner").symlink_to("../secret")
        return original(name, directory)

    monkeypatch.setattr(file_hashing, "open_directory", swap)
    with pytest.raises(ChangedError):
        store.ingest(tmp_path / "tree")
    assert not store.has_blob(blake3(b"secret").digest())


@pytest.mark.parametrize("size", [10, 300_000, LARGE])
def test_file_that_changes(
    store: CastoreStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    file = tmp_path / "tree/file"
    file.parent.mkdir()
    file.write_bytes(bytes(size))
    original = file_hashing.hash_files
    done: list[bool] = []

    def hash_files(*arguments: object) -> file_hashing.Files:
        if not done:
            done.append(True)
            os.replace(tmp_path / "other", file)
        return original(*arguments)  # type: ignore[arg-type]

    (tmp_path / "other").write_bytes(bytes(size + 1))
    os.utime(file.parent, (1, 1))
    monkeypatch.setattr(file_hashing, "hash_files", hash_files)
    before = stored(store)
    with pytest.raises(ChangedError):
        store.ingest(file.parent)
    assert stored(store) == before


names = st.binary(min_size=1, max_size=8).filter(
    lambda name: not {0, 47} & {*name} and name not in (b".", b"..")
)
files = st.tuples(st.binary(max_size=40), st.booleans())
trees = st.recursive(
    files | st.binary(min_size=1, max_size=20).filter(lambda target: 0 not in target),
    lambda inner: st.dictionaries(names, inner, max_size=5),
    max_leaves=20,
)


def write_tree(path: bytes, tree: object) -> None:
    if isinstance(tree, dict):
        os.mkdir(path)
        for name, inner in tree.items():
            write_tree(os.path.join(path, name), inner)
    elif isinstance(tree, bytes):
        os.symlink(tree, path)
    else:
        assert isinstance(tree, tuple)
        data, executable = tree
        file = Path(os.fsdecode(path))
        file.write_bytes(data)
        file.chmod(0o755 if executable else 0o644)


def read_tree(path: bytes) -> object:
    if os.path.islink(path):
        return os.readlink(path)
    if os.path.isdir(path):
        return {name: read_tree(os.path.join(path, name)) for name in os.listdir(path)}
    return Path(os.fsdecode(path)).read_bytes(), os.access(path, os.X_OK)


@pytest.mark.slow
@given(trees, st.sampled_from(METHODS))
@settings(max_examples=60, deadline=None, suppress_health_check=[*HealthCheck])
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, tree: object, method: str) -> None:
    root = os.fsencode(tmp_path_factory.mktemp("trip"))
    write_tree(root + b"/tree", tree)
    with CastoreStore(root + b"/store") as store:
        node = store.ingest(root + b"/tree", name="n")
        assert node == node_from_path(root + b"/tree", name="n")
        store.materialize(node, root + b"/out", method=method)
        assert read_tree(root + b"/out") == tree
        assert damages(store) == []


# ---- damage


def test_damage(store: CastoreStore, tree: Path, tmp_path: Path) -> None:
    node = store.ingest(tree)
    store.materialize(node, tmp_path / "out", method="hard-link")
    root = tmp_path / "store"

    def file(kind: str, digest: bytes) -> Path:
        return root / kind / digest.hex()[:2] / digest.hex()[2:]

    small = file("blobs", blake3(b"no text").digest())
    large = file("blobs", node_from_path(tree / "a/size-600001").file.digest)
    executable = file("executables", blake3(b"#!/bin/sh\n").digest())
    for path in (small, large, executable):
        path.chmod(0o644)
        with path.open("r+b") as changed:
            changed.write(b"other")
    gone = node_from_path(tree / "same").directory
    file("directories", gone.digest).unlink()
    file("blobs", blake3(b"").digest()).unlink()
    (root / "blobs/00").mkdir(exist_ok=True)
    (root / "blobs/00/stranger").write_bytes(b"")
    found: dict[str, list[str]] = {}
    for damage in store.verify():
        found.setdefault(damage.path, []).append(damage.message)
        assert damage.digest is None or damage.path == str(
            file(Path(damage.path).parts[-3], damage.digest)
        )
    assert found.pop(str(root / "blobs/00/stranger"))[0].startswith("expected a regular file")
    for path in (small, large, executable):
        mode, digest = found.pop(str(path))
        assert mode.endswith(", found 644")
        assert digest.startswith("expected this digest, found ")
    (missing,) = found.pop(str(file("directories", node.directory.digest)))
    assert missing.startswith("refers to a missing object with the digest ")
    assert found == {}


def test_damaged_directory(store: CastoreStore, tmp_path: Path) -> None:
    digest = store.add_directory(Directory(symlinks=[SymlinkNode(name=b"a", target=b"b")]))
    file = tmp_path / "store/directories" / digest.hex()[:2] / digest.hex()[2:]
    file.chmod(0o644)
    for data in (Directory().SerializeToString(), b"\xff"):
        file.write_bytes(data)
        with pytest.raises(CastoreError, match=f"{file}: damaged: .*; delete the file, and add"):
            store.directory(digest)
    other = blake3(b"\xff").digest()
    target = tmp_path / "store/directories" / other.hex()[:2] / other.hex()[2:]
    target.parent.mkdir(exist_ok=True)
    file.rename(target)
    target.chmod(0o444)
    assert damages(store) == [
        "expected a canonical Directory, found another encoding or an invalid one"
    ]


def test_not_a_store(tmp_path: Path) -> None:
    with pytest.raises(CastoreError, match=r"expected a castore store, found no file castore"):
        CastoreStore(tmp_path / "none", create=False)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CastoreError, match="found 'file' in it"):
        CastoreStore(tmp_path)
    with CastoreStore(tmp_path / "store"):
        pass
    (tmp_path / "store/castore.version").write_bytes(b"tvix-build castore 2\n")
    with pytest.raises(CastoreError, match="use a newer release"):
        CastoreStore(tmp_path / "store")


# ---- garbage


def test_garbage(store: CastoreStore, tree: Path, tmp_path: Path) -> None:
    root = store.ingest(tree / "a")
    kept = stored(store)
    store.ingest(tree)
    store.materialize(store.ingest(tree), tmp_path / "out", method="hard-link")
    before = stored(store)
    found = store.collect_garbage([root])
    assert (found.blobs, found.directories, found.size) == (0, 0, 0)
    assert stored(store) == before
    found = store.collect_garbage([root], grace_seconds=-3600)
    digest = blake3(b"#!/bin/sh\n").hexdigest()
    assert stored(store) == kept | {f"executables/{digest[:2]}/{digest[2:]}"}
    assert found.blobs == 2
    assert found.directories == 2
    assert found.kept == len([path for path in kept if "/" in path])
    assert damages(store) == []
    found = store.collect_garbage([], grace_seconds=-3600)
    assert found.kept == 0
    assert stored(store) == {"castore.version", "lock"}


def test_garbage_collection_that_is_killed(
    store: CastoreStore, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each removal, the Directories that are left are complete."""
    store.ingest(tree)
    unlink = os.unlink
    allowed = 1

    def unlink_some(path: str, *, dir_fd: int) -> None:
        nonlocal allowed
        if not allowed:
            raise KeyboardInterrupt
        allowed -= 1
        unlink(path, dir_fd=dir_fd)

    while stored(store) > {"castore.version", "lock"}:
        allowed = 1
        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            patch.setattr(os, "unlink", unlink_some)
            store.collect_garbage([], grace_seconds=-3600)
        assert damages(store) == []


def test_garbage_keeps_what_a_recent_directory_needs(store: CastoreStore, tree: Path) -> None:
    node = store.ingest(tree)
    assert store.has_directory(node.directory.digest)
    before = stored(store)
    store.collect_garbage([])
    assert stored(store) == before


def test_garbage_needs_complete_roots(store: CastoreStore, tree: Path) -> None:
    store.ingest(tree)
    before = stored(store)
    missing = Node(directory=DirectoryNode(name=b"a", digest=MISSING))
    with pytest.raises(MissingError):
        store.collect_garbage([missing], grace_seconds=-3600)
    assert stored(store) == before


def test_garbage_waits_for_writers(store: CastoreStore, tree: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()

    def add() -> None:
        with os.fdopen(reading, "rb") as file:
            store.add_blob(file)

    adding = threading.Thread(target=add)
    adding.start()
    os.write(writing, b"data")
    # The writer has its directory now, or gets it after the collection.
    with CastoreStore(tmp_path / "store") as other:
        collecting = threading.Thread(target=lambda: other.collect_garbage([]))
        collecting.start()
        os.close(writing)
        adding.join()
        collecting.join()
    assert store.has_blob(blake3(b"data").digest())


# ---- many processes, killed ones

WORK = """
import random, sys
from tvix_build.castore import CastoreStore
seed, path, rounds = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
rng = random.Random(seed)
with CastoreStore(path) as store:
    for _ in range(rounds):
        data = random.Random(rng.randrange(300)).randbytes(rng.randrange(2000))
        print(store.add_blob(data).hex(), flush=True)
        if rng.randrange(10) == 0:
            print(store.ingest(sys.argv[4]).directory.digest.hex(), flush=True)
            store.collect_garbage([])
"""


def work(seed: int, store: Path, rounds: int, tree: Path) -> subprocess.Popen[str]:
    arguments = [str(seed), str(store), str(rounds), str(tree)]
    return subprocess.Popen(
        [sys.executable, "-c", WORK, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def check_acknowledged(store: CastoreStore, lines: list[str]) -> None:
    for line in lines:
        digest = bytes.fromhex(line)
        assert store.has_blob(digest) or store.has_directory(digest)
    assert damages(store) == []


@pytest.mark.slow
def test_many_processes(tmp_path: Path, tree: Path) -> None:
    workers = [work(seed, tmp_path / "store", 60, tree) for seed in range(4)]
    outputs = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4
    with CastoreStore(tmp_path / "store", create=False) as store:
        check_acknowledged(store, "".join(outputs).split())


def kill_and_check(tmp_path: Path, tree: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = tmp_path / f"store-{seed}"
    worker = work(seed, path, 10**6, tree)
    assert worker.stdout is not None
    lines = [worker.stdout.readline() for _ in range(rng.randrange(1, 40))]
    threading.Event().wait(rng.random() / 50)  # Any moment; nothing depends on it.
    worker.send_signal(signal.SIGKILL)
    lines += [line for line in worker.communicate()[0].splitlines(True) if line.endswith("\n")]
    with CastoreStore(path) as store:
        check_acknowledged(store, [line.strip() for line in lines])
        store.collect_garbage([])
        assert os.listdir(path / "incoming") == []


@pytest.mark.parametrize("seed", range(3))
def test_killed(tmp_path: Path, tree: Path, seed: int) -> None:
    kill_and_check(tmp_path, tree, seed)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(3, 13))
def test_killed_often(tmp_path: Path, tree: Path, seed: int) -> None:
    kill_and_check(tmp_path, tree, seed)


@pytest.mark.parametrize("count", [1, 5, 50])
def test_files_are_on_disk_before_they_are_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    calls: list[str] = []
    rename, fsync, sync = os.rename, os.fsync, file_hashing.sync

    def spy_rename(source: str, target: str, **directories: int) -> None:
        calls.append("rename")
        rename(source, target, **directories)

    def spy_fsync(descriptor: int) -> None:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        calls.append("file" if is_file else "directory")
        fsync(descriptor)

    def spy_sync(descriptor: int) -> None:
        calls.append("all")
        sync(descriptor)

    tree = tmp_path / "tree"
    tree.mkdir()
    for i in range(count):
        (tree / f"{i}").write_bytes(b"%d" % i)
    with CastoreStore(tmp_path / "store") as store:
        monkeypatch.setattr(os, "rename", spy_rename)
        monkeypatch.setattr(os, "fsync", spy_fsync)
        monkeypatch.setattr(file_hashing, "sync", spy_sync)
        store.ingest(tree)
    first = calls.index("rename")
    last = len(calls) - calls[::-1].index("rename")
    assert calls[:first].count("file") == count + 1 or calls[:first] == ["all"]
    assert calls[last:].count("directory") > 1 or calls[last:] == ["all"]
    assert count < 50 or "all" in calls


def test_killed_while_it_creates_the_store(tmp_path: Path) -> None:
    with CastoreStore(tmp_path / "store"):
        pass
    (tmp_path / "store/castore.version").unlink()
    (tmp_path / "store/blobs").rmdir()
    (tmp_path / "store/incoming/0123.version").write_bytes(b"")
    with CastoreStore(tmp_path / "store") as store:
        store.add_blob(b"")
        store.collect_garbage([])
        assert damages(store) == []
