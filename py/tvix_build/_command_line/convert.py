# SPDX-License-Identifier: MIT
"""The command `convert`: records from one format to another, their bytes as they are."""

from __future__ import annotations

import click

from tvix_build._command_line.canonical import RefusedError
from tvix_build._command_line.options import (
    column_option,
    input_format_option,
    kind_option,
    output_format_option,
)
from tvix_build._command_line.record_output import WriteRecords, record_output
from tvix_build._command_line.records import Batch, open_records
from tvix_build._command_line.sources import Source, find_source, find_sources
from tvix_build._command_line.streams import InputError
from tvix_build._command_line.terminal import Monitor
from tvix_build._report import MessageType

BYTE_FORMATS = ("binpb", "binpbs", "parquet", "arrow")
SHOWN = 20


@click.command(short_help="Write records in another format, bytes as they are.")
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@kind_option
@column_option
@input_format_option
@output_format_option
def convert(
    source: str,
    target: str,
    kind: MessageType,
    column: str | None,
    input_format: str | None,
    output_format: str | None,
) -> int:
    """Write the records of IN, a file, a folder or '-', to OUT ('-': stdout): between streams
    and tables.

    \b
    Examples:
      tvix-build convert requests.binpbs.zst requests.parquet
      tvix-build convert requests.parquet requests.binpbs.xz

    Messages keep their bytes, valid or not, so OUT is no text; canonicalize writes such. Of a
    table only the column of messages is read. In OUT it is called NAME as well, else request,
    build or directory. What is no message, a null or a text that cannot be parsed, is reported
    on stderr; then nothing is written, or on stdout nothing from there on.
    """
    wanted = find_source(target, output_format, "--output-format", column)
    if wanted.format not in BYTE_FORMATS:
        raise click.UsageError(
            f"expected a format of bytes for OUT ({', '.join(BYTE_FORMATS)}), found "
            f"{wanted.format}: canonicalize writes text"
        )
    with Monitor(quiet=target == "-") as monitor:
        try:
            with record_output(wanted, kind) as write:
                _convert(find_sources([source], input_format, column), wanted, kind, write, monitor)
        except InputError as error:
            monitor.error(error)
            return 2
        except RefusedError:
            return 1
    return 0


def _convert(
    sources: list[Source | InputError],
    target: Source,
    kind: MessageType,
    write: WriteRecords,
    monitor: Monitor,
) -> None:
    """Write the records of all sources.

    Raises:
        InputError: where one cannot be read.
        RefusedError: if a record is no message; all such have been reported.
        click.UsageError: if there is not one record where the target holds but one.
    """
    count = refused = 0
    for source in sources:
        if isinstance(source, InputError):
            raise source
        with open_records(source, kind) as batches:
            for batch, progress in batches:
                refused += _report(source, batch, monitor, SHOWN - refused)
                count += len(batch)
                if count > 1 and not target.many:
                    raise click.UsageError(
                        f"expected one record, as a .{target.format} file holds, found more"
                    )
                if not refused:
                    write(batch.record(i) for i in range(len(batch)))
                monitor.show(progress.consumed, progress.offset, count, refused)
        monitor.next_file()
    if not count and not target.many:
        raise click.UsageError(f"expected one record, as a .{target.format} file holds, found none")
    if refused:
        what = "1 record is" if refused == 1 else f"{refused} records are"
        left = "the output ends before" if target.path == "-" else "nothing written"
        monitor.error(f"{what} no message, {left}")
        raise RefusedError


def _report(source: Source, batch: Batch, monitor: Monitor, limit: int) -> int:
    """Report what is no message, not more than `limit`; how many there are."""
    for i, reason in sorted(batch.reasons.items())[: max(limit, 0)]:
        monitor.error(f"{source.path}: {batch.place(i)}: {reason}")
    return len(batch.reasons)
