# SPDX-License-Identifier: MIT
"""Decompresses files in bounded pieces.

It supports zstd, gzip and xz, and several consecutive frames (members, streams). Truncated data,
and other data after compressed data, are an `InputError`. No piece is larger than `PIECE`, even if
a small compressed input expands to a large output.
"""

from __future__ import annotations

import errno
import io
import lzma
import os
import select
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from tvix_build.records.errors import InputError, import_zstd
from tvix_build.records.source import Source

PIECE = 1 << 18
PAUSE = 50  # milliseconds to wait for data
XZ_MEMORY = 1 << 28
MAGIC = {"zst": b"\x28\xb5\x2f\xfd", "gz": b"\x1f\x8b\x08", "xz": b"\xfd7zXZ\0"}


class ByteStream:
    """The uncompressed bytes of a source. If its name has no compression, the first bytes determine
    it.

    Raises:
        InputError: from the constructor and from `readinto`, if the file cannot be read.
    """

    def __init__(self, source: Source) -> None:
        self._file = _File(source)
        try:
            compression = source.compression or self._file.compression()
        except InputError:
            self.close()
            raise
        self._pieces = DECODERS[compression](self._file) if compression else None
        self._piece = memoryview(b"")

    @property
    def consumed(self) -> int:
        """The number of bytes read from the file so far."""
        return self._file.consumed

    @property
    def size(self) -> int:
        """The number of bytes in all, if it is known; otherwise 0."""
        return self._file.size() if self._pieces is None else 0

    def close(self) -> None:
        """Close the file. stdin and the stream of a source stay open."""
        self._file.close()

    def ready(self) -> bool:
        """Wait for at most PAUSE, and return whether data or the end of the file is available."""
        return bool(self._piece) or self._file.ready()

    def readinto(self, target: memoryview) -> int:
        """Read at least one byte into `target`, and return the number of bytes; 0 at the end."""
        if self._pieces is None:
            return self._file.readinto(target)
        if not self._piece:
            self._piece = memoryview(next(self._pieces, b""))
        count = min(len(target), len(self._piece))
        target[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count


def _open_stdin() -> Any:
    """Open standard input without the buffer of `sys.stdin`, or use that if it is not a file."""
    if sys.stdin is None:
        raise InputError("stdin is closed")
    try:
        return io.FileIO(sys.stdin.fileno(), closefd=False)
    except io.UnsupportedOperation:
        return sys.stdin.buffer


class _File:
    """The bytes of the file, some of which can be put back."""

    def __init__(self, source: Source) -> None:
        raw: Any = source.stream
        try:
            if raw is None:
                raw = _open_stdin() if source.path == "-" else io.FileIO(source.path)
        except OSError as error:
            raise InputError(error.strerror or str(error)) from error
        self._readinto = getattr(raw, "readinto1", None) or raw.readinto
        self._own = raw if isinstance(raw, io.FileIO) and raw is not source.stream else None
        self._poll = select.poll()
        if self._own is not None:
            self._poll.register(self._own, select.POLLIN)
        self.consumed = 0
        self._held = b""
        self._begin = 0  # of the unread part of _held

    def close(self) -> None:
        """Close the file if this object opened it."""
        if self._own is not None:
            self._own.close()

    def size(self) -> int:
        """Return the size of the file if this object opened it; 0 if it is not a regular file."""
        found = None if self._own is None else os.fstat(self._own.fileno())
        return found.st_size if found is not None and stat.S_ISREG(found.st_mode) else 0

    def compression(self) -> str | None:
        """Return the compression, according to the first bytes."""
        head = self.up_to(max(map(len, MAGIC.values())))
        self.put_back(head)
        if _is_skippable(head[:4]):  # Canonical messages begin with a field of 1 to 3.
            return "zst"
        return next((name for name, magic in MAGIC.items() if head.startswith(magic)), None)

    def ready(self) -> bool:
        """Wait for at most PAUSE, and return whether data or the end of the file is available."""
        if self._begin < len(self._held) or self._own is None:
            return True
        return bool(self._poll.poll(PAUSE))

    def take(self) -> bytes:
        """Read and return at most PIECE bytes; empty at the end."""
        if self._begin < len(self._held):
            held = self._held[self._begin :]
            self._held, self._begin = b"", 0
            return held
        data = bytearray(PIECE)
        count = self.readinto(memoryview(data))
        return bytes(memoryview(data)[:count])

    def readinto(self, target: memoryview) -> int:
        """Read bytes into `target`, and return their number; 0 at the end."""
        if self._begin < len(self._held):
            held = self._held[self._begin : self._begin + len(target)]
            self._begin += len(held)
            target[: len(held)] = held
            return len(held)
        try:
            count: int | None = self._readinto(target)
            if count is None:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        except OSError as error:
            raise InputError(error.strerror or str(error)) from error
        self.consumed += count
        return count

    def up_to(self, count: int) -> bytes:
        """Read and return the next `count` bytes, fewer at the end."""
        while len(self._held) - self._begin < count:
            held = self._held[self._begin :]
            self._held, self._begin = b"", 0
            more = self.take()
            self._held = held + more
            if not more:
                break
        data = self._held[self._begin : self._begin + count]
        self._begin += len(data)
        return data

    def put_back(self, data: bytes) -> None:
        """Put `data` back, so that it is read next."""
        self._held = data + self._held[self._begin :]
        self._begin = 0


def _gzip(file: _File) -> Iterator[bytes]:
    """Yield the contents of one or more gzip members (RFC 1952). Zeros may follow the last one."""
    data = file.take()
    while True:
        decoder = zlib.decompressobj(wbits=31)
        while not decoder.eof:
            if not data:
                raise _truncated("a gzip member")
            try:
                output = decoder.decompress(data, PIECE)
            except zlib.error as error:
                raise _corrupt("a gzip member", error) from error
            if output:
                yield output
            data = decoder.unconsumed_tail or (b"" if decoder.eof else file.take())
        data = decoder.unused_data or file.take()
        padded = data[:1] == b"\0"
        while data and not data.strip(b"\0"):
            data = file.take()
        if not data:
            return
        if padded:
            raise InputError("expected only zeros after the last gzip member, found other data")


def _xz(file: _File) -> Iterator[bytes]:
    """Yield the contents of one or more xz streams, with padding between them."""
    data = file.take()
    while True:
        decoder = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
        yield from _decompress(file, data, decoder, "an xz stream", lzma.LZMAError)
        file.put_back(decoder.unused_data)
        while (word := file.up_to(4)) == bytes(4):
            pass
        if not word:
            return
        file.put_back(word)
        data = file.take()


def _zstd(file: _File) -> Iterator[bytes]:
    """Yield the contents of one or more zstd frames (RFC 8878); skippable frames have none."""
    zstd = import_zstd()
    data = file.take()
    while True:
        decoder = zstd.ZstdDecompressor()
        yield from _decompress(file, data, decoder, "a zstd frame", zstd.ZstdError)
        data = decoder.unused_data or file.take()
        if not data:
            return


def _decompress(
    file: _File, data: bytes, decoder: Any, what: str, error_type: type[Exception]
) -> Iterator[bytes]:
    """Yield the contents of a stream that begins with `data`, in pieces of at most PIECE."""
    while not decoder.eof:
        if not data and decoder.needs_input:
            raise _truncated(what)
        try:
            output = decoder.decompress(data, PIECE)
        except error_type as error:
            raise _corrupt(what, error) from error
        if output:
            yield output
        data = file.take() if decoder.needs_input and not decoder.eof else b""


def _is_skippable(magic: bytes) -> bool:
    """Return whether a magic number is one of the 16 of skippable zstd frames."""
    return magic[1:] == b"\x2a\x4d\x18" and magic[0] >> 4 == 5


def _truncated(what: str) -> InputError:
    return InputError(f"{what} is truncated")


def _corrupt(what: str, error: Exception) -> InputError:
    return InputError(f"{what} is corrupt: {error}")


DECODERS: dict[str, Callable[[_File], Iterator[bytes]]] = {"zst": _zstd, "gz": _gzip, "xz": _xz}
