# SPDX-License-Identifier: MIT
"""Prints messages in readable form: digests in hexadecimal, nodes and variables on one line each,
long values shortened.

The descriptors list the fields. Only nodes, variables, files and outputs have their own format.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from google.protobuf.message import DecodeError, Message
from rich.text import Text

from tvix_build import Report, check
from tvix_build._core.report import MessageType, in_words
from tvix_build._core.text import json_line
from tvix_build.cli.hints import find_hint
from tvix_build.cli.terminal import Console, printable
from tvix_build.records import Batch
from tvix_build.records.protobuf import decode

LIMIT = 160  # characters of a value that is shortened
DIGEST_SIZE = 32


class Values:
    """Formats each value on one line that is safe to print.

    Args:
        full: whether to show long values in full.
    """

    def __init__(self, full: bool) -> None:
        self._limit = None if full else LIMIT

    def item(self, value: Any) -> Text:
        """Format an element of a list: a message that has its own format, or a scalar."""
        name = value.DESCRIPTOR.name if isinstance(value, Message) else ""
        if name == "EnvVar":
            return self._pair(value.key, value.value)
        if name in ("Node", "Entry"):
            return self._member(value, name.lower())
        if name == "AdditionalFile":
            return self._pair(value.path, value.contents)
        if name == "Output":
            needles = ", ".join(map(str, value.needles)) or "none"
            return self._member(value.output, "entry") + f"  needles: {needles}"
        return self._node(value) if name else Text(self.text(value))

    def _pair(self, key: str, value: bytes) -> Text:
        return Text(self.scalar(key), style="green") + "=" + self.text(value)

    def _member(self, node: Any, oneof: str) -> Text:
        member = node.WhichOneof(oneof)
        return self._node(getattr(node, member)) if member else Text(f"no {oneof}", style="red")

    def _node(self, node: Any) -> Text:
        """Format a node: `KIND  DIGEST  SIZE  NAME` or `symlink  NAME -> TARGET`."""
        name = self.scalar(node.name)
        kind = node.DESCRIPTOR.name.removesuffix("Node").removesuffix("Entry").lower()
        if kind == "symlink":
            return Text("symlink    ", style="cyan") + f"{name} -> {self.scalar(node.target)}"
        if getattr(node, "executable", False):
            kind = "executable"
        digest = self._cut(node.digest.hex(), len(node.digest)) or "no digest"
        return Text(f"{kind:10} ", style="cyan") + f"{digest} {node.size:>12} {name}"

    def text(self, value: object) -> str:
        """Format text, bytes, a number or a truth value, with the line breaks of a text."""
        return self.scalar(value, lines=True)

    def scalar(self, value: object, *, lines: bool = False) -> str:
        """Format text, bytes, a number or a truth value, on one line unless `lines`."""
        if isinstance(value, bytes):
            size = len(value)
            if self._limit is not None:
                value = value[: 4 * self._limit]
            return self._cut(value.decode(errors="backslashreplace"), size, lines)
        text = str(value).lower() if isinstance(value, bool) else str(value)
        return self._cut(text, len(text), lines)

    def _cut(self, text: str, size: int, lines: bool = False) -> str:
        """Return text that is safe to print; a shortened one is followed by its `size`."""
        if self._limit is None or len(text) <= self._limit:
            return printable(text, lines=lines)
        return f"{printable(text, self._limit, lines=lines)} (length {size:,})"


class Viewer:
    """Prints records.

    Args:
        console: the console to print on.
        kind: the type of the records.
        full: whether to show long values in full.
    """

    def __init__(self, console: Console, kind: MessageType, full: bool) -> None:
        self._console = console
        self._kind = kind
        self._values = Values(full)
        self._printed = 0

    def show(self, batch: Batch, i: int) -> bool:
        """Print record i, and return whether it is valid."""
        data = batch.record(i)
        report = batch.report(i, check(data, kind=self._kind.kind, schema=self._kind.schema))
        if self._printed:
            self._console.say("")
        self._printed += 1
        self.view(batch.name(i), data, report, i not in batch.reasons)
        hint = find_hint(batch, i, report)
        if hint:
            self._console.say(hint, style="red")
        return report.valid

    def view(self, name: str, data: bytes, report: Report, whole: bool = True) -> None:
        """Print a message: its name, its report and, if `whole`, its fields."""
        self._console.say(_title(printable(name), self._kind, report))
        if report.digest is not None:
            self._pair("digest", report.digest.hex(), 0)
        self._violations(report)
        if whole:
            with suppress(DecodeError):  # The report has the error.
                self._message(decode(data, self._kind), 0)

    def _violations(self, report: Report) -> None:
        for line in in_words(report):
            self._console.say(printable(line), style="red")

    def _message(self, message: Message, depth: int) -> None:
        for field in message.DESCRIPTOR.fields:
            value: Any = getattr(message, field.name)
            if _is_list(value):
                if len(value):
                    self._pair(field.name, f"({len(value)})", depth)
                    self._list(value, depth + 1)
            elif isinstance(value, Message):
                if message.HasField(field.name):
                    self._pair(field.name, "", depth)
                    self._message(value, depth + 1)
            elif value:
                self._pair(field.name, self._values.text(value), depth)

    def _list(self, values: Iterable[Any], depth: int) -> None:
        for value in values:
            self._say(self._values.item(value), depth)

    def _pair(self, name: str, value: str, depth: int) -> None:
        self._say(Text(name, style="bold") + " " * bool(value) + value, depth)

    def _say(self, text: Text, depth: int) -> None:
        """Print a value, with its further lines indented more."""
        first, *others = text.split("\n", allow_blank=True)
        self._console.say(Text("  " * depth) + first)
        for line in others:
            self._console.say(Text("  " * (depth + 1)) + line)


class JsonViewer:
    """Prints each record as a JSON object on one line.

    Args:
        console: the console to print on.
        kind: the type of the records.
    """

    def __init__(self, console: Console, kind: MessageType) -> None:
        self._console = console
        self._kind = kind

    def show(self, batch: Batch, i: int) -> bool:
        """Print record i, and return whether it is valid."""
        data = batch.record(i)
        report = batch.report(i, check(data, kind=self._kind.kind, schema=self._kind.schema))
        message = None
        if i not in batch.reasons:
            with suppress(DecodeError):  # The report has the error.
                message = json_value(decode(data, self._kind))
        found = report_object(batch.path, batch.first + i, report)
        self._console.say(json_line({**found, "message": message}))
        return report.valid


def report_object(source: str, index: int, report: Report) -> dict[str, Any]:
    """Return a report as a JSON object, with the same members as a line of `validate --output`."""
    found: dict[str, Any] = {
        "source": source,
        "index": index,
        "valid": report.valid,
        "canonical": report.canonical,
        "digest": None if report.digest is None else report.digest.hex(),
        "violations": [
            {"code": one.code.value, "path": one.path, "message": one.message}
            for one in report.violations
        ],
    }
    if report.violation_count > len(report.violations):
        found["violation_count"] = report.violation_count
    return found


def json_value(value: Any) -> Any:
    """Return a message, or a value of a field, in proto3 JSON."""
    if isinstance(value, Message):
        from google.protobuf import json_format

        return json_format.MessageToDict(value)
    if isinstance(value, bytes):
        return b64encode(value).decode()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _title(name: str, kind: MessageType, report: Report) -> Text:
    state = "canonical" if report.canonical else "valid, not canonical"
    style = "green"
    if not report.valid:
        state, style = "invalid", "bold red"
    return Text(name, style="bold") + f"  {kind.kind.value}  " + Text(state, style=style)


def _is_list(value: object) -> bool:
    return not isinstance(value, (str, bytes, Message)) and hasattr(value, "__len__")
