# SPDX-License-Identifier: MIT
"""Reports the records that a command refuses, such as those without a canonical encoding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tvix_build import BatchReport, Report
from tvix_build._core.report import in_words
from tvix_build.cli.hints import find_hint
from tvix_build.cli.terminal import Monitor
from tvix_build.records import Batch
from tvix_build.records.source import Source

REFUSED_SHOWN = 20


class RefusedError(Exception):
    """Some records have no canonical encoding, so there is no output."""


class Refusals:
    """Counts refused records, and reports the first `limit` of them on stderr. With `hints`, for
    commands with the options --kind and --schema, it suggests other values of these options."""

    def __init__(self, monitor: Monitor, limit: int | None, *, hints: bool = False) -> None:
        self._monitor = monitor
        self._limit = limit
        self._hints = hints
        self.count: int = 0

    def add(self, batch: Batch, i: int, report: Report) -> None:
        """Report record i, for which the engine returned `report`."""
        self.add_reasons(batch, i, self._reasons(batch, i, report))

    def _reasons(self, batch: Batch, i: int, report: Report) -> Iterator[str]:
        yield from in_words(report)
        hint = find_hint(batch, i, report) if self._hints else None
        if hint:
            yield hint

    def add_reasons(self, batch: Batch, i: int, reasons: Iterable[str]) -> None:
        """Report record i, with one line per reason."""
        self.count += 1
        if self._limit is not None and self.count > self._limit:
            return
        for reason in reasons:
            self._monitor.error(f"{batch.place(i)}: {reason}")

    def finish(self, source: Source, target: Source) -> None:
        """Raise RefusedError if records were refused."""
        if self.count:
            what = "1 record has" if self.count == 1 else f"{self.count} records have"
            state = output_state(target.path)
            self._monitor.error(f"{source.path}: {what} no canonical encoding; {state}")
            raise RefusedError


def output_state(target: str) -> str:
    """Return what a command did with its output when it refused a record."""
    if target == "-":
        return "the output ends before the first of them"
    return "the output was not written"


def refused(batch: Batch, reports: BatchReport) -> Iterator[tuple[int, Report]]:
    """Yield the records of a batch that have no canonical encoding, with their reports."""
    for i in reports.invalid:
        report = batch.report(i, reports[i])
        if report.digest is None:
            yield i, report
