# SPDX-License-Identifier: MIT
"""Nodes of files on disk: against protobuf and PyPI's blake3, and what is no file to take."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import socket
import stat
import subprocess
import threading
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from google.protobuf import json_format

import tvix_build
from tvix.castore.protos.castore_pb2 import (
    Directory,
    DirectoryNode,
    FileNode,
    Node,
    SymlinkNode,
)
from tvix_build._core import file_hashing
from tvix_build.castore import ChangedError, IngestError, directory_size, ingestion, node_from_path

EXAMPLES = Path(__file__).parents[2] / "examples"
LARGE = 16 << 20  # Files with more bytes are hashed by several threads.
EXAMPLE_LINKS = {"default.po": "po/de.po", "libgreet/libgreet.h": "greet.h"}
EMPTY = blake3(b"").digest()


def expected(path: bytes, name: bytes) -> Node:
    """The node of what is at a path, by protobuf and PyPI's blake3."""
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return Node(symlink=SymlinkNode(name=name, target=os.readlink(path)))
    if stat.S_ISREG(mode):
        data = Path(os.fsdecode(path)).read_bytes()
        executable = bool(mode & stat.S_IXUSR)
        file = FileNode(
            name=name, digest=blake3(data).digest(), size=len(data), executable=executable
        )
        return Node(file=file)
    directory = Directory()
    for child in sorted(os.listdir(path)):
        node = expected(os.path.join(path, child), child)
        directory.directories.extend([node.directory] if node.HasField("directory") else [])
        directory.files.extend([node.file] if node.HasField("file") else [])
        directory.symlinks.extend([node.symlink] if node.HasField("symlink") else [])
    digest = blake3(directory.SerializeToString()).digest()
    below = sum(1 + node.size for node in directory.directories)
    size = below + len(directory.files) + len(directory.symlinks)
    return Node(directory=DirectoryNode(name=name, digest=digest, size=size))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with all kinds of nodes."""
    root = tmp_path / "tree"
    (root / "a" / "b" / "empty").mkdir(parents=True)
    (root / "a.b").mkdir()
    (root / "a0").mkdir()
    (root / "a" / "dangling").symlink_to("nowhere")
    (root / "a.b" / "loop").symlink_to("..")
    for name in ("link", "first", "z", "m", "k"):
        (root / name).symlink_to("a/b")
    (root / "none").write_bytes(b"")
    (root / "words").write_bytes(b"words\n")
    for mode in (0o600, 0o700, 0o654, 0o101 | stat.S_IRUSR):
        file = root / "a" / f"mode-{mode:o}"
        file.write_bytes(b"%o" % mode)
        file.chmod(mode)
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe")).write_bytes(b"no text")
    Path(os.fsdecode(os.fsencode(root) + b"/\xc3\xa4")).mkdir()
    for size in (1, 1023, 1024, 1025, 65536, 262143, 262144, 262145, 300000):
        (root / "a0" / f"size-{size}").write_bytes(os.urandom(size))
    for i in range(200):
        (root / "a0" / f"{i}").write_bytes(os.urandom(i))
    return root


@pytest.mark.parametrize("threads", [1, 3, None])
def test_tree(tree: Path, threads: int | None) -> None:
    assert node_from_path(tree, threads=threads) == expected(os.fsencode(tree), b"tree")


def test_every_part_of_a_tree(tree: Path) -> None:
    for path in tree.rglob("*"):
        raw = os.fsencode(path)
        assert node_from_path(raw) == expected(raw, os.path.basename(raw))


def test_examples(tmp_path: Path) -> None:
    # Copied: where tests run, every file may be a symbolic link to where it really is.
    sources = tmp_path / "sources"
    shutil.copytree(EXAMPLES / "sources", sources)
    for link, target in EXAMPLE_LINKS.items():
        (sources / link).unlink()
        (sources / link).symlink_to(target)
    nodes: dict[str, Any] = json.loads((EXAMPLES / "sources.json").read_text())
    for path in ("bundle.sh", "default.po", "libgreet", "libgreet/tools/line-count.sh", "po"):
        (name,) = (name for name in nodes if name.endswith("-" + Path(path).name))
        found = node_from_path(sources / path, name=name)
        assert json_format.MessageToDict(found) == nodes[name]


def test_known_digests(tmp_path: Path) -> None:
    directory = node_from_path(tmp_path, name="f").directory
    assert (directory.digest, directory.size) == (EMPTY, 0)
    (tmp_path / "a").mkdir()
    inner = Directory(directories=[DirectoryNode(name=b"a", digest=EMPTY, size=0)])
    directory = node_from_path(tmp_path, name="f").directory
    assert (directory.digest, directory.size) == (blake3(inner.SerializeToString()).digest(), 1)


@pytest.mark.slow
@pytest.mark.parametrize("size", [LARGE, LARGE + 1, 2 * LARGE, 2 * LARGE + 262144 + 77])
@pytest.mark.parametrize("threads", [1, 2])
def test_large_files(tmp_path: Path, size: int, threads: int) -> None:
    data = os.urandom(1 << 20) * (size // (1 << 20) + 1)
    file = tmp_path / "large"
    file.write_bytes(data[:size])
    file.chmod(0o700)
    node = node_from_path(file, threads=threads).file
    assert (node.digest, node.size) == (blake3(data[:size]).digest(), size)
    assert node.executable


def test_hands_out_what_it_saw(tree: Path) -> None:
    (tree / "large").write_bytes(bytes(LARGE + 5))
    directories: dict[bytes, Directory] = {}
    files: dict[bytes, bytes] = {}

    def on_directory(digest: bytes, encoding: bytes) -> None:
        assert blake3(encoding).digest() == digest
        directory = Directory.FromString(encoding)
        # What a Directory refers to came before it.
        assert all(node.digest in directories for node in directory.directories)
        assert all(node.digest in files.values() for node in directory.files)
        directories[digest] = directory

    def on_file(digest: bytes, path: bytes, size: int) -> None:
        data = Path(os.fsdecode(path)).read_bytes()
        assert (blake3(data).digest(), len(data)) == (digest, size)
        files[path] = digest

    node = node_from_path(tree, on_directory=on_directory, on_file=on_file)
    assert node.directory.digest in directories
    assert directory_size(directories[node.directory.digest]) == node.directory.size
    regular = [path for path in tree.rglob("*") if path.is_file() and not path.is_symlink()]
    assert sorted(files) == sorted(map(os.fsencode, regular))


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "directory"
    (directory / "inner").mkdir(parents=True)
    monkeypatch.chdir(directory)
    paths = {".": b"directory", "inner": b"inner", "inner/": b"inner", "inner/..": b"directory"}
    for path, name in paths.items():
        assert node_from_path(path).directory.name == name
    assert node_from_path(directory, name=b"\xff").directory.name == b"\xff"
    assert node_from_path(directory, name="ä").directory.name == "ä".encode()
    (directory / "link").symlink_to("inner")
    assert node_from_path("link").symlink.target == b"inner"
    assert node_from_path("link/").directory.name == b"link"
    with pytest.raises(ValueError, match="/ has no last component, so its node has no name"):
        node_from_path("/")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "a" * 256])
def test_bad_names(tree: Path, name: str) -> None:
    for path in (tree / "a.b", tree / "words", tree / "link"):
        with pytest.raises(IngestError, match=r"name: expected a path component"):
            node_from_path(path, name=name)


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize(("make", "what"), [(make_pipe, "a pipe"), (make_socket, "a socket")])
def test_special_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], what: str
) -> None:
    monkeypatch.chdir(tmp_path)  # A socket's path must be short.
    Path("f/g").mkdir(parents=True)
    make(Path("f/g/special"))
    for path in ("f", "f/g/special"):
        with pytest.raises(IngestError, match=f"f/g/special: expected .* found {what}") as caught:
            node_from_path(path)
        assert caught.value.path == b"f/g/special"
        assert isinstance(caught.value, tvix_build.Error)


def test_device() -> None:
    with pytest.raises(IngestError, match=r"/dev/null: expected .*, found a character device"):
        node_from_path("/dev/null")


@pytest.mark.slow
def test_deep_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "deep"
    root.mkdir()
    monkeypatch.chdir(root)
    for _ in range(2000):
        Path("a-rather-long-name").mkdir()
        os.chdir("a-rather-long-name")
    Path("file").write_bytes(b"x")
    file = FileNode(name=b"file", digest=blake3(b"x").digest(), size=1)
    directory = Directory(files=[file])
    for size in range(1, 2001):
        digest = blake3(directory.SerializeToString()).digest()
        node = DirectoryNode(name=b"a-rather-long-name", digest=digest, size=size)
        directory = Directory(directories=[node])
    os.chdir(root)
    before = set(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        found = node_from_path(root).directory
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found.digest == blake3(directory.SerializeToString()).digest()
    assert found.size == 2001
    assert set(os.listdir("/proc/self/fd")) == before
    subprocess.run(["rm", "-r", root], check=True)  # Too deep for pytest.


# ---- what changes meanwhile


@pytest.fixture
def change(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Sets what happens once between the listing of a directory and the reading of its files."""
    original = file_hashing.hash_files
    changes: list[Callable[[], None]] = []
    lock = threading.Lock()

    def hash_files(directory: int, names: list[bytes]) -> file_hashing.Files:
        with lock:
            while changes:
                changes.pop()()
        return original(directory, names)

    monkeypatch.setattr(file_hashing, "hash_files", hash_files)
    yield changes.append
    assert not changes


