# SPDX-License-Identifier: MIT
"""The command `from-drv`: derivations on disk to checked, canonical, hashed requests."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import click
from rich.table import Table

from tvix.castore.protos.castore_pb2 import Node
from tvix_build import Kind, Schema, check_batch
from tvix_build._command_line.canonical import RefusedError, line_name
from tvix_build._command_line.nodes import read_nodes
from tvix_build._command_line.options import output_format_option, schema_option
from tvix_build._command_line.output import Output, output_errors
from tvix_build._command_line.record_output import WriteRecords, record_output
from tvix_build._command_line.sources import Source, find_source
from tvix_build._command_line.streams import InputError
from tvix_build._command_line.terminal import Monitor, stdout_console
from tvix_build._nix_requests import RequestMaker, find_cycles, in_words
from tvix_build._report import message_type
from tvix_build.castore import node_from_path
from tvix_build.nix import STORE, Derivation, DerivationError, DerivationFolder

REQUESTS = 1 << 10  # that are checked and written together
CYCLE_LIMIT = 8  # derivations of a cycle that are named


@click.command("from-drv", short_help="Make requests of Nix derivations.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "--store",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    help="Where input derivations and inputs lie; by default beside each PATH.",
)
@click.option(
    "--nodes",
    "node_files",
    metavar="FILE",
    multiple=True,
    help="Castore nodes of the inputs: .binpbs, or .ndjson with path and node.",
)
@click.option("--ingest", is_flag=True, help="Make nodes of what is in the store, where it is.")
@click.option("--closure", is_flag=True, help="Inputs are also those of inputs, and so on.")
@click.option(
    "--cores", metavar="N", type=click.IntRange(min=0), default=0, help="NIX_BUILD_CORES, else 0."
)
@click.option("--system", metavar="SYSTEM", help="System instead of the derivations' own.")
@schema_option
@click.option("-o", "--output", metavar="OUT", help="Write the requests; else print digests.")
@output_format_option
def from_drv(
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
) -> int:
    """Make a request of each derivation: PATHs are .drv files, and folders of them.

    \b
    Examples:
      tvix-build from-drv /nix/store/*-hello-2.12.drv --ingest
      tvix-build from-drv derivations --nodes nodes.ndjson -o requests.binpbs.zst

    Requests are canonical and in the order of the PATHs, within a folder in that of names.
    Without -o a line HEX  FILE is printed for each, its digest. A derivation that gives no
    request is left out and reported on stderr with all reasons: what it asks of Nix beyond
    a request, input derivations and nodes that are missing, cycles.
    """
    target = None if output is None else find_source(output, output_format, "--output-format")
    files = _find_files(paths)
    if target and not target.many and len(files) != 1:
        raise click.UsageError(
            f"expected one derivation, as a .{target.format} file holds one record, "
            f"found {len(files)}: write binpbs or ndjson"
        )
    # Nothing made from here on is in a cycle, and the collector would look at it again and again.
    gc.disable()
    folders = [store] if store else list(dict.fromkeys(os.path.dirname(file) for file in files))
    nodes: dict[str, Node] = {}
    summary = _Summary()
    alone = target is None or target.path == "-"
    with Monitor(len(files), quiet=alone) as monitor:
        try:
            for file in node_files:
                nodes.update(read_nodes(file))
            kind = message_type(Kind.BUILD_REQUEST, schema)
            with record_output(target, kind) if target else _lines() as write:
                folder = DerivationFolder(*(one or "." for one in folders))
                derivations = _read(folder, files, summary, monitor)
                waiting = _find_cycles(derivations, folder if closure else None)
                look_up = _Ingesting(nodes, folders) if ingest else nodes.get
                maker = RequestMaker(
                    look_up, folder, closure=closure, cores=cores, system=system, schema=schema
                )
                for first in range(0, len(derivations), REQUESTS):
                    some = derivations[first : first + REQUESTS]
                    made = _make(some, waiting, maker, summary, monitor)
                    _write(made, schema, write, target, summary, monitor)
                    monitor.show(
                        first + len(some), summary.written, summary.requests, summary.failed
                    )
                if target and not target.many and not summary.requests:
                    raise RefusedError
        except InputError as error:
            monitor.error(error)
            return 2
        except RefusedError:
            return summary.status
    if not alone:
        with output_errors("standard output"):
            summary.print()
    return summary.status


@contextmanager
def _lines() -> Iterator[WriteRecords]:
    """Lines on stdout."""
    with Output("-") as output:
        yield lambda lines: output.write(b"".join(lines))


@dataclass
class _Summary:
    """What has become of the derivations."""

    derivations: int = 0
    requests: int = 0
    unreadable: int = 0
    written: int = 0  # bytes of requests

    @property
    def failed(self) -> int:
        """Derivations that gave no request."""
        return self.derivations - self.requests

    @property
    def status(self) -> int:
        """The exit status that follows."""
        return 2 if self.unreadable else 1 if self.failed else 0

    def print(self) -> None:
        """Print the counts on stdout."""
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column()
        table.add_column(justify="right")
        table.add_row("derivations", f"{self.derivations:,}")
        table.add_row("requests", f"{self.requests:,}", style="green" if self.requests else None)
        table.add_row("without one", f"{self.failed:,}", style="bold red" if self.failed else None)
        stdout_console().print(table, highlight=False)
        sys.stdout.flush()


class _Ingesting:
    """Nodes that are known, or else of what lies in the store."""

    def __init__(self, nodes: dict[str, Node], folders: list[str]) -> None:
        self._nodes = nodes
        self._folders = folders

    def __call__(self, path: str) -> Node | None:
        node = self._nodes.get(path)
        name = path.removeprefix(STORE)
        if node is not None or name == path or "/" in name:
            return node
        places = (os.path.join(folder, name) for folder in self._folders)
        place = next(filter(os.path.lexists, places), None)
        return None if place is None else node_from_path(place)


def _find_files(paths: tuple[str, ...]) -> list[str]:
    """The .drv files that the arguments name, in order.

    Raises:
        click.UsageError: for what is neither such a file nor a folder.
    """
    files = []
    for path in paths:
        if os.path.isdir(path):
            names = sorted(os.listdir(path), key=os.fsencode)
            found = [os.path.join(path, name) for name in names if name.endswith(".drv")]
            if not found:
                raise click.UsageError(f"expected .drv files in the folder {path!r}, found none")
            files += found
        elif path.endswith(".drv") and os.path.exists(path):
            files.append(path)
        else:
            found_there = "another name" if os.path.exists(path) else "nothing"
            raise click.UsageError(
                f"expected a .drv file or a folder, found {found_there}: {path!r}"
            )
    return files


def _read(
    folder: DerivationFolder, files: list[str], summary: _Summary, monitor: Monitor
) -> list[tuple[str, Derivation]]:
    """The derivations in files; what is not one is reported."""
    derivations = []
    for file in files:
        summary.derivations += 1
        try:
            derivations.append((file, folder.read(file)))
        except DerivationError as error:
            summary.unreadable += isinstance(error.__cause__, OSError)
            _report(file, error.reasons, monitor)
    return derivations


def _find_cycles(
    derivations: list[tuple[str, Derivation]], folder: DerivationFolder | None
) -> dict[str, tuple[str, ...]]:
    """Which derivations wait for themselves: among all in the folder, or those given alone."""
    given = {one.path: one for _, one in derivations}
    return find_cycles(given.values(), given.get if folder is None else folder.get)


def _make(
    derivations: list[tuple[str, Derivation]],
    waiting: dict[str, tuple[str, ...]],
    maker: RequestMaker,
    summary: _Summary,
    monitor: Monitor,
) -> list[tuple[str, bytes]]:
    """Requests, serialized but not checked, each with its file."""
    made = []
    for file, derivation in derivations:
        cycle = waiting.get(derivation.path)
        reasons = [f"expected no cycle of inputs, found {_show_cycle(cycle)}"] if cycle else []
        try:
            request = maker.request(derivation).SerializeToString()
        except DerivationError as error:
            reasons += error.reasons
        else:
            if not reasons:
                made.append((file, request))
                continue
        _report(file, reasons, monitor)
    return made


def _show_cycle(cycle: tuple[str, ...]) -> str:
    """A cycle, which may be as long as there are derivations that are told of it: in few words."""
    if len(cycle) <= CYCLE_LIMIT:
        return " <- ".join(cycle)
    return f"{' <- '.join(cycle[:CYCLE_LIMIT])} <- … <- {cycle[-1]} ({len(cycle) - 1:,} in all)"


def _write(
    made: list[tuple[str, bytes]],
    schema: Schema,
    write: WriteRecords,
    target: Source | None,
    summary: _Summary,
    monitor: Monitor,
) -> None:
    """Check requests, and write them or their digests."""
    reports = check_batch([message for _, message in made], Kind.BUILD_REQUEST, schema=schema)
    for i in reports.invalid:
        _report(made[i][0], in_words(reports[i].violations), monitor)
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
    write(records)


def _report(file: str, reasons: Iterable[str], monitor: Monitor) -> None:
    for reason in reasons:
        monitor.error(f"{file}: {reason}")
