# SPDX-License-Identifier: MIT
"""Checks the outputs of a build, and finds the references in them. All processes of the build have
ended, so that nothing changes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress

from tvix_build._core.file_hashing import OPEN
from tvix_build._core.references import ReferenceScanner
from tvix_build.builders.interface import missing_output
from tvix_build.castore.ingestion import reason_to_reject

_CHUNK = 1 << 20


class InvalidOutputError(Exception):
    """An output is missing, or has an entry that the castore cannot hold.

    Attributes:
        missing: the output that is missing.
    """

    def __init__(self, reason: str, missing: str | None = None) -> None:
        super().__init__(reason)
        self.missing = missing


class _EntryError(Exception):
    """What is wrong with an entry."""


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
            raise InvalidOutputError(missing_output(output), output)
    path = f"{path}/{output.rpartition('/')[2]}"
    if not os.path.lexists(path):
        raise InvalidOutputError(missing_output(output), output)
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
        self.exceeded: bool = False

    def scan(self, path: str, output: str) -> list[int]:
        """Return the indices of the needles in the contents, targets and names of an output.

        Raises:
            InvalidOutputError: with the path of an entry that is not a file, a directory or a
                symbolic link, or whose path is too long.
        """
        scanner = ReferenceScanner(self._needles)
        waiting = [path]
        while waiting:
            entry = waiting.pop()
            try:
                for name in self._scan_entry(scanner, entry):
                    scanner.scan(os.fsencode(name))
                    scanner.end_stream()
                    waiting.append(f"{entry}/{name}")
            except _EntryError as error:
                shown = os.fsencode(output + entry[len(path) :]).decode(errors="backslashreplace")
                raise InvalidOutputError(f"output {shown}: {error}") from None
        return scanner.found

    def _scan_entry(self, scanner: ReferenceScanner, path: str) -> list[str]:
        """Scan an entry, and return the names in it."""
        try:
            mode = os.lstat(path).st_mode
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise _EntryError("expected a path of at most 4095 bytes") from None
            raise
        if stat.S_ISDIR(mode):
            if mode & 0o700 != 0o700:
                os.chmod(path, 0o755)
            return os.listdir(path)
        if stat.S_ISLNK(mode):
            scanner.scan(os.fsencode(os.readlink(path)))
            scanner.end_stream()
        elif stat.S_ISREG(mode):
            if not mode & 0o400:
                os.chmod(path, mode & 0o777 | 0o400)
            self._scan_file(scanner, os.open(path, OPEN))
        else:
            raise _EntryError(reason_to_reject(mode))
        return []

    def _scan_file(self, scanner: ReferenceScanner, descriptor: int) -> None:
        with open(descriptor, "rb", buffering=0) as file:
            self._left -= os.fstat(descriptor).st_size
            if self._left < 0:
                self.exceeded = True
                return
            while size := file.readinto(self._buffer):
                scanner.scan(memoryview(self._buffer)[:size])
        scanner.end_stream()
