# SPDX-License-Identifier: MIT
"""Output files that appear whole or not at all, compressed where their name says so."""

from __future__ import annotations

import gzip
import lzma
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, BinaryIO, Protocol, cast

import zstandard


class OutputError(Exception):
    """A file that cannot be written; says which and why."""


class Sink(Protocol):
    """What can be written to."""

    def write(self, data: bytes, /) -> object: ...


@contextmanager
def output_errors(name: str) -> Iterator[None]:
    """Say of an OSError which output failed. A pipe that nobody reads is no such failure."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"{name}: {error.strerror or error}") from error


class Output:
    """A file to write, as a context manager: put in place at its end, gone after an exception.

    Anything but a regular file (a device, a pipe) and stdout (`-`) is written directly.

    Args:
        path: the file, or `-`.
        compression: `zst`, `gz`, `xz` or None.

    Raises:
        OutputError: here and from `write`.
        BrokenPipeError: if nobody reads a pipe.
    """

    def __init__(self, path: str, compression: str | None = None) -> None:
        self._name = "standard output" if path == "-" else path
        self._target = os.path.realpath(path)
        self._temporary: str | None = None
        self._compression = compression
        self._file: IO[bytes]
        self._sink: Sink
        with output_errors(self._name):
            self._open(path)

    def _open(self, path: str) -> None:
        if path == "-":
            if sys.stdout is None:
                raise OutputError("standard output: it is closed")
            self._file = sys.stdout.buffer
        elif _is_special(path):
            self._file = open(path, "wb", buffering=1 << 16)  # noqa: SIM115
        else:
            folder, name = os.path.split(self._target)
            self._temporary = os.path.join(folder, f".{name[:200]}.{secrets.token_hex(6)}.tmp")
            self._file = open(self._temporary, "xb", buffering=1 << 16)  # noqa: SIM115
        self._sink = self._compressor()

    def _compressor(self) -> Sink:
        file = cast(BinaryIO, self._file)
        if self._compression == "zst":
            return zstandard.ZstdCompressor(write_checksum=True).stream_writer(file, closefd=False)
        if self._compression == "gz":
            return gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0)
        if self._compression == "xz":
            return lzma.LZMAFile(file, "wb")
        return file

    def write(self, data: bytes) -> None:
        """Write all of `data`."""
        with output_errors(self._name):
            self._sink.write(data)

    def __enter__(self) -> Output:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        done = False
        try:
            if kind is None:
                with output_errors(self._name):
                    self._finish()
                done = True
        finally:
            if not done:
                self._discard()

    def _finish(self) -> None:
        if self._sink is not self._file:
            self._sink.close()  # type: ignore[attr-defined]
        self._file.flush()
        if self._file is not getattr(sys.stdout, "buffer", None):
            self._file.close()
        if self._temporary is not None:
            os.replace(self._temporary, self._target)

    def _discard(self) -> None:
        if self._file is getattr(sys.stdout, "buffer", None):
            return
        if self._temporary is not None:
            with suppress(OSError):
                os.unlink(self._temporary)
        with suppress(OSError):
            self._file.close()


def _is_special(path: str) -> bool:
    """Whether `path` is there and must be written in place, such as /dev/null or /dev/stdout."""
    if os.path.abspath(path).startswith(("/dev/", "/proc/")):
        return True
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return False
