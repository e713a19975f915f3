# SPDX-License-Identifier: MIT
"""The functions of `tvix_build.records` that take file names, kinds and schemas."""

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
    """Read a file in batches of records, in order and in constant memory.

    Args:
        file: a path; FILE[INDEX] for one record of a file; a directory for all files of known
            formats below it; `-` for standard input; or an open binary file.
        kind: the kind of the records.
        schema: the schema of the records.
        format: the format of the file; by default the format of the file name.
        column: the column of messages in a table; None for the only binary column.
        progress: called after each batch with the number of bytes read from all files, and with
            their total size, or None if it is unknown.

    Returns:
        An iterator over batches. A batch may be used after the next one has been read.

    Raises:
        FormatError: if the format of the file is unknown.
        InputError: from the iterator, if a file cannot be read to its end. All records before the
            damage have been yielded.
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
    """Read a file in batches of records, and check them in threads while reading.

    Args:
        file: as for `read`, like all arguments except `threads`.
        kind: the kind of the records.
        schema: the schema of the records.
        format: the format of the file.
        column: the column of messages of a table.
        progress: called after each batch.
        threads: the maximum number of threads that check; by default the number of CPUs. At most 4
            are used.

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
        file: a path, whose name determines the format and the compression; `-` for standard output.
        kind: the kind of the records.
        schema: the schema of the records.
        format: the format of the file; by default the format of the file name.
        column: the name of the column in a table; None for request, build or directory.

    Returns:
        A context manager that returns a `Writer`.

    Raises:
        FormatError: if the format of the file is unknown.
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
    """Yield the items of all sources, and call `progress`."""
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
