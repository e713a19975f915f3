# SPDX-License-Identifier: MIT
"""Reports what happened in a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from tvix_build.plan.scheduling import order_steps
from tvix_build.plan.state import PlanState, Run, Status, StepResult


def report_run(state: PlanState, run: Run) -> dict[str, Any]:
    """Return a run as a JSON object: digests are hexadecimal, times in ISO 8601.

    Its members are `plan`, `run`, `started`, `finished`, `counts` by status, `steps`, ordered by
    digest, and `critical_path`: the digests of the chain of steps whose builds took longest in
    total, and `critical_seconds`, the time that they took. Each step has `step`, `name` (of its
    first output), `status`, `request`, `builder`, `started`, `finished`, `seconds`, `reason` and
    `cause`; members without a value are null. The times of a cached step are those of its build.
    """
    results = {result.step: result for result in state.results(run)}
    path = _critical_path(state, run, results)
    return {
        "plan": run.plan.hex(),
        "run": run.number,
        "started": run.started.isoformat(),
        "finished": _iso(run.finished),
        "counts": Counter(result.status.value for result in results.values()),
        "critical_seconds": sum(_seconds(results[step]) for step in path),
        "critical_path": [step.hex() for step in path],
        "steps": [_describe(state, result) for result in results.values()],
    }


def _describe(state: PlanState, result: StepResult) -> dict[str, Any]:
    return {
        "step": result.step.hex(),
        "name": state.step_name(result.step),
        "status": result.status.value,
        "request": result.request and result.request.hex(),
        "builder": result.builder,
        "started": _iso(result.started),
        "finished": _iso(result.finished),
        "seconds": _duration(result),
        "reason": result.reason,
        "cause": result.cause and result.cause.hex(),
    }


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _duration(result: StepResult) -> float | None:
    """Return how long the build took, also if it was stored before this run."""
    if result.started is None or result.finished is None:
        return None
    return (result.finished - result.started).total_seconds()


def _seconds(result: StepResult) -> float:
    """Return how long the build took in this run."""
    return 0.0 if result.status is Status.CACHED else _duration(result) or 0.0


def _critical_path(
    state: PlanState, run: Run, results: Mapping[bytes, StepResult]
) -> Sequence[bytes]:
    """Return the chain of steps whose builds took longest in total, each after those it needs."""
    steps = state.plan_steps(run.plan)
    numbers = {digest: number for number, (digest, _) in enumerate(steps)}
    needs = [{numbers[ref.step] for ref in refs} for _, refs in steps]
    # The time until a step is finished, and the step before it on the longest chain.
    finished = [0.0] * len(steps)
    previous = [-1] * len(steps)
    for step in order_steps(needs):
        digest = steps[step][0]
        before = max(needs[step], key=lambda one: (finished[one], -one), default=-1)
        previous[step] = before
        finished[step] = finished[before] if before >= 0 else 0.0
        if digest in results:
            finished[step] += _seconds(results[digest])
    path = []
    step = max(range(len(steps)), key=lambda one: finished[one], default=-1)
    while step >= 0 and finished[step] > 0:
        digest = steps[step][0]
        if digest in results and _duration(results[digest]) is not None:  # Not a skipped step.
            path.append(digest)
        step = previous[step]
    return path[::-1]
