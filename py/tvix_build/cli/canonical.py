# SPDX-License-Identifier: MIT
"""What `canonicalize` and `digest` do with records: write them anew, or their digests.

A record without a canonical encoding is refused aloud; nothing is dropped silently.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

import click

from tvix_build import BatchReport, Report, canonicalize_batch
from tvix_build._core.report import MessageType
from tvix_build.cli.terminal import Monitor
from tvix_build.records.checking import check_records
from tvix_build.records.output import Output
from tvix_build.records.reading import Batch, Progress
from tvix_build.records.sources import Source
from tvix_build.records.writing import record_output

REFUSED_SHOWN = 20


class RefusedError(Exception):
    """Some records have no canonical encoding, so there is no output."""


class Refusals:
    """Reports refused records on stderr, the first `limit` of them, and counts them all."""

    def __init__(self, monitor: Monitor, limit: int | None) -> None:
        self._monitor = monitor
        self._limit = limit
        self.count = 0

    def add(self, source: Source, batch: Batch, i: int, report: Report) -> None:
        """Report record i, of which the engine says `report`."""
        self.add_reasons(source, batch, i, _in_words(report))

    def add_reasons(self, source: Source, batch: Batch, i: int, reasons: Iterable[str]) -> None:
        """Report record i, a line for each reason."""
        self.count += 1
        if self._limit is not None and self.count > self._limit:
            return
        for reason in reasons:
            self._monitor.error(f"{batch.place(source, i)}: {reason}")

    def finish(self, source: Source, target: Source) -> None:
        """Raise RefusedError if there were any."""
        if self.count:
            what = "1 record has" if self.count == 1 else f"{self.count} records have"
            left = "the output ends before" if target.path == "-" else "nothing written"
            self._monitor.error(f"{source.path}: {what} no canonical encoding, {left}")
            raise RefusedError


def write_canonical(source: Source, target: Source, kind: MessageType, monitor: Monitor) -> None:
    """Write the canonical encoding of all records of `source` to `target`.

    Raises:
        InputError, OutputError: as reading and writing go; there is no output then.
        RefusedError: if a record has no canonical encoding; all such have been reported.
        click.UsageError: if `target` can hold but one record and there are more or none.
    """
    refusals = Refusals(monitor, REFUSED_SHOWN)
    count = 0

    def take(batch: Batch, progress: Progress, reports: BatchReport) -> None:
        nonlocal count
        for i, report in _refused(batch, reports):
            refusals.add(source, batch, i, report)
        count += len(batch)
        if count > 1 and not target.many:
            raise _not_one(source, target, "more")
        if not refusals.count:
            write(_canonical_messages(batch, reports, kind))
        monitor.show(progress.consumed, progress.offset, count, refusals.count)

    with record_output(target, kind) as write:
        check_records(source, kind, take)
        if not count and not target.many:
            raise _not_one(source, target, "none")
        refusals.finish(source, target)


def write_digests(
    source: Source,
    output: Output,
    kind: MessageType,
    refusals: Refusals,
    keep: Callable[[list[bytes]], object] | None = None,
) -> None:
    """Write `HEX  SOURCE[INDEX]` for each record that has a digest, `HEX  SOURCE` for the one of a
    one-message file.

    Args:
        keep: gets the records of a batch that have one, before their digests are written.

    Raises:
        InputError, OutputError: as reading and writing go.
    """
    escape, name = line_name(source.path)

    def take(batch: Batch, _: Progress, reports: BatchReport) -> None:
        digests = bytes(reports.digests).hex()
        refused = dict(_refused(batch, reports))
        lines = []
        if keep is not None:
            keep([batch.record(i) for i in range(len(batch)) if i not in refused])
        for i in range(len(batch)):
            if i in refused:
                refusals.add(source, batch, i, refused[i])
                continue
            index = b"[%d]" % (batch.first + i) if source.many else b""
            digest = digests[64 * i : 64 * i + 64].encode()
            lines.append(b"%s%s  %s%s\n" % (escape, digest, name, index))
        output.write(b"".join(lines))

    check_records(source, kind, take)


def _not_one(source: Source, target: Source, found: str) -> click.UsageError:
    return click.UsageError(
        f"expected one record, as a .{target.format} file holds, found {found} in "
        f"{source.path}: write binpbs or ndjson"
    )


def _in_words(report: Report) -> Iterator[str]:
    """The violations of a record."""
    for violation in report.violations:
        path = f"{violation.path}: " if violation.path else ""
        yield f"{violation.code.value}: {path}{violation.message}"
    left = report.violation_count - len(report.violations)
    if left:
        yield f"and {left} more violations"


def _refused(batch: Batch, reports: BatchReport) -> Iterator[tuple[int, Report]]:
    for i in reports.invalid:
        report = batch.report(i, reports[i])
        if report.digest is None:
            yield i, report


def _canonical_messages(batch: Batch, reports: BatchReport, kind: MessageType) -> Iterator[bytes]:
    if reports.canonical_count == len(batch):
        return (batch.record(i) for i in range(len(batch)))
    offsets = (batch.begins, batch.ends)
    return iter(
        canonicalize_batch(batch.buffer, kind=kind.kind, offsets=offsets, schema=kind.schema)
    )


def line_name(path: str) -> tuple[bytes, bytes]:
    """A path for a line of its own, as sha256sum writes it: escaped if it has line breaks."""
    name = os.fsencode(path)
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return (b"", name) if escaped == name else (b"\\", escaped)