def swap_for_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def swap_for_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def add_beside(path: Path) -> None:
    (path.parent / "new").write_bytes(b"")


@pytest.mark.parametrize("do", [Path.unlink, swap_for_link, swap_for_pipe, add_beside])
def test_changed_directory(
    tmp_path: Path, change: Callable[[Callable[[], None]], None], do: Callable[[Path], None]
) -> None:
    (tmp_path / "file").write_bytes(b"data")
    os.utime(tmp_path, (1, 1))
    change(lambda: do(tmp_path / "file"))
    with pytest.raises(ChangedError, match="changed while it was read"):
        node_from_path(tmp_path)


def change_in_fstat(monkeypatch: pytest.MonkeyPatch, size: int, do: Callable[[], None]) -> None:
    """Does something after the first look at a file of that size."""
    original = os.fstat
    done: list[bool] = []

    def fstat(file: int) -> os.stat_result:
        found = original(file)
        if found.st_size == size and not done:
            done.append(True)
            do()
        return found

    monkeypatch.setattr(os, "fstat", fstat)


@pytest.mark.parametrize("size", [100, LARGE - 1, LARGE + 1, LARGE + 7])
def test_changed_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    file = tmp_path / "large"
    file.write_bytes(bytes(LARGE + 5))
    change_in_fstat(monkeypatch, LARGE + 5, lambda: os.truncate(file, size))
    with pytest.raises(ChangedError, match="large: changed while it was read"):
        node_from_path(file)


