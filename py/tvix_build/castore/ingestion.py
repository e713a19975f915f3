# SPDX-License-Identifier: MIT
"""Castore nodes of files on disk.

A folder is read while it is walked, by descriptors: no path is looked up twice, no symbolic link is
followed, and whatever changes size or times meanwhile is an error. Several threads hash files.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from tvix_build._core import file_hashing
from tvix_build._core.check import check, validate
from tvix_build._core.file_hashing import ChangedError, Files, Hashed, IngestError
from tvix_build._core.pieces import cpu_count
from tvix_build._core.report import Kind

if TYPE_CHECKING:
    from tvix.castore.protos import castore_pb2

__all__ = ["ChangedError", "IngestError", "directory_size", "node_from_path"]

OnDirectory: TypeAlias = Callable[[bytes, bytes], object]
OnFile: TypeAlias = Callable[[bytes, bytes, int], object]

_PIECE = 64  # files that a thread hashes in one go
_AHEAD = 64  # folders whose files are hashed while those before wait for theirs
_OPEN_PARENTS = 64  # folders that stay open while what is in them is walked
_SPECIAL = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


def node_from_path(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    *,
    name: str | bytes | None = None,
    on_directory: OnDirectory | None = None,
    on_file: OnFile | None = None,
    threads: int | None = None,
) -> castore_pb2.Node:
    """The castore node of a file, a symbolic link or a folder with all that is in it.

    A file's digest is that of its contents, and it is executable if its owner may execute it. A
    symbolic link is not followed. Of a tree no more is in memory than the folders from the root
    to the one at hand, and some files ahead; of files, parts.

    Args:
        path: what to ingest.
        name: the node's name; by default the last component of the path.
        on_directory: called for every Directory with its digest and its canonical encoding, those
            in it before itself.
        on_file: called for every regular file with its digest, its path and its size in bytes,
            before the Directory that it is in. What is read from that path later may be something
            else.
        threads: how many threads hash files, at least 1; by default the CPUs that this process may
            use. Callbacks come from the caller's own thread.

    Raises:
        IngestError: if something is neither file, folder nor symbolic link, or has a name or target
            that no node may have.
        ChangedError: if something changed while it was read.
        OSError: if something cannot be read; `filename` says what.
        ValueError: if there is no name or no thread.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"expected at least 1 thread, found {threads}")
    path = os.fsencode(path)
    wanted = _base_name(path) if name is None else os.fsencode(name)
    here = _Folder(None, path)
    here.add(path, os.lstat(path).st_mode)
    ingestion = _Ingestion(threads or cpu_count(), on_directory, on_file)
    directory = ingestion.run(here)
    entries: list[castore_pb2.DirectoryNode | castore_pb2.FileNode | castore_pb2.SymlinkNode]
    entries = [*directory.directories, *directory.files, *directory.symlinks]
    entries[0].name = wanted
    _check(directory, lambda: path)
    from tvix.castore.protos.castore_pb2 import Node

    if directory.directories:
        return Node(directory=directory.directories[0])
    if directory.files:
        return Node(file=directory.files[0])
    return Node(symlink=directory.symlinks[0])


def directory_size(directory: castore_pb2.Directory) -> int:
    """The size of a Directory, as a node of it says: how many elements are below it.

    Raises:
        ValidationError: if it is invalid; if the size does not fit 64 bits, for one.
    """
    validate(directory)
    return _size(directory)


def _size(directory: castore_pb2.Directory) -> int:
    below: int = sum(1 + node.size for node in directory.directories)
    return below + len(directory.files) + len(directory.symlinks)


def _base_name(path: bytes) -> bytes:
    name = os.path.basename(path.rstrip(b"/"))
    if name in (b".", b".."):
        name = os.path.basename(os.path.realpath(path))
    if not name:
        raise ValueError(f"expected a name for {os.fsdecode(path)}, which has none")
    return name


