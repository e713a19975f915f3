# SPDX-License-Identifier: MIT
"""The command `convert`: records from one format to another, their bytes as they are, or requests
from one schema to another."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import click

from tvix_build import Kind, NotRepresentableError, Schema
from tvix_build._core.convert import check_network_access, translate
from tvix_build._core.report import MessageType
from tvix_build.cli.arguments import input_sources, output_target
from tvix_build.cli.command import Command
from tvix_build.cli.options import (
    column_option,
    input_format_option,
    kind_option,
    output_format_option,
)
from tvix_build.cli.refusals import Refusals, RefusedError
from tvix_build.cli.terminal import Monitor
from tvix_build.records import Batch, FormatError, InputError, Writer
from tvix_build.records.reading import read_messages
from tvix_build.records.source import Source
from tvix_build.records.writing import write_target

BYTE_FORMATS = ("binpb", "binpbs", "parquet", "arrow")
SHOWN = 20

Make: TypeAlias = Callable[[Batch, Refusals], list[bytes]]
"""What to write of a batch; what cannot be written is refused."""


@click.command(cls=Command, short_help="Write records in another format or schema.")
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@kind_option
@click.option(
    "--to",
    type=click.Choice([schema.value for schema in Schema]),
    callback=lambda _context, _option, value: value and Schema(value),
    help="Write requests as this version of the protocol says them.",
)
@click.option(
    "--network-access",
    is_flag=True,
    help="With --to: builds may use the network, which tvix.build.v1 leaves unsaid.",
)
@column_option
@input_format_option
@output_format_option
def convert(
    source: str,
    target: str,
    kind: MessageType,
    to: Schema | None,
    network_access: bool,
    column: str | None,
    input_format: str | None,
    output_format: str | None,
) -> int:
    """Write the records of IN, a file, a folder or '-', to OUT ('-': stdout): between streams
    and tables, and with --to between schemas.

    \b
    Examples:
      tvix-build convert requests.binpbs.zst requests.parquet
      tvix-build convert requests.parquet requests.binpbs.xz
      tvix-build convert --to snix.build.v1 requests.binpbs snix.binpbs

    Messages keep their bytes, valid or not, so OUT is no text; canonicalize writes such. Of a
    table only the column of messages is read. In OUT it is called NAME as well, else request,
    build or directory. What is no message, a null or a text that cannot be parsed, is reported
    on stderr; then nothing is written, or on stdout nothing from there on.

    With --to, requests must be valid, and become canonical ones of the other schema. One that is
    not, or that the other schema cannot say, is reported likewise, with all reasons.
    """
    wanted = output_target(target, output_format, column)
    if wanted.format not in BYTE_FORMATS:
        raise click.UsageError(
            f"expected a format of bytes for OUT ({', '.join(BYTE_FORMATS)}), found "
            f"{wanted.format}: canonicalize writes text"
        )
    make = _find_way(kind, to, network_access)
    with Monitor(quiet=target == "-") as monitor:
        try:
            with write_target(wanted, kind) as writer:
                sources = input_sources([source], input_format, column)
                refused = _convert(sources, wanted, kind, make, writer, monitor)
                if refused:
                    what = "1 record is" if refused == 1 else f"{refused} records are"
                    why = f"not converted to {to.value}" if to else "no message"
                    left = "the output ends before" if target == "-" else "nothing written"
                    monitor.error(f"{what} {why}, {left}")
                    raise RefusedError
        except InputError as error:
            monitor.error(error)
            return 2
        except RefusedError:
            return 1
    return 0


def _find_way(kind: MessageType, to: Schema | None, network_access: bool) -> Make:
    """What to do with batches.

    Raises:
        click.UsageError: if the options do not go together.
    """
    if to is None:
        if network_access:
            raise click.UsageError("expected --network-access with --to, found it alone")
        return _take
    if kind.kind is not Kind.BUILD_REQUEST:
        raise click.UsageError(f"expected --to with requests, found --kind {kind.kind.value}")
    try:
        check_network_access(kind.schema, to, network_access)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return partial(_translate, schema=kind.schema, to=to, network_access=network_access)


def _convert(
    sources: list[Source | InputError],
    target: Source,
    kind: MessageType,
    make: Make,
    writer: Writer,
    monitor: Monitor,
) -> int:
    """Write the records of all sources until one is refused; how many are.

    Raises:
        InputError: where one cannot be read.
        FormatError: if there is not one record where the target holds but one.
    """
    refusals = Refusals(monitor, SHOWN, hints=True)
    count = 0
    for source in sources:
        if isinstance(source, InputError):
            raise source
        for batch in read_messages(source, kind):
            made = make(batch, refusals)
            count += len(batch)
            if count > 1 and not target.many:
                raise FormatError(
                    f"expected one record, as a .{target.format} file holds, found more"
                )
            if not refusals.count:
                writer.write(made)
            monitor.show(batch.consumed, batch.unpacked, count, refusals.count)
        monitor.next_file()
    if not count and not target.many:
        raise FormatError(f"expected one record, as a .{target.format} file holds, found none")
    return refusals.count


def _take(batch: Batch, refusals: Refusals) -> list[bytes]:
    """The records as they are."""
    for i, reason in sorted(batch.reasons.items()):
        refusals.add_reasons(batch, i, [reason])
    return list(batch)


def _translate(
    batch: Batch,
    refusals: Refusals,
    schema: Schema,
    to: Schema,
    network_access: bool,
) -> list[bytes]:
    """The records in another schema."""
    reports = batch.check()
    valid = reports.valid
    made = []
    for i in range(len(batch)):
        if not valid[i]:
            refusals.add(batch, i, batch.report(i, reports[i]))
            continue
        try:
            made.append(translate(batch.record(i), schema, to, network_access))
        except NotRepresentableError as error:
            refusals.add_reasons(batch, i, map(str, error.reasons))
    return made
