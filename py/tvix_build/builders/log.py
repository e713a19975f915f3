# SPDX-License-Identifier: MIT
"""The log of a build, and its limit, which is the same for all builders."""

from __future__ import annotations

import os
from collections.abc import Iterator

from tvix_build._core.blake3 import blake3_many
from tvix_build.builders.reading import read_rest
from tvix_build.castore import CastoreStore
from tvix_build.castore.writing import temporary_file

_IN_MEMORY = 1 << 20  # bytes


class Log:
    """The first bytes of an output, up to a limit: in memory if they are few, else in a file. Use
    it as a context manager.

    Args:
        limit: the limit in bytes.
        directory: the directory of the file.

    Attributes:
        size: the number of bytes.
        exceeded: whether the output is larger than the limit.
    """

    def __init__(self, limit: int, directory: str | os.PathLike[str]) -> None:
        self._limit = limit
        self._file = temporary_file(_IN_MEMORY, directory)
        self.size: int = 0
        self.exceeded: bool = False

    @property
    def failure(self) -> str | None:
        """Why the build fails if the output is larger than the limit."""
        if not self.exceeded:
            return None
        return f"the limit of the size of the log, {self._limit} bytes, is exceeded"

    def write(self, data: bytes) -> bytes:
        """Add a part of the output, and return what the log has of it."""
        kept = data[: self._limit - self.size]
        self.exceeded |= len(kept) < len(data)
        self.size += len(kept)
        self._file.write(kept)
        return kept

    def pieces(self) -> Iterator[bytes]:
        """Yield the log in pieces. Nothing can be added afterwards."""
        self._file.seek(0)
        yield from read_rest(self._file)

    def store(self, castore: CastoreStore) -> bytes:
        """Add the log to a castore, unless the castore has it, and return its digest."""
        self._file.seek(0)
        if self.size > _IN_MEMORY:
            return castore.add_blob(self._file)
        data = self._file.read()
        digest = blake3_many([data]).tobytes()
        if not castore.has_blob(digest):  # A cached result often has a known log.
            castore.add_blob(data)
        return digest

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
