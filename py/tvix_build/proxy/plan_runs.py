# SPDX-License-Identifier: MIT
"""Runs plans in the background, and records their events."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tvix.castore.protos.castore_pb2 import Node
from tvix_build._core.nodes import renamed
from tvix_build.builders import Builder
from tvix_build.castore import CastoreStore
from tvix_build.plan import (
    BuildSlots,
    Finished,
    PlanResult,
    PlanRunningError,
    PlanState,
    Run,
    Status,
    UnknownPlanError,
    run_async,
)
from tvix_build.plan.journal import Journal, Submission, now
from tvix_build.plan.locks import hold_lock
from tvix_build.plan.v1.rpc_plan_pb2 import Counts, Event, ListPlansResponse, StartPlanRequest
from tvix_build.plan.wire import base_name
from tvix_build.proxy.logs import LOG
from tvix_build.proxy.loop_thread import LoopThread
from tvix_build.proxy.plan_recording import Recorder
from tvix_build.proxy.status import shutting_down
from tvix_build.store import StoreError


@dataclass(frozen=True)
class PlanOptions:
    """How plans run.

    Attributes:
        path: the directory of the state. One server at a time uses it.
        builder: builds the steps.
        address: the address of the builder, for events.
        max_builds: the limit of concurrent builds of all plans.
        max_plans: the limit of running plans; further ones wait in the order of their start.
    """

    path: str
    builder: Builder
    address: str
    max_builds: int
    max_plans: int = 16


class PlanRuns:
    """The plans of a server. All run in a thread of their own, so that they do not delay calls.

    A plan that is running when the server stops is continued by the next server with the same
    state.

    Args:
        options: the options.
        castore: the castore of the builder.

    Attributes:
        state: the state.
        journal: the events.
        running: the number of running plans.

    Raises:
        StoreError: if another server uses the state, or if it cannot be opened.
    """

    def __init__(self, options: PlanOptions, castore: CastoreStore) -> None:
        self._options = options
        self._castore = castore
        self._slots = BuildSlots(options.max_builds)
        self._turns = asyncio.Semaphore(options.max_plans)
        self._tasks: dict[bytes, asyncio.Task[None]] = {}
        self._changes: dict[bytes, asyncio.Event] = {}
        self._changing = asyncio.Lock()
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self.running: int = 0
        with ExitStack() as stack:
            self.state: PlanState = stack.enter_context(PlanState(options.path))
            stack.enter_context(_lock(Path(options.path)))
            self.state.delete_unused_steps()
            self.journal: Journal = Journal(Path(options.path, "journal.sqlite"))
            stack.callback(self.journal.close)
            self._thread = LoopThread("plans")
            self._files = stack.pop_all()

    @property
    def waiting(self) -> int:
        """The number of plans that wait for others."""
        return len(self._tasks) - self.running

    def resume(self) -> None:
        """Continue the plans that were running when the last server stopped."""
        for submission in self.journal.running():
            self._begin(submission)

    async def start(self, request: StartPlanRequest) -> bytes:
        """Start a plan, unless it is running, and return its digest.

        Raises:
            UnknownStepError: if a step is not stored.
            ValidationError: if the steps are no valid plan.
        """
        async with self._changing:
            if self._closing:
                raise shutting_down()
            plan, steps = await asyncio.to_thread(self._put_plan, request.roots)
            if not await self._is_running(plan):
                last = await asyncio.to_thread(self._last_finished, plan)
                submission = Submission(plan, request, last)
                await asyncio.to_thread(self.journal.start, submission, steps)
                self._begin(submission)
            return plan

    async def cancel(self, plan: bytes) -> None:
        """End the builds of a plan, if it is running."""
        async with self._changing:
            task = self._tasks.get(plan)
            if task is None:
                return
            task.cancel()
            await asyncio.wait([task])
            if await asyncio.to_thread(self.journal.status, plan) != (
                ListPlansResponse.STATUS_RUNNING
            ):
                return  # It was finished before.
            event = Event(kind=Event.KIND_CANCELLED, time=now())
            status = ListPlansResponse.STATUS_CANCELLED
            await asyncio.to_thread(self.journal.append, plan, [event], status)
            self._changed(plan)

    async def delete(self, plan: bytes) -> int:
        """Delete a plan, and return the number of steps that were deleted with it.

        Raises:
            PlanRunningError: if it is running.
        """
        async with self._changing:
            if await self._is_running(plan):
                raise PlanRunningError(f"the plan {plan.hex()} is running: cancel it first")
            return await asyncio.to_thread(self._delete, plan)

    def _delete(self, plan: bytes) -> int:
        try:
            steps = self.state.delete_plan(plan)
        except UnknownPlanError:  # The last server was killed before it deleted the events.
            steps = 0
        self.journal.delete(plan)
        return steps

    async def watch(
        self, plan: bytes, first: int, kinds: Sequence[int], step: bytes
    ) -> AsyncIterator[bytes]:
        """Yield the encodings of events as `Journal.events`, those that happened and those that
        happen, until the plan is not running.

        Raises:
            StatusError: if the server shuts down.
        """
        while True:
            change = self._changes.setdefault(plan, asyncio.Event())
            status = await asyncio.to_thread(self.journal.status, plan)
            events = await asyncio.to_thread(self.journal.events, plan, first, kinds, step)
            for number, encoding in events:
                yield encoding
                first = number + 1
            if events:
                continue
            if status != ListPlansResponse.STATUS_RUNNING:
                return
            if self._closing:
                raise shutting_down()
            await change.wait()

    def end_watches(self) -> None:
        """End the calls that watch plans, and start no further plan."""
        self._closing = True
        for plan in [*self._changes]:
            self._changed(plan)

    async def close(self) -> None:
        """End all builds. The next server continues the plans."""
        self.end_watches()
        tasks = [*self._tasks.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._thread.close()
        self._files.close()

    def _put_plan(self, roots: Iterable[bytes]) -> tuple[bytes, int]:
        """Store a plan, and return its digest and the number of its steps."""
        plan = self.state.put_plan(self.state.collect_plan(roots))
        return plan, self.state.count_steps(plan)

    def _last_finished(self, plan: bytes) -> int:
        last = self.state.last_run(plan)
        return last.number if last is not None and last.finished is not None else 0

    async def _is_running(self, plan: bytes) -> bool:
        """Return whether a plan is running. If its end is recorded, clients have seen it, so this
        waits for the task."""
        task = self._tasks.get(plan)
        if task is None:
            return False
        if await asyncio.to_thread(self.journal.status, plan) == ListPlansResponse.STATUS_RUNNING:
            return True
        await asyncio.wait([task])
        return False

    def _begin(self, submission: Submission) -> None:
        task = asyncio.create_task(self._run_in_turn(submission))
        self._tasks[submission.plan] = task
        task.add_done_callback(lambda _: self._tasks.pop(submission.plan))

    async def _run_in_turn(self, submission: Submission) -> None:
        """Run a plan, after those that began to wait before."""
        if self._turns.locked():
            reason = f"{self._options.max_plans} other plans are running"
            event = Event(kind=Event.KIND_WAITING, time=now(), reason=reason)
            await asyncio.to_thread(self.journal.append, submission.plan, [event])
            self._changed(submission.plan)
        async with self._turns:
            self.running += 1
            try:
                await self._thread.run(self._run(submission))
            finally:
                self.running -= 1

    async def _run(self, submission: Submission) -> None:
        """Run a plan, in the thread of plans."""
        plan = submission.plan
        recorder = Recorder(
            self.journal,
            plan,
            self._options.address,
            lambda: self._loop.call_soon_threadsafe(self._changed, plan),
        )
        try:
            run = await asyncio.to_thread(self.state.last_run, plan)
            # A server that was killed may have finished the run without recording that.
            if run is None or run.finished is None or run.number <= submission.finished_run:
                result = await run_async(
                    plan,
                    [self._options.builder],
                    self.state,
                    castore=self._castore,
                    max_builds=self._slots,
                    timeout=submission.request.timeout or None,
                    fail_fast=submission.request.fail_fast,
                    on_event=recorder.record,
                )
                run = result.run
            await asyncio.to_thread(self._finish, recorder, run)
        except PlanRunningError as error:
            await asyncio.to_thread(recorder.fail, str(error))
        except Exception:
            LOG.exception("plan failed", extra={"fields": {"plan": plan.hex()}})
            reason = "internal error in the server; see the server's log"
            await asyncio.to_thread(recorder.fail, reason)
        finally:
            await recorder.close()

    def _finish(self, recorder: Recorder, run: Run) -> None:
        """Record the outcomes that are not recorded, and the end of the run."""
        counts: Counter[Status] = Counter()
        for result in self.state.results(run):
            counts[result.status] += 1
            recorder.record(Finished(result))
        succeeded = PlanResult(run, counts).succeeded
        event = Event(
            kind=Event.KIND_FINISHED,
            time=now(),
            counts=Counts(**{status.value: count for status, count in counts.items()}),
            outputs=_outputs(self.state, run) if succeeded else (),
        )
        recorder.end(
            event,
            ListPlansResponse.STATUS_SUCCEEDED if succeeded else ListPlansResponse.STATUS_FAILED,
        )

    def _changed(self, plan: bytes) -> None:
        """Wake the calls that watch a plan."""
        change = self._changes.pop(plan, None)
        if change is not None:
            change.set()


@contextmanager
def _lock(directory: Path) -> Iterator[None]:
    """Hold the lock of the server of a state.

    Raises:
        StoreError: if another server holds it.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(hold_lock(directory / "server.lock"))
        except BlockingIOError:
            raise StoreError(f"{directory}: another server uses this state of plans") from None
        yield


def _outputs(state: PlanState, run: Run) -> Iterable[Node]:
    """Yield the outputs of a successful run, with the base names of their paths."""
    for path, node in state.root_outputs(run).items():
        yield renamed(node, base_name(path.encode()))
