# SPDX-License-Identifier: MIT
"""Writes the results of checks: one JSON line or table row per record.

Reports are created for invalid records only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from tvix_build._core.batch import BatchReport
from tvix_build._core.report import Report
from tvix_build._core.text import json_line
from tvix_build.records.batch import Batch
from tvix_build.records.errors import needed_for
from tvix_build.records.output import Output
from tvix_build.records.source import TABLES, refuse_compressed_table, split_name

PIECE = 1 << 18  # characters of lines that are written together

OnInvalid: TypeAlias = Callable[[int, Report], object]
"""Called with the index in the batch and the report of an invalid record."""


def _ignore(_i: int, _report: Report) -> None:
    """Ignore an invalid record."""


class ResultWriter:
    """Writes results to the file that `open_results` opened."""

    def __init__(self, write: Callable[[Batch, BatchReport, OnInvalid], None]) -> None:
        self._write = write

    def write(self, batch: Batch, report: BatchReport, *, on_invalid: OnInvalid = _ignore) -> None:
        """Write the result of each record of a batch.

        Args:
            batch: the records.
            report: the result of `batch.check()`.
            on_invalid: called with the index in the batch and the report of each invalid record.

        Raises:
            OutputError: if the file cannot be written.
            BrokenPipeError: if the reader of a pipe has closed it.
        """
        self._write(batch, report, on_invalid)


@contextmanager
def open_results(path: str) -> Iterator[ResultWriter]:
    """Open a file for the results of checks, which is written atomically: complete, or absent after
    an exception.

    Args:
        path: the file; `-` for standard output. A name that ends in .parquet, .arrow or .feather is
            a table. Any other file has one JSON object per line, and is compressed if its name ends
            in .zst, .gz or .xz.

    Raises:
        FormatError: if the name is that of a compressed table.
        OutputError: if the file cannot be written.
        MissingPackageError: if the format needs a package that is missing.
    """
    format_name, compression = (None, None) if path == "-" else split_name(path)
    refuse_compressed_table(path, format_name, compression)
    with Output(path, compression) as output:
        if format_name in TABLES:
            with needed_for(f"a .{format_name} file", "'tvix-build[arrow]'"):
                from tvix_build.records.table_output import RESULTS, TableOutput, result_rows
            with TableOutput(output, format_name, RESULTS) as table:
                yield ResultWriter(lambda *result: table.write(result_rows(*result)))
        else:
            yield ResultWriter(lambda *result: output.write_all(_json_lines(*result)))


def _json_lines(batch: Batch, reports: BatchReport, on_invalid: OnInvalid) -> Iterator[bytes]:
    """Yield one JSON object per record, in order, in pieces of many lines."""
    head = f'{{"source": {json_line(batch.path)}, "index": '
    digests = bytes(reports.digests).hex()
    canonical = reports.canonical
    invalid = set(reports.invalid)
    lines = []
    size = 0
    for i in range(len(batch)):
        if i in invalid:
            report = batch.report(i, reports[i])
            on_invalid(i, report)
            rest = _invalid_rest(report)
        else:
            flag = "true" if canonical[i] else "false"
            digest = digests[64 * i : 64 * i + 64]
            rest = f'true, "canonical": {flag}, "digest": "{digest}", "violations": []}}\n'
        offset = batch.offset(i)
        where = f'{batch.first + i}, "offset": {"null" if offset is None else offset}'
        lines.append(f'{head}{where}, "valid": {rest}')
        size += len(rest)
        if size > PIECE:
            yield "".join(lines).encode()
            lines, size = [], 0
    yield "".join(lines).encode()


def _invalid_rest(report: Report) -> str:
    """Return the line of an invalid record from the value of `valid` on."""
    violations = ", ".join(
        f'{{"code": "{violation.code.value}", "path": "{violation.path}", '
        f'"message": {json_line(violation.message)}}}'
        for violation in report.violations
    )
    digest = "null" if report.digest is None else f'"{report.digest.hex()}"'
    rest = f'false, "canonical": false, "digest": {digest}, "violations": [{violations}]'
    if report.violation_count > len(report.violations):
        rest += f', "violation_count": {report.violation_count}'
    return rest + "}\n"
