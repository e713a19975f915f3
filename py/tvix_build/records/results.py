# SPDX-License-Identifier: MIT
"""What a validation found: one JSON line or row of a table a record, and a summary for people.

Looks closely only at what is invalid; the rest is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from rich.table import Table

from tvix_build import BatchReport, Report, ViolationCode
from tvix_build._core.text import json_line
from tvix_build.cli.extras import extra
from tvix_build.cli.terminal import Console, printable
from tvix_build.records.output import Output
from tvix_build.records.reading import Batch
from tvix_build.records.sources import TABLES, Source, refuse_compressed_table, split_name

EXAMPLES = 3
MESSAGE_LIMIT = 200
PIECE = 1 << 18  # characters of lines that are written at once


WriteResults: TypeAlias = Callable[[Source, Batch, BatchReport, "Summary"], None]
"""Writes what is said of a batch of records of a source, and counts it in the summary."""


@contextmanager
def result_output(path: str | None) -> Iterator[WriteResults]:
    """Open a file for results, a table or JSON lines, whole or not there; see `Output`. Without a
    path they are counted only."""
    if path is None:
        yield lambda source, batch, reports, summary: summary.add(source, batch, reports)
        return
    format_name, compression = (None, None) if path == "-" else split_name(path)
    refuse_compressed_table(path, format_name, compression)
    with Output(path, compression) as output:
        if format_name in TABLES:
            with extra("arrow"):
                from tvix_build.records.table_output import RESULTS, TableOutput, result_rows
            with TableOutput(output, format_name, RESULTS) as table:
                yield lambda *said: table.write(result_rows(*said))
        else:
            yield lambda *said: output.write_all(json_lines(*said))


def json_lines(
    source: Source, batch: Batch, reports: BatchReport, summary: Summary
) -> Iterator[bytes]:
    """One JSON object a record, in order, in pieces of many lines; counts them in the summary."""
    summary.count(batch, reports)
    head = f'{{"source": {json_line(source.path)}, "index": '
    digests = bytes(reports.digests).hex()
    canonical = reports.canonical
    invalid = set(reports.invalid)
    lines = []
    size = 0
    for i in range(len(batch)):
        if i in invalid:
            report = batch.report(i, reports[i])
            summary.add_invalid(source, batch, i, report)
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
    """The line of an invalid record from the value of `valid` on."""
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


@dataclass
class CodeCount:
    """How many records have a violation of one code, and the first of them."""

    records: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass
class Summary:
    """Counts over all records, and the files that failed."""

    records: int = 0
    valid: int = 0
    canonical: int = 0
    failed_files: int = 0
    codes: dict[ViolationCode, CodeCount] = field(default_factory=dict)

    @property
    def invalid(self) -> int:
        """Records that are not valid."""
        return self.records - self.valid

    @property
    def status(self) -> int:
        """The exit status that follows."""
        return 2 if self.failed_files else 1 if self.invalid else 0

    def count(self, batch: Batch, reports: BatchReport) -> None:
        """Count a batch; its invalid records are to be added one by one."""
        self.records += len(batch)
        self.valid += reports.valid_count
        self.canonical += reports.canonical_count

    def add(self, source: Source, batch: Batch, reports: BatchReport) -> None:
        """Count a batch and its invalid records."""
        self.count(batch, reports)
        for i in reports.invalid:
            self.add_invalid(source, batch, i, batch.report(i, reports[i]))

    def add_invalid(self, source: Source, batch: Batch, i: int, report: Report) -> None:
        """Count what is wrong with an invalid record."""
        seen = set()
        for violation in report.violations:
            if violation.code in seen:
                continue
            seen.add(violation.code)
            count = self.codes.setdefault(violation.code, CodeCount())
            count.records += 1
            if len(count.examples) < EXAMPLES:
                place = batch.place(source, i)
                path = f"{violation.path}: " if violation.path else ""
                message = printable(violation.message, MESSAGE_LIMIT)
                count.examples.append(f"{printable(place)}: {path}{message}")

    def print(self, console: Console) -> None:
        """Print a table of the counts, then the first examples of each code."""
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column()
        table.add_column(justify="right")
        for name, count, style in self._rows():
            table.add_row(name, f"{count:,}", style=style)
        console.print(table, highlight=False)
        for code, counted in self._ordered():
            console.say("")
            console.say(f"{code.value}, first examples:", style="bold")
            for example in counted.examples:
                console.say(f"  {example}")

    def _rows(self) -> Iterator[tuple[str, int, str | None]]:
        yield "records", self.records, None
        yield "valid", self.valid, "green" if self.valid else None
        yield "canonical", self.canonical, None
        yield "invalid", self.invalid, "bold red" if self.invalid else None
        for code, counted in self._ordered():
            yield f"  {code.value}", counted.records, "red"
        if self.failed_files:
            yield "files not read to their end", self.failed_files, "bold red"

    def _ordered(self) -> list[tuple[ViolationCode, CodeCount]]:
        order = {code: place for place, code in enumerate(ViolationCode)}
        return sorted(self.codes.items(), key=lambda item: order[item[0]])
