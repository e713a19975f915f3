# SPDX-License-Identifier: MIT
"""What names stand for: files, records of files, directories and standard input, with format and
compression.

Opens no file.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO

from tvix_build.records.errors import FormatError, InputError

# Format -> whether a file may hold several records.
FORMATS = {
    "binpb": False,
    "binpbs": True,
    "json": False,
    "ndjson": True,
    "txtpb": False,
    "parquet": True,
    "arrow": True,
}
TABLES = ("parquet", "arrow")
SUFFIXES = {**{name: name for name in FORMATS}, "feather": "arrow"}
COMPRESSIONS = ("zst", "gz", "xz")
RECORD = re.compile(r"(.+)\[(\d+)\]", re.DOTALL | re.ASCII)


@dataclass(frozen=True)
class Source:
    """One file to read, or one record of it.

    Attributes:
        path: as given or found; `-` is stdin.
        format: a key of FORMATS.
        compression: one of COMPRESSIONS, or None where the name tells none.
        column: of a table, the column of messages; None for the only one of binary.
        index: the only record to read, from 0; None for all.
        stream: an open binary file to read in place of `path`, which is its name then.
    """

    path: str
    format: str
    compression: str | None
    column: str | None = None
    index: int | None = None
    stream: IO[bytes] | None = None

    @property
    def many(self) -> bool:
        """Whether it may hold several records."""
        return FORMATS[self.format]

    @property
    def is_table(self) -> bool:
        """Whether its records are a column of a table."""
        return self.format in TABLES

    def record_name(self, index: int) -> str:
        """What names a record: FILE[INDEX], or FILE if the format holds one record."""
        return f"{self.path}[{index}]" if self.many else self.path

    def place(self, index: int, offset: int | None) -> str:
        """Where a record is, for people: its name, and the byte of the uncompressed file."""
        at = f" at byte {offset}" if self.many and offset is not None else ""
        return self.record_name(index) + at

    def size(self) -> int | None:
        """Bytes in the file; None where that is not known before reading."""
        if self.stream is not None:
            return None
        try:
            status = os.fstat(sys.stdin.fileno()) if self.path == "-" else os.stat(self.path)
        except (OSError, AttributeError):  # without a descriptor, or closed from the start
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None


def split_name(path: str) -> tuple[str | None, str | None]:
    """The format and the compression that a file's name tells, None for what it does not."""
    name, _, suffix = os.path.basename(path).rpartition(".")
    compression = suffix if suffix in COMPRESSIONS else None
    if compression:
        name, _, suffix = name.rpartition(".")
    return SUFFIXES.get(suffix), compression


def refuse_compressed_table(path: str, format_name: str | None, compression: str | None) -> None:
    """Raise a FormatError for a table with a compression around it: it has its own within."""
    if format_name in TABLES and compression:
        raise FormatError(
            f"expected a .{format_name} file that is not compressed as a whole, found the name "
            f"{path!r}"
        )


def find_source(
    path: str,
    given_format: str | None,
    option: str = "format",
    column: str | None = None,
    *,
    output: bool = False,
) -> Source:
    """The file, stdin or stdout that an argument names, whether it is there or not.

    Args:
        option: what sets the format, for errors.
        output: whether it is to be written.

    Raises:
        FormatError: if neither the name nor `given_format` tells the format, or it is that of
            a table and the name tells a compression.
    """
    if not path:
        raise FormatError("expected the name of a file, found an empty one")
    if given_format is not None and given_format not in FORMATS:
        raise FormatError(f"expected a format ({', '.join(FORMATS)}), found {given_format!r}")
    named_format, compression = (None, None) if path == "-" else split_name(path)
    chosen = given_format or named_format
    if chosen is None:
        if path == "-":
            what = "stdout" if output else "stdin"
        else:
            what = f"the output {path!r}" if output else f"{path!r}"
        raise FormatError(
            f"expected a known format for {what}: give {option} {'|'.join(FORMATS)}"
            + ("" if path == "-" else ", or a name such as x.binpbs or x.json.zst")
        )
    refuse_compressed_table(path, chosen, compression)
    return Source(path, chosen, compression, column)


