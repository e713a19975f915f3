# SPDX-License-Identifier: MIT
"""The command `from-drv`: makes canonical requests from derivations on disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from tvix.castore.protos.castore_pb2 import Node
from tvix_build import Kind, Schema, check_batch
from tvix_build._core.report import message_type
from tvix_build.cli.arguments import output_target
from tvix_build.cli.command import verbosity
from tvix_build.cli.derivations import (
    Ingesting,
    Refusals,
    Summary,
    find_files,
    find_waiting,
    open_directory,
    read_derivations,
    store_directories,
)
from tvix_build.cli.digest import line_name
from tvix_build.cli.nodes import read_nodes
from tvix_build.cli.refusals import RefusedError
from tvix_build.cli.terminal import Monitor
from tvix_build.nix import Derivation, DerivationError
from tvix_build.nix.reasons import Kind as ReasonKind
from tvix_build.nix.reasons import Reason
from tvix_build.nix.requests import RequestMaker, invalid_request, show_cycle
from tvix_build.records import InputError, Writer
from tvix_build.records.output import Output, output_errors
from tvix_build.records.source import Source
from tvix_build.records.writing import write_target

REQUESTS = 1 << 10  # requests that are checked and written together


def run(
    paths: tuple[str, ...],
    store: str | None,
    node_files: tuple[str, ...],
    ingest: bool,
    closure: bool,
    cores: int,
    system: str | None,
    schema: Schema,
    output: str | None,
    output_format: str | None,
    errors: str | None,
) -> int:
    """Run the command, and return its exit status."""
    target = None if output is None else output_target(output, output_format)
    files = find_files(paths)
    if target and not target.many and len(files) != 1:
        raise click.UsageError(
            f"expected one derivation for a .{target.format} file, found {len(files)}; write "
            ".binpbs or .ndjson"
        )
    alone = target is None or target.path == "-"
    if errors == "-" and alone:
        raise click.UsageError("--errors - requires -o FILE: stdout is used by the requests")
    directories = store_directories(store, files)
    nodes: dict[str, Node] = {}
    summary = Summary()
    with Monitor(len(files), results=alone) as monitor:
        try:
            for file in node_files:
                nodes.update(read_nodes(file))
            with Refusals(errors, monitor) as refusals:
                kind = message_type(Kind.BUILD_REQUEST, schema)
                try:
                    with write_target(target, kind) if target else _lines() as writer:
                        directory = open_directory(directories)
                        derivations = [
                            *read_derivations(directory, files, summary, refusals, monitor)
                        ]
                        waiting = find_waiting(derivations, directory if closure else None)
                        maker = RequestMaker(
                            Ingesting(nodes, directories) if ingest else nodes.get,
                            directory,
                            closure=closure,
                            cores=cores,
                            system=system,
                            schema=schema,
                        )
                        for first in range(0, len(derivations), REQUESTS):
                            some = derivations[first : first + REQUESTS]
                            made = _make(some, waiting, maker, summary, refusals)
                            _write(made, schema, writer, target, summary, refusals)
                            monitor.show(
                                first + len(some), summary.written, summary.requests, summary.failed
                            )
                        if target and not target.many and not summary.requests:
                            raise RefusedError
                    _note(maker, monitor)
                except RefusedError:
                    alone = True
        except InputError as error:
            monitor.error(error)
            return 2
    if not alone and verbosity() >= 0:
        with output_errors("standard output"):
            summary.print()
    return summary.status


def _note(maker: RequestMaker, monitor: Monitor) -> None:
    """Print which options of derivations the requests do not contain."""
    for name, count in maker.omitted.items():
        derivations = "1 derivation" if count == 1 else f"{count:,} derivations"
        reason = "it does not change the outputs"
        monitor.note(f"note: {name} of {derivations} is not part of the request: {reason}")


@contextmanager
def _lines() -> Iterator[Writer]:
    """Yield a writer of lines to stdout."""
    with Output("-") as output:
        yield Writer(lambda lines: output.write(b"".join(lines)))


def _make(
    derivations: list[tuple[str, Derivation]],
    waiting: dict[str, tuple[str, ...]],
    maker: RequestMaker,
    summary: Summary,
    refusals: Refusals,
) -> list[tuple[str, bytes]]:
    """Return the serialized requests, which are not checked yet, each with its file."""
    made = []
    for file, derivation in derivations:
        cycle = waiting.get(derivation.path)
        reasons: list[str] = []
        if cycle:
            words = f"the inputs form a cycle: {show_cycle(cycle)}"
            reasons.append(Reason(ReasonKind.CYCLE, words))
        try:
            request = maker.request(derivation).SerializeToString()
        except DerivationError as error:
            reasons += error.reasons
        else:
            if not reasons:
                made.append((file, request))
                continue
        refusals.add(file, reasons)
    return made


def _write(
    made: list[tuple[str, bytes]],
    schema: Schema,
    writer: Writer,
    target: Source | None,
    summary: Summary,
    refusals: Refusals,
) -> None:
    """Check requests, and write the valid ones or their digests."""
    reports = check_batch([message for _, message in made], kind=Kind.BUILD_REQUEST, schema=schema)
    for i in reports.invalid:
        refusals.add(made[i][0], invalid_request(reports[i].violations))
    summary.requests += reports.valid_count
    valid, digests = reports.valid, bytes(reports.digests).hex()
    records = []
    for i, (file, message) in enumerate(made):
        if not valid[i]:
            continue
        summary.written += len(message)
        if target is None:
            escape, name = line_name(file)
            digest = digests[64 * i : 64 * i + 64].encode()
            records.append(b"%s%s  %s\n" % (escape, digest, name))
        else:
            records.append(message)
    writer.write(records)