def _check(directory: castore_pb2.Directory, path: Callable[[], bytes]) -> tuple[bytes, bytes]:
    """The digest and the canonical encoding of a Directory."""
    encoding = directory.SerializeToString(deterministic=True)
    report = check(encoding, kind=Kind.DIRECTORY)
    if report.digest is None or not report.canonical:
        raise IngestError(path(), str(report.violations[0]))
    return report.digest, encoding


class _Folder:
    """A folder that is walked. Whoever has it closes it.

    Attributes:
        descriptor: None while it is closed.
        status: what it was like before it was listed.
        folders, files, links: names; those of links with targets.
        nodes: of the folders in it that are done: names, digests and sizes.
        pieces: files that are being hashed.
    """

    def __init__(self, parent: _Folder | None, name: bytes) -> None:
        self.parent = parent
        self.name = name
        self.descriptor: int | None = file_hashing.HERE
        self.status: os.stat_result | None = None
        self.folders: list[bytes] = []
        self.files: list[bytes] = []
        self.links: list[tuple[bytes, bytes]] = []
        self.nodes: list[tuple[bytes, bytes, int]] = []
        self.pieces: list[tuple[list[bytes], Future[Files]]] = []

    def path(self, name: bytes = b"") -> bytes:
        """The path of what has that name in it, or its own."""
        names = [name] if name else []
        folder = self
        while folder.parent:  # Outermost is the working directory, or what stands for it.
            names.append(folder.name)
            folder = folder.parent
        return os.path.join(*reversed(names)) if names else self.name

    def open(self, name: bytes) -> _Folder:
        """Open a folder in it, and list that."""
        assert self.descriptor is not None
        folder = _Folder(self, name)
        with file_hashing.errors_at(folder.path):
            folder.descriptor = file_hashing.open_folder(name, self.descriptor)
        try:
            with file_hashing.errors_at(folder.path):
                folder.status = os.fstat(folder.descriptor)
                folder.scan()
        except BaseException:
            folder.close()
            raise
        return folder

    def scan(self) -> None:
        """Take down what is in it."""
        assert self.descriptor is not None
        with os.scandir(self.descriptor) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                if entry.is_file(follow_symlinks=False):
                    self.files.append(name)
                elif entry.is_dir(follow_symlinks=False):
                    self.folders.append(name)
                else:
                    with file_hashing.errors_at(partial(self.path, name)):
                        mode = os.lstat(name, dir_fd=self.descriptor).st_mode
                    self.add(name, mode)
        self.folders.sort(reverse=True)  # The last one is walked first.
        self.files.sort()
        self.links.sort()

    def add(self, name: bytes, mode: int) -> None:
        """Take down something of that name and mode in it."""
        if stat.S_ISREG(mode):
            self.files.append(name)
        elif stat.S_ISDIR(mode):
            self.folders.append(name)
        elif stat.S_ISLNK(mode):
            with file_hashing.errors_at(partial(self.path, name), errno.EINVAL):
                self.links.append((name, os.readlink(name, dir_fd=self.descriptor)))
        else:
            found = _SPECIAL.get(stat.S_IFMT(mode), "something else")
            reason = f"expected a file, folder or symbolic link, found {found}"
            raise IngestError(self.path(name), reason)

    def open_again(self, child: _Folder) -> None:
        """Open it, which was closed, from a folder in it."""
        assert child.descriptor is not None
        with file_hashing.errors_at(self.path):
            self.descriptor = file_hashing.open_folder(b"..", child.descriptor)
        self.check_same()

    def check_same(self) -> None:
        """Raise ChangedError unless it is as it was before it was listed."""
        if not self.status:
            return  # It is only what stands for the working directory.
        assert self.descriptor is not None
        if not file_hashing.same(self.status, os.fstat(self.descriptor)):
            raise ChangedError(self.path())

    def close(self) -> None:
        """Close it, if it is open and a folder."""
        if self.descriptor is not None and self.descriptor != file_hashing.HERE:
            os.close(self.descriptor)
            self.descriptor = None