def touch(file: Path) -> None:
    os.utime(file, (1, 1))


def overwrite_and_set_time_back(file: Path) -> None:
    before = file.stat()
    while file.stat().st_ctime_ns == before.st_ctime_ns:  # Its steps may be long.
        with file.open("r+b") as stream:
            stream.write(b"other")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("do", [touch, overwrite_and_set_time_back])
def test_touched_large_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, do: Callable[[Path], None]
) -> None:
    file = tmp_path / "large"
    file.write_bytes(bytes(LARGE + 5))
    change_in_fstat(monkeypatch, LARGE + 5, lambda: do(file))
    with pytest.raises(ChangedError, match="large: changed while it was read"):
        node_from_path(file)


def make_large(path: Path) -> None:
    path.write_bytes(bytes(LARGE + 5))


@pytest.mark.parametrize(
    ("make", "function"), [(make_large, "hash_large"), (Path.mkdir, "open_directory")]
)
def test_swapped_for_a_link_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], function: str
) -> None:
    path = tmp_path / "path"
    make(path)
    original = getattr(file_hashing, function)

    def swap(*arguments: object) -> object:
        path.rename(tmp_path / "moved")
        path.symlink_to("moved")
        return original(*arguments)

    monkeypatch.setattr(file_hashing, function, swap)
    with pytest.raises(ChangedError, match="path: changed while it was read"):
        node_from_path(path)


