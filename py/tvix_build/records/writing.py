# SPDX-License-Identifier: MIT
"""Writes files of records, in any format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from tvix_build._core.report import Kind, MessageType
from tvix_build._core.varint import varint
from tvix_build.records.errors import needed_for
from tvix_build.records.output import Output
from tvix_build.records.protobuf import decode, write_text
from tvix_build.records.source import Source

_COLUMNS = {
    Kind.BUILD_REQUEST: "request",
    Kind.BUILD: "build",
    Kind.DIRECTORY: "directory",
    Kind.STEP: "step",
    Kind.PLAN: "plan",
}


class Writer:
    """Writes records to the file that `open_writer` opened."""

    def __init__(self, write: Callable[[Iterable[bytes]], None]) -> None:
        self._write = write

    def write(self, messages: Iterable[bytes]) -> None:
        """Write messages, such as those of a `Batch` or a `tvix_build.CanonicalBatch`.

        Raises:
            OutputError: if the file cannot be written.
            BrokenPipeError: if the reader of a pipe has closed it.
            google.protobuf.message.DecodeError: if the format is text and a message is malformed.
        """
        self._write(messages)


@contextmanager
def write_target(target: Source, kind: MessageType) -> Iterator[Writer]:
    """Open a file for records, which is written atomically; see `Output`.

    Args:
        target: the file, with its format; `-` is stdout. The column of a table has the name
            `target.column`, or else a name that depends on the kind.
        kind: the type of the messages. For a text format they must not be malformed.

    Raises:
        OutputError: on entering, on leaving and from the writer, if the file cannot be written.
        MissingPackageError: if the format needs a package that is missing.
    """
    with Output(target.path, target.compression) as output:
        if not target.is_table:
            yield Writer(
                lambda messages: output.write(
                    b"".join(_encode(message, target.format, kind) for message in messages)
                )
            )
            return
        with needed_for(f"a .{target.format} file", "'tvix-build[arrow]'"):
            from tvix_build.records import table_output
        schema = table_output.message_schema(target.column or _COLUMNS[kind.kind])
        with table_output.TableOutput(output, target.format, schema) as table:
            yield Writer(
                lambda messages: table.write(table_output.message_rows(list(messages), schema))
            )


def _encode(message: bytes, format_name: str, kind: MessageType) -> bytes:
    """Return the encoding of a message in a file of a format."""
    if format_name == "binpbs":
        return varint(len(message)) + message
    if format_name == "binpb":
        return message
    return write_text(decode(message, kind), format_name)
