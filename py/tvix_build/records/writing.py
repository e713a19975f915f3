# SPDX-License-Identifier: MIT
"""Files of records, in any format: what a command that makes messages writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from tvix_build import Kind
from tvix_build._core.report import MessageType
from tvix_build.cli.extras import extra
from tvix_build.records.output import Output
from tvix_build.records.protobuf import decode, write_text
from tvix_build.records.sources import Source

WriteRecords: TypeAlias = Callable[[Iterable[bytes]], None]
_COLUMNS = {Kind.BUILD_REQUEST: "request", Kind.BUILD: "build", Kind.DIRECTORY: "directory"}


@contextmanager
def record_output(target: Source, kind: MessageType) -> Iterator[WriteRecords]:
    """Open a file for records, which is there whole or not at all; see `Output`.

    Args:
        target: the file, with its format; `-` is stdout. A table's column has the name that it
            says, else one after the kind.
        kind: what the messages are. For a text format they must decode.

    Raises:
        OutputError: from here, from what is yielded, which writes messages, and at the end.
    """
    with Output(target.path, target.compression) as output:
        if not target.is_table:
            yield lambda messages: output.write(
                b"".join(_encode(message, target.format, kind) for message in messages)
            )
            return
        with extra("arrow"):
            from tvix_build.records import table_output
        schema = table_output.message_schema(target.column or _COLUMNS[kind.kind])
        with table_output.TableOutput(output, target.format, schema) as table:
            yield lambda messages: table.write(table_output.message_rows(list(messages), schema))


def _encode(message: bytes, format_name: str, kind: MessageType) -> bytes:
    """A message as a file of a format has it."""
    if format_name == "binpbs":
        return _varint(len(message)) + message
    if format_name == "binpb":
        return message
    return write_text(decode(message, kind), format_name)


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)
