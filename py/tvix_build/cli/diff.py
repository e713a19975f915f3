# SPDX-License-Identifier: MIT
"""The command `diff`: prints the differences between two records in readable form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf.message import DecodeError, Message
from rich.text import Text

from tvix_build._core.report import MessageType, in_words
from tvix_build.cli.arguments import Record, input_source, read_record
from tvix_build.cli.differences import Difference, differences
from tvix_build.cli.terminal import Console, Monitor, printable, stdout_console
from tvix_build.cli.viewer import LIMIT, Values
from tvix_build.records import InputError
from tvix_build.records.output import output_errors
from tvix_build.records.protobuf import decode
from tvix_build.records.source import refuse_stdin_twice

CONTEXT = 20  # characters around a difference in a long value


def run(
    old: str, new: str, kind: MessageType, column: str | None, input_format: str | None, full: bool
) -> int:
    """Run the command, and return its exit status."""
    try:
        sources = [input_source(name, input_format, column) for name in (old, new)]
        refuse_stdin_twice(sources)
        records = [read_record(source, kind) for source in sources]
        names = [source.record_name(source.index or 0) for source in sources]
        with output_errors("standard output"):
            return _print_differences(stdout_console(), names, records, kind, full)
    except InputError as error:
        Monitor().error(error)
        return 2


def _print_differences(
    console: Console,
    names: Sequence[str],
    records: Sequence[Record],
    kind: MessageType,
    full: bool,
) -> int:
    """Print the differences between two records, and return the exit status."""
    reports = [report for _, report in records]
    for sign, name, report in zip("-+", names, reports, strict=True):
        digest = report.digest.hex() if report.digest else "no digest"
        _line(console, sign, f"{digest}  {printable(name)}")
        for line in in_words(report):
            console.say(f"  {printable(line)}")
    try:
        old, new = (decode(data, kind) for data, _ in records)
    except DecodeError:  # The report has been printed.
        return 2
    _print(console, differences(old, new), full)
    if None in (reports[0].digest, reports[1].digest):
        return 2
    if reports[0].digest != reports[1].digest:
        return 1
    if records[0][0] != records[1][0]:
        who = [name for name, report in zip(names, reports, strict=True) if not report.canonical]
        console.say(f"same digest, different bytes; not canonical: {printable(', '.join(who))}")
    return 0


def _print(console: Console, found: Iterable[Difference], full: bool) -> None:
    path = None
    for difference in found:
        if difference.path != path:
            path = difference.path
            console.say(path, style="bold")
        head = _head(difference, full)
        old, new = (_shown(value) for value in (difference.old, difference.new))
        if old == new:  # A byte that is not UTF-8 and its escape look the same.
            old, new = repr(difference.old), repr(difference.new)
        if not full:
            old, new = _excerpts(old, new)
        for sign, text in (("-", old), ("+", new)):
            if text is not None:
                _line(console, sign, head + text)


def _head(difference: Difference, full: bool) -> str:
    """Return `KEY=` for a variable; only its value is shortened."""
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
    """Return the name of the message type, without the package; empty if it is not a message."""
    return value.DESCRIPTOR.name if isinstance(value, Message) else ""


def _excerpts(old: str | None, new: str | None) -> tuple[str | None, str | None]:
    """Return two values; a long one is shortened to the part that differs."""
    if old is None or new is None:
        begin = end = 0
    else:
        shorter = min(len(old), len(new))
        begin = _common(old, new, shorter)
        end = _common(old[::-1], new[::-1], shorter - begin)
    return _excerpt(old, begin, end), _excerpt(new, begin, end)


def _excerpt(text: str | None, begin: int, end: int) -> str | None:
    """Shorten a text around the part that differs, which is text[begin : len(text) - end]."""
    if text is None or len(text) <= LIMIT:
        return text
    first = max(0, begin - CONTEXT)
    last = min(len(text) - end + CONTEXT, first + LIMIT, len(text))
    cut = "…" * bool(first) + text[first:last] + "…" * (last < len(text))
    return f"{cut} (length {len(text):,})"


def _common(a: str, b: str, most: int) -> int:
    """Return the length of the common prefix, at most `most`, by bisection."""
    same = 0
    while same < most:
        middle = (same + most + 1) // 2
        if a[same:middle] == b[same:middle]:
            same = middle
        else:
            most = middle - 1
    return same
