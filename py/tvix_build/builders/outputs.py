# SPDX-License-Identifier: MIT
"""Checks the outputs of a build, and finds the references in them. All processes of the build have
ended, so that nothing changes."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress

from tvix_build._core.file_hashing import OPEN
from tvix_build._core.references import ReferenceScanner

_CHUNK = 1 << 20
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class InvalidOutputError(Exception):
    """An output is missing, or has an entry that the castore cannot hold."""


def find_output(root: str, output: str) -> str:
    """Return the path of an output of the host.

    Raises:
        InvalidOutputError: if it is missing, or below a symbolic link, which may point out of the
            sandbox.
    """
    path = root
    for name in output.split("/")[:-1]:
        path = f"{path}/{name}"
        if not _is(stat.S_ISDIR, path):
            raise InvalidOutputError(f"output {output} is missing")
    path = f"{path}/{output.rpartition('/')[2]}"
    if not os.path.lexists(path):
        raise InvalidOutputError(f"output {output} is missing")
    return path


def _is(kind: object, path: str) -> bool:
    with suppress(OSError):
        return bool(kind(os.lstat(path).st_mode))  # type: ignore[operator]
    return False


class OutputScan:
    """Scans the outputs of a build. Makes each file and directory readable for its owner.

    Args:
        needles: the needles of the request.
        limit: the total size of all files, in bytes.
    """

    def __init__(self, needles: Sequence[str], limit: int) -> None:
        self._needles = needles
        self._left = limit
        self._buffer = bytearray(_CHUNK)
        self.exceeded = False

    def scan(self, path: str, output: str) -> list[int]:
        """Return the indices of the needles in the contents, targets and names of an output.

        Raises:
            InvalidOutputError: with the path of an entry that is not a file, a directory or a
                symbolic link.
        """
        scanner = ReferenceScanner(self._needles)
        waiting: list[tuple[int, str]] = []
        parent = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
        try:
            self._scan_entry(scanner, parent, os.path.basename(path), output, waiting)
            while waiting:
                directory, shown = waiting.pop()
                try:
                    for name in os.listdir(directory):
                        scanner.scan(os.fsencode(name))
                        scanner.end_stream()
                        self._scan_entry(scanner, directory, name, f"{shown}/{name}", waiting)
                finally:
                    os.close(directory)
        finally:
            os.close(parent)
            for directory, _ in waiting:
                os.close(directory)
        return scanner.found

    def _scan_entry(
        self,
        scanner: ReferenceScanner,
        directory: int,
        name: str,
        shown: str,
        waiting: list[tuple[int, str]],
    ) -> None:
        mode = os.lstat(name, dir_fd=directory).st_mode
        if stat.S_ISDIR(mode):
            if mode & 0o700 != 0o700:
                os.chmod(name, 0o755, dir_fd=directory)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            waiting.append((os.open(name, flags, dir_fd=directory), shown))
        elif stat.S_ISLNK(mode):
            scanner.scan(os.fsencode(os.readlink(name, dir_fd=directory)))
            scanner.end_stream()
        elif stat.S_ISREG(mode):
            if not mode & 0o400:
                os.chmod(name, mode & 0o777 | 0o400, dir_fd=directory)
            self._scan_file(scanner, os.open(name, OPEN, dir_fd=directory))
        else:
            kind = _KINDS.get(stat.S_IFMT(mode), "an entry of another type")
            raise InvalidOutputError(
                f"output {shown}: expected a file, directory or symbolic link, found {kind}"
            )

    def _scan_file(self, scanner: ReferenceScanner, descriptor: int) -> None:
        with open(descriptor, "rb", buffering=0) as file:
            self._left -= os.fstat(descriptor).st_size
            if self._left < 0:
                self.exceeded = True
                return
            while size := file.readinto(self._buffer):
                scanner.scan(memoryview(self._buffer)[:size])
        scanner.end_stream()
