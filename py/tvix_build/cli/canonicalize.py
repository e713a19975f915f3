# SPDX-License-Identifier: MIT
"""The command `canonicalize`: writes records in canonical encoding."""

from __future__ import annotations

from tvix_build._core.report import MessageType
from tvix_build.cli.arguments import input_source, output_target
from tvix_build.cli.refusals import REFUSED_SHOWN, Refusals, RefusedError, refused
from tvix_build.cli.terminal import Monitor
from tvix_build.records import FormatError, InputError
from tvix_build.records.checking import check_source
from tvix_build.records.source import Source
from tvix_build.records.writing import write_target


def run(
    source: str,
    target: str,
    kind: MessageType,
    column: str | None,
    input_format: str | None,
    output_format: str | None,
) -> int:
    """Run the command, and return its exit status."""
    found = input_source(source, input_format, column)
    wanted = output_target(target, output_format, column)
    with Monitor(found.size(), results=target == "-") as monitor:
        try:
            _write(found, wanted, kind, monitor)
        except InputError as error:
            monitor.error(error)
            return 2
        except RefusedError:
            return 1
    return 0


def _write(source: Source, target: Source, kind: MessageType, monitor: Monitor) -> None:
    """Write the canonical encoding of each record of `source` to `target`. After an error there is
    no output file.

    Raises:
        InputError, OutputError: if a file cannot be read or written.
        RefusedError: if records have no canonical encoding; they have been reported.
        FormatError: if `target` holds one record, and `source` has none or several.
    """
    refusals = Refusals(monitor, REFUSED_SHOWN, hints=True)
    count = 0

    monitor.reading(source, kind)
    with write_target(target, kind) as writer:
        for batch, reports in check_source(source, kind):
            for i, report in refused(batch, reports):
                refusals.add(batch, i, report)
            count += len(batch)
            if count > 1 and not target.many:
                raise _not_one(source, target, "several")
            if not refusals.count:
                canonical = reports.canonical_count == len(batch)
                writer.write(batch if canonical else batch.canonicalize())
            monitor.show(batch.consumed, batch.unpacked, count, refusals.count)
        if not count and not target.many:
            raise _not_one(source, target, "none")
        refusals.finish(source, target)


def _not_one(source: Source, target: Source, found: str) -> FormatError:
    return FormatError(
        f"{source.path}: expected one record for a .{target.format} file, found {found}; "
        f"write .binpbs or .ndjson"
    )
