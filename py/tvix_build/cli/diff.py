# SPDX-License-Identifier: MIT
"""What `diff` does: finds two records, and prints what differs for people to read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf.message import DecodeError, Message
from rich.text import Text

from tvix_build import Report, check
from tvix_build._core.report import MessageType
from tvix_build.cli.differences import Difference, differences
from tvix_build.cli.show import LIMIT, Values
from tvix_build.cli.terminal import Console, printable
from tvix_build.records.protobuf import decode
from tvix_build.records.reading import open_records
from tvix_build.records.sources import Source
from tvix_build.records.streams import InputError

CONTEXT = 20  # characters around what differs in a long value
Record = tuple[bytes, Report]


def read_record(source: Source, kind: MessageType) -> Record:
    """The bytes of the only record of a source, and what the engine says of them.

    Raises:
        InputError: if there is none, or several.
    """
    record: Record | None = None
    with open_records(source, kind) as batches:
        for batch, _ in batches:
            if record is not None or len(batch) > 1:
                name = source.record_name(0)
                reason = f"expected one record, found several: name one, such as {name}"
                raise InputError(reason, source.path)
            data = batch.record(0)
            record = data, batch.report(0, check(data, kind=kind.kind, schema=kind.schema))
    if record is None:
        raise InputError("expected one record, found none", source.path)
    return record


def print_differences(
    console: Console,
    names: Sequence[str],
    records: Sequence[Record],
    kind: MessageType,
    full: bool,
) -> int:
    """Print what differs between two records; the exit status."""
    reports = [report for _, report in records]
    for sign, name, report in zip("-+", names, reports, strict=True):
        digest = report.digest.hex() if report.digest else "no digest"
        _line(console, sign, f"{digest}  {printable(name)}")
        for violation in report.violations:
            path = f"{violation.path}: " if violation.path else ""
            console.say(f"  {violation.code.value}: {path}{printable(violation.message)}")
        left = report.violation_count - len(report.violations)
        if left:
            console.say(f"  and {left} more violations")
    try:
        old, new = (decode(data, kind) for data, _ in records)
    except DecodeError:  # Its report says so.
        return 2
    _print(console, differences(old, new), full)
    if None in (reports[0].digest, reports[1].digest):
        return 2
    if reports[0].digest != reports[1].digest:
        return 1
    if records[0][0] != records[1][0]:
        who = [name for name, report in zip(names, reports, strict=True) if not report.canonical]
        console.say(f"same digest, other bytes: not canonical: {printable(', '.join(who))}")
    return 0


def _print(console: Console, found: Iterable[Difference], full: bool) -> None:
    path = None
    for difference in found:
        if difference.path != path:
            path = difference.path
            console.say(path, style="bold")
        head = _head(difference, full)
        old, new = (_shown(value) for value in (difference.old, difference.new))
        if old == new:  # Bytes that are no text look as the text that stands for them.
            old, new = repr(difference.old), repr(difference.new)
        if not full:
            old, new = _excerpts(old, new)
        for sign, text in (("-", old), ("+", new)):
            if text is not None:
                _line(console, sign, head + text)


def _head(difference: Difference, full: bool) -> str:
    """`KEY=` for a variable, which is not cut where its value is."""
    variable = difference.old or difference.new
    return f"{Values(full).scalar(variable.key)}=" if _name(variable) == "EnvVar" else ""


def _line(console: Console, sign: str, text: str) -> None:
    console.say(Text(f"{sign} {text}", style="red" if sign == "-" else "green"))


def _shown(value: Any) -> str | None:
    if value is None:
        return None
    name = _name(value)
    if name in ("BuildRequest", "BuildConstraints"):
        return "present"  # Its fields follow.
    values = Values(full=True)
    return values.scalar(value.value) if name == "EnvVar" else values.item(value).plain


def _name(value: Any) -> str:
    """What message it is, in any schema; empty if it is none."""
    return value.DESCRIPTOR.name if isinstance(value, Message) else ""


def _excerpts(old: str | None, new: str | None) -> tuple[str | None, str | None]:
    """Two values, each cut to what differs if it is long."""
    if old is None or new is None:
        begin = end = 0
    else:
        shorter = min(len(old), len(new))
        begin = _common(old, new, shorter)
        end = _common(old[::-1], new[::-1], shorter - begin)
    return _excerpt(old, begin, end), _excerpt(new, begin, end)


def _excerpt(text: str | None, begin: int, end: int) -> str | None:
    """What differs is text[begin : len(text) - end]."""
    if text is None or len(text) <= LIMIT:
        return text
    first = max(0, begin - CONTEXT)
    last = min(len(text) - end + CONTEXT, first + LIMIT, len(text))
    cut = "…" * bool(first) + text[first:last] + "…" * (last < len(text))
    return f"{cut} ({len(text):,} in all)"


def _common(a: str, b: str, most: int) -> int:
    """How many of the first `most` characters are the same, found by halves."""
    same = 0
    while same < most:
        middle = (same + most + 1) // 2
        if a[same:middle] == b[same:middle]:
            same = middle
        else:
            most = middle - 1
    return same
