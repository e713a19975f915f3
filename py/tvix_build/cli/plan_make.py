# SPDX-License-Identifier: MIT
"""The command `plan make`: makes a plan from derivations on disk."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice

from rich.table import Table

from tvix.castore.protos.castore_pb2 import Node
from tvix_build import Kind, Schema
from tvix_build._core.report import message_type
from tvix_build.cli.arguments import output_target
from tvix_build.cli.command import verbosity
from tvix_build.cli.derivations import (
    Ingesting,
    Refusals,
    Summary,
    find_files,
    open_directory,
    read_derivations,
    store_directories,
)
from tvix_build.cli.nodes import read_nodes
from tvix_build.cli.terminal import Monitor, stdout_console
from tvix_build.nix import Derivation
from tvix_build.nix.requests import RequestMaker
from tvix_build.plan.derivations import PlanMaker
from tvix_build.records import InputError
from tvix_build.records.output import Output, output_errors
from tvix_build.records.source import Source
from tvix_build.records.writing import write_target

AT_ONCE = 1 << 10  # pieces of the plan that are written together
SHOWN = 1 << 8  # derivations after which the progress is shown


def run(
    paths: tuple[str, ...],
    store: str | None,
    node_files: tuple[str, ...],
    ingest: bool,
    closure: bool,
    cores: int,
    system: str | None,
    schema: Schema,
    output: str,
    errors: str | None,
) -> int:
    """Run the command, and return its exit status."""
    target = output_target(output, None)
    files = find_files(paths)
    directories = store_directories(store, files)
    nodes: dict[str, Node] = {}
    summary = Summary()
    with Monitor(len(files), results=target.path == "-") as monitor:
        try:
            for file in node_files:
                nodes.update(read_nodes(file))
        except InputError as error:
            monitor.error(error)
            return 2
        directory = open_directory(directories)
        maker = RequestMaker(
            Ingesting(nodes, directories) if ingest else nodes.get,
            directory,
            closure=closure,
            cores=cores,
            system=system,
            schema=schema,
        )
        plan = PlanMaker(maker, directory, schema)

        def show_progress() -> None:
            if len(plan.made) % SHOWN == 0:
                monitor.show_status(f"{len(plan.made):,} steps")

        with Refusals(errors, monitor) as refusals:
            roots: list[str] = []  # store paths

            def read_roots() -> Iterator[Derivation]:
                for _, root in read_derivations(directory, files, summary, refusals, monitor):
                    roots.append(root.path)
                    yield root

            plan.add(read_roots(), show_progress)
            for path, reasons in plan.rejected.items():
                refusals.add(path, reasons)
        if plan.roots:
            _write(target, plan)
    summary.requests = sum(path in plan.made for path in roots)
    if target.path != "-" and verbosity() >= 0:
        with output_errors("standard output"):
            _print(plan, summary)
    return summary.status


def _write(target: Source, plan: PlanMaker) -> None:
    """Write a plan; if its format is binary, without a copy of it in memory."""
    pieces = plan.encode()
    if target.format != "binpb":
        with write_target(target, message_type(Kind.PLAN)) as writer:
            writer.write([b"".join(pieces)])
        return
    with Output(target.path, target.compression) as output:
        while some := b"".join(islice(pieces, AT_ONCE)):
            output.write(some)


def _print(plan: PlanMaker, summary: Summary) -> None:
    """Print the counts on stdout."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("derivations", f"{summary.derivations:,}")
    table.add_row("rejected", f"{summary.failed:,}", style="bold red" if summary.failed else None)
    table.add_row("roots", f"{len(plan.roots):,}")
    table.add_row("steps", f"{len(plan.reached()):,}", style="green" if plan.roots else None)
    stdout_console().print(table, highlight=False)
    sys.stdout.flush()
