# SPDX-License-Identifier: MIT
"""Runs plans."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush

from tvix_build._core.report import Schema
from tvix_build.builders import Builder, BuildResult
from tvix_build.builders.caching import has_outputs
from tvix_build.builders.threads import run_in_thread
from tvix_build.castore import CastoreStore
from tvix_build.plan.attempts import Attempts, Failure, Resolved, default_backoff
from tvix_build.plan.events import Finished, Logged, OnEvent, Queued, Started
from tvix_build.plan.jobs import Job
from tvix_build.plan.scheduling import BuildSlots, Schedule
from tvix_build.plan.state import PlanState, Run, Status, StepResult
from tvix_build.plan.wire import Input, add_inputs
from tvix_build.proxy.shared.checks import check_request
from tvix_build.proxy.shared.services import SERVICES

_LARGEST_BATCH = 256
"""How many requests may wait for each stage of a run."""


@dataclass(frozen=True)
class PlanResult:
    """A finished run.

    Attributes:
        run: the run.
        counts: the number of steps by outcome.
    """

    run: Run
    counts: Mapping[Status, int]

    @property
    def succeeded(self) -> bool:
        """Whether all steps have outputs."""
        return not (self.counts[Status.FAILED] or self.counts[Status.SKIPPED])


def run(
    plan: bytes,
    builders: Sequence[Builder],
    state: PlanState,
    *,
    castore: CastoreStore,
    weights: Sequence[float] | None = None,
    max_builds: int | BuildSlots | None = None,
    timeout: float | None = None,
    retries: int = 5,
    backoff: Callable[[int], float] = default_backoff,
    fail_fast: bool = False,
    on_event: OnEvent | None = None,
) -> PlanResult:
    """Build the steps of a plan, each after the steps that it needs.

    If the last run of the plan was not finished, for example because its process was killed, it is
    continued: builds that were stored are not repeated, and neither are failures. Otherwise a new
    run begins. Requests with a stored build whose outputs the castore has are not built. Steps with
    the same request share one build.

    A step fails if its build fails, takes too long, or is refused by all builders. The steps that
    need it are skipped. If a builder is unavailable, the request is retried.

    Args:
        plan: the digest of a plan in the state.
        builders: the builders, at least one. They share the castore.
        state: the state, which also has the store of builds.
        castore: the castore of all builders.
        weights: a number for each builder: one of weight 2 gets twice as many builds as one of 1;
            by default, all are equal.
        max_builds: how many builds run at the same time, or the slots that several runs share; by
            default, the number of CPUs.
        timeout: the seconds that a build may take.
        retries: how often a request is retried if builders are unavailable.
        backoff: returns the seconds to wait before a retry, from the number of failures so far; by
            default 1, 2, 4, up to 60.
        fail_fast: whether no further build starts after the first failure.
        on_event: called with each event.

    Raises:
        UnknownPlanError: if the state does not have the plan.
        PlanRunningError: if another call, perhaps in another process, runs the plan.
        StoreError: if the state cannot be read or written.
        ValueError: if there is no builder, or not a weight for each.
    """
    return asyncio.run(
        run_async(
            plan,
            builders,
            state,
            castore=castore,
            weights=weights,
            max_builds=max_builds,
            timeout=timeout,
            retries=retries,
            backoff=backoff,
            fail_fast=fail_fast,
            on_event=on_event,
        )
    )


async def run_async(
    plan: bytes,
    builders: Sequence[Builder],
    state: PlanState,
    *,
    castore: CastoreStore,
    weights: Sequence[float] | None = None,
    max_builds: int | BuildSlots | None = None,
    timeout: float | None = None,
    retries: int = 5,
    backoff: Callable[[int], float] = default_backoff,
    fail_fast: bool = False,
    on_event: OnEvent | None = None,
) -> PlanResult:
    """As `run`. Cancelling the call ends all builds; a later call continues the run."""
    weights = weights or [1.0] * len(builders)
    if not builders or len(weights) != len(builders):
        raise ValueError(
            f"expected builders, and a weight for each, found {len(builders)} builders and "
            f"{len(weights)} weights"
        )
    attempts = Attempts(
        builders,
        weights,
        limit=timeout,
        retries=retries,
        backoff=backoff,
    )
    with state.lock(plan):
        runner = _Runner(
            state,
            state.start_run(plan),
            attempts,
            castore,
            max_builds
            if isinstance(max_builds, BuildSlots)
            else BuildSlots(max_builds or os.cpu_count() or 1),
            fail_fast,
            on_event or (lambda _: None),
        )
        await runner.run()
        return PlanResult(state.finish_run(runner.current), runner.counts)


class _Runner:
    """Runs a plan once.

    A ready step becomes a job, or joins the job with the same request. A job is looked up in the
    store of builds, then built by one of the builders, then stored; each stage but the building
    takes all jobs that wait for it, in a thread. When a job is stored, its steps are finished.

    Attributes:
        current: the run.
        counts: the number of finished steps by outcome.
    """

    def __init__(
        self,
        state: PlanState,
        current: Run,
        attempts: Attempts,
        castore: CastoreStore,
        slots: BuildSlots,
        fail_fast: bool,
        on_event: OnEvent,
    ) -> None:
        self._state = state
        self.current = current
        self._attempts = attempts
        self._castore = castore
        self._slots = slots
        self._fail_fast = fail_fast
        self._on_event = on_event
        self.counts: Counter[Status] = Counter()
        steps = state.plan_steps(current.plan)
        self._digests = [digest for digest, _ in steps]
        self._numbers = {digest: number for number, digest in enumerate(self._digests)}
        needs = [[self._numbers[ref.step] for ref in refs] for _, refs in steps]
        self._schedule = Schedule(needs)
        self._outputs: list[Mapping[bytes, Input]] = [{} for _ in steps]
        self._earlier = {result.step: result for result in state.results(current)}
        self._failed = {
            result.request: Failure(result.reason or "")
            for result in self._earlier.values()
            if result.status is Status.FAILED
        }
        # All jobs, by the digest of the request, and those that wait for each stage.
        self._jobs: dict[bytes, Job] = {}
        self._unknown: list[Job] = []
        self._buildable: list[tuple[tuple[int, int], Job]] = []
        self._ended: list[Job] = []
        self._storing: list[Job] = []
        self._lookup: asyncio.Task[None] | None = None
        self._builds: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._error: BaseException | None = None
        self._stopping = False
        self._first_failure: int | None = None

    async def run(self) -> None:
        """Run until all steps are finished."""
        try:
            while self._schedule.left:
                self._advance()
                if not self._jobs:
                    await self._skip_rest()
                    return
                await self._changed.wait()
                self._changed.clear()
                if self._error is not None:
                    raise self._error
                await self._store_ended()
        finally:
            await self._stop()

    async def _stop(self) -> None:
        """End all builds, and store the outcomes of those that ended before."""
        self._stopping = True
        tasks = [*self._builds, *([self._lookup] if self._lookup else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        # Storing a job again changes nothing.
        jobs = [*self._storing, *self._ended]
        if jobs:
            self._check_outputs(jobs)
            self._write(jobs, self._results(jobs))

    def _advance(self) -> None:
        """Start what can be started."""
        if self._error is not None or self._stopping:
            return
        if self._fail_fast and self._first_failure is not None:
            for job in (*self._unknown, *(job for _, job in self._buildable)):
                del self._jobs[job.request.digest]
            self._unknown.clear()
            self._buildable.clear()
            return
        while self._buildable and self._slots.take(self._advance):
            self._start_build(heappop(self._buildable)[1])
        while (
            len(self._unknown) + len(self._buildable) < _LARGEST_BATCH
            and len(self._ended) < _LARGEST_BATCH
            and (step := self._schedule.take()) is not None
        ):
            self._start(step)
        if self._unknown and self._lookup is None:
            self._lookup = asyncio.create_task(self._look_up())
            self._lookup.add_done_callback(self._lookup_done)

    def _start(self, step: int) -> None:
        request = self._resolve(step)
        job = self._jobs.get(request.digest)
        if job is not None:
            job.steps.append(step)
            return
        job = self._jobs[request.digest] = Job(request, [step])
        failure = self._failed.get(request.digest)
        if failure is not None:
            self._end(job, failure)
        else:
            self._unknown.append(job)

    def _resolve(self, step: int) -> Resolved:
        """Return the request of a step with the outputs of the steps that it needs."""
        found = self._state.step(self._digests[step])
        inputs = [self._outputs[self._numbers[ref.step]][ref.name] for ref in found.refs]
        encoding = add_inputs(found.request, found.schema, inputs)
        return Resolved(*check_request(SERVICES[found.schema], encoding), found.schema)

    async def _look_up(self) -> None:
        """Find jobs whose builds are stored."""
        jobs, self._unknown = self._unknown, []
        found = await run_in_thread(
            lambda: [self._find_build(job.request) for job in jobs], lambda: None
        )
        for job, build in zip(jobs, found, strict=True):
            if build is not None:
                self._end(job, build)
            else:
                heappush(self._buildable, (self._schedule.rank(job.steps[0]), job))
                self._on_event(Queued(self._digests[job.steps[0]], job.request.digest))

    def _find_build(self, request: Resolved) -> BuildResult[bytes] | None:
        build = self._state.builds.get_build(request.digest, schema=request.schema)
        if build is None or not has_outputs(self._castore, build.outputs.values()):
            return None
        return build

    def _lookup_done(self, task: asyncio.Task[None]) -> None:
        self._lookup = None
        self._task_done(task)

    def _start_build(self, job: Job) -> None:
        job.status = Status.BUILT
        task = asyncio.create_task(self._build(job))
        self._builds.add(task)
        task.add_done_callback(self._build_done)

    async def _build(self, job: Job) -> None:
        digest = self._digests[job.steps[0]]
        outcome = await self._attempts.build(
            job.request,
            lambda builder: self._on_event(Started(digest, builder)),
            lambda data: self._on_event(Logged(digest, data)),
        )
        self._end(job, outcome)

    def _build_done(self, task: asyncio.Task[None]) -> None:
        self._builds.discard(task)
        self._task_done(task)
        self._slots.release()

    def _task_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self._error = self._error or task.exception()
        elif not self._stopping:  # by its builder, or by the loop, which also cancels `run`
            self._error = self._error or RuntimeError("a build was cancelled")
        try:
            self._advance()
        except Exception as error:  # asyncio would only log it, and `run` would wait forever.
            self._error = self._error or error
        self._changed.set()

    def _end(self, job: Job, outcome: BuildResult[bytes] | Failure) -> None:
        self._set_outcome(job, outcome)
        self._ended.append(job)
        self._changed.set()

    def _set_outcome(self, job: Job, outcome: BuildResult[bytes] | Failure) -> None:
        job.outcome = outcome
        if isinstance(outcome, Failure) and self._first_failure is None:
            self._first_failure = job.steps[0]

    async def _store_ended(self) -> None:
        """Store the outcomes of all jobs that have one, and finish their steps."""
        jobs, self._ended = self._ended, []
        if jobs:
            self._storing = jobs
            # If the call is cancelled, this waits for the threads.
            await run_in_thread(lambda: self._check_outputs(jobs), lambda: None)
            await self._store(jobs, self._results(jobs))
            self._storing = []

    async def _skip_rest(self) -> None:
        """Finish the steps that fail_fast prevents."""
        assert self._first_failure is not None
        await self._store([], self._skip(self._schedule.skip_rest(), self._first_failure))

    async def _store(self, jobs: Sequence[Job], results: Sequence[StepResult]) -> None:
        await run_in_thread(lambda: self._write(jobs, results), lambda: None)
        for job in jobs:
            self._finish(job)
        for result in results:
            self.counts[result.status] += 1
            self._on_event(Finished(result))

    def _check_outputs(self, jobs: Sequence[Job]) -> None:
        """Fail the new builds whose outputs the castore does not have."""
        for job in jobs:
            build = job.outcome
            if (
                isinstance(build, BuildResult)
                and job.status is Status.BUILT
                and not has_outputs(self._castore, build.outputs.values())
            ):
                reason = "expected the outputs in the castore, found an incomplete tree"
                self._set_outcome(job, Failure(reason, build.record))

    def _write(self, jobs: Sequence[Job], results: Sequence[StepResult]) -> None:
        by_schema: dict[Schema, list[BuildResult[bytes]]] = {}
        for job in jobs:
            if isinstance(job.outcome, BuildResult) and job.status is Status.BUILT:
                by_schema.setdefault(job.request.schema, []).append(job.outcome)
        # First: a step without a result is resolved again, and its build is found.
        for schema, builds in by_schema.items():
            self._state.builds.put_builds(builds, schema=schema)
        self._state.put_results(self.current, results)

    def _results(self, jobs: Sequence[Job]) -> list[StepResult]:
        """Return the outcomes of the steps of jobs, and of the steps that are skipped therefore."""
        results = []
        for job in jobs:
            steps, job.steps = job.steps, []
            found = job.describe()
            for step in steps:
                results.append(self._result(step, found))
                if found.succeeded:
                    job.stored.append(step)
                    found = replace(found, status=Status.CACHED)
                else:
                    results += self._skip(self._schedule.fail(step), step)
        return results

    def _result(self, step: int, found: StepResult) -> StepResult:
        """Return the outcome of a step: that which it had before the run was continued, if it is
        the same build."""
        earlier = self._earlier.get(self._digests[step])
        if earlier is not None and (earlier.request, earlier.succeeded) == (
            found.request,
            found.succeeded,
        ):
            return earlier
        return replace(found, step=self._digests[step])

    def _skip(self, steps: Sequence[int], cause: int) -> list[StepResult]:
        failed = self._digests[cause]
        return [StepResult(self._digests[step], Status.SKIPPED, cause=failed) for step in steps]

    def _finish(self, job: Job) -> None:
        """Make the steps ready that need the steps of a job."""
        if isinstance(job.outcome, Failure):
            self._failed[job.request.digest] = job.outcome
        else:
            outputs = job.outputs()
            for step in job.stored:
                self._outputs[step] = outputs
                self._schedule.succeed(step)
            job.stored.clear()
        if job.steps:  # They joined while the outcome was being stored.
            job.status = Status.CACHED
            self._ended.append(job)
            self._changed.set()
        else:
            del self._jobs[job.request.digest]
