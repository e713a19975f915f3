# SPDX-License-Identifier: MIT
"""The command `plan diff`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table

from tvix_build.cli.plan_show import open_graph
from tvix_build.cli.targets import check_format
from tvix_build.cli.terminal import Monitor, printable, stdout_console
from tvix_build.plan.differences import PlanDifference, RootCause, compare_plans
from tvix_build.records.output import Output, output_errors

CAUSES = 20  # root causes that are printed
CHANGES = 6  # changes of a root cause that are printed
SHOWN = 12  # hexadecimal digits of a digest
TABLES = {".arrow": "arrow", ".parquet": "parquet"}  # formats by suffix


def run(old: str, new: str, as_json: bool, output: str | None) -> int:
    """Run the command, and return its exit status."""
    monitor = Monitor()
    if output is not None:
        check_format("--output", output, [*TABLES])
    before = open_graph(old, monitor)
    if isinstance(before, int):
        return before
    after = open_graph(new, monitor)
    if isinstance(after, int):
        return after
    found = compare_plans(before, after)
    if output is not None:
        _write_table(output, found.causes)
    with output_errors("standard output"):
        if as_json:
            sys.stdout.writelines(json.dumps(one) + "\n" for one in _objects(found))
        else:
            _print(found)
        sys.stdout.flush()
    return 1 if before.digests != after.digests or before.roots != after.roots else 0


def _objects(found: PlanDifference) -> Iterator[dict[str, object]]:
    yield {
        "same": found.same,
        "changed": len(found.changed),
        "added": len(found.added),
        "removed": len(found.removed),
        "causes": len(found.causes),
    }
    yield from map(_describe, found.causes)


def _describe(cause: RootCause) -> dict[str, object]:
    return {
        "name": cause.name,
        "old": cause.old.hex(),
        "new": cause.new.hex(),
        "changes": cause.changes,
        "cascade": cause.cascade,
    }


def _write_table(name: str, causes: Sequence[RootCause]) -> None:
    import pyarrow as pa

    from tvix_build.records.table_output import TableOutput

    texts = [(column, pa.string()) for column in ("name", "old", "new")]
    schema = pa.schema(
        [*texts, ("changes", pa.list_(pa.string())), ("cascade", pa.int64())],
    )
    with Output(name) as file, TableOutput(file, TABLES[Path(name).suffix], schema) as table:
        if causes:
            table.write(pa.Table.from_pylist([_describe(cause) for cause in causes], schema))


def _print(found: PlanDifference) -> None:
    console = stdout_console()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("same", f"{found.same:,}")
    for name in ("changed", "added", "removed", "causes"):
        table.add_row(name, f"{len(getattr(found, name)):,}")
    console.print(table, highlight=False)
    for cause in found.causes[:CAUSES]:
        console.print(_line(cause), highlight=False, markup=False, soft_wrap=True)
    more = len(found.causes) - CAUSES
    if more > 0:
        console.print(f"and {more:,} more causes; --json prints all", highlight=False)


def _line(cause: RootCause) -> str:
    changes = list(cause.changes[:CHANGES])
    more = len(cause.changes) - len(changes)
    if more:
        changes.append(f"{more} more")
    words = printable(f"{cause.name}: {', '.join(changes)}")
    return f"{cause.new.hex()[:SHOWN]}  {words} (needed by {cause.cascade:,} other changed steps)"
