# SPDX-License-Identifier: MIT
"""Records that a command refuses, such as those without a canonical encoding: nothing is dropped
silently."""

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
    """Reports refused records on stderr, the first `limit` of them, and counts them all. With
    `hints`, for commands with the options --kind and --schema, it suggests others."""

    def __init__(self, monitor: Monitor, limit: int | None, *, hints: bool = False) -> None:
        self._monitor = monitor
        self._limit = limit
        self._hints = hints
        self.count: int = 0

    def add(self, batch: Batch, i: int, report: Report) -> None:
        """Report record i, of which the engine says `report`."""
        self.add_reasons(batch, i, self._reasons(batch, i, report))

    def _reasons(self, batch: Batch, i: int, report: Report) -> Iterator[str]:
        yield from in_words(report)
        hint = find_hint(batch, i, report) if self._hints else None
        if hint:
            yield hint

    def add_reasons(self, batch: Batch, i: int, reasons: Iterable[str]) -> None:
        """Report record i, a line for each reason."""
        self.count += 1
        if self._limit is not None and self.count > self._limit:
            return
        for reason in reasons:
            self._monitor.error(f"{batch.place(i)}: {reason}")

    def finish(self, source: Source, target: Source) -> None:
        """Raise RefusedError if there were any."""
        if self.count:
            what = "1 record has" if self.count == 1 else f"{self.count} records have"
            left = "the output ends before" if target.path == "-" else "nothing written"
            self._monitor.error(f"{source.path}: {what} no canonical encoding, {left}")
            raise RefusedError


def refused(batch: Batch, reports: BatchReport) -> Iterator[tuple[int, Report]]:
    for i in reports.invalid:
        report = batch.report(i, reports[i])
        if report.digest is None:
            yield i, report
