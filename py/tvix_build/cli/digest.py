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
from tvix_build.records.source import Source


def run(
    files: tuple[str, ...],
    kind_of: Callable[[Source], MessageType],
    column: str | None,
    input_format: str | None,
) -> int:
    """Run the command, and return its exit status."""
    monitor = Monitor(quiet=True)
    refusals = Refusals(monitor, limit=None, hints=True)
    failed = False
    with Output("-") as output:
        for source in input_sources(files, input_format, column):
            try:
                if isinstance(source, InputError):
                    raise source
                write_digests(source, output, kind_of(source), refusals)
            except InputError as error:
                failed = True
                monitor.error(error)
    return 2 if failed else 1 if refusals.count else 0


def write_digests(
    source: Source,
    output: Output,
    kind: MessageType,
    refusals: Refusals,
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


def line_name(path: str) -> tuple[bytes, bytes]:
    """Return the prefix of a line and a path, escaped as by sha256sum if it has line breaks."""
    name = os.fsencode(path)
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return (b"", name) if escaped == name else (b"\\", escaped)
