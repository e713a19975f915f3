# SPDX-License-Identifier: MIT
"""The functions of `tvix_build.records` that take names of files, kinds and schemas."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import IO, TypeAlias, TypeVar

from tvix_build._core.batch import BatchReport
from tvix_build._core.report import Kind, KindLike, Schema, SchemaLike, message_type
from tvix_build.records.batch import Batch
from tvix_build.records.checking import check_source
from tvix_build.records.errors import FormatError, InputError
from tvix_build.records.reading import read_messages
from tvix_build.records.source import FORMATS, Source, find_source, find_sources, total_size
from tvix_build.records.writing import Writer, write_target

Path: TypeAlias = "str | os.PathLike[str]"
Progress: TypeAlias = "Callable[[int, int | None], object]"
Item = TypeVar("Item")


def read(
    file: Path | IO[bytes],
    *,
    kind: KindLike = Kind.BUILD_REQUEST,
    schema: SchemaLike = Schema.TVIX_BUILD_V1,
    format: str | None = None,
    column: str | None = None,
    progress: Progress | None = None,
) -> Iterator[Batch]:
    """Read a file as batches of records, in order and in constant memory.

    Args:
        file: a path; FILE[INDEX] for one record of a file; a directory for all files of known
            formats below it; `-` for the standard input; or an open binary file.
        kind: what the records are.
        schema: the schema of the records.
        format: the format of the file, whatever its name; needed where no name tells it.
        column: the column of messages of a table; None for the only binary column.
        progress: called after each batch with the bytes of all files that have been read, and with
            how many there are, or None if that is not known.

    Returns:
        An iterator over batches. Use each before or after the next one, as you like.

    Raises:
        FormatError: if the file has no known format.
        InputError: from the iterator, if a file cannot be read to its end. All records before the
            damage have been yielded then.
        MissingPackageError: from the iterator, if the format needs a package that is missing.
    """
    sources = _sources(file, format, column)
    wanted = message_type(Kind(kind), Schema(schema))
    return _chain(sources, lambda source: read_messages(source, wanted), _itself, progress)


def check(
    file: Path | IO[bytes],
    *,
    kind: KindLike = Kind.BUILD_REQUEST,
    schema: SchemaLike = Schema.TVIX_BUILD_V1,
    format: str | None = None,
    column: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[Batch, BatchReport]]:
    """Read a file as batches of records, and check them in threads while reading on.

    Args:
        file: as for `read`, like all arguments but `threads`.
        kind: what the records are.
        schema: the schema of the records.
        format: the format of the file.
        column: the column of messages of a table.
        progress: called after each batch.
        threads: at most how many check; None for one a CPU. More than 4 are not used.

    Returns:
        An iterator over the batches, in order, each with its report.

    Raises:
        FormatError, InputError, MissingPackageError: as `read`.
    """
    sources = _sources(file, format, column)
    wanted = message_type(Kind(kind), Schema(schema))
    return _chain(sources, lambda source: check_source(source, wanted, threads), _first, progress)


def open_writer(
    file: Path,
    *,
    kind: KindLike = Kind.BUILD_REQUEST,
    schema: SchemaLike = Schema.TVIX_BUILD_V1,
    format: str | None = None,
    column: str | None = None,
) -> AbstractContextManager[Writer]:
    """Open a file for records, which is written atomically: complete, or absent after an exception.

    Args:
        file: a path, whose name says format and compression; `-` for the standard output.
        kind: what the records are.
        schema: the schema of the records.
        format: the format of the file, whatever its name.
        column: what the column of a table is called; None for a name after the kind.

    Returns:
        A context manager that gives a `Writer`.

    Raises:
        FormatError: if the name tells no known format.
        OutputError: on entering or leaving, if the file cannot be written.
        MissingPackageError: on entering, if the format needs a package that is missing.
    """
    target = find_source(os.fspath(file), format, column=column, output=True)
    return write_target(target, message_type(Kind(kind), Schema(schema)))


def _sources(
    file: Path | IO[bytes], format: str | None, column: str | None
) -> list[Source | InputError]:
    if isinstance(file, (str, os.PathLike)):
        return find_sources([os.fspath(file)], format, column)
    if format not in FORMATS:
        known = ", ".join(FORMATS)
        raise FormatError(f"expected a format for an open file ({known}), found {format!r}")
    name = getattr(file, "name", None)
    path = name if isinstance(name, str) else "<stream>"
    return [Source(path, format, None, column, stream=file)]


def _chain(
    sources: list[Source | InputError],
    read_one: Callable[[Source], Iterator[Item]],
    batch_of: Callable[[Item], Batch],
    progress: Progress | None,
) -> Iterator[Item]:
    """The items of all sources; calls `progress`."""
    total = total_size(sources) if progress else None
    before = 0
    for source in sources:
        if isinstance(source, InputError):
            raise source
        consumed = 0
        for item in read_one(source):
            yield item
            consumed = batch_of(item).consumed
            if progress:
                progress(before + consumed, total)
        before += source.size() or consumed


def _itself(batch: Batch) -> Batch:
    return batch


def _first(item: tuple[Batch, BatchReport]) -> Batch:
    return item[0]
