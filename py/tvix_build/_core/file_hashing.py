# SPDX-License-Identifier: MIT
"""Hashes files, by descriptors of the folders that they are in. Knows no protobuf.

What changes while it is read is an error. The GIL is released while files are read and hashed.
"""

from __future__ import annotations

import errno
import os
import stat
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager
from typing import Any, NamedTuple

from tvix_build._core.report import Error
from tvix_build._native import ffi, lib

HERE: int = lib.TVIXB_FILES_HERE
"""The working directory, in place of a descriptor of a folder."""
HASH_SIZE = 32  # bytes of a digest, and of a part's chaining value
PART_SIZE: int = lib.TVIXB_FILES_PART_SIZE
_RUN = 16  # parts that a thread hashes in one go, so that an interrupt is noticed soon
# Not to wait for a writer where a pipe has taken the place of a file.
OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_OPEN_FOLDER = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
# What a call says if a name is no longer what it was a moment ago.
_OTHERS_THERE = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR)


class IngestError(Error):
    """What is at a path cannot be a castore node.

    Attributes:
        path: what cannot, as bytes.
        reason: what was expected and what was found.
    """

    def __init__(self, path: bytes, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{os.fsdecode(self.path)}: {self.reason}"


class ChangedError(IngestError):
    """What is at a path changed while it was read."""

    def __init__(self, path: bytes, reason: str = "") -> None:
        super().__init__(path, reason or "expected no change while it is read, found one")


class Files(NamedTuple):
    """What was found of n files.

    Attributes:
        statuses: n numbers; of a file where it is not 0, the rest says nothing.
        sizes: n numbers of bytes.
        executable: n bytes, 1 where the owner may execute the file.
        digests: n x 32 bytes.
    """

    statuses: array[int]
    sizes: array[int]
    executable: bytearray
    digests: bytes


# Those that no thread uses at the moment; a thread takes one for a call.
_buffers: list[Any] = []
_new_buffer = ffi.new_allocator(should_clear_after_alloc=False)


def _take_buffer() -> Any:
    try:
        return _buffers.pop()
    except IndexError:
        return _new_buffer("uint8_t[]", lib.TVIXB_FILES_BUFFER_SIZE)


def hash_files(folder: int, names: Sequence[bytes]) -> Files:
    """Hash regular files in a folder, a descriptor or HERE; large ones have the status LARGE."""
    n = len(names)
    statuses = array("i", bytes(4 * n))
    sizes = array("Q", bytes(8 * n))
    executable = bytearray(n)
    digests = bytearray(HASH_SIZE * n)
    found = (
        ffi.from_buffer("int32_t[]", statuses),
        ffi.from_buffer("uint64_t[]", sizes),
        ffi.from_buffer("uint8_t[]", executable),
        ffi.from_buffer("uint8_t[]", digests),
    )
    buffer = _take_buffer()
    try:
        text = b"\0".join([*names, b""])
        lib.tvixb_files_hash(folder, text, n, buffer, ffi.new("tvixb_files *", found))
    finally:
        _buffers.append(buffer)
        for view in found:
            ffi.release(view)
    return Files(statuses, sizes, executable, bytes(digests))


LARGE: int = lib.TVIXB_FILE_LARGE


class Hashed(NamedTuple):
    """What was found of a file."""

    digest: bytes
    size: int
    executable: bool


def hash_large(folder: int, name: bytes, path: bytes, pool: Executor, ahead: int) -> Hashed:
    """Hash a large file in a folder, in several threads.

    Args:
        folder: a descriptor, or HERE.
        path: of the file, for errors.
        pool: whose threads hash.
        ahead: how many calls to have it do at a time.

    Raises:
        ChangedError, OSError: as `raise_status`.
    """
    with errors_at(lambda: path):
        file = os.open(name, OPEN, dir_fd=folder)
    calls: deque[Future[int]] = deque()
    try:
        before = os.fstat(file)
        parts = -(-before.st_size // PART_SIZE)
        if not stat.S_ISREG(before.st_mode) or parts < 2:
            raise ChangedError(path)
        values = bytearray(HASH_SIZE * parts)
        for first in range(0, parts, _RUN):
            end = min(first + _RUN, parts)
            calls.append(pool.submit(_hash_parts, file, before.st_size, first, end, values))
            if len(calls) >= ahead:
                _take(calls, path)
        while calls:
            _take(calls, path)
        if not same(before, os.fstat(file)):
            raise ChangedError(path)
    finally:
        wait(calls)
        os.close(file)
    digest = ffi.new("uint8_t[]", HASH_SIZE)
    with ffi.from_buffer("uint8_t[]", values) as pointer:
        lib.tvixb_file_join(pointer, parts, digest)
    return Hashed(bytes(ffi.buffer(digest)), before.st_size, bool(before.st_mode & stat.S_IXUSR))


def _take(calls: deque[Future[int]], path: bytes) -> None:
    raise_status(calls[0].result(), path)
    calls.popleft()  # Only now: whoever is left is waited for.


def _hash_parts(file: int, size: int, first: int, end: int, values: bytearray) -> int:
    buffer = _take_buffer()
    try:
        with ffi.from_buffer("uint8_t[]", values) as pointer:
            status: int = lib.tvixb_file_hash_parts(file, size, first, end, buffer, pointer)
        return status
    finally:
        _buffers.append(buffer)


def raise_status(status: int, path: bytes) -> None:
    """Raise what a status other than 0 says of a file.

    Raises:
        ChangedError: if it is no longer the regular file that it was.
        OSError: if it cannot be read.
    """
    if status < 0:
        raise ChangedError(path)
    if status:
        with errors_at(lambda: path):
            raise OSError(status, os.strerror(status))


@contextmanager
def errors_at(path: Callable[[], bytes], *changes: int) -> Iterator[None]:
    """Say of an OSError at which path it was; `changes` are errnos that mean a change, too.

    The path is asked for only then: that of a deep folder is long.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (*_OTHERS_THERE, *changes):
            raise ChangedError(path()) from error
        raise OSError(error.errno, error.strerror, os.fsdecode(path())) from error


def same(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether a file or a folder is as it was, as far as its size and its times say so."""
    keys = ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
    return all(getattr(before, key) == getattr(after, key) for key in keys)


def open_folder(name: bytes, folder: int) -> int:
    """A descriptor of a folder in a folder, which is a descriptor or HERE."""
    return os.open(name, _OPEN_FOLDER, dir_fd=folder)
