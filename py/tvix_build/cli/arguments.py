# SPDX-License-Identifier: MIT
"""Parses arguments that name files and records to read, and files to write."""

from __future__ import annotations

from collections.abc import Sequence

from tvix_build import BatchReport, Report
from tvix_build._core.report import MessageType
from tvix_build.cli.terminal import Monitor, stdout_is_terminal
from tvix_build.records import Batch, FormatError, InputError
from tvix_build.records.reading import read_messages
from tvix_build.records.source import Source, find_input, find_source, find_sources

INPUT_FORMAT = "--input-format"
OUTPUT_FORMAT = "--output-format"
BINARY_FORMATS = ("binpb", "binpbs", "parquet", "arrow")

Record = tuple[bytes, Report]


def input_source(name: str, input_format: str | None, column: str | None) -> Source:
    """Return the source that an argument names: a file, a record of a file, or stdin.

    Raises:
        InputError: if the file does not exist.
        FormatError: if the format is unknown, or the argument names a directory.
    """
    return find_input(name, input_format, column, INPUT_FORMAT)


def input_sources(
    names: Sequence[str], input_format: str | None, column: str | None
) -> list[Source | InputError]:
    """Return the sources that arguments name, including the files in directories.

    Returns:
        The sources. An input that cannot be read is an error instead.

    Raises:
        FormatError: if a format is unknown, or two arguments name stdin.
    """
    return find_sources(names, input_format, column, INPUT_FORMAT)


def output_target(name: str, output_format: str | None, column: str | None = None) -> Source:
    """Return the file that an argument names, or stdout.

    Raises:
        FormatError: if the format is unknown, or a binary format would be written to a terminal.
    """
    target = find_source(name, output_format, OUTPUT_FORMAT, column, output=True)
    if name == "-" and target.format in BINARY_FORMATS and stdout_is_terminal():
        raise FormatError(
            f"{target.format} is a binary format, and stdout is a terminal: write to a file, "
            "redirect stdout, or pass --output-format ndjson"
        )
    return target


def read_record(source: Source, kind: MessageType) -> Record:
    """Return the bytes of the only record of a source, and its report.

    Raises:
        InputError: if the source has no record, or several.
    """
    batch = read_single(source, kind)
    reports: BatchReport = batch.check(threads=1)
    return batch.record(0), batch.report(0, reports[0])


def read_single(source: Source, kind: MessageType) -> Batch:
    """Return the only record of a source.

    Raises:
        InputError: if the source has no record, or several.
    """
    single: Batch | None = None
    Monitor().reading(source, kind)
    for batch in read_messages(source, kind):
        if single is not None or len(batch) > 1:
            name = source.record_name(0)
            reason = f"expected one record, found several: choose one, such as {name}"
            raise InputError(reason, source.path)
        single = batch
    if single is None:
        raise InputError("expected one record, found none", source.path)
    return single
