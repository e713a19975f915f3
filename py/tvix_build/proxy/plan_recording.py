# SPDX-License-Identifier: MIT
"""Records the events of a run of a plan."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from datetime import datetime

from tvix_build.plan import Event as RunEvent
from tvix_build.plan import Finished, Logged, Queued, Started, Status, StepResult
from tvix_build.plan.journal import Journal, now
from tvix_build.plan.v1.rpc_plan_pb2 import Event, ListPlansResponse

_LOG_SIZE = 1 << 20
"""How many bytes of the log of a step are recorded as events. The castore has the whole log."""
_KINDS = {
    Status.BUILT: Event.KIND_BUILT,
    Status.CACHED: Event.KIND_CACHED,
    Status.FAILED: Event.KIND_FAILED,
    Status.SKIPPED: Event.KIND_SKIPPED,
}


class Recorder:
    """Writes the events of a plan to a journal, in a task, some at a time.

    Args:
        journal: the journal.
        plan: the digest of the plan.
        builder: the address of the builder.
        on_write: called when events are written.
    """

    def __init__(
        self, journal: Journal, plan: bytes, builder: str, on_write: Callable[[], object]
    ) -> None:
        self._journal = journal
        self._plan = plan
        self._builder = builder
        self._on_write = on_write
        self._loop = asyncio.get_running_loop()
        # A run that is continued reports the outcomes of all steps again.
        self._finished = journal.finished_steps(plan)
        self._requests: dict[bytes, bytes] = {}
        self._log_sizes: Counter[bytes] = Counter()
        self._events: deque[tuple[Event, int | None]] = deque()
        self._wake = asyncio.Event()
        self._closed = False
        self._writing = asyncio.create_task(self._write())

    def record(self, event: RunEvent) -> None:
        """Record an event, which may happen in any thread."""
        if isinstance(event, Queued):
            self._requests[event.step] = event.request
        elif isinstance(event, Logged):
            left = _LOG_SIZE - self._log_sizes[event.step]
            if left <= 0:
                return
            event = Logged(event.step, event.data[:left])
            self._log_sizes[event.step] += len(event.data)
        elif isinstance(event, Finished):
            if event.result.step in self._finished:
                return
            self._finished.add(event.result.step)
        self._add(self._describe(event))

    def end(self, event: Event, status: int) -> None:
        """Record the last event, and the status of the plan."""
        self._add(event, status)

    def fail(self, reason: str) -> None:
        """Record why the run cannot continue."""
        event = Event(kind=Event.KIND_FINISHED, time=now(), reason=reason)
        self.end(event, ListPlansResponse.STATUS_FAILED)

    async def close(self) -> None:
        """Write what is recorded, and end the task."""
        self._closed = True
        self._wake.set()
        await asyncio.wait([self._writing])
        self._writing.result()

    def _add(self, event: Event, status: int | None = None) -> None:
        self._events.append((event, status))
        self._loop.call_soon_threadsafe(self._wake.set)

    async def _write(self) -> None:
        while self._events or not self._closed:
            await self._wake.wait()
            self._wake.clear()
            found = [self._events.popleft() for _ in range(len(self._events))]
            if found:
                events = [event for event, _ in found]
                await asyncio.to_thread(self._journal.append, self._plan, events, found[-1][1])
                self._on_write()

    def _describe(self, event: RunEvent) -> Event:
        if isinstance(event, Finished):
            return _describe_result(event.result)
        found = Event(time=now(), step=event.step, request=self._requests.get(event.step, b""))
        if isinstance(event, Queued):
            found.kind = Event.KIND_QUEUED
        elif isinstance(event, Started):
            found.kind = Event.KIND_STARTED
            found.builder = self._builder
        else:
            found.kind = Event.KIND_LOG
            found.log = event.data
        return found


def _describe_result(result: StepResult) -> Event:
    return Event(
        kind=_KINDS[result.status],
        time=now(),
        step=result.step,
        request=result.request or b"",
        builder=result.builder or "",
        started=_microseconds(result.started),
        finished=_microseconds(result.finished),
        reason=result.reason or "",
        cause=result.cause or b"",
    )


def _microseconds(time: datetime | None) -> int:
    return 0 if time is None else round(time.timestamp() * 1_000_000)
