# SPDX-License-Identifier: MIT
"""Prints progress, errors and styled text on a terminal."""

from __future__ import annotations

import os
import sys
import time
from difflib import get_close_matches
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console as RichConsole
from rich.text import Text

from tvix_build._core.report import MessageType
from tvix_build._core.text import well_formed
from tvix_build.cli.command import verbosity
from tvix_build.cli.program import PROGRAM
from tvix_build.records.errors import InputError
from tvix_build.records.output import stdout
from tvix_build.records.source import Source

if TYPE_CHECKING:
    from rich.progress import Progress


class Console(RichConsole):
    """A rich console that raises BrokenPipeError when a pipe is closed."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError

    def say(self, text: str | Text, style: str | None = None) -> None:
        """Print a line without markup, highlighting and wrapping."""
        shown = text if isinstance(text, Text) else Text(text, style=style or "")
        self.print(shown, soft_wrap=True, highlight=False)


def stdout_console() -> Console:
    """Return a console for stdout, with colours if it is a terminal."""
    return Console(file=stdout())


def stdout_is_terminal() -> bool:
    """Return whether stdout is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def printable(text: str, limit: int | None = None, *, lines: bool = False) -> str:
    """Return text with its control characters escaped, so that it cannot move the cursor, and
    shortened to `limit`. With `lines`, line breaks are not escaped.

    Bytes of a name that are not UTF-8 are written as `\\xff`.
    """
    if limit is not None and len(text) > limit:
        text = text[:limit] + "…"
    if lines:
        return "\n".join(printable(line) for line in text.split("\n"))
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in well_formed(text)
    )


def _similar_file(path: str | None) -> str | None:
    """Return an existing file with a similar name, if `path` is missing."""
    if not path or path == "-" or os.path.lexists(path):
        return None
    directory, name = os.path.split(path)
    try:
        names = os.listdir(directory or ".")
    except OSError:
        return None
    # All files have the same few suffixes, which make other names similar.
    by_stem = {os.path.splitext(one)[0]: one for one in sorted(names)}
    found = get_close_matches(os.path.splitext(name)[0], by_stem, 1)
    return os.path.join(directory, by_stem[found[0]]) if found else None


def _progress(console: Console, total: int | None) -> Progress:
    """Return a progress bar with one task."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    progress = Progress(
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TextColumn("{task.fields[status]}"),
        console=console,
        transient=True,
    )
    progress.add_task("", total=total, status="")
    return progress


class Monitor:
    """Prints errors on stderr and, if it is a terminal, a progress bar with the number of records,
    MB/s and the number of invalid records.

    Args:
        total: the bytes of all files; None if unknown.
        quiet: whether to print errors only.
        results: whether the command prints results on stdout while it runs. Then there is no bar if
            stdout is a terminal, too.
    """

    def __init__(
        self, total: int | None = None, quiet: bool = False, *, results: bool = False
    ) -> None:
        self._console = Console(stderr=True)
        quiet = quiet or verbosity() < 0 or (results and stdout_is_terminal())
        shown = not quiet and sys.stderr is not None and sys.stderr.isatty()
        self._progress = _progress(self._console, total) if shown else None
        self._start = time.monotonic()
        self._consumed = self._offset = 0
        self._before = (0, 0)  # of the files before this one

    def __enter__(self) -> Monitor:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def error(self, reason: object) -> None:
        """Print `tvix-build: reason` on stderr, above the bar. If the reason is an InputError of a
        missing file, suggest a file with a similar name."""
        similar = _similar_file(reason.path) if isinstance(reason, InputError) else None
        if similar is not None:
            reason = f"{reason}; did you mean {similar}?"
        self._console.say(f"{PROGRAM}: {printable(str(reason))}")

    def note(self, text: str) -> None:
        """Print a note on stderr, unless the command is quiet."""
        if verbosity() >= 0:
            self.error(text)

    def reading(self, source: Source, kind: MessageType) -> None:
        """With --verbose, print how a file is read."""
        if verbosity() > 0:
            compression = f", {source.compression}" if source.compression else ""
            self.note(f"{source.path}: reading {source.format}{compression} as {kind.title}")

    def show(self, consumed: int, offset: int, records: int, invalid: int) -> None:
        """Update the progress bar.

        Args:
            consumed, offset: the bytes of this file that were read, compressed and uncompressed.
            records, invalid: the counts of all files.
        """
        if self._progress is None:
            return
        self._consumed, self._offset = self._before[0] + consumed, self._before[1] + offset
        speed = self._offset / 1e6 / max(time.monotonic() - self._start, 1e-3)
        status = f"{records:,} records  {speed:,.0f} MB/s  {invalid:,} invalid"
        self._progress.update(self._progress.task_ids[0], completed=self._consumed, status=status)

    def show_status(self, status: str) -> None:
        """Show the progress of a command whose total is unknown."""
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], status=status)

    def next_file(self) -> None:
        """Count the current file as finished."""
        self._before = self._consumed, self._offset
