# SPDX-License-Identifier: MIT
"""Reports of runs, and the live view."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from made_plans import make_graph, output_name
from tvix_build.cli.plan_view import LiveView
from tvix_build.plan import Finished, Logged, PlanState, Run, Started, Status, StepResult
from tvix_build.plan.report import report_run
from tvix_build.plan.timeline import render

BEGIN = datetime(2026, 11, 29, tzinfo=timezone.utc)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[PlanState]:
    with PlanState(tmp_path / "state") as opened:
        yield opened


def result(step: bytes, begin: float, end: float, status: Status = Status.BUILT) -> StepResult:
    started, finished = (BEGIN + timedelta(seconds=seconds) for seconds in (begin, end))
    reason = "exit status 1 & more" if status is Status.FAILED else None
    return StepResult(step, status, step, "<fake>", started, finished, reason)


def diamond(state: PlanState) -> tuple[Run, list[bytes], list[StepResult]]:
    """Store a run of a plan, 0 <- (1, 2) <- 3 and 4, of which 2 takes longest."""
    plan, digests = make_graph([[], [0], [0], [1, 2], []])
    run = state.start_run(state.put_plan(plan))
    results = [
        result(digests[0], 0, 1),
        result(digests[1], 1, 3),
        result(digests[2], 1, 6),
        result(digests[3], 6, 8, Status.FAILED),
        StepResult(digests[4], Status.SKIPPED, cause=digests[3]),
    ]
    state.put_results(run, results)
    return state.finish_run(run), digests, results


def test_the_report(state: PlanState) -> None:
    run, digests, results = diamond(state)
    report = json.loads(json.dumps(report_run(state, run)))
    assert report["plan"] == run.plan.hex()
    assert report["counts"] == {"built": 3, "failed": 1, "skipped": 1}
    assert report["critical_path"] == [digests[i].hex() for i in (0, 2, 3)]
    assert report["critical_seconds"] == 8
    by_step = {bytes.fromhex(one["step"]): one for one in report["steps"]}
    assert by_step.keys() == set(digests)
    for number, digest in enumerate(digests):
        one = by_step[digest]
        assert one["name"] == output_name(f"step-{number}")
        assert one["status"] == results[number].status.value
    assert [by_step[digest]["seconds"] for digest in digests] == [1, 2, 5, 2, None]
    assert by_step[digests[4]]["cause"] == digests[3].hex()


def test_stored_builds_take_no_time(state: PlanState) -> None:
    plan, digests = make_graph([[], [0]])
    run = state.start_run(state.put_plan(plan))
    state.put_results(run, [result(digests[0], 0, 9, Status.CACHED), result(digests[1], 20, 22)])
    report = report_run(state, run)
    assert report["critical_path"] == [digests[1].hex()]
    assert report["critical_seconds"] == 2


def test_the_critical_path_has_no_skipped_steps(state: PlanState) -> None:
    plan, digests = make_graph([[], *([0] for _ in range(20))])
    run = state.start_run(state.put_plan(plan))
    skipped = [StepResult(one, Status.SKIPPED, cause=digests[0]) for one in digests[1:]]
    state.put_results(run, [result(digests[0], 0, 1, Status.FAILED), *skipped])
    report = report_run(state, run)
    assert report["critical_path"] == [digests[0].hex()]
    assert "because of" in render(report)


def test_a_run_without_results(state: PlanState) -> None:
    plan, _ = make_graph([[], [0]])
    report = report_run(state, state.start_run(state.put_plan(plan)))
    assert (report["critical_path"], report["steps"]) == ([], [])
    assert "<svg" in render(report)


def test_the_page(state: PlanState) -> None:
    run, _, _ = diamond(state)
    page = render(report_run(state, run))
    bars: list[dict[str, str]] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag == "rect":
                bars.append({name: value or "" for name, value in attrs})

    Parser().feed(page)
    assert [(bar["x"], bar["width"], bar["y"]) for bar in bars] == [
        ("0.0", "125.0", "0"),
        ("125.0", "250.0", "0"),
        ("125.0", "625.0", "14"),
        ("750.0", "250.0", "0"),
    ]
    assert "exit status 1 &amp; more" in page
    assert "<fake>" not in page


def test_the_live_view(state: PlanState) -> None:
    plan, digests = make_graph([[], [0], []])
    view = LiveView(state, state.put_plan(plan), ["sandbox:"])

    def shown() -> str:
        file = io.StringIO()
        Console(file=file, width=200).print(view.render())
        return file.getvalue()

    assert "0 of 3 steps" in shown()
    assert "longest path left: 2 steps" in shown()
    assert "log of a build" not in shown()  # No terminal has keys.
    for digest in digests[::2]:
        view.show(Started(digest, 0))
    view.show(Logged(digests[0], b"first line\nsecond\x1b[2J line"))
    text = shown()
    assert output_name("step-0") in text
    assert r"second\x1b[2J line" in text
    assert "first line" not in text
    # The key shows the log of each build, then none.
    view.press(b"x")
    assert "log of step" not in shown()
    view.press(b"l")
    text = shown()
    assert f"log of {output_name('step-0')}:" in text
    assert "first line" in text
    view.press(b"l")
    assert f"log of {output_name('step-2')}:" in shown()
    assert "first line" not in shown()
    view.press(b"l")
    assert f"log of {output_name('step-2')}:" not in shown()
    view.press(b"l")
    for digest in digests[::2]:
        view.show(Finished(result(digest, 0, 1)))
    text = shown()
    assert "2 of 3 steps  2 built  longest path left: 1 steps" in text
    assert output_name("step-0") not in text


def test_skipped_steps_are_not_on_the_critical_path(state: PlanState) -> None:
    plan, digests = make_graph([[], *[[0]] * 9])
    assert min(digests) != digests[0]  # The first of the longest paths ends in a skipped step.
    run = state.start_run(state.put_plan(plan))
    skipped = [StepResult(step, Status.SKIPPED, cause=digests[0]) for step in digests[1:]]
    state.put_results(run, [result(digests[0], 0, 2, Status.FAILED), *skipped])
    report = report_run(state, run)
    assert report["critical_path"] == [digests[0].hex()]
    assert f"<td>2.0 s</td><td>{output_name('step-0')}</td>" in render(report)