def find_input(
    name: str,
    given_format: str | None,
    column: str | None = None,
    option: str = "format",
) -> Source:
    """The file, the record of a file (FILE[INDEX]) or stdin that an argument names. A file whose
    own name ends like an index is taken for itself.

    Raises:
        InputError: if there is no such file.
        FormatError: as `find_source`, and for a directory.
    """
    match = None if os.path.lexists(name) else RECORD.fullmatch(name)
    path, index = (match[1], int(match[2])) if match else (name, None)
    if path not in ("", "-"):
        try:
            status = os.stat(path)
        except OSError as error:
            raise InputError(error.strerror or str(error), path) from error
        if stat.S_ISDIR(status.st_mode):
            raise FormatError(f"expected a file to read, found the directory {path}")
    return replace(find_source(path, given_format, option, column), index=index)


def find_sources(
    paths: Sequence[str],
    given_format: str | None,
    column: str | None = None,
    option: str = "format",
) -> list[Source | InputError]:
    """What to read, in order; a directory stands for the files with known formats below it, and
    FILE[INDEX] for one record.

    Returns:
        Sources, and errors in the place of what cannot be read.

    Raises:
        FormatError: for a file of unknown format, and for stdin named twice.
    """
    found: list[Source | InputError] = []
    for path in paths:
        if path != "-" and os.path.isdir(path):
            found += _find_in_folder(path, given_format, column)
            continue
        try:
            found.append(find_input(path, given_format, column, option))
        except InputError as error:
            found.append(error)
    refuse_stdin_twice(found)
    return found


def refuse_stdin_twice(sources: Sequence[Source | InputError]) -> None:
    """Raise a FormatError if stdin is named more than once."""
    if sum(isinstance(source, Source) and source.path == "-" for source in sources) > 1:
        raise FormatError("expected '-' at most once, as stdin can be read only once")


def total_size(sources: Sequence[Source | InputError]) -> int | None:
    """Bytes of all files; None if one is not known."""
    total = 0
    for source in sources:
        size = 0 if isinstance(source, InputError) else source.size()
        if size is None:
            return None
        total += size
    return total


def _find_in_folder(
    folder: str, given_format: str | None, column: str | None
) -> list[Source | InputError]:
    failures: list[OSError] = []
    paths = [path for path in _walk(folder, failures) if _is_wanted(os.path.relpath(path, folder))]
    found: list[Source | InputError] = []
    for failure in failures:
        found.append(InputError(failure.strerror or str(failure), os.fsdecode(failure.filename)))
    if not paths and not failures:
        known = ", ".join(f".{name}" for name in FORMATS)
        reason = f"expected files named {known}, found none in the directory"
        found.append(InputError(reason, folder))
    for path in sorted(paths, key=os.fsencode):
        found.append(find_source(path, given_format, column=column))
    return found


def _is_wanted(path: str) -> bool:
    """Whether a directory stands for this file in it. Of a dataset, what begins with '_' or '.' is
    somebody's own, such as files that Spark has not finished."""
    found, compression = split_name(path)
    if found in TABLES:
        return not compression and not any(part[0] in "_." for part in path.split(os.sep))
    return found is not None


def _walk(folder: str, failures: list[OSError]) -> Iterator[str]:
    """All files below a directory, symbolic links being what they lead to."""
    waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [(folder, ())]
    while waiting:
        parent, above = waiting.pop()
        try:
            status = os.stat(parent)
            here = status.st_dev, status.st_ino
            if here in above:
                raise OSError(errno.ELOOP, "directory contains itself", parent)
            with os.scandir(parent) as entries:
                for entry in entries:
                    if os.path.isdir(entry.path):
                        waiting.append((entry.path, (*above, here)))
                    elif not _is_special(entry.path):
                        yield entry.path
        except OSError as error:
            failures.append(error)


def _is_special(path: str) -> bool:
    """Whether it is a pipe, a device or the like, which a directory does not stand for."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False  # A file that reading it will complain of.
