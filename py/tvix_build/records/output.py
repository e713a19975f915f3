# SPDX-License-Identifier: MIT
"""Writes output files atomically, with the compression of their names."""

from __future__ import annotations

import errno
import gzip
import io
import lzma
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Protocol, TextIO, cast

from tvix_build.records import temporary
from tvix_build.records.errors import OutputError, import_zstd

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


@contextmanager
def output_errors(name: str) -> Iterator[None]:
    """Convert an OSError to an OutputError with the name. A broken pipe is not converted."""
    try:
        yield
    except (BrokenPipeError, OutputError):
        raise
    except OSError as error:
        raise OutputError(error.errno, error.strerror or str(error), name) from error


def stdout() -> TextIO:
    """Return the stdout of the process.

    Raises:
        OutputError: if stdout is closed.
    """
    if sys.stdout is None:
        reason = "it is closed"
        raise OutputError(errno.EBADF, reason, "standard output")
    return sys.stdout


class Output:
    """An output file, as a context manager. Leaving it replaces the target; after an exception the
    target is unchanged.

    Devices, pipes and stdout (`-`) are written directly.

    Args:
        path: the file, or `-`.
        compression: `zst`, `gz`, `xz` or None.

    Attributes:
        name: the name in errors.

    Raises:
        OutputError: from the constructor and from all methods, if the file cannot be written.
        BrokenPipeError: if the reader of a pipe has closed it.
    """

    def __init__(self, path: str, compression: str | None = None) -> None:
        self.name: str = "standard output" if path == "-" else path or "''"
        self._target = os.path.realpath(path)
        self._temporary: str | None = None
        try:
            with output_errors(self.name):
                self._file = self._open(path)
                self._sink = _compressor(self._file, compression)  # gzip writes its header here.
        except BaseException:
            if self._temporary is not None:
                temporary.remove(self._temporary)
            raise

    def _open(self, path: str) -> _File:
        if path == "-":
            return _open_stdout()
        if _is_special(path):
            return _File(path)
        directory, name = os.path.split(self._target)
        self._temporary = temporary.new(directory, name)
        return _new_file(self._temporary, self._target)

    def write(self, data: bytes) -> None:
        """Write all of `data`."""
        with output_errors(self.name):
            self._sink.write(data)

    def write_all(self, pieces: Iterable[bytes]) -> None:
        """Write pieces of data in order."""
        for piece in pieces:
            self.write(piece)

    def __enter__(self) -> Output:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        done = False
        try:
            if kind is None:
                with output_errors(self.name):
                    self._finish()
                done = True
        finally:
            if not done:
                self._discard()

    def _finish(self) -> None:
        if self._sink is not self._file:
            self._sink.close()
        self._file.close()
        if self._temporary is not None:
            temporary.put(self._temporary, self._target)

    def _discard(self) -> None:
        self._file.discarding = True
        with suppress(OSError):
            self._sink.close()  # Otherwise a compressor writes its end when it is collected.
        if self._temporary is not None:
            temporary.remove(self._temporary)
        with suppress(OSError):
            self._file.close()


class _File(io.FileIO):
    """An unbuffered file whose `write` writes all of its argument.

    After a signal, there is no buffer to flush to a pipe without a reader. Output to stdout is also
    complete with PYTHONUNBUFFERED.

    Attributes:
        discarding: whether data is discarded instead of written.
    """

    def __init__(
        self,
        file: str | int,
        mode: str = "wb",
        closefd: bool = True,
        opener: Callable[[str, int], int] | None = None,
    ) -> None:
        super().__init__(file, mode, closefd=closefd, opener=opener)
        self.discarding = False

    def write(self, data: ReadableBuffer, /) -> int:
        view = memoryview(data).cast("B")
        if self.discarding:
            return len(view)
        done = 0
        while done < len(view):
            count = super().write(view[done:])
            if count is None:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            done += count
        return done


def _open_stdout() -> _File:
    """Open standard output without the buffer of `sys.stdout`, or use that if it is not a file."""
    stream = stdout()
    try:
        descriptor = stream.fileno()
    except io.UnsupportedOperation:
        return cast("_File", _BufferedFile(stream.buffer))
    stream.flush()
    return _File(descriptor, closefd=False)


class _BufferedFile:
    """As `_File`, for a standard output without a file descriptor, such as in a notebook."""

    def __init__(self, buffer: IO[bytes]) -> None:
        self._buffer = buffer
        self.discarding = False

    def write(self, data: ReadableBuffer, /) -> int:
        return len(memoryview(data)) if self.discarding else self._buffer.write(data)

    def flush(self) -> None:
        self._buffer.flush()

    def close(self) -> None:
        if not self.discarding:
            self._buffer.flush()


def _new_file(path: str, target: str) -> _File:
    """Create a file that will replace `target`, with the permissions of `target`."""
    try:
        mode = stat.S_IMODE(os.stat(target).st_mode)
    except FileNotFoundError:
        return _File(path, mode="xb")
    file = _File(path, mode="xb", opener=lambda name, flags: os.open(name, flags, mode & 0o600))
    with suppress(PermissionError):  # The file system may not support permissions.
        os.fchmod(file.fileno(), mode)
    return file


class _Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...

    def close(self) -> object: ...


def _compressor(file: _File, compression: str | None) -> _Sink:
    """Return a compressor that writes to `file`, or `file` for None."""
    plain = cast("IO[bytes]", file)
    sink: _Sink = file
    try:
        if compression == "zst":
            zstd = import_zstd()
            checksum = {zstd.CompressionParameter.checksum_flag: 1}
            sink = zstd.ZstdFile(plain, "w", options=checksum)
        elif compression == "gz":
            sink = gzip.GzipFile(filename="", mode="wb", fileobj=plain, mtime=0)
        elif compression == "xz":
            sink = lzma.LZMAFile(plain, "wb")  # noqa: SIM115
    except BaseException:
        file.discarding = (
            True  # Otherwise an incomplete compressor writes its end when it is garbage-collected.
        )
        file.close()
        raise
    return sink


def _is_special(path: str) -> bool:
    """Return whether `path` exists and must be written directly, such as /dev/null."""
    if os.path.abspath(path).startswith(("/dev/", "/proc/")):
        return True
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return False