def _walk(here: _Folder) -> Generator[_Folder, None, None]:
    """All folders, each after those in it, for the taker to close.

    Few are open at a time, however deep they are.
    """
    stack = [here]
    try:
        while stack:
            folder = stack[-1]
            if folder.folders:
                stack.append(folder.open(folder.folders.pop()))
                if len(stack) > _OPEN_PARENTS + 1:
                    stack[-_OPEN_PARENTS - 1].close()
                continue
            if folder.parent and folder.parent.descriptor is None:
                folder.parent.open_again(folder)
            yield stack.pop()
    finally:
        for folder in stack:
            folder.close()


class _Ingestion:
    """Makes the Directories of a tree, while threads hash files of the folders that come next."""

    def __init__(
        self, threads: int, on_directory: OnDirectory | None, on_file: OnFile | None
    ) -> None:
        self._pool = ThreadPoolExecutor(threads)
        self._threads = threads
        self._on_directory = on_directory
        self._on_file = on_file

    def run(self, here: _Folder) -> castore_pb2.Directory:
        """Ingest all; a Directory of what was taken down in `here`."""
        walk = _walk(here)
        ahead: deque[_Folder] = deque()
        try:
            for folder in walk:
                ahead.append(folder)
                self._begin(folder)
                if len(ahead) > _AHEAD:
                    self._finish(ahead[0])
                    ahead.popleft().close()
            while ahead:
                directory = self._finish(ahead[0])
                ahead.popleft().close()
            return directory
        finally:
            # No descriptor is closed that a thread uses.
            self._pool.shutdown(cancel_futures=True)
            for folder in ahead:
                folder.close()
            walk.close()

    def _begin(self, folder: _Folder) -> None:
        """Have the files in a folder hashed."""
        assert folder.descriptor is not None
        for i in range(0, len(folder.files), _PIECE):
            names = folder.files[i : i + _PIECE]
            call = self._pool.submit(file_hashing.hash_files, folder.descriptor, names)
            folder.pieces.append((names, call))

    def _finish(self, folder: _Folder) -> castore_pb2.Directory:
        """The Directory of a folder; its node goes to the folder that it is in."""
        from tvix.castore.protos.castore_pb2 import Directory

        directory = Directory()
        for name, digest, size in folder.nodes:
            directory.directories.add(name=name, digest=digest, size=size)
        for names, call in folder.pieces:
            self._add_files(directory, folder, names, call.result())
        for name, target in folder.links:
            directory.symlinks.add(name=name, target=target)
        folder.check_same()
        if folder.parent:
            digest, encoding = _check(directory, folder.path)
            if self._on_directory:
                self._on_directory(digest, encoding)
            folder.parent.nodes.append((folder.name, digest, _size(directory)))
        return directory

    def _add_files(
        self, directory: castore_pb2.Directory, folder: _Folder, names: list[bytes], found: Files
    ) -> None:
        add, on_file = directory.files.add, self._on_file
        begins = range(0, len(found.digests), file_hashing.HASH_SIZE)
        digests = [found.digests[i : i + file_hashing.HASH_SIZE] for i in begins]
        base = folder.path() if on_file and folder.parent else b""
        rows = zip(names, found.statuses, digests, found.sizes, found.executable, strict=True)
        for name, status, digest, size, executable in rows:
            if status:
                digest, size, executable = self._hash_large(folder, name, status)
            add(name=name, digest=digest, size=size, executable=bool(executable))
            if on_file:
                on_file(digest, os.path.join(base, name), size)

    def _hash_large(self, folder: _Folder, name: bytes, status: int) -> Hashed:
        path = folder.path(name)
        if status != file_hashing.LARGE:
            file_hashing.raise_status(status, path)
        assert folder.descriptor is not None
        return file_hashing.hash_large(folder.descriptor, name, path, self._pool, 2 * self._threads)
