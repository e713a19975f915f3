# SPDX-License-Identifier: MIT
"""The command `diff`: prints the differences between two records in readable form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import unified_diff
from typing import Any

from google.protobuf.message import DecodeError, Message
from rich.text import Text

from tvix_build import Report
from tvix_build._core.report import MessageType, in_words
from tvix_build._core.text import json_line
from tvix_build.cli.arguments import Record, input_source, read_record
from tvix_build.cli.command import verbosity
from tvix_build.cli.differences import MOST_COMPARISONS, Difference, differences
from tvix_build.cli.hints import find_hint_of
from tvix_build.cli.terminal import Console, Monitor, printable, stdout_console
from tvix_build.cli.viewer import LIMIT, Values, json_value, report_object
from tvix_build.records import InputError
from tvix_build.records.output import output_errors
from tvix_build.records.protobuf import decode
from tvix_build.records.source import Source, refuse_stdin_twice

CONTEXT = 20  # characters around a difference in a long value
CONTEXT_LINES = 2  # lines around a difference in a text
MOST_LINES = 40  # lines of a difference in a text


def run(
    old: str,
    new: str,
    kind: MessageType,
    column: str | None,
    input_format: str | None,
    input_format_a: str | None,
    input_format_b: str | None,
    full: bool,
    json: bool,
) -> int:
    """Run the command, and return its exit status."""
    try:
        formats = input_format_a or input_format, input_format_b or input_format
        sources = [
            input_source(name, format_name, column)
            for name, format_name in zip((old, new), formats, strict=True)
        ]
        refuse_stdin_twice(sources)
        records = [read_record(source, kind) for source in sources]
        with output_errors("standard output"):
            if json:
                _print_json(stdout_console(), sources, records, kind)
            else:
                names = [source.record_name(source.index or 0) for source in sources]
                _print_differences(stdout_console(), names, records, kind, full)
        return _status([report for _, report in records])
    except InputError as error:
        Monitor().error(error)
        return 2


def _print_differences(
    console: Console,
    names: Sequence[str],
    records: Sequence[Record],
    kind: MessageType,
    full: bool,
) -> None:
    """Print the differences between two records."""
    reports = [report for _, report in records]
    for sign, name, (data, report) in zip("-+", names, records, strict=True):
        digest = report.digest.hex() if report.digest else "no digest"
        _line(console, sign, f"{digest}  {printable(name)}")
        for line in in_words(report):
            console.say(f"  {printable(line)}")
        hint = find_hint_of(data, kind, report)
        if hint:
            console.say(f"  {hint}")
    _print(console, _differences(records, kind), full)
    if _status(reports):
        return
    if records[0][0] == records[1][0]:
        if verbosity() >= 0:
            console.say("identical")
    else:
        who = [name for name, report in zip(names, reports, strict=True) if not report.canonical]
        console.say(f"same digest, different bytes; not canonical: {printable(', '.join(who))}")


def _status(reports: Sequence[Report]) -> int:
    """Return the exit status."""
    old, new = (report.digest for report in reports)
    return 2 if old is None or new is None else int(old != new)


def _differences(records: Sequence[Record], kind: MessageType) -> list[Difference]:
    """Return the differences; none if a record is malformed, which its report says."""
    try:
        old, new = (decode(data, kind) for data, _ in records)
    except DecodeError:
        return []
    return list(differences(old, new))


def _print_json(
    console: Console, sources: Sequence[Source], records: Sequence[Record], kind: MessageType
) -> None:
    """Print the differences between two records as a JSON object."""
    old, new = records
    found = {
        name: report_object(source.path, source.index or 0, report)
        for name, source, (_, report) in zip("ab", sources, records, strict=True)
    }
    same_digest = old[1].digest is not None and old[1].digest == new[1].digest
    rows = [
        {"path": one.path, "a": json_value(one.old), "b": json_value(one.new)}
        for one in _differences(records, kind)
    ]
    same = {"same_bytes": old[0] == new[0], "same_digest": same_digest}
    console.say(json_line({**found, **same, "differences": rows}))


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
        lines = _line_differences(old, new, full)
        if lines is not None:
            if head:
                console.say(f"  {head}")
            for sign, line in lines:
                _line(console, sign, line)
            continue
        if not full:
            old, new = _excerpts(old, new)
        for sign, text in (("-", old), ("+", new)):
            if text is not None:
                _line(console, sign, head + text)


def _line_differences(old: str | None, new: str | None, full: bool) -> list[tuple[str, str]] | None:
    """Return the lines that differ, each with its sign and with CONTEXT_LINES around them; None if
    the values are not texts of several lines or, unless `full`, these lines are long or many."""
    if old is None or new is None or "\n" not in old or "\n" not in new:
        return None
    lines = old.split("\n"), new.split("\n")
    if len(lines[0]) * len(lines[1]) > MOST_COMPARISONS:
        return None
    found = list(unified_diff(*lines, n=CONTEXT_LINES, lineterm=""))[2:]
    if not full and (len(found) > MOST_LINES or max(map(len, found), default=0) > LIMIT):
        return None
    return [("@@", line[3:]) if line[0] == "@" else (line[0], line[1:]) for line in found]


def _head(difference: Difference, full: bool) -> str:
    """Return `KEY=` for a variable; only its value is shortened."""
    variable = difference.old or difference.new
    return f"{Values(full).scalar(variable.key)}=" if _name(variable) == "EnvVar" else ""


def _line(console: Console, sign: str, text: str) -> None:
    style = {"-": "red", "+": "green", "@@": "cyan"}.get(sign, "")
    for line in text.split("\n"):
        console.say(Text(f"{sign} {line}", style=style))


def _shown(value: Any) -> str | None:
    if value is None:
        return None
    name = _name(value)
    if name in ("BuildRequest", "BuildConstraints"):
        return "present"  # Its fields follow.
    values = Values(full=True)
    return values.text(value.value) if name == "EnvVar" else values.item(value).plain


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
