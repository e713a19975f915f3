# SPDX-License-Identifier: MIT
"""What people see while a command runs and when it ends: progress, errors, styled text."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import NoReturn

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.text import Text

from tvix_build._core.text import well_formed
from tvix_build.records.output import stdout

PROGRAM = "tvix-build"


class Console(RichConsole):
    """Rich's console, but a pipe that nobody reads is the caller's to handle."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError

    def say(self, text: str | Text, style: str | None = None) -> None:
        """Print a line as it is: no markup, no highlighting, never wrapped."""
        shown = text if isinstance(text, Text) else Text(text, style=style or "")
        self.print(shown, soft_wrap=True, highlight=False)


def stdout_console() -> Console:
    """For stdout: coloured on a terminal, plain elsewhere."""
    return Console(file=stdout())


def printable(text: str, limit: int | None = None) -> str:
    """Text without control characters, so that it cannot move a cursor; cut behind `limit`.

    Bytes of a name that are not UTF-8 are written as `\\xff`.
    """
    if limit is not None and len(text) > limit:
        text = text[:limit] + "…"
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in well_formed(text)
    )


class Monitor:
    """Errors on stderr and, where that is a terminal, a bar with records, MB/s and invalid so far.

    Args:
        total: bytes of all files; None where not known.
        quiet: show errors only.
    """

    def __init__(self, total: int | None = None, quiet: bool = False) -> None:
        self._console = Console(stderr=True)
        shown = not quiet and sys.stderr is not None and sys.stderr.isatty()
        self._progress = Progress(
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[status]}"),
            console=self._console,
            transient=True,
            disable=not shown,
        )
        self._task = self._progress.add_task("", total=total, status="")
        self._start = time.monotonic()
        self._consumed = self._offset = 0
        self._before = (0, 0)  # the same of the files before this one

    def __enter__(self) -> Monitor:
        if not self._progress.disable:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._progress.disable:
            self._progress.stop()

    def error(self, reason: object) -> None:
        """Print `tvix-build: reason` on stderr, above the bar."""
        self._console.say(f"{PROGRAM}: {printable(str(reason))}")

    def show(self, consumed: int, offset: int, records: int, invalid: int) -> None:
        """Bring the bar up to date.

        Args:
            consumed, offset: bytes read of this file, and of what it unpacks to.
            records, invalid: counts of all files.
        """
        if self._progress.disable:
            return
        self._consumed, self._offset = self._before[0] + consumed, self._before[1] + offset
        speed = self._offset / 1e6 / max(time.monotonic() - self._start, 1e-3)
        status = f"{records:,} records  {speed:,.0f} MB/s  {invalid:,} invalid"
        self._progress.update(self._task, completed=self._consumed, status=status)

    def show_status(self, status: str) -> None:
        """Say how far a command is where nobody knows how much is to come."""
        if not self._progress.disable:
            self._progress.update(self._task, status=status)

    def next_file(self) -> None:
        """Count a file as done."""
        self._before = self._consumed, self._offset
