# SPDX-License-Identifier: MIT
"""The command `validate`: checks records, and prints a summary."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

from rich.table import Table

from tvix_build import BatchReport, Report, ViolationCode
from tvix_build._core.hints import SIGNS
from tvix_build._core.report import MessageType, sentence
from tvix_build.cli.arguments import input_sources
from tvix_build.cli.command import verbosity
from tvix_build.cli.hints import find_hint
from tvix_build.cli.terminal import Console, Monitor, printable, stdout_console
from tvix_build.records import Batch, InputError, ResultWriter, open_results
from tvix_build.records.checking import check_source
from tvix_build.records.output import output_errors
from tvix_build.records.source import Source, total_size

EXAMPLES = 3
MESSAGE_LIMIT = 200


def run(
    files: tuple[str, ...],
    kind_of: Callable[[Source], MessageType],
    column: str | None,
    input_format: str | None,
    output: str | None,
) -> int:
    """Run the command, and return its exit status."""
    sources = input_sources(files, input_format, column)
    summary = Summary()
    alone = output == "-"
    with (
        nullcontext() if output is None else open_results(output) as results,
        Monitor(total_size(sources), results=alone) as monitor,
    ):
        for source in sources:
            try:
                _validate(source, kind_of, results, summary, monitor)
            except InputError as error:
                summary.failed_files += 1
                monitor.error(error)
    read = summary.records or not summary.failed_files
    if read and not alone and verbosity() >= 0:
        with output_errors("standard output"):
            summary.print(stdout_console())
            sys.stdout.flush()
    return summary.status


def _validate(
    source: Source | InputError,
    kind_of: Callable[[Source], MessageType],
    results: ResultWriter | None,
    summary: Summary,
    monitor: Monitor,
) -> None:
    if isinstance(source, InputError):
        raise source
    try:
        kind = kind_of(source)
        monitor.reading(source, kind)
        for batch, reports in check_source(source, kind):
            summary.count(batch, reports)
            on_invalid = partial(summary.add_invalid, batch)
            if results is None:
                for i in reports.invalid:
                    on_invalid(i, batch.report(i, reports[i]))
            else:
                results.write(batch, reports, on_invalid=on_invalid)
            monitor.show(batch.consumed, batch.unpacked, summary.records, summary.invalid)
    finally:
        monitor.next_file()


@dataclass
class CodeCount:
    """The number of records that have a violation of one code, and the first of them."""

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
        """The number of invalid records."""
        return self.records - self.valid

    @property
    def status(self) -> int:
        """The exit status."""
        return 2 if self.failed_files else 1 if self.invalid else 0

    def count(self, batch: Batch, reports: BatchReport) -> None:
        """Count a batch. The caller adds its invalid records with `add_invalid`."""
        self.records += len(batch)
        self.valid += reports.valid_count
        self.canonical += reports.canonical_count

    def add_invalid(self, batch: Batch, i: int, report: Report) -> None:
        """Count the violations of an invalid record."""
        seen = set()
        for violation in report.violations:
            if violation.code in seen:
                continue
            seen.add(violation.code)
            count = self.codes.setdefault(violation.code, CodeCount())
            count.records += 1
            if len(count.examples) < EXAMPLES:
                message = printable(violation.message, MESSAGE_LIMIT)
                example = sentence(printable(batch.place(i)), violation.path, message)
                hint = find_hint(batch, i, report) if violation.code in SIGNS else None
                count.examples.append(f"{example} ({hint})" if hint else example)

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
            yield "files not read to the end", self.failed_files, "bold red"

    def _ordered(self) -> list[tuple[ViolationCode, CodeCount]]:
        order = {code: place for place, code in enumerate(ViolationCode)}
        return sorted(self.codes.items(), key=lambda item: order[item[0]])
