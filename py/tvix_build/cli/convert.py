# SPDX-License-Identifier: MIT
"""The command `convert`: writes records in another format, or requests in another schema."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import click
from google.protobuf.message import DecodeError

from tvix_build import Kind, NotRepresentableError, Schema
from tvix_build._core.convert import check_network_access, translate
from tvix_build._core.report import MessageType, message_type
from tvix_build.cli.arguments import BINARY_FORMATS, input_sources, output_target
from tvix_build.cli.refusals import Refusals, RefusedError, output_state
from tvix_build.cli.terminal import Monitor
from tvix_build.records import Batch, FormatError, InputError, Writer
from tvix_build.records.protobuf import decode
from tvix_build.records.reading import read_messages
from tvix_build.records.source import Source
from tvix_build.records.writing import write_target

SHOWN = 20

Make: TypeAlias = Callable[[Batch, Refusals], list[bytes]]
"""Returns the messages to write for a batch, and adds the other records to the refusals."""


def run(
    source: str,
    target: str,
    kind: MessageType,
    to: Schema | None,
    network_access: bool,
    column: str | None,
    input_format: str | None,
    output_format: str | None,
) -> int:
    """Run the command, and return its exit status."""
    wanted = output_target(target, output_format, column)
    text = wanted.format not in BINARY_FORMATS
    make = _find_way(kind, to, network_access, text)
    written = message_type(kind.kind, to or kind.schema)
    with Monitor(results=target == "-") as monitor:
        try:
            with write_target(wanted, written) as writer:
                sources = input_sources([source], input_format, column)
                refused = _convert(sources, wanted, kind, make, writer, monitor)
                if refused:
                    what = "1 record" if refused == 1 else f"{refused} records"
                    why = f"cannot be converted to {to.value if to else wanted.format}"
                    monitor.error(f"{what} {why}; {output_state(target)}")
                    raise RefusedError
        except InputError as error:
            monitor.error(error)
            return 2
        except RefusedError:
            return 1
    return 0


def _find_way(kind: MessageType, to: Schema | None, network_access: bool, text: bool) -> Make:
    """Return the function that converts a batch.

    Raises:
        click.UsageError: if the options contradict each other.
    """
    if to is None:
        if network_access:
            raise click.UsageError("--network-access requires --to")
        return partial(_take_for_text, kind=kind) if text else _take
    if kind.kind is not Kind.BUILD_REQUEST:
        raise click.UsageError(f"--to converts requests only, found --kind {kind.kind.value}")
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
    """Write the records before the first refused one, and return the number of refused records.

    Raises:
        InputError: if a source cannot be read.
        FormatError: if the target holds one record, and the sources have none or several.
    """
    refusals = Refusals(monitor, SHOWN, hints=True)
    count = 0
    for source in sources:
        if isinstance(source, InputError):
            raise source
        monitor.reading(source, kind)
        for batch in read_messages(source, kind):
            made = make(batch, refusals)
            count += len(batch)
            if count > 1 and not target.many:
                raise FormatError(f"expected one record for a .{target.format} file, found several")
            if not refusals.count:
                writer.write(made)
            monitor.show(batch.consumed, batch.unpacked, count, refusals.count)
        monitor.next_file()
    if not count and not target.many:
        raise FormatError(f"expected one record for a .{target.format} file, found none")
    return refusals.count


def _take(batch: Batch, refusals: Refusals) -> list[bytes]:
    """Return the records unchanged."""
    for i, reason in sorted(batch.reasons.items()):
        refusals.add_reasons(batch, i, [reason])
    return list(batch)


def _take_for_text(batch: Batch, refusals: Refusals, kind: MessageType) -> list[bytes]:
    """Return the records unchanged, without those that a text cannot represent."""
    reports = batch.check()
    made = []
    for i in range(len(batch)):
        data = batch.record(i)
        if _is_text(data, kind):
            made.append(data)
        else:
            refusals.add(batch, i, batch.report(i, reports[i]))
    return made


def _is_text(data: bytes, kind: MessageType) -> bool:
    """Return whether text can represent a message: one that decodes and has no unknown fields."""
    try:
        message = decode(data, kind)
    except DecodeError:
        return False
    size = message.ByteSize()
    message.DiscardUnknownFields()
    return message.ByteSize() == size


def _translate(
    batch: Batch,
    refusals: Refusals,
    schema: Schema,
    to: Schema,
    network_access: bool,
) -> list[bytes]:
    """Return the records in another schema."""
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