def ingest_often(path: Path) -> None:
    for _ in range(1000):
        node_from_path(path)


def test_file_that_is_touched_all_the_time(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(LARGE - 1))
    stop = threading.Event()

    def touch() -> None:
        time = 1
        while not stop.is_set():
            os.utime(file, ns=(time, time))
            time += 1

    toucher = threading.Thread(target=touch)
    toucher.start()
    try:
        with pytest.raises(ChangedError, match="file: changed while it was read"):
            ingest_often(file)
    finally:
        stop.set()
        toucher.join()


def test_says_that_it_is_empty_and_is_not() -> None:
    with pytest.raises(ChangedError, match="/proc/self/status"):
        node_from_path("/proc/self/status")


def test_moved_while_it_is_deep_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingestion, "_OPEN_PARENTS", 1)
    bottom = tmp_path / "root/a/b/c/d"
    bottom.mkdir(parents=True)
    (bottom.parent / "next").mkdir()
    assert node_from_path(tmp_path / "root") == expected(os.fsencode(tmp_path / "root"), b"root")
    (tmp_path / "other").mkdir()
    original = ingestion._OpenDirectory.scan

    def scan(directory: ingestion._OpenDirectory) -> None:
        original(directory)
        if directory.name == b"d":
            bottom.rename(tmp_path / "other" / "d")

    monkeypatch.setattr(ingestion._OpenDirectory, "scan", scan)
    with pytest.raises(ChangedError, match="root/a/b/c:"):
        node_from_path(tmp_path / "root")


# ---- what cannot be read


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        node_from_path(tmp_path / "missing")
    assert caught.value.filename == str(tmp_path / "missing")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["file", "directory"])
def test_unreadable(tmp_path: Path, name: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / name).chmod(0)
    try:
        for path in (tmp_path, tmp_path / name):
            with pytest.raises(PermissionError) as caught:
                node_from_path(path)
            assert caught.value.filename == str(tmp_path / name)
    finally:
        (tmp_path / name).chmod(0o700)


def test_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hash_files(directory: int, names: list[bytes]) -> file_hashing.Files:
        n = len(names)
        numbers = array("i", [errno.EIO] * n)
        return file_hashing.Files(numbers, array("Q", [0] * n), bytearray(n), bytes(32 * n))

    monkeypatch.setattr(file_hashing, "hash_files", hash_files)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match=os.strerror(errno.EIO)) as caught:
        node_from_path(tmp_path)
    assert caught.value.filename == str(tmp_path / "file")


def test_part_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_hashing, "_hash_parts", lambda *_: errno.EIO)
    make_large(tmp_path / "file")
    with pytest.raises(OSError, match=os.strerror(errno.EIO)) as caught:
        node_from_path(tmp_path)
    assert caught.value.filename == str(tmp_path / "file")


def test_no_descriptors_are_lost(tree: Path) -> None:
    os.mkfifo(tree / "a" / "b" / "pipe")
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(IngestError):
            node_from_path(tree)
    assert set(os.listdir("/proc/self/fd")) == before


def test_callbacks_may_raise(tree: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(ZeroDivisionError):
        node_from_path(tree, on_directory=lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        node_from_path(tree, on_file=lambda *_: 1 // 0)
    assert set(os.listdir("/proc/self/fd")) == before


def test_bad_arguments(tree: Path) -> None:
    with pytest.raises(ValueError, match="expected at least 1 thread, found 0"):
        node_from_path(tree, threads=0)


def test_directory_size() -> None:
    assert directory_size(Directory()) == 0
    node = DirectoryNode(name=b"a", digest=EMPTY, size=2**64 - 2)
    assert directory_size(Directory(directories=[node])) == 2**64 - 1
    node.size += 1
    with pytest.raises(tvix_build.ValidationError, match="size_overflow"):
        directory_size(Directory(directories=[node]))
