# SPDX-License-Identifier: MIT
"""Adds objects to a castore store."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from tvix_build._core import file_hashing
from tvix_build._core.file_hashing import ChangedError, Files, Hashed, Target
from tvix_build._core.pieces import cpu_count
from tvix_build.castore.ingestion import Ingestion
from tvix_build.castore.layout import MODES, TIMES, KindName, Layout, opened, place
from tvix_build.castore.sizes import DirectorySizes

_FEW = 16  # files and directories; more are written to disk by one call for the file system
_COPY_SIZE = 1 << 20


class Writer:
    """New objects that become visible together at the end, when they are on disk.

    While it is open, garbage collection waits.
    """

    def __init__(self, layout: Layout, directory: int) -> None:
        self._layout = layout
        self._directory = directory
        self._kinds: dict[str, KindName] = {}  # of new files that are not blobs
        self._found: set[tuple[KindName, str]] = set()
        self.target: Target = Target(saved=layout.kinds["blobs"], incoming=directory)

    def add(self, kind: KindName, digest: bytes, data: bytes | memoryview) -> None:
        """Add an object, unless it is stored already."""
        if self._touch(kind, digest):
            return
        name = self._name(kind, digest)
        with suppress(FileExistsError), self.create(name) as file:
            file.write(data)
            self._finish(file, kind)

    def add_file(self, file: BinaryIO) -> bytes:
        """Add the contents of an open file, and return the digest."""
        name = self.copy(file)
        digest = hash_file(self._directory, name).digest
        self.take(name, "blobs", digest)
        return digest

    def copy(self, source: BinaryIO, kind: KindName = "blobs", *, clone: bool = False) -> str:
        """Copy an open file from its position, and return the name of the copy.

        Args:
            source: the file.
            kind: the kind of the copy.
            clone: whether to try a reflink. The file must be a regular one at position 0.
        """
        name = f"new-{secrets.token_hex(8)}"
        with self.create(name) as target:
            if not (clone and _cloned(source, target)):
                shutil.copyfileobj(source, target, _COPY_SIZE)
            self._finish(target, kind)
        return name

    def take(self, name: str, kind: KindName, digest: bytes) -> None:
        """Add a copy that `copy` has made."""
        if not self._touch(kind, digest):
            wanted = self._name(kind, digest)
            os.rename(name, wanted, src_dir_fd=self._directory, dst_dir_fd=self._directory)

    def create(self, name: str) -> BinaryIO:
        """Create a file."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return open(os.open(name, flags, 0o600, dir_fd=self._directory), "wb")

    @staticmethod
    def _finish(file: BinaryIO, kind: KindName) -> None:
        file.flush()
        os.fchmod(file.fileno(), MODES[kind])
        os.utime(file.fileno(), TIMES)

    def add_found(self, files: Files) -> None:
        """Note the blobs that `hash_files` has saved or found."""
        rows = range(0, len(files.digests), file_hashing.HASH_SIZE)
        self._found.update(
            ("blobs", f"{files.digests[row]:02x}")
            for row, status in zip(rows, files.statuses, strict=True)
            if not status
        )

    def _touch(self, kind: KindName, digest: bytes) -> bool:
        found = self._layout.touch(kind, digest)
        if found:
            self._found.add((kind, place(digest)[:2]))
        return found

    def _name(self, kind: KindName, digest: bytes) -> str:
        if kind == "blobs":
            return digest.hex()
        name = f"{digest.hex()}.{kind}"
        self._kinds[name] = kind
        return name

    def commit(self) -> None:
        """Write everything to disk, and make it visible."""
        found = os.listdir(self._directory)
        blobs = [name for name in found if not name.startswith("new-") and name not in self._kinds]
        # Blobs, then Directories in the order in which they were added, children before parents: a
        # killed writer leaves no Directory without what it refers to.
        others = list(self._kinds)
        if len(blobs) + len(others) + len(self._found) > _FEW:
            self._commit_many(blobs, others)
        else:
            self._commit_few(blobs + others)

    def _commit_many(self, blobs: list[str], others: list[str]) -> None:
        file_hashing.sync(self._directory)
        file_hashing.place(self.target, blobs)
        for name in others:
            self._show(name)
        file_hashing.sync(self._directory)

    def _commit_few(self, names: list[str]) -> None:
        for name in names:
            file = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
            try:
                os.fsync(file)
            finally:
                os.close(file)
        for name in names:
            self._show(name)
            self._found.add((self._kinds.get(name, "blobs"), name[:2]))
        # Also for objects that were found: another process may still be about to do this.
        for kind in {kind for kind, _ in self._found}:
            os.fsync(self._layout.kinds[kind])
        for kind, first in self._found:
            with opened(first, self._layout.kinds[kind]) as directory:
                os.fsync(directory)

    def _show(self, name: str) -> None:
        kinds = self._layout.kinds
        kind = self._kinds.get(name, "blobs")
        target = f"{name[:2]}/{name[2:].partition('.')[0]}"
        try:
            os.rename(name, target, src_dir_fd=self._directory, dst_dir_fd=kinds[kind])
        except FileNotFoundError:
            with suppress(FileExistsError):
                os.mkdir(name[:2], dir_fd=kinds[kind])
            os.rename(name, target, src_dir_fd=self._directory, dst_dir_fd=kinds[kind])


