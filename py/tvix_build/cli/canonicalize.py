# SPDX-License-Identifier: MIT
"""The command `canonicalize`: writes records in their canonical encoding."""

from __future__ import annotations

import click

from tvix_build._core.report import MessageType
from tvix_build.cli.arguments import input_source, output_target
from tvix_build.cli.command import Command
from tvix_build.cli.options import (
    column_option,
    input_format_option,
    kind_option,
    output_format_option,
)
from tvix_build.cli.refusals import REFUSED_SHOWN, Refusals, RefusedError, refused
from tvix_build.cli.terminal import Monitor
from tvix_build.records import FormatError, InputError
from tvix_build.records.checking import check_source
from tvix_build.records.source import Source
from tvix_build.records.writing import write_target


@click.command(cls=Command, short_help="Write records in their canonical encoding.")
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@kind_option
@column_option
@input_format_option
@output_format_option
def canonicalize(
    source: str,
    target: str,
    kind: MessageType,
    column: str | None,
    input_format: str | None,
    output_format: str | None,
) -> int:
    """Write the canonical encoding of every record of IN to OUT ('-': stdin, stdout).

    \b
    Examples:
      tvix-build canonicalize request.json request.binpb
      tvix-build canonicalize requests.binpbs.xz sorted.binpbs.zst

    A record that only has lists out of order is sorted. If any other is invalid, all that
    forbids its encoding is said on stderr and nothing is written; on stdout, nothing from
    there on.
    """
    found = input_source(source, input_format, column)
    wanted = output_target(target, output_format, column)
    with Monitor(found.size(), quiet=target == "-") as monitor:
        try:
            _write(found, wanted, kind, monitor)
        except InputError as error:
            monitor.error(error)
            return 2
        except RefusedError:
            return 1
    return 0


def _write(source: Source, target: Source, kind: MessageType, monitor: Monitor) -> None:
    """Write the canonical encoding of all records of `source` to `target`.

    Raises:
        InputError, OutputError: as reading and writing go; there is no output then.
        RefusedError: if a record has no canonical encoding; all such have been reported.
        FormatError: if `target` can hold but one record and there are more or none.
    """
    refusals = Refusals(monitor, REFUSED_SHOWN, hints=True)
    count = 0

    with write_target(target, kind) as writer:
        for batch, reports in check_source(source, kind):
            for i, report in refused(batch, reports):
                refusals.add(batch, i, report)
            count += len(batch)
            if count > 1 and not target.many:
                raise _not_one(source, target, "more")
            if not refusals.count:
                canonical = reports.canonical_count == len(batch)
                writer.write(batch if canonical else batch.canonicalize())
            monitor.show(batch.consumed, batch.unpacked, count, refusals.count)
        if not count and not target.many:
            raise _not_one(source, target, "none")
        refusals.finish(source, target)


def _not_one(source: Source, target: Source, found: str) -> FormatError:
    return FormatError(
        f"expected one record, as a .{target.format} file holds, found {found} in "
        f"{source.path}: write binpbs or ndjson"
    )
