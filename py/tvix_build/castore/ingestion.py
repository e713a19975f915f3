# SPDX-License-Identifier: MIT
"""Makes castore nodes of files on disk.

Directories are walked and read through file descriptors: no path is resolved twice, and no symbolic
link is followed. If the size or a time of a file or directory changes meanwhile, that is an error.
Several threads hash files.
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
from tvix_build._core.check import check
from tvix_build._core.file_hashing import ChangedError, Files, Hashed, IngestError
from tvix_build._core.pieces import cpu_count
from tvix_build._core.report import Kind
from tvix_build.castore.sizes import DirectorySizes, size_below

if TYPE_CHECKING:
    from tvix.castore.protos import castore_pb2

__all__ = ["ChangedError", "IngestError", "node_from_path"]

OnDirectory: TypeAlias = Callable[[bytes, bytes], object]
OnFile: TypeAlias = Callable[[bytes, bytes, int], object]

_PIECE = 64  # files that a thread hashes per task
_AHEAD = 64  # directories whose files are hashed while earlier directories are unfinished
_OPEN_PARENTS = 64  # ancestors of the current directory that stay open
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
    directory_sizes: DirectorySizes | str = DirectorySizes.SPECIFIED,
) -> castore_pb2.Node:
    """Return the castore node of a file, a symbolic link, or a directory and everything below it.

    The digest of a file is the digest of its contents. A file is executable if its owner may
    execute it. A symbolic link is not followed. Memory is bounded: it holds the directories from
    the root to the current one, a limited number of directories ahead, and parts of files.

    Args:
        path: the file, symbolic link or directory.
        name: the name of the node; by default the last component of the path.
        on_directory: called for each Directory message with its digest and its canonical encoding.
            Children are reported before their parents.
        on_file: called for each regular file with its digest, path and size in bytes, before
            the Directory that contains it. The file may have changed when the callback reads it.
        threads: the number of threads that hash files, at least 1; by default the number of CPUs
            that this process may use. Callbacks run in the thread of the caller.
        directory_sizes: how the sizes of Directories are counted.

    Raises:
        IngestError: if an entry is not a file, a directory or a symbolic link, or has a name or a
            target that is not valid in a node.
        ChangedError: if a file or directory changed while it was read.
        OSError: if a file or directory cannot be read; `filename` is its path.
        ValueError: if the path has no last component and `name` is None, `threads` is less
            than 1, or `directory_sizes` is unknown.
    """
    sizes = DirectorySizes(directory_sizes)
    return ingest_path(Ingestion(threads, sizes, on_directory, on_file), path, name)


def ingest_path(
    ingestion: Ingestion,
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    name: str | bytes | None,
) -> castore_pb2.Node:
    """Return the node of a path. The other arguments are those of `node_from_path`."""
    path = os.fsencode(path)
    wanted = _base_name(path) if name is None else os.fsencode(name)
    here = _OpenDirectory(None, path)
    here.add(path, os.lstat(os.fsdecode(path)).st_mode)  # str in the error, as elsewhere
    message = ingestion.run(here)
    entries: list[castore_pb2.DirectoryNode | castore_pb2.FileNode | castore_pb2.SymlinkNode]
    entries = [*message.directories, *message.files, *message.symlinks]
    entries[0].name = wanted
    _check(message, lambda: path)
    from tvix.castore.protos.castore_pb2 import Node

    if message.directories:
        return Node(directory=message.directories[0])
    if message.files:
        return Node(file=message.files[0])
    return Node(symlink=message.symlinks[0])


def reason_to_reject(mode: int) -> str:
    """Return why an entry of this mode, such as a pipe, cannot be a castore node."""
    found = _SPECIAL.get(stat.S_IFMT(mode), "an entry of another type")
    return f"expected a file, directory or symbolic link, found {found}"


def _base_name(path: bytes) -> bytes:
    name = os.path.basename(path.rstrip(b"/"))
    if name in (b".", b".."):
        name = os.path.basename(os.path.realpath(path))
    if not name:
        raise ValueError(f"{os.fsdecode(path)} has no last component, so its node has no name")
    return name


def _check(message: castore_pb2.Directory, path: Callable[[], bytes]) -> tuple[bytes, bytes]:
    """Return the digest and the canonical encoding of a Directory."""
    encoding = message.SerializeToString(deterministic=True)
    report = check(encoding, kind=Kind.DIRECTORY)
    if report.digest is None or not report.canonical:
        raise IngestError(path(), str(report.violations[0]))
    return report.digest, encoding


class _OpenDirectory:
    """A directory that is being walked. The owner of the object closes it.

    Attributes:
        descriptor: the file descriptor; None while the directory is closed.
        status: the status of the directory before it was listed.
        directories, files: the names of its subdirectories that are not walked yet, and its files.
        links: the names and targets of its symbolic links.
        nodes: the names, digests and sizes of its finished subdirectories.
        pieces: the files that are being hashed.
    """

    def __init__(self, parent: _OpenDirectory | None, name: bytes) -> None:
        self.parent = parent
        self.name = name
        self.descriptor: int | None = file_hashing.HERE
        self.status: os.stat_result | None = None
        self.directories: list[bytes] = []
        self.files: list[bytes] = []
        self.links: list[tuple[bytes, bytes]] = []
        self.nodes: list[tuple[bytes, bytes, int]] = []
        self.pieces: list[tuple[list[bytes], Future[Files]]] = []

    def path(self, name: bytes = b"") -> bytes:
        """Return the path of the entry with that name, or of the directory itself."""
        names = [name] if name else []
        directory = self
        while directory.parent:  # The outermost object stands for the working directory.
            names.append(directory.name)
            directory = directory.parent
        return os.path.join(*reversed(names)) if names else self.name

    def open(self, name: bytes) -> _OpenDirectory:
        """Open a subdirectory and list it."""
        assert self.descriptor is not None
        directory = _OpenDirectory(self, name)
        with file_hashing.errors_at(directory.path):
            directory.descriptor = file_hashing.open_directory(name, self.descriptor)
        try:
            with file_hashing.errors_at(directory.path):
                directory.status = os.fstat(directory.descriptor)
                directory.scan()
        except BaseException:
            directory.close()
            raise
        return directory

    def scan(self) -> None:
        """List the entries."""
        assert self.descriptor is not None
        with os.scandir(self.descriptor) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                if entry.is_file(follow_symlinks=False):
                    self.files.append(name)
                elif entry.is_dir(follow_symlinks=False):
                    self.directories.append(name)
                else:
                    with file_hashing.errors_at(partial(self.path, name)):
                        mode = os.lstat(name, dir_fd=self.descriptor).st_mode
                    self.add(name, mode)
        self.directories.sort(reverse=True)  # The last one is walked first.
        self.files.sort()
        self.links.sort()

    def add(self, name: bytes, mode: int) -> None:
        """Add an entry of that name and mode."""
        if stat.S_ISREG(mode):
            self.files.append(name)
        elif stat.S_ISDIR(mode):
            self.directories.append(name)
        elif stat.S_ISLNK(mode):
            with file_hashing.errors_at(partial(self.path, name), errno.EINVAL):
                self.links.append((name, os.readlink(name, dir_fd=self.descriptor)))
        else:
            raise IngestError(self.path(name), reason_to_reject(mode))

    def open_again(self, child: _OpenDirectory) -> None:
        """Open the closed directory again, as the parent of `child`."""
        assert child.descriptor is not None
        with file_hashing.errors_at(self.path):
            self.descriptor = file_hashing.open_directory(b"..", child.descriptor)
        self.check_same()

    def check_same(self) -> None:
        """Raise ChangedError if the directory has changed since before it was listed."""
        if not self.status:
            return  # The outermost object was not listed.
        assert self.descriptor is not None
        if not file_hashing.same(self.status, os.fstat(self.descriptor)):
            raise ChangedError(self.path())

    def close(self) -> None:
        """Close the descriptor if it is open."""
        if self.descriptor is not None and self.descriptor != file_hashing.HERE:
            os.close(self.descriptor)
            self.descriptor = None


def _walk(here: _OpenDirectory) -> Generator[_OpenDirectory, None, None]:
    """Yield all directories, children before their parents. The caller closes them.

    The number of open directories is bounded, at any depth.
    """
    stack = [here]
    try:
        while stack:
            directory = stack[-1]
            if directory.directories:
                stack.append(directory.open(directory.directories.pop()))
                if len(stack) > _OPEN_PARENTS + 1:
                    stack[-_OPEN_PARENTS - 1].close()
                continue
            if directory.parent and directory.parent.descriptor is None:
                directory.parent.open_again(directory)
            yield stack.pop()
    finally:
        for directory in stack:
            directory.close()


class Ingestion:
    """Makes the Directory messages of a tree, while threads hash the files of the next ones.

    A subclass may also save the files.
    """

    def __init__(
        self,
        threads: int | None,
        sizes: DirectorySizes,
        on_directory: OnDirectory | None,
        on_file: OnFile | None,
    ) -> None:
        if threads is not None and threads < 1:
            raise ValueError(f"expected at least 1 thread, found {threads}")
        self._threads = threads or cpu_count()
        self._pool = ThreadPoolExecutor(self._threads)
        self._sizes = sizes
        self._on_directory = on_directory
        self._on_file = on_file

    def run(self, here: _OpenDirectory) -> castore_pb2.Directory:
        """Ingest everything, and return the Directory message of the entries of `here`."""
        walk = _walk(here)
        ahead: deque[_OpenDirectory] = deque()
        try:
            for directory in walk:
                ahead.append(directory)
                self._begin(directory)
                if len(ahead) > _AHEAD:
                    self._finish(ahead[0])
                    ahead.popleft().close()
            while ahead:
                message = self._finish(ahead[0])
                ahead.popleft().close()
            return message
        finally:
            # Wait for the threads, which use the descriptors.
            self._pool.shutdown(cancel_futures=True)
            for directory in ahead:
                directory.close()
            walk.close()

    def _begin(self, directory: _OpenDirectory) -> None:
        """Start to hash the files of a directory."""
        assert directory.descriptor is not None
        for i in range(0, len(directory.files), _PIECE):
            names = directory.files[i : i + _PIECE]
            call = self._pool.submit(self.hash_files, directory.descriptor, names)
            directory.pieces.append((names, call))

    def _finish(self, directory: _OpenDirectory) -> castore_pb2.Directory:
        """Return the Directory message of a directory, and add its node to the parent."""
        from tvix.castore.protos.castore_pb2 import Directory

        message = Directory()
        for name, digest, size in directory.nodes:
            message.directories.add(name=name, digest=digest, size=size)
        for names, call in directory.pieces:
            self._add_files(message, directory, names, call.result())
        for name, target in directory.links:
            message.symlinks.add(name=name, target=target)
        directory.check_same()
        if directory.parent:
            digest, encoding = _check(message, directory.path)
            if self._on_directory:
                self._on_directory(digest, encoding)
            size = size_below(message, self._sizes)
            directory.parent.nodes.append((directory.name, digest, size))
        return message

    def _add_files(
        self,
        message: castore_pb2.Directory,
        directory: _OpenDirectory,
        names: list[bytes],
        found: Files,
    ) -> None:
        add, on_file = message.files.add, self._on_file
        begins = range(0, len(found.digests), file_hashing.HASH_SIZE)
        digests = [found.digests[i : i + file_hashing.HASH_SIZE] for i in begins]
        base = directory.path() if on_file and directory.parent else b""
        rows = zip(names, found.statuses, digests, found.sizes, found.executable, strict=True)
        for name, status, digest, size, executable in rows:
            if status:
                digest, size, executable = self._hash_large(directory, name, status, size)
            add(name=name, digest=digest, size=size, executable=bool(executable))
            if on_file:
                on_file(digest, os.path.join(base, name), size)

    def _hash_large(self, directory: _OpenDirectory, name: bytes, status: int, size: int) -> Hashed:
        path = directory.path(name)
        if status != file_hashing.LARGE:
            file_hashing.raise_status(status, path, size)
        assert directory.descriptor is not None
        return self.hash_large(directory.descriptor, name, path)

    def hash_files(self, directory: int, names: list[bytes]) -> Files:
        """Hash files in a directory. Called by several threads."""
        return file_hashing.hash_files(directory, names)

    def hash_large(self, directory: int, name: bytes, path: bytes) -> Hashed:
        """Hash a file for which `hash_files` returned the status LARGE."""
        return file_hashing.hash_large(directory, name, path, self._pool, 2 * self._threads)
