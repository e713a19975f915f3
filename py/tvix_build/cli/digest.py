# SPDX-License-Identifier: MIT
"""The command `digest`: prints the digest of each record."""

from __future__ import annotations

import os
from collections.abc import Callable

from tvix_build._core.report import MessageType
from tvix_build.cli.arguments import input_sources
from tvix_build.cli.refusals import Refusals, refused
from tvix_build.cli.terminal import Monitor
from tvix_build.records import InputError
from tvix_build.records.checking import check_source
from tvix_build.records.output import Output
from tvix_build.records.source import Source, total_size


def run(
    files: tuple[str, ...],
    kind_of: Callable[[Source], MessageType],
    column: str | None,
    input_format: str | None,
) -> int:
    """Run the command, and return its exit status."""
    sources = input_sources(files, input_format, column)
    failed = False
    with Output("-") as output, Monitor(total_size(sources), results=True) as monitor:
        refusals = Refusals(monitor, limit=None, hints=True)
        for source in sources:
            try:
                if isinstance(source, InputError):
                    raise source
                write_digests(source, output, kind_of(source), refusals, monitor)
            except InputError as error:
                failed = True
                monitor.error(error)
    return 2 if failed else 1 if refusals.count else 0


def write_digests(
    source: Source,
    output: Output,
    kind: MessageType,
    refusals: Refusals,
    monitor: Monitor,
    keep: Callable[[list[bytes]], object] | None = None,
) -> None:
    """Write `HEX  SOURCE[INDEX]` for each record that has a digest, or `HEX  SOURCE` if the format
    holds one message.

    Args:
        keep: called with the records of a batch that have a digest, before the digests are written.

    Raises:
        InputError, OutputError: if a file cannot be read or written.
    """
    escape, name = line_name(source.path)
    monitor.reading(source, kind)
    count = 0
    for batch, reports in check_source(source, kind):
        digests = bytes(reports.digests).hex()
        without = dict(refused(batch, reports))
        lines = []
        if keep is not None:
            keep([batch.record(i) for i in range(len(batch)) if i not in without])
        for i in range(len(batch)):
            if i in without:
                refusals.add(batch, i, without[i])
                continue
            index = b"[%d]" % (batch.first + i) if source.many else b""
            digest = digests[64 * i : 64 * i + 64].encode()
            lines.append(b"%s%s  %s%s\n" % (escape, digest, name, index))
        output.write(b"".join(lines))
        count += len(batch)
        monitor.show(batch.consumed, batch.unpacked, count, refusals.count)
    monitor.next_file()


def line_name(path: str) -> tuple[bytes, bytes]:
    """Return the prefix of a line and a path, escaped as by sha256sum if it has line breaks."""
    name = os.fsencode(path)
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return (b"", name) if escaped == name else (b"\\", escaped)
