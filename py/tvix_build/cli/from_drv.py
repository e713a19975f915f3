# SPDX-License-Identifier: MIT
"""The command `from-drv`: makes canonical requests from derivations on disk."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import click
from rich.table import Table

from tvix.castore.protos.castore_pb2 import Node
from tvix_build import Kind, Schema, check_batch
from tvix_build._core.report import message_type
from tvix_build._core.text import json_line
from tvix_build.castore import node_from_path
from tvix_build.cli.arguments import output_target
from tvix_build.cli.command import verbosity
from tvix_build.cli.digest import line_name
from tvix_build.cli.nodes import read_nodes
from tvix_build.cli.refusals import RefusedError
from tvix_build.cli.terminal import Monitor, stdout_console
from tvix_build.nix import Derivation, DerivationDirectory, DerivationError
from tvix_build.nix.derivation import STORE
from tvix_build.nix.reasons import Kind as ReasonKind
from tvix_build.nix.reasons import Reason, kind_of
from tvix_build.nix.requests import RequestMaker, find_cycles, invalid_request
from tvix_build.records import InputError, Writer
from tvix_build.records.output import Output, output_errors
from tvix_build.records.source import Source, split_name
from tvix_build.records.writing import write_target

REQUESTS = 1 << 10  # requests that are checked and written together
CYCLE_LIMIT = 8  # derivations of a cycle that an error shows
EXAMPLES = 3  # reasons per kind that are printed
LINES = 1 << 10  # lines of --errors that are written together

# Outputs of a derivation, in the notation of Nix: x.drv!out, x.drv^out,dev or x.drv^*.
OUTPUTS = re.compile(r"(.+\.drv)[!^]((?:[^!^,/*]+,)*[^!^,/*]+|\*)", re.DOTALL)

# The headline of each kind of reason, and its remedy.
KINDS: dict[ReasonKind, tuple[str, str]] = {
    ReasonKind.UNREADABLE: ("unreadable files", ""),
    ReasonKind.INVALID: ("invalid derivations", ""),
    ReasonKind.CYCLE: ("cycles of inputs", ""),
    ReasonKind.MISSING_DERIVATION: (
        "missing or invalid input derivations",
        "pass their directory with --store DIR",
    ),
    ReasonKind.MISSING_NODE: (
        "inputs without a node",
        "pass castore nodes with --nodes FILE, or make them from files in the store with --ingest",
    ),
    ReasonKind.UNKNOWN_PATH: ("paths that are unknown before the build", ""),
    ReasonKind.BUILTIN: ("builders that are part of Nix", ""),
    ReasonKind.LATER_SCHEMA: (
        "files that requests of this schema cannot contain",
        "make requests with --schema snix.build.v1",
    ),
    ReasonKind.NOT_REPRESENTABLE: ("derivations that a request cannot represent", ""),
    ReasonKind.INVALID_REQUEST: ("violations in requests", ""),
}


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
    files = _find_files(paths)
    if target and not target.many and len(files) != 1:
        raise click.UsageError(
            f"expected one derivation for a .{target.format} file, found {len(files)}; write "
            ".binpbs or .ndjson"
        )
    alone = target is None or target.path == "-"
    if errors == "-" and alone:
        raise click.UsageError("--errors - requires -o FILE: stdout is used by the requests")
    directories = (
        [store] if store else list(dict.fromkeys(os.path.dirname(one.path) for one in files))
    )
    nodes: dict[str, Node] = {}
    summary = _Summary()
    with Monitor(len(files), results=alone) as monitor:
        try:
            for file in node_files:
                nodes.update(read_nodes(file))
            with _Refusals(errors, monitor) as refusals:
                kind = message_type(Kind.BUILD_REQUEST, schema)
                try:
                    with write_target(target, kind) if target else _lines() as writer:
                        directory = DerivationDirectory(*(one or "." for one in directories))
                        derivations = _read(directory, files, summary, refusals, monitor)
                        waiting = _find_cycles(derivations, directory if closure else None)
                        maker = RequestMaker(
                            _Ingesting(nodes, directories) if ingest else nodes.get,
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


@dataclass
class _Summary:
    """Counts of derivations and requests."""

    derivations: int = 0
    requests: int = 0
    unreadable: int = 0
    written: int = 0  # bytes of requests

    @property
    def failed(self) -> int:
        """The number of rejected derivations."""
        return self.derivations - self.requests

    @property
    def status(self) -> int:
        """The exit status."""
        return 2 if self.unreadable else 1 if self.failed else 0

    def print(self) -> None:
        """Print the counts on stdout."""
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column()
        table.add_column(justify="right")
        table.add_row("derivations", f"{self.derivations:,}")
        table.add_row("requests", f"{self.requests:,}", style="green" if self.requests else None)
        table.add_row("rejected", f"{self.failed:,}", style="bold red" if self.failed else None)
        stdout_console().print(table, highlight=False)
        sys.stdout.flush()


@dataclass
class _Group:
    """The reasons of one kind."""

    reasons: int = 0
    derivations: int = 0
    last: str = ""
    examples: list[str] = field(default_factory=list)


class _Refusals:
    """Collects the reasons why derivations are rejected. It writes all of them to a file, and a
    summary to stderr.

    Args:
        path: the file; None to write no file.
    """

    def __init__(self, path: str | None, monitor: Monitor) -> None:
        self._path = path
        self._monitor = monitor
        self._groups: dict[ReasonKind, _Group] = {}
        self._lines: list[str] = []
        self._stack = ExitStack()

    def __enter__(self) -> _Refusals:
        if self._path is not None:
            compression = None if self._path == "-" else split_name(self._path)[1]
            self._output = self._stack.enter_context(Output(self._path, compression))
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        if kind is None:
            self._flush()
            self._print()
        self._stack.__exit__(kind, *rest)

    def add(self, file: str, reasons: Iterable[str]) -> None:
        """Add the reasons of a derivation."""
        for reason in reasons:
            kind = kind_of(reason)
            group = self._groups.setdefault(kind, _Group())
            group.reasons += 1
            group.derivations += group.last != file
            group.last = file
            if len(group.examples) < EXAMPLES:
                group.examples.append(f"{file}: {reason}")
            if self._path is not None:
                line = {"source": file, "kind": kind.value, "reason": reason}
                self._lines.append(json_line(line) + "\n")
        if len(self._lines) > LINES:
            self._flush()

    def _flush(self) -> None:
        if self._path is not None:
            self._output.write("".join(self._lines).encode())
            self._lines.clear()

    def _print(self) -> None:
        for kind, (what, remedy) in KINDS.items():
            group = self._groups.get(kind)
            if group is None:
                continue
            derivations = "derivation" if group.derivations == 1 else "derivations"
            found = f"{what}: {group.reasons:,} in {group.derivations:,} {derivations}"
            self._monitor.error(f"{found}; {remedy}" if remedy else found)
            for example in group.examples:
                self._monitor.error(f"  {example}")
            more = group.reasons - len(group.examples)
            if more:
                place = f"{self._path} has" if self._path else "--errors FILE writes"
                self._monitor.error(f"  and {more:,} more: {place} all of them")


class _Ingesting:
    """Returns the given node of a store path, or makes it from the file in the store."""

    def __init__(self, nodes: dict[str, Node], directories: list[str]) -> None:
        self._nodes = nodes
        self._directories = directories

    def __call__(self, path: str) -> Node | None:
        node = self._nodes.get(path)
        name = path.removeprefix(STORE)
        if node is not None or name == path or "/" in name:
            return node
        places = (os.path.join(directory, name) for directory in self._directories)
        place = next(filter(os.path.lexists, places), None)
        return None if place is None else node_from_path(place)


class _File(NamedTuple):
    """A .drv file, and the outputs in the argument."""

    path: str
    outputs: tuple[str, ...] = ()


def _find_files(paths: tuple[str, ...]) -> list[_File]:
    """Return the .drv files that the arguments name, in order.

    Raises:
        click.UsageError: if an argument is neither a .drv file, with or without outputs, nor a
            directory.
    """
    files: list[_File] = []
    with_outputs: dict[str, int] = {}
    for path in paths:
        outputs = OUTPUTS.fullmatch(path)
        if os.path.isdir(path):
            names = sorted(os.listdir(path), key=os.fsencode)
            found = [_File(os.path.join(path, name)) for name in names if name.endswith(".drv")]
            if not found:
                raise click.UsageError(f"expected .drv files in the directory {path!r}, found none")
            files += found
        elif path.endswith(".drv") and os.path.exists(path):
            files.append(_File(path))
        elif outputs and os.path.exists(outputs[1]):
            wanted = () if outputs[2] == "*" else tuple(outputs[2].split(","))
            # All outputs of a derivation are one build.
            at = with_outputs.setdefault(outputs[1], len(files))
            if at == len(files):
                files.append(_File(outputs[1]))
            files[at] = _File(outputs[1], files[at].outputs + wanted)
        else:
            place = outputs[1] if outputs else path
            found_there = "another file" if os.path.exists(place) else "no such file"
            raise click.UsageError(
                "expected a .drv file, its outputs such as x.drv^out, or a directory; "
                f"found {found_there}: {path!r}"
            )
    return files


def _read(
    directory: DerivationDirectory,
    files: list[_File],
    summary: _Summary,
    refusals: _Refusals,
    monitor: Monitor,
) -> list[tuple[str, Derivation]]:
    """Read the derivations in files, and report the invalid ones."""
    derivations = []
    for file, outputs in files:
        summary.derivations += 1
        if summary.derivations % REQUESTS == 0:
            monitor.show_status(f"{summary.derivations:,} derivations")
        try:
            derivation = directory.read(file)
        except DerivationError as error:
            reasons: Iterable[str] = error.reasons
            if isinstance(error.__cause__, OSError):
                summary.unreadable += 1
                reasons = [Reason(ReasonKind.UNREADABLE, one) for one in reasons]
            refusals.add(file, reasons)
            continue
        missing = [name for name in outputs if name not in derivation.outputs]
        if missing:
            has = ", ".join(derivation.outputs)
            words = f"expected outputs among {has}, found {', '.join(missing)}"
            refusals.add(file, [Reason(ReasonKind.INVALID, words)])
        else:
            derivations.append((file, derivation))
    return derivations


def _find_cycles(
    derivations: list[tuple[str, Derivation]], directory: DerivationDirectory | None
) -> dict[str, tuple[str, ...]]:
    """Find the derivations in cycles: in the directory, or only among the given ones."""
    given = {one.path: one for _, one in derivations}
    return find_cycles(given.values(), given.get if directory is None else directory.get)


def _make(
    derivations: list[tuple[str, Derivation]],
    waiting: dict[str, tuple[str, ...]],
    maker: RequestMaker,
    summary: _Summary,
    refusals: _Refusals,
) -> list[tuple[str, bytes]]:
    """Return the serialized requests, which are not checked yet, each with its file."""
    made = []
    for file, derivation in derivations:
        cycle = waiting.get(derivation.path)
        reasons: list[str] = []
        if cycle:
            words = f"the inputs form a cycle: {_show_cycle(cycle)}"
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


def _show_cycle(cycle: tuple[str, ...]) -> str:
    """Return a cycle as text. A long cycle is shortened, because many derivations report it."""
    if len(cycle) <= CYCLE_LIMIT:
        return " <- ".join(cycle)
    return (
        f"{' <- '.join(cycle[:CYCLE_LIMIT])} <- … <- {cycle[-1]} ({len(cycle) - 1:,} derivations)"
    )


def _write(
    made: list[tuple[str, bytes]],
    schema: Schema,
    writer: Writer,
    target: Source | None,
    summary: _Summary,
    refusals: _Refusals,
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
