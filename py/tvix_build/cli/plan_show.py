# SPDX-License-Identifier: MIT
"""The commands `plan show`, `plan check` and `plan graph`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import islice

from rich.table import Table

from tvix_build import Kind, Report, ValidationError
from tvix_build._core.report import in_words, message_type
from tvix_build.cli.arguments import Record, read_record, read_single
from tvix_build.cli.terminal import Monitor, printable, stdout_console
from tvix_build.plan.graph import PlanGraph
from tvix_build.records import InputError
from tvix_build.records.output import Output, output_errors
from tvix_build.records.source import find_input

SHOWN = 12  # hexadecimal digits of a digest in a table


def read_plan(path: str) -> Record:
    """Return the encoded plan in a file, and its report.

    Raises:
        InputError: if the file cannot be read, or does not hold one message.
    """
    return read_record(find_input(path, None, option=None), message_type(Kind.PLAN))


def read_valid_plan(path: str, monitor: Monitor) -> bytes | None:
    """Return the encoded plan in a file. If it is invalid, print the violations, and return None.

    Raises:
        InputError: if the file cannot be read.
    """
    plan, report = read_plan(path)
    if report.valid:
        return plan
    report_plan(path, report, monitor)
    return None


def open_graph(path: str, monitor: Monitor) -> PlanGraph | int:
    """Return the graph of the plan in a file; an exit status if it is invalid or unreadable, after
    reporting the reason."""
    try:
        record = read_single(find_input(path, None, option=None), message_type(Kind.PLAN))
    except InputError as error:
        monitor.error(error)
        return 2
    try:
        return PlanGraph(record.buffer[record.begins[0] : record.ends[0]])
    except ValidationError:
        report_plan(path, record.report(0, record.check(threads=1)[0]), monitor)
        return 1


def report_plan(path: str, report: Report, monitor: Monitor) -> None:
    """Print the violations of a plan."""
    for line in in_words(report):
        monitor.error(f"{path}: {line}")


def check_plan(path: str) -> int:
    """Run `plan check`, and return its exit status."""
    monitor = Monitor()
    try:
        _, report = read_plan(path)
    except InputError as error:
        monitor.error(error)
        return 2
    if not report.valid or report.digest is None:
        report_plan(path, report, monitor)
        return 1
    with output_errors("standard output"):
        sys.stdout.write(f"{report.digest.hex()}  {printable(path)}\n")
        sys.stdout.flush()
    return 0


def show(path: str, as_json: bool, steps: bool) -> int:
    """Run `plan show`, and return its exit status."""
    graph = open_graph(path, Monitor())
    if isinstance(graph, int):
        return graph
    with output_errors("standard output"):
        if as_json:
            sys.stdout.writelines(json.dumps(one) + "\n" for one in _objects(graph, steps))
        else:
            _print(graph, steps)
        sys.stdout.flush()
    return 0


def _objects(graph: PlanGraph, steps: bool) -> Iterator[dict[str, object]]:
    """Yield the statistics, and an object for each step."""
    found = graph.statistics()
    yield {
        "steps": found.steps,
        "refs": found.refs,
        "roots": found.roots,
        "depth": found.depth,
        "width": found.width,
        "schema": graph.schema.value,
        "critical_path": [
            {"step": graph.digests[i].hex(), "name": graph.name(i)} for i in found.critical_path
        ],
    }
    roots = set(graph.roots)
    for i in graph.order if steps else ():
        yield {
            "step": graph.digests[i].hex(),
            "name": graph.name(i),
            "level": graph.levels[i],
            "root": i in roots,
            "needs": [graph.digests[one].hex() for one in graph.needs[i]],
        }


def _print(graph: PlanGraph, steps: bool) -> None:
    found = graph.statistics()
    console = stdout_console()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    for name in ("steps", "refs", "roots", "depth", "width"):
        table.add_row(name, f"{getattr(found, name):,}")
    table.add_row("schema", graph.schema.value)
    console.print(table, highlight=False)
    lines = graph.order if steps else found.critical_path
    console.print("steps:" if steps else "critical path:", highlight=False)
    for i in lines:
        line = f"  {graph.digests[i].hex()[:SHOWN]}  {printable(graph.name(i))}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def write_dot(path: str, output: str | None) -> int:
    """Run `plan graph`, and return its exit status."""
    graph = open_graph(path, Monitor())
    if isinstance(graph, int):
        return graph
    with Output("-" if output is None else output) as file:
        lines = _dot_lines(graph)
        while some := list(islice(lines, 1 << 10)):
            file.write("".join(some).encode())
    return 0


def _dot_lines(graph: PlanGraph) -> Iterator[str]:
    """Yield the lines of a graph for Graphviz. An edge leads to a step that another one needs."""
    roots = set(graph.roots)
    yield "digraph plan {\n  rankdir=LR;\n  node [shape=box];\n"
    for i in range(len(graph)):
        label = json.dumps(printable(graph.name(i)))
        style = ", style=bold" if i in roots else ""
        yield f"  {_node(graph, i)} [label={label}{style}];\n"
        for one in graph.needs[i]:
            yield f"  {_node(graph, i)} -> {_node(graph, one)};\n"
    yield "}\n"


def _node(graph: PlanGraph, i: int) -> str:
    return f'"{graph.digests[i].hex()}"'
