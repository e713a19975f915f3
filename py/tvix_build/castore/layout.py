# SPDX-License-Identifier: MIT
"""The files of a castore store: their names, locks and errors.

    castore.version     a line of text
    lock                locked by writers (shared) and by garbage collection (exclusive)
    blobs/DD/D{62}      contents, mode 0444, under the hexadecimal digits of their digests
    directories/DD/…    canonical Directory messages
    executables/DD/…    copies of blobs, mode 0555: sources of hard links
    incoming/RANDOM/    new files of a writer
    trees/, uses/       as in trees.py

The modification time of a stored file is always 1. The status change time tells when it was last
added, found or linked.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from typing import Literal

from tvix_build._core.engine import DIGEST_SIZE
from tvix_build._core.report import Error

KindName = Literal["blobs", "directories", "executables"]
KINDS: tuple[KindName, ...] = ("blobs", "directories", "executables")
MODES: dict[KindName, int] = {"blobs": 0o444, "directories": 0o444, "executables": 0o555}
TIMES = (1, 1)
DIGITS = re.compile(f"[0-9a-f]{{{2 * DIGEST_SIZE - 2}}}")
PREFIX = re.compile(f"[0-9a-fA-F]{{1,{2 * DIGEST_SIZE}}}")
FIRST = re.compile("[0-9a-f]{2}")
_VERSION = b"tvix-build castore 1\n"
_NAMES = {"castore.version", "lock", "incoming", *KINDS}


class CastoreError(Error):
    """A directory is not a castore store, has a newer version, or holds a damaged object."""


class MissingError(Error, KeyError):
    """A store lacks a blob or a Directory.

    Attributes:
        digest: the digest, 32 bytes.
    """

    def __init__(self, message: str, digest: bytes) -> None:
        super().__init__(message, digest)
        self.digest = digest

    def __str__(self) -> str:  # KeyError.__str__ shows the repr.
        return str(self.args[0])


class SizeMismatchError(Error):
    """The size in a node is not the size of the blob or Directory with its digest."""


class DigestMismatchError(Error):
    """A blob has another digest than the expected one."""


class LinkMethod(str, Enum):
    """The ways to make a file of a blob."""

    AUTO = "auto"
    """The first of the others that works."""
    REFLINK = "reflink"
    """A file of its own that shares blocks with the blob."""
    HARD_LINK = "hard-link"
    """The read-only file of the store itself."""
    COPY = "copy"
    """A file of its own."""


class Layout:
    """The open directories of a store."""

    def __init__(self, path: str, *, create: bool) -> None:
        self.path = path
        self._open: list[int] = []
        try:
            if create and not os.path.exists(self._file("castore.version")):
                self._create()
            self._check_version()
            self.kinds: dict[KindName, int] = {kind: self._descriptor(kind) for kind in KINDS}
            self.incoming: int = self._descriptor("incoming")
        except BaseException:
            self.close()
            raise

    def _file(self, name: str) -> str:
        return os.path.join(self.path, name)

    def _create(self) -> None:
        os.makedirs(self.path, exist_ok=True)
        if foreign := set(os.listdir(self.path)) - _NAMES:
            raise CastoreError(
                f"{self.path}: expected a castore store or an empty directory, found "
                f"{min(foreign)!r} in it"
            )
        for name in (*KINDS, "incoming"):
            os.makedirs(self._file(name), exist_ok=True)
        os.close(os.open(self._file("lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644))
        made = self._file(f"incoming/{os.urandom(8).hex()}.version")
        # The version last: without it, the next process creates the rest again.
        with self.locked(), opened(self._file("")) as directory:
            with open(made, "xb") as file:
                file.write(_VERSION)
                file.flush()
                os.fsync(file.fileno())
            os.fsync(directory)
            os.replace(made, self._file("castore.version"))
            os.fsync(directory)

    def _check_version(self) -> None:
        try:
            with open(self._file("castore.version"), "rb") as file:
                found = file.read(100)
        except (FileNotFoundError, NotADirectoryError):
            raise CastoreError(
                f"{self.path}: expected a castore store, found no file castore.version in it; "
                "create one with `tvix-build castore add`"
            ) from None
        if found != _VERSION:
            raise CastoreError(
                f"{self.path}: expected the version {_VERSION!r}, found {found!r}; use a newer "
                "release"
            )

    def _descriptor(self, name: str) -> int:
        descriptor = os.open(self._file(name), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open.append(descriptor)
        return descriptor

    @contextmanager
    def locked(self, *, exclusive: bool = False) -> Iterator[None]:
        """Hold the lock of the store. Writers share it."""
        # Opened for each use: all users of one open file would share one lock.
        lock = os.open(self._file("lock"), os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield
        finally:
            os.close(lock)

    def touch(self, kind: KindName, digest: bytes) -> bool:
        """Return whether an object is stored, and protect it from garbage collection for now."""
        try:
            os.utime(place(digest), TIMES, dir_fd=self.kinds[kind], follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def open(self, kind: KindName, digest: bytes) -> int:
        """Open a stored object.

        Raises:
            MissingError: if it is not stored.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(place(digest), flags, dir_fd=self.kinds[kind])
        except FileNotFoundError:
            raise self.missing(kind, digest) from None

    def size(self, kind: KindName, digest: bytes) -> int:
        """Return the size of a stored object in bytes.

        Raises:
            MissingError: if it is not stored.
        """
        try:
            found = os.stat(place(digest), dir_fd=self.kinds[kind], follow_symlinks=False)
        except FileNotFoundError:
            raise self.missing(kind, digest) from None
        return found.st_size

    def objects(self, kind: KindName) -> Iterator[tuple[bytes, os.stat_result]]:
        """Yield the digests and the statuses of all stored objects of a kind."""
        for first in self.shards(kind):
            with opened(first, self.kinds[kind]) as directory:
                for name in os.listdir(directory):
                    if DIGITS.fullmatch(name):
                        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                        yield bytes.fromhex(first + name), status

    def find(self, prefix: str) -> set[bytes]:
        """Return the digests of blobs and Directories that begin with some hexadecimal digits."""
        if not PREFIX.fullmatch(prefix):
            raise ValueError(f"expected 1 to {2 * DIGEST_SIZE} hex digits, found {prefix!r}")
        prefix = prefix.lower()
        found: set[bytes] = set()
        kinds: tuple[KindName, ...] = ("blobs", "directories")
        for kind in kinds:
            for first in self.shards(kind):
                if first.startswith(prefix[:2]):
                    names = os.listdir(os.path.join(self.path, kind, first))
                    found |= {
                        bytes.fromhex(first + name)
                        for name in names
                        if DIGITS.fullmatch(name) and name.startswith(prefix[2:])
                    }
        return found

    def shards(self, kind: KindName) -> list[str]:
        """Return the names of the directories that hold the objects of a kind."""
        return sorted(name for name in os.listdir(self.kinds[kind]) if FIRST.fullmatch(name))

    def clear_incoming(self) -> None:
        """Remove what killed writers left. The caller holds the exclusive lock."""
        for name in os.listdir(self.incoming):
            try:
                os.unlink(name, dir_fd=self.incoming)
            except (IsADirectoryError, PermissionError):  # the second on macOS
                shutil.rmtree(os.path.join(self.path, "incoming", name))

    def missing(self, kind: KindName, digest: bytes) -> MissingError:
        """Return the error for an object that is not stored."""
        what = "Directory" if kind == "directories" else "blob"
        return MissingError(
            f"{self.path}: no {what} with the digest {digest.hex()}; add it with ingest or "
            f"add_{what.lower()}",
            digest,
        )

    def damaged(self, kind: KindName, digest: bytes, reason: str) -> CastoreError:
        """Return the error for a damaged object."""
        file = os.path.join(self.path, kind, place(digest))
        return CastoreError(f"{file}: damaged: {reason}; delete the file, and add it again")

    def close(self) -> None:
        """Close all directories."""
        while self._open:
            with suppress(OSError):
                os.close(self._open.pop())


@contextmanager
def opened(path: str, directory: int | None = None) -> Iterator[int]:
    """Open a directory, and close it at the end."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def place(digest: bytes) -> str:
    """Return the path of an object within the directory of its kind."""
    digits = digest.hex()
    return f"{digits[:2]}/{digits[2:]}"


def check_digest(digest: bytes) -> bytes:
    """Return the digest.

    Raises:
        TypeError, ValueError: if it is not bytes, or has another length than 32.
    """
    if not isinstance(digest, bytes):
        raise TypeError(f"expected a digest as bytes, found {type(digest).__name__}")
    if len(digest) != DIGEST_SIZE:
        raise ValueError(f"expected a digest of {DIGEST_SIZE} bytes, found {len(digest)}")
    return digest


# The file system cannot link or share blocks, or the limit of links is reached.
CANNOT_LINK = (
    *(errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP),
    *(errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EACCES),
)
