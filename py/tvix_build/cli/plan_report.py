# SPDX-License-Identifier: MIT
"""Writes the reports of the command `plan run`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tvix_build.plan import PlanState, Run
from tvix_build.plan.report import report_run
from tvix_build.plan.timeline import render
from tvix_build.records.output import Output

SUFFIXES = (".json", ".parquet", ".html")
_TIMES = ("started", "finished")


def write_reports(names: Sequence[str], state: PlanState, run: Run) -> None:
    """Write the report of a run to files, each in the format of its name."""
    if not names:
        return
    report = report_run(state, run)
    for name in names:
        with Output(name) as output:
            output.write(_encode(Path(name).suffix, report))


def _encode(suffix: str, report: Mapping[str, Any]) -> bytes:
    if suffix == ".json":
        return json.dumps(report, indent=2).encode() + b"\n"
    if suffix == ".html":
        return render(report).encode()
    return _parquet(report["steps"])


def _parquet(steps: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a table with a row for each step."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    names = ("step", "name", "status", "request", "builder", *_TIMES, "seconds", "reason", "cause")
    columns = {}
    for name in names:
        kind = pa.float64() if name == "seconds" else pa.string()
        column = pa.array([step[name] for step in steps], kind)
        columns[name] = pc.cast(column, pa.timestamp("us", "UTC")) if name in _TIMES else column
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return bytes(sink.getvalue())
