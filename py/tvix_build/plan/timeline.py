# SPDX-License-Identifier: MIT
"""Shows the report of a run as an HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from html import escape
from typing import Any

_ROW = 14
_WIDTH = 1000
_COLOURS = {"built": "#4a90d9", "failed": "#d0453a"}
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Run of the plan {plan}</title>
<style>
body {{ font: 14px sans-serif; margin: 2em auto; max-width: {width}px }}
td, th {{ padding: 2px 10px 2px 0; text-align: left; vertical-align: top }}
rect:hover {{ opacity: 0.6 }}
</style>
<h1>Run of the plan {plan}</h1>
<p>{summary}</p>
<h2>Builds</h2>
<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}">
{bars}</svg>
<h2>Critical path: {critical_seconds:.1f} s</h2>
<table>
{critical}</table>
<h2>Failed and skipped steps</h2>
<table>
{failures}</table>
</html>
"""


def render(report: Mapping[str, Any]) -> str:
    """Return an HTML page of a report: a timeline of the builds of the run, the critical path, and
    the steps that failed or were skipped. The page needs no other file.

    Args:
        report: the object that `report_run` returned.
    """
    steps = {step["step"]: step for step in report["steps"]}
    bars = list(_bars(report["steps"]))
    return _PAGE.format(
        plan=report["plan"],
        width=_WIDTH,
        summary=escape(", ".join(f"{count} {name}" for name, count in report["counts"].items())),
        height=_ROW * (1 + max((row for row, _ in bars), default=0)),
        bars="".join(bar for _, bar in bars),
        critical_seconds=report["critical_seconds"],
        critical="".join(
            _row(f"{steps[step]['seconds']:.1f} s", steps[step]["name"])
            for step in report["critical_path"]
        ),
        failures="".join(_failures(steps)),
    )


def _row(*cells: str) -> str:
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>\n"


def _failures(steps: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for step in steps.values():
        if step["status"] == "failed":
            yield _row("failed", step["name"], step["reason"])
        elif step["status"] == "skipped":
            yield _row("skipped", step["name"], f"because of {steps[step['cause']]['name']}")


def _bars(steps: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, str]]:
    """Yield a row and a bar for each build of the run; no bars of a row overlap."""
    built = [step for step in steps if step["status"] in _COLOURS and step["started"]]
    times = [
        (datetime.fromisoformat(step["started"]), datetime.fromisoformat(step["finished"]), step)
        for step in built
    ]
    if not times:
        return
    times.sort(key=lambda one: one[:2])
    first, last = times[0][0], max(finished for _, finished, _ in times)
    scale = _WIDTH / max((last - first).total_seconds(), 1e-3)
    rows: list[datetime] = []  # the end of the last bar of each
    for started, finished, step in times:
        row = next((i for i, end in enumerate(rows) if end <= started), len(rows))
        rows[row : row + 1] = [finished]
        width = max((finished - started).total_seconds() * scale, 1)
        title = escape(f"{step['name']}: {step['seconds']:.1f} s, {step['builder']}")
        yield (
            row,
            f'<rect x="{(started - first).total_seconds() * scale:.1f}" y="{row * _ROW}" '
            f'width="{width:.1f}" height="{_ROW - 2}" fill="{_COLOURS[step["status"]]}">'
            f"<title>{title}</title></rect>\n",
        )
