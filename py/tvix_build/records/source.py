# SPDX-License-Identifier: MIT
"""Resolves names to files, records of files, directories and standard input, with their format and
compression.

It does not open files.
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
    """A file to read, or one record of it.

    Attributes:
        path: the path; `-` is stdin.
        format: a key of FORMATS.
        compression: one of COMPRESSIONS, or None if the name has no such suffix.
        column: the column of messages in a table; None for the only binary column.
        index: the index of the only record to read, from 0; None for all records.
        stream: an open binary file to read instead of opening `path`, which is its name.
    """

    path: str
    format: str
    compression: str | None
    column: str | None = None
    index: int | None = None
    stream: IO[bytes] | None = None

    @property
    def many(self) -> bool:
        """Whether the format can hold several records."""
        return FORMATS[self.format]

    @property
    def is_table(self) -> bool:
        """Whether the file is a table."""
        return self.format in TABLES

    def record_name(self, index: int) -> str:
        """Return the name of a record: FILE[INDEX], or FILE if the format holds one record."""
        return f"{self.path}[{index}]" if self.many else self.path

    def place(self, index: int, offset: int | None) -> str:
        """Return the place of a record as text: its name and its offset in the uncompressed
        file."""
        at = f" at byte {offset}" if self.many and offset is not None else ""
        return self.record_name(index) + at

    def size(self) -> int | None:
        """Return the size of the file in bytes; None if it is unknown before reading."""
        if self.stream is not None:
            return None
        try:
            status = os.fstat(sys.stdin.fileno()) if self.path == "-" else os.stat(self.path)
        except (OSError, AttributeError):  # without a descriptor, or closed from the start
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None


def split_name(path: str) -> tuple[str | None, str | None]:
    """Return the format and the compression of a file name; None if it has no such suffix."""
    name, _, suffix = os.path.basename(path).rpartition(".")
    compression = suffix if suffix in COMPRESSIONS else None
    if compression:
        name, _, suffix = name.rpartition(".")
    return SUFFIXES.get(suffix), compression


def refuse_compressed_table(path: str, format_name: str | None, compression: str | None) -> None:
    """Raise a FormatError for a compressed table, because tables have internal compression."""
    if format_name in TABLES and compression:
        raise FormatError(
            f"{path!r}: a .{format_name} file cannot be compressed, because it has internal "
            "compression"
        )


def find_source(
    path: str,
    given_format: str | None,
    option: str | None = "format",
    column: str | None = None,
    *,
    output: bool = False,
) -> Source:
    """Return the file, stdin or stdout that an argument names. The file may not exist.

    Args:
        option: the name of the option for the format, for errors; None if there is none.
        output: whether the file will be written.

    Raises:
        FormatError: if neither the name nor `given_format` determines the format, or the name is
            that of a compressed table.
    """
    if not path:
        raise FormatError("expected a file name, found an empty string")
    if given_format is not None and given_format not in FORMATS:
        raise FormatError(f"expected a format ({', '.join(FORMATS)}), found {given_format!r}")
    named_format, compression = (None, None) if path == "-" else split_name(path)
    chosen = given_format or named_format
    if chosen is None:
        if path == "-":
            what = "stdout" if output else "stdin"
        else:
            what = f"the output {path!r}" if output else f"{path!r}"
        remedies = [] if option is None else [f"{option} {'|'.join(FORMATS)}"]
        if path != "-" or option is None:
            remedies.append("a name such as x.binpbs or x.json.zst")
        raise FormatError(f"the format of {what} is unknown: pass {', or '.join(remedies)}")
    refuse_compressed_table(path, chosen, compression)
    return Source(path, chosen, compression, column)


def find_input(
    name: str,
    given_format: str | None,
    column: str | None = None,
    option: str | None = "format",
) -> Source:
    """Return the file, the record of a file (FILE[INDEX]) or stdin that an argument names. If a
    file with the name FILE[INDEX] exists, it is returned instead.

    Raises:
        InputError: if the file does not exist.
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
    """Return the sources that paths name, in order: a file, FILE[INDEX] for one record, or a
    directory for all files of known formats below it.

    Returns:
        The sources. An input that cannot be read is an error instead.

    Raises:
        FormatError: if the format of a file is unknown, or stdin is named twice.
    """
    found: list[Source | InputError] = []
    for path in paths:
        if path != "-" and os.path.isdir(path):
            found += _find_in_directory(path, given_format, column)
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
        raise FormatError("expected '-' at most once, because stdin can be read only once")


def total_size(sources: Sequence[Source | InputError]) -> int | None:
    """Return the size of all files in bytes; None if the size of a file is unknown."""
    total = 0
    for source in sources:
        size = 0 if isinstance(source, InputError) else source.size()
        if size is None:
            return None
        total += size
    return total


def _find_in_directory(
    directory: str, given_format: str | None, column: str | None
) -> list[Source | InputError]:
    failures: list[OSError] = []
    paths = [
        path for path in _walk(directory, failures) if _is_wanted(os.path.relpath(path, directory))
    ]
    found: list[Source | InputError] = []
    for failure in failures:
        found.append(InputError(failure.strerror or str(failure), os.fsdecode(failure.filename)))
    if not paths and not failures:
        known = ", ".join(f".{name}" for name in FORMATS)
        reason = f"expected files named {known}, found none in the directory"
        found.append(InputError(reason, directory))
    for path in sorted(paths, key=os.fsencode):
        found.append(find_source(path, given_format, column=column))
    return found


def _is_wanted(path: str) -> bool:
    """Return whether to read this file in a directory. In a dataset, names that begin with '_' or
    '.' are internal, such as unfinished files of Spark."""
    found, compression = split_name(path)
    if found in TABLES:
        return not compression and not any(part[0] in "_." for part in path.split(os.sep))
    return found is not None


def _walk(directory: str, failures: list[OSError]) -> Iterator[str]:
    """Yield all files below a directory, following symbolic links."""
    waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [(directory, ())]
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
    """Return whether a file is a pipe, a device or another special file."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False  # Reading the file reports the error.
