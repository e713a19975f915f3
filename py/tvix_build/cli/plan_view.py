# SPDX-License-Identifier: MIT
"""Shows how a plan runs: lines on stderr, and a live table if stderr is a terminal."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tvix_build.cli.command import verbosity
from tvix_build.cli.keys import reading_keys
from tvix_build.cli.terminal import Console, Monitor, printable
from tvix_build.plan import Event, Finished, Logged, PlanState, Started, Status, StepResult
from tvix_build.plan.scheduling import Schedule

_TAIL = 4096
"""How many bytes of the log of a running build are kept."""
_FAILED_LINES = 10
_SHOWN_BUILDS = 20
_SHOWN_LINES = 15


@dataclass
class _Build:
    """A running build."""

    name: str
    builder: str
    started: float
    log: bytes = b""

    def lines(self) -> list[str]:
        """Return the last lines of the log."""
        return [printable(line) for line in self.log.decode(errors="replace").splitlines()]


class View:
    """Shows events of a run.

    Args:
        state: the state.
        plan: the digest of the plan.
        builders: the addresses of the builders.
    """

    def __init__(self, state: PlanState, plan: bytes, builders: Sequence[str]) -> None:
        self._state = state
        self._builders = builders
        self._monitor = Monitor(quiet=True)
        self._builds: dict[bytes, _Build] = {}
        self._counts: Counter[Status] = Counter()
        self._lengths = _Lengths(state, plan)

    def show(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, Started):
            name = self._state.step_name(event.step)
            build = _Build(name, self._builders[event.builder], time.monotonic())
            self._builds[event.step] = build
            self._on_start(build)
        elif isinstance(event, Logged):
            running = self._builds.get(event.step)
            if running is not None:
                running.log = (running.log + event.data)[-_TAIL:]
                if verbosity() > 0:
                    for line in event.data.decode(errors="replace").splitlines():
                        self._monitor.note(f"{running.name}: {line}")
        elif isinstance(event, Finished):
            self._finish(event.result)

    def _finish(self, result: StepResult) -> None:
        self._counts[result.status] += 1
        self._lengths.finish(result.step)
        build = self._builds.pop(result.step, None)
        if result.status is Status.FAILED:
            name = build.name if build else self._state.step_name(result.step)
            for line in build.lines()[-_FAILED_LINES:] if build else ():
                self._monitor.error(f"{name}: {line}")
            self._monitor.error(f"{name}: failed: {result.reason}")
        elif build is not None:
            self._on_success(build, time.monotonic() - build.started)

    def _on_start(self, build: _Build) -> None:
        self._monitor.note(f"{build.name}: building on {build.builder}")

    def _on_success(self, build: _Build, seconds: float) -> None:
        self._monitor.note(f"{build.name}: built in {seconds:.1f} s")

    @contextmanager
    def keys(self) -> Iterator[None]:
        """Handle keys, within the event loop of the run."""
        yield


class LiveView(View):
    """Shows events of a run in a table, and failures above it. The key `l` shows the log of one
    build below it."""

    def __init__(self, state: PlanState, plan: bytes, builders: Sequence[str]) -> None:
        super().__init__(state, plan, builders)
        self._shown: bytes | None = None
        self._reads_keys = False

    @contextmanager
    def keys(self) -> Iterator[None]:
        """Handle keys of the terminal, if this process is in the foreground of one."""
        with reading_keys(self.press) as self._reads_keys:
            yield

    def press(self, key: bytes) -> None:
        """Handle a key: `l` shows the log of the next running build, and none after the last."""
        if key == b"l":
            steps = [None, *self._builds]
            place = steps.index(self._shown) if self._shown in steps else 0
            self._shown = steps[(place + 1) % len(steps)]

    def render(self) -> RenderableType:
        """Return the table: running builds with the last line of their logs, and the counts; below
        it, the log of the build that is shown."""
        table = Table.grid(padding=(0, 2))
        builds = list(self._builds.values())
        now = time.monotonic()
        for build in builds[:_SHOWN_BUILDS]:
            lines = build.lines()
            table.add_row(
                Text(build.name, overflow="ellipsis", no_wrap=True),
                Text(f"{now - build.started:.0f} s", justify="right"),
                Text(build.builder, style="dim", overflow="ellipsis", no_wrap=True),
                Text(lines[-1] if lines else "", style="dim", overflow="ellipsis", no_wrap=True),
            )
        counts = [f"{count:,} {status.value}" for status, count in list(self._counts.items())]
        more = [f"{len(builds) - _SHOWN_BUILDS} more"] if len(builds) > _SHOWN_BUILDS else []
        total = f"{self._counts.total():,} of {self._lengths.total:,} steps"
        left = f"longest path left: {self._lengths.longest} steps"
        hint = ["l: log of a build"] if self._reads_keys else []
        parts = [*more, total, *counts, left, *hint]
        return Group(table, Text("  ".join(parts)), *self._render_log())

    def _render_log(self) -> Iterator[Text]:
        build = None if self._shown is None else self._builds.get(self._shown)
        if build is not None:
            yield Text(f"log of {build.name}:", style="bold")
            for line in build.lines()[-_SHOWN_LINES:]:
                yield Text(line, overflow="ellipsis", no_wrap=True)

    def _on_start(self, build: _Build) -> None:
        pass

    def _on_success(self, build: _Build, seconds: float) -> None:
        pass


class _Lengths:
    """The number of steps on the longest path that is left.

    Attributes:
        total: the number of all steps.
        longest: the number.
    """

    def __init__(self, state: PlanState, plan: bytes) -> None:
        steps = state.plan_steps(plan)
        self.total = len(steps)
        numbers = {digest: number for number, (digest, _) in enumerate(steps)}
        schedule = Schedule([[numbers[ref.step] for ref in refs] for _, refs in steps])
        self._lengths = {digest: -schedule.rank(number)[0] for digest, number in numbers.items()}
        self._left = Counter(self._lengths.values())
        self.longest = schedule.longest

    def finish(self, step: bytes) -> None:
        """Count a step as finished."""
        self._left[self._lengths[step]] -= 1
        while self.longest and not self._left[self.longest]:
            self.longest -= 1


@contextmanager
def open_view(state: PlanState, plan: bytes, builders: Sequence[str]) -> Iterator[View]:
    """Yield a view of a run: a live one if stderr is a terminal and the command is not quiet."""
    if verbosity() < 0 or sys.stderr is None or not sys.stderr.isatty():
        yield View(state, plan, builders)
        return
    view = LiveView(state, plan, builders)
    console = Console(stderr=True)
    with Live(get_renderable=view.render, console=console, transient=True):
        yield view
