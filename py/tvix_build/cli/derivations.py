# SPDX-License-Identifier: MIT
"""Finds and reads the derivations that the arguments name, and reports those that are rejected."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import click
from rich.table import Table

from tvix.castore.protos.castore_pb2 import Node
from tvix_build._core.text import json_line
from tvix_build.castore import node_from_path
from tvix_build.cli.terminal import Monitor, stdout_console
from tvix_build.nix import Derivation, DerivationDirectory, DerivationError
from tvix_build.nix.derivation import STORE
from tvix_build.nix.reasons import Kind as ReasonKind
from tvix_build.nix.reasons import Reason, kind_of
from tvix_build.nix.requests import find_cycles
from tvix_build.records.output import Output
from tvix_build.records.source import split_name

EXAMPLES = 3  # reasons per kind that are printed
STATUS = 1 << 10  # derivations after which the number of read ones is shown
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


@dataclass
class Summary:
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


def store_directories(store: str | None, files: Iterable[DerivationFile]) -> list[str]:
    """Return the directories of input derivations and sources: that of --store, or those of the
    files."""
    return [store] if store else list(dict.fromkeys(os.path.dirname(one.path) for one in files))


def open_directory(directories: Iterable[str]) -> DerivationDirectory:
    """Return the derivations in some directories."""
    return DerivationDirectory(*(one or "." for one in directories))


@dataclass
class _Group:
    """The reasons of one kind."""

    reasons: int = 0
    derivations: int = 0
    last: str = ""
    examples: list[str] = field(default_factory=list)


class Refusals:
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

    def __enter__(self) -> Refusals:
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


class Ingesting:
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


class DerivationFile(NamedTuple):
    """A .drv file, and the outputs in the argument."""

    path: str
    outputs: tuple[str, ...] = ()


def find_files(paths: tuple[str, ...]) -> list[DerivationFile]:
    """Return the .drv files that the arguments name, in order.

    Raises:
        click.UsageError: if an argument is neither a .drv file, with or without outputs, nor a
            directory.
    """
    files: list[DerivationFile] = []
    with_outputs: dict[str, int] = {}
    for path in paths:
        outputs = OUTPUTS.fullmatch(path)
        if os.path.isdir(path):
            names = sorted(os.listdir(path), key=os.fsencode)
            found = [
                DerivationFile(os.path.join(path, name)) for name in names if name.endswith(".drv")
            ]
            if not found:
                raise click.UsageError(f"expected .drv files in the directory {path!r}, found none")
            files += found
        elif path.endswith(".drv") and os.path.exists(path):
            files.append(DerivationFile(path))
        elif outputs and os.path.exists(outputs[1]):
            wanted = () if outputs[2] == "*" else tuple(outputs[2].split(","))
            # All outputs of a derivation are one build.
            at = with_outputs.setdefault(outputs[1], len(files))
            if at == len(files):
                files.append(DerivationFile(outputs[1]))
            files[at] = DerivationFile(outputs[1], files[at].outputs + wanted)
        else:
            place = outputs[1] if outputs else path
            found_there = "another file" if os.path.exists(place) else "no such file"
            raise click.UsageError(
                "expected a .drv file, its outputs such as x.drv^out, or a directory; "
                f"found {found_there}: {path!r}"
            )
    return files


def read_derivations(
    directory: DerivationDirectory,
    files: list[DerivationFile],
    summary: Summary,
    refusals: Refusals,
    monitor: Monitor,
) -> Iterator[tuple[str, Derivation]]:
    """Read the derivations in files, yield the valid ones, and report the others."""
    for file, outputs in files:
        summary.derivations += 1
        if summary.derivations % STATUS == 0:
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
            yield file, derivation


def find_waiting(
    derivations: list[tuple[str, Derivation]], directory: DerivationDirectory | None
) -> dict[str, tuple[str, ...]]:
    """Find the derivations in cycles: in the directory, or only among the given ones."""
    given = {one.path: one for _, one in derivations}
    return find_cycles(given.values(), given.get if directory is None else directory.get)
