# SPDX-License-Identifier: MIT
"""Hashes and saves files in open directories. It does not use protobuf.

A file that changes while it is read is an error. The GIL is released while files are read and
hashed.
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

if os.open not in os.supports_dir_fd:
    raise ImportError("tvix_build.castore needs openat, which Windows lacks")

HERE: int = lib.tvixb_files_here
"""The working directory, instead of a descriptor of a directory."""
HASH_SIZE = 32  # bytes of a digest, and of the chaining value of a part
PART_SIZE: int = lib.TVIXB_FILES_PART_SIZE
_UNSAVED: int = lib.TVIXB_FILE_UNSAVED
_RUN = 16  # parts per task; few, so that an interrupt is handled soon
# O_NONBLOCK: if a pipe has replaced the file, do not wait for a writer.
OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_OPEN_DIRECTORY = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The errors of a full disk, and of limits of users and processes."""
# The errors of a name whose file has been replaced or removed.
_OTHERS_THERE = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR)


class IngestError(Error):
    """A file cannot be a castore node.

    Attributes:
        path: the path of the file, as bytes.
        reason: what was expected and what was found.
    """

    def __init__(self, path: bytes, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{os.fsdecode(self.path)}: {self.reason}"


class ChangedError(IngestError):
    """A file or directory changed while it was read."""

    def __init__(self, path: bytes, reason: str = "") -> None:
        super().__init__(path, reason or "changed while it was read")


class Files(NamedTuple):
    """The results of n files.

    Attributes:
        statuses: n numbers; if the status of a file is not 0, its other results are undefined.
        sizes: the n sizes in bytes.
        executable: n bytes, 1 if the owner may execute the file.
        digests: n x 32 bytes.
    """

    statuses: array[int]
    sizes: array[int]
    executable: bytearray
    digests: bytes


# The buffers that are not in use. A thread takes one for each call.
_buffers: list[Any] = []
_new_buffer = ffi.new_allocator(should_clear_after_alloc=False)


def _take_buffer() -> Any:
    try:
        return _buffers.pop()
    except IndexError:
        return _new_buffer("uint8_t[]", lib.TVIXB_FILES_BUFFER_SIZE)


class Target(NamedTuple):
    """The directories to which `hash_files` saves files, as descriptors.

    Attributes:
        saved: the saved files, under two and 62 hexadecimal digits of their digests.
        incoming: new files, under 64 hexadecimal digits.
    """

    saved: int
    incoming: int


def hash_files(directory: int, names: Sequence[bytes], target: Target | None = None) -> Files:
    """Hash regular files in a directory, a descriptor or HERE. Large files get the status LARGE.

    Args:
        directory: a descriptor, or HERE.
        names: the names of the files.
        target: the directories to which the contents are also saved. Files of more than PART_SIZE
            bytes are not saved and get the status LARGE. Saved files get mode 0444 and the
            modification time 1; they are not synchronized with the disk.
    """
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
        arrays = ffi.new("tvixb_files *", found)
        if target is None:
            lib.tvixb_files_hash(directory, text, n, buffer, arrays)
        else:
            places = ffi.new("tvixb_files_target *", target)
            lib.tvixb_files_save(directory, text, n, buffer, arrays, places)
    finally:
        _buffers.append(buffer)
        for view in found:
            ffi.release(view)
    return Files(statuses, sizes, executable, bytes(digests))


LARGE: int = lib.TVIXB_FILE_LARGE


class Hashed(NamedTuple):
    """The results of a file."""

    digest: bytes
    size: int
    executable: bool


def hash_large(directory: int, name: bytes, path: bytes, pool: Executor, ahead: int) -> Hashed:
    """Hash a large file in a directory, in several threads.

    Args:
        directory: a descriptor, or HERE.
        path: the path of the file, for errors.
        pool: the pool of threads that hash.
        ahead: the number of concurrent calls.

    Raises:
        ChangedError, OSError: as `raise_status`.
    """
    with errors_at(lambda: path):
        file = os.open(name, OPEN, dir_fd=directory)
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
    calls.popleft()  # Only now, because the caller waits for the remaining calls.


def _hash_parts(file: int, size: int, first: int, end: int, values: bytearray) -> int:
    buffer = _take_buffer()
    try:
        with ffi.from_buffer("uint8_t[]", values) as pointer:
            status: int = lib.tvixb_file_hash_parts(file, size, first, end, buffer, pointer)
        return status
    finally:
        _buffers.append(buffer)


def raise_status(status: int, path: bytes, size: int = 0) -> None:
    """Raise the error of a file if its status is not 0.

    Args:
        status: the status.
        path: the path of the file.
        size: its size in bytes, if the file was to be saved.

    Raises:
        ChangedError: if the file is no longer the same regular file.
        OSError: if the file cannot be read or saved.
    """
    if status < 0:
        raise ChangedError(path)
    if status >= _UNSAVED:
        raise unsaved(status - _UNSAVED, path, size)
    if status:
        with errors_at(lambda: path):
            raise OSError(status, os.strerror(status))


def unsaved(number: int, path: bytes, size: int) -> OSError:
    """Return the error of a file of that size that cannot be saved."""
    reason = f"cannot be saved: {os.strerror(number)}"
    if number in NO_SPACE:
        reason += f": expected space for {size} bytes"
    return OSError(number, reason, os.fsdecode(path))


@contextmanager
def errors_at(path: Callable[[], bytes], *changes: int) -> Iterator[None]:
    """Add the path to an OSError. `changes` are additional errnos that mean ChangedError.

    `path` is called only after an error, because the path of a deep directory is long.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (*_OTHERS_THERE, *changes):
            raise ChangedError(path()) from error
        raise OSError(error.errno, error.strerror, os.fsdecode(path())) from error


def same(before: os.stat_result, after: os.stat_result) -> bool:
    """Return whether a file or a directory has the same inode, size and times."""
    keys = ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
    return all(getattr(before, key) == getattr(after, key) for key in keys)


def open_directory(name: bytes, directory: int) -> int:
    """Open a directory in a directory, which is a descriptor or HERE, and return its descriptor."""
    return os.open(name, _OPEN_DIRECTORY, dir_fd=directory)


def place(target: Target, names: Sequence[str]) -> None:
    """Move new files, named by 64 hexadecimal digits, to the saved ones.

    Raises:
        OSError: if a file cannot be moved.
    """
    text = "\0".join([*names, ""]).encode()
    _raise_errno(lib.tvixb_files_place(ffi.new("tvixb_files_target *", target), text, len(names)))


def sync(file: int) -> None:
    """Write all data of the file system of an open file to disk."""
    _raise_errno(lib.tvixb_files_sync(file))


def clone(source: int, target: int) -> None:
    """Make an open, empty file share the blocks of another one, a reflink.

    Raises:
        OSError: if the file system cannot.
    """
    _raise_errno(lib.tvixb_file_clone(source, target))


def _raise_errno(number: int) -> None:
    if number:
        raise OSError(number, os.strerror(number))
