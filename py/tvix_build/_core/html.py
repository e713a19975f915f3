# SPDX-License-Identifier: MIT
"""Tables in HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from itertools import islice

ROWS = 10
"""The number of rows that are shown."""


def table(
    title: str, code: str, header: Iterable[str], rows: Iterable[Iterable[str]], total: int
) -> str:
    """Return a title, `code` and a table of the first of `total` rows; no table without rows."""
    text = f"<p>{escape(title)}{f': <code>{escape(code)}</code>' if code else ''}</p>"
    if not total:
        return text
    lines = [_row("th", header), *(_row("td", row) for row in islice(rows, ROWS))]
    more = f"<p>and {total - ROWS} more</p>" if total > ROWS else ""
    return f"{text}<table>{''.join(lines)}</table>{more}"


def _row(tag: str, cells: Iterable[str]) -> str:
    texts = (f'<{tag} style="text-align: left">{escape(cell)}</{tag}>' for cell in cells)
    return f"<tr>{''.join(texts)}</tr>"
