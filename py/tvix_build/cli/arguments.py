# SPDX-License-Identifier: MIT
"""What the arguments of commands name: files and records to read, and files to write."""

from __future__ import annotations

from collections.abc import Sequence

from tvix_build import BatchReport, Report
from tvix_build._core.report import MessageType
from tvix_build.records import InputError
from tvix_build.records.reading import read_messages
from tvix_build.records.source import Source, find_input, find_source, find_sources

INPUT_FORMAT = "--input-format"
OUTPUT_FORMAT = "--output-format"

Record = tuple[bytes, Report]


def input_source(name: str, input_format: str | None, column: str | None) -> Source:
    """The file, the record of a file or stdin that an argument names.

    Raises:
        InputError: if there is no such file.
        FormatError: if its format is not known, or it is a directory.
    """
    return find_input(name, input_format, column, INPUT_FORMAT)


def input_sources(
    names: Sequence[str], input_format: str | None, column: str | None
) -> list[Source | InputError]:
    """The files, records of files or stdin that arguments name, with the files in directories.

    Returns:
        Sources, and errors in the place of what cannot be read.

    Raises:
        FormatError: if a format is not known, or stdin is named twice.
    """
    return find_sources(names, input_format, column, INPUT_FORMAT)


def output_target(name: str, output_format: str | None, column: str | None = None) -> Source:
    """The file or stdout that an argument names.

    Raises:
        FormatError: if its format is not known.
    """
    return find_source(name, output_format, OUTPUT_FORMAT, column, output=True)


def read_record(source: Source, kind: MessageType) -> Record:
    """The bytes of the only record of a source, and its report.

    Raises:
        InputError: if there is none, or several.
    """
    record: Record | None = None
    for batch in read_messages(source, kind):
        if record is not None or len(batch) > 1:
            name = source.record_name(0)
            reason = f"expected one record, found several: name one, such as {name}"
            raise InputError(reason, source.path)
        reports: BatchReport = batch.check(threads=1)
        record = batch.record(0), batch.report(0, reports[0])
    if record is None:
        raise InputError("expected one record, found none", source.path)
    return record
