# SPDX-License-Identifier: MIT
"""The command `show`: prints records in readable form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import click

from tvix_build._core.report import Kind, MessageType
from tvix_build.cli.arguments import input_source
from tvix_build.cli.terminal import Monitor, stdout_console
from tvix_build.cli.viewer import JsonViewer, Viewer
from tvix_build.records import Batch, InputError
from tvix_build.records.output import output_errors
from tvix_build.records.reading import read_messages
from tvix_build.records.source import Source

ALL_RECORDS = (0, None)


def run(
    file: str,
    kind: MessageType,
    column: str | None,
    input_format: str | None,
    records: tuple[int, int | None],
    full: bool,
    json: bool,
    reapi: str | None,
    castore: str | None,
    properties: list[tuple[str, str, str | None]],
) -> int:
    """Run the command, and return its exit status."""
    source = input_source(file, input_format, column)
    if source.index is not None and records != ALL_RECORDS:
        raise click.UsageError("expected either FILE[INDEX] or --records, found both")
    if reapi is None and (castore or properties):
        raise click.UsageError("expected --reapi with --castore and --property")
    if reapi is not None and (castore is None or full or json or kind.kind != Kind.BUILD_REQUEST):
        raise click.UsageError(
            "expected --reapi with --castore, and without --full, --json, --kind"
        )
    try:
        with output_errors("standard output"):
            if reapi is None or castore is None:
                console = stdout_console()
                viewer = JsonViewer(console, kind) if json else Viewer(console, kind, full)
                return _show(source, kind, records, viewer)
            from tvix_build.cli.actions import Actions

            with Actions(reapi, castore, properties, kind) as actions:
                return _show(source, kind, records, actions)
    except InputError as error:
        Monitor().error(error)
        return 2


class _Viewer(Protocol):
    def show(self, batch: Batch, i: int, /) -> bool: ...


def _show(
    source: Source, kind: MessageType, records: tuple[int, int | None], viewer: _Viewer
) -> int:
    first, last = records
    count = status = 0
    Monitor().reading(source, kind)
    for batch in read_messages(source, kind):
        for i in _selected(batch, first, last):
            if not viewer.show(batch, i):
                status = 1
        count = batch.first + len(batch)
        if last is not None and count > last:
            break
    wanted = first if last is None else last
    if wanted >= count and (first or last is not None):
        raise InputError(f"expected record {wanted}, found only {count} records", source.path)
    return status


def _selected(batch: Batch, first: int, last: int | None) -> Iterator[int]:
    """Yield the records of a batch whose index in the source is from `first` to `last`."""
    end = len(batch) if last is None else min(len(batch), last + 1 - batch.first)
    yield from range(max(0, first - batch.first), end)