def _cloned(source: BinaryIO, target: BinaryIO) -> bool:
    try:
        file_hashing.clone(source.fileno(), target.fileno())
    except OSError:
        return False
    return True


@contextmanager
def _space_errors(layout: Layout) -> Iterator[None]:
    """Add the remedy to the error of a full disk, and the path of the store if it has no other."""
    try:
        yield
    except OSError as error:
        if error.errno not in file_hashing.NO_SPACE:
            raise
        remedy = (
            f"free space on the file system of {layout.path}, for example with `tvix-build castore "
            "gc`, or raise the limit of the user or the process"
        )
        path = error.filename or layout.path
        raise OSError(error.errno, f"{error.strerror}; {remedy}", path) from error


@contextmanager
def writer(layout: Layout) -> Iterator[Writer]:
    """Yield a writer, and commit it. After an error, nothing is added."""
    name = secrets.token_hex(8)
    with layout.locked(), _space_errors(layout):
        os.mkdir(name, 0o700, dir_fd=layout.incoming)
        try:
            with opened(name, layout.incoming) as directory:
                try:
                    adding = Writer(layout, directory)
                    yield adding
                    adding.commit()
                finally:
                    for rest in os.listdir(directory):
                        os.unlink(rest, dir_fd=directory)
        finally:
            os.rmdir(name, dir_fd=layout.incoming)


class SavingIngestion(Ingestion):
    """An ingestion that also adds all objects to a writer."""

    def __init__(self, adding: Writer, threads: int | None, sizes: DirectorySizes) -> None:
        super().__init__(threads, sizes, self._add_directory, None)
        self._adding = adding

    def _add_directory(self, digest: bytes, encoding: bytes) -> None:
        self._adding.add("directories", digest, encoding)

    def hash_files(self, directory: int, names: list[bytes]) -> Files:
        """Hash and save files in a directory. Called by several threads."""
        found = file_hashing.hash_files(directory, names, self._adding.target)
        self._adding.add_found(found)
        return found

    def hash_large(self, directory: int, name: bytes, path: bytes) -> Hashed:
        """Copy a file, and hash the copy."""
        with file_hashing.errors_at(lambda: path):
            descriptor = os.open(name, file_hashing.OPEN, dir_fd=directory)
        with open(descriptor, "rb", buffering=0) as source:
            before = os.fstat(source.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise ChangedError(path)
            try:
                copy = self._adding.copy(source, clone=True)
            except OSError as error:
                if error.errno not in file_hashing.NO_SPACE:
                    raise
                raise file_hashing.unsaved(error.errno, path, before.st_size) from error
            if not file_hashing.same(before, os.fstat(source.fileno())):
                raise ChangedError(path)
        found = hash_file(self._adding.target.incoming, copy)
        if found.size != before.st_size:
            raise ChangedError(path)
        self._adding.take(copy, "blobs", found.digest)
        return Hashed(found.digest, found.size, bool(before.st_mode & stat.S_IXUSR))


def temporary_file(in_memory: int, directory: str | os.PathLike[str]) -> BinaryIO:
    """Return a file without a name, which is in memory until it has more than some bytes, and then
    in a directory."""
    return cast(BinaryIO, SpooledTemporaryFile(in_memory, dir=os.fspath(directory)))


def hash_file(directory: int, name: str) -> Hashed:
    """Hash a file in a directory.

    Raises:
        ChangedError, OSError: as `file_hashing.raise_status`.
    """
    raw = os.fsencode(name)
    found = file_hashing.hash_files(directory, [raw])
    status = found.statuses[0]
    if status == file_hashing.LARGE:
        threads = cpu_count()
        with ThreadPoolExecutor(threads) as pool:
            return file_hashing.hash_large(directory, raw, raw, pool, 2 * threads)
    file_hashing.raise_status(status, raw)
    return Hashed(found.digests, found.sizes[0], bool(found.executable[0]))
