# SPDX-License-Identifier: MIT
"""`plan.run` with builders that fail, hang, lie, differ and die, against a model."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tvix_build
from fake_builder import FakeBuilder, describe
from made_plans import digest_of, make_graph, make_plan, make_step, output_name
from tvix.castore.protos.castore_pb2 import Node
from tvix_build.builders import BuildFailedError, BuildResult, RefusedError, UnavailableError
from tvix_build.builders.messages import Request, read_request
from tvix_build.castore import CastoreStore
from tvix_build.plan.events import Event, Finished, Logged, Queued, Started
from tvix_build.plan.running import PlanResult, _Runner, run, run_async
from tvix_build.plan.state import PlanState, Status, StepResult, UnknownPlanError
from waiting import LIMIT


@pytest.fixture
def castore(tmp_path: Path) -> Iterator[CastoreStore]:
    with CastoreStore(tmp_path / "castore") as opened:
        yield opened


@pytest.fixture
def state(tmp_path: Path) -> Iterator[PlanState]:
    with PlanState(tmp_path / "state") as opened:
        yield opened


def step_number(request: Request) -> int:
    """Return the number of the step that a request comes from."""
    return int(request.message.command_args[-1].rpartition("-")[2])


class OddBuilder(FakeBuilder):
    """A builder whose steps behave as a function of the request says.

    Args:
        behave: returns, or raises the error of the build.
        change: changes the result.
        wait: awaited before the build.
    """

    def __init__(
        self,
        castore: CastoreStore,
        *,
        behave: Callable[[Request], bytes] = describe,
        change: Callable[[int, BuildResult[Any]], BuildResult[Any]] = lambda _, result: result,
        wait: Callable[[int], asyncio.Future[Any] | None] = lambda _: None,
    ) -> None:
        super().__init__(castore, behave)
        self._change = change
        self._wait = wait

    async def build_async(
        self, request: Any, *, schema: Any = None, on_log: Any = None
    ) -> BuildResult[Any]:
        number = step_number(read_request(request, schema))
        waiting = self._wait(number)
        if waiting is not None:
            await waiting
        result = await super().build_async(request, schema=schema, on_log=on_log)
        return self._change(number, result)


def run_plan(
    plan: bytes, builders: Any, state: PlanState, castore: CastoreStore, **options: Any
) -> tuple[PlanResult, dict[bytes, StepResult]]:
    """Run a plan, and return the result and the outcomes by step."""
    if not isinstance(builders, list):
        builders = [builders]
    found = run(
        state.put_plan(plan), builders, state, castore=castore, backoff=lambda _: 0, **options
    )
    return found, {one.step: one for one in state.results(found.run)}


def test_a_chain(castore: CastoreStore, state: PlanState) -> None:
    plan, digests = make_graph([[], [0], [1, 0]])
    builder = FakeBuilder(castore)
    result, results = run_plan(plan, builder, state, castore)
    assert result.counts == {Status.BUILT: 3}
    assert result.succeeded
    assert [results[one].request for one in digests] == builder.built
    again, _ = run_plan(plan, builder, state, castore)
    assert again.counts == {Status.CACHED: 3}
    assert len(builder.built) == 3
    assert [one.number for one in state.runs()] == [result.run.number, again.run.number]


def test_the_outputs_are_inputs(castore: CastoreStore, state: PlanState) -> None:
    plan, _ = make_graph([[], [], [1, 0]])
    seen: list[dict[bytes, bytes]] = []

    def behave(request: Request) -> bytes:
        inputs = {}
        for entry in request.message.inputs:
            with castore.open_blob(entry.file.digest) as file:
                inputs[entry.file.name] = file.read()
        seen.append(inputs)
        return b"output of %d" % step_number(request)

    run_plan(plan, FakeBuilder(castore, behave), state, castore)
    assert seen[-1] == {output_name(f"step-{i}").encode(): b"output of %d" % i for i in (0, 1)}


def test_the_longest_path_comes_first(castore: CastoreStore, state: PlanState) -> None:
    # 0 <- 2 <- 4, 1 <- 3; 5 alone.
    plan, digests = make_graph([[], [], [0], [1], [2], []])
    _, results = run_plan(plan, builder := FakeBuilder(castore), state, castore, max_builds=1)
    by_request = {results[digest].request: number for number, digest in enumerate(digests)}
    order = [by_request[request] for request in builder.built]
    # Step 2 becomes ready when step 0 is stored, which may be after the next build starts.
    assert [step for step in order if step in (0, 1, 5)] == [0, 1, 5]


def test_equal_requests_share_a_build(castore: CastoreStore, state: PlanState) -> None:
    first, second = make_step("a", script="same"), make_step("b", script="same")
    # These two differ in what makes their input, which is the same in both.
    steps = [first, second]
    for step, name in ((first, "a"), (second, "b")):
        steps.append(make_step("c", {digest_of(step): [output_name(name)]}))
    equal = FakeBuilder(castore, lambda _: b"x")
    plan = make_plan(steps, map(digest_of, steps))
    result, results = run_plan(plan, equal, state, castore)
    assert result.counts == {Status.BUILT: 4}
    # The names of the inputs differ. With the same name, the requests are equal.
    steps = [make_step("a", script=script) for script in ("one", "two")]
    steps += [make_step("c", {digest_of(step): [output_name("a")]}) for step in steps]
    plan = make_plan(steps, map(digest_of, steps))
    result, results = run_plan(plan, equal, state, castore)
    assert results[digest_of(steps[2])].request == results[digest_of(steps[3])].request
    assert result.counts == {Status.BUILT: 2, Status.CACHED: 2}
    assert len(equal.built) == 6


def test_equal_requests_share_a_failure(castore: CastoreStore, state: PlanState) -> None:
    steps = [make_step("a", script=script) for script in ("one", "two")]
    steps += [make_step("c", {digest_of(step): [output_name("a")]}) for step in steps]

    def behave(request: Request) -> bytes:
        if request.message.inputs:
            raise ValueError("defect")
        return b"x"

    builder = FakeBuilder(castore, behave)
    plan = make_plan(steps, map(digest_of, steps))
    result, results = run_plan(plan, builder, state, castore, max_builds=1)
    assert result.counts == {Status.BUILT: 2, Status.FAILED: 2}
    assert len(builder.built) == 3
    assert results[digest_of(steps[2])].reason == "the builder failed: ValueError: defect"
    assert not result.succeeded


def test_a_missing_plan(castore: CastoreStore, state: PlanState) -> None:
    with pytest.raises(UnknownPlanError, match="no plan with the digest 0000"):
        run(bytes(32), [FakeBuilder(castore)], state, castore=castore)


def test_builders_and_weights_must_match(castore: CastoreStore, state: PlanState) -> None:
    plan, _ = make_graph([[]])
    with pytest.raises(ValueError, match="found 0 builders and 0 weights"):
        run_plan(plan, [], state, castore)
    with pytest.raises(ValueError, match="found 1 builders and 2 weights"):
        run_plan(plan, FakeBuilder(castore), state, castore, weights=[1, 2])
    with pytest.raises(tvix_build.ValidationError):
        state.put_plan(plan[:-1])
    assert state.runs() == []


def test_events(castore: CastoreStore, state: PlanState) -> None:
    plan, digests = make_graph([[], [0]])
    events: list[Event] = []
    _, results = run_plan(plan, FakeBuilder(castore), state, castore, on_event=events.append)
    assert events == [
        event
        for digest in digests
        for event in (
            Queued(digest, results[digest].request or b""),
            Started(digest, 0),
            Logged(digest, b"building\n"),
            Finished(results[digest]),
        )
    ]


def test_a_time_limit(castore: CastoreStore, state: PlanState) -> None:
    plan, digests = make_graph([[], [0]])

    class Hanging(FakeBuilder):
        ended = False

        async def build_async(self, *_: Any, **__: Any) -> BuildResult[Any]:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self.ended = True
            raise AssertionError

    builder = Hanging(castore)
    _, results = run_plan(plan, builder, state, castore, timeout=0.001)
    assert results[digests[0]].reason == "the limit of time, 0.001 s, is exceeded"
    assert results[digests[1]].status is Status.SKIPPED
    assert builder.ended


def test_fail_fast(castore: CastoreStore, state: PlanState) -> None:
    plan, digests = make_graph([[], [0], [1], []])

    def behave(request: Request) -> bytes:
        raise ValueError(step_number(request))

    builder = FakeBuilder(castore, behave)
    _, results = run_plan(plan, builder, state, castore, max_builds=1, fail_fast=True)
    assert len(builder.built) == 1
    assert results[digests[0]].status is Status.FAILED
    assert {results[one].cause for one in digests[1:]} == {digests[0]}


def test_builders_that_are_unavailable(castore: CastoreStore, state: PlanState) -> None:
    plan, _ = make_graph([[], [], []])
    waits: list[int] = []

    def die(_: Request) -> bytes:
        raise UnavailableError("no route to host")

    dead, alive = FakeBuilder(castore, die), FakeBuilder(castore)
    digest = state.put_plan(plan)
    options: dict[str, Any] = {"castore": castore, "max_builds": 1}

    def backoff(failures: int) -> float:
        waits.append(failures)
        return 0

    found = run(digest, [dead, alive], state, **options, backoff=backoff)
    assert found.succeeded
    assert (len(dead.built), len(alive.built), waits) == (3, 3, [])
    plan, _ = make_graph([[], []])
    with PlanState(Path(castore.path).parent / "other") as other:
        found = run(other.put_plan(plan), [dead], other, **options, backoff=backoff, retries=3)
        (failed, _) = other.results(found.run)
    assert failed.reason == "no route to host; 4 attempts failed"
    assert waits == [1, 2, 3] * 2
    plan, _ = make_graph([[], [], []])
    with PlanState(Path(castore.path).parent / "third") as third:
        found = run(third.put_plan(plan), [dead], third, **options, retries=0)
        (failed, *_) = third.results(found.run)
    assert failed.reason == "no route to host; 1 attempt failed"


def test_builders_that_are_unavailable_permanently(castore: CastoreStore, state: PlanState) -> None:
    plan, _ = make_graph([[], []])

    def die(_: Request) -> bytes:
        raise UnavailableError("no namespaces", permanent=True)

    dead, alive = FakeBuilder(castore, die), FakeBuilder(castore)
    found = run(state.put_plan(plan), [dead], state, castore=castore)
    assert {one.reason for one in state.results(found.run)} == {"no namespaces"}
    assert len(dead.built) == 2
    assert run(found.run.plan, [dead, alive], state, castore=castore).succeeded


def test_the_last_builder_has_time_to_recover(castore: CastoreStore, state: PlanState) -> None:
    plan, _ = make_graph([[]])
    waits: list[int] = []

    def recover(request: Request) -> bytes:
        if not waits:
            raise UnavailableError("busy")
        return describe(request)

    def die(_: Request) -> bytes:
        raise UnavailableError("no namespaces", permanent=True)

    def backoff(failures: int) -> float:
        waits.append(failures)
        return 0

    builders = [FakeBuilder(castore, recover), FakeBuilder(castore, die)]
    found = run(state.put_plan(plan), builders, state, castore=castore, backoff=backoff)
    assert (found.succeeded, waits) == (True, [1])


def test_builders_that_refuse(castore: CastoreStore, state: PlanState) -> None:
    def refuse(request: Request) -> bytes:
        raise RefusedError([f"reason {step_number(request)}"])

    refusing = FakeBuilder(castore, refuse)
    plan, digests = make_graph([[]])
    _, results = run_plan(plan, [refusing, refusing], state, castore)
    assert results[digests[0]].reason == "reason 0"
    assert len(refusing.built) == 2
    _, results = run_plan(plan, [refusing, FakeBuilder(castore)], state, castore)
    assert results[digests[0]].status is Status.BUILT


def test_weights(castore: CastoreStore, state: PlanState) -> None:
    async def run_both() -> None:
        plan, _ = make_graph([[]] * 9)
        release = asyncio.Event()
        counts: Counter[int] = Counter()

        def on_event(event: Event) -> None:
            if isinstance(event, Started):
                counts[event.builder] += 1
                if counts.total() == 9:
                    release.set()

        builders = [
            OddBuilder(castore, wait=lambda _: asyncio.ensure_future(release.wait()))
            for _ in range(2)
        ]
        found = await run_async(
            state.put_plan(plan),
            builders,
            state,
            castore=castore,
            weights=[1, 2],
            max_builds=9,
            on_event=on_event,
        )
        assert found.succeeded
        assert counts == {0: 3, 1: 6}

    asyncio.run(asyncio.wait_for(run_both(), LIMIT))


def test_cancelling_keeps_what_is_finished(castore: CastoreStore, state: PlanState) -> None:
    plan, digests = make_graph([[], [0], []])
    builder = FakeBuilder(castore)

    async def cancel() -> None:
        running = asyncio.Event()

        def on_event(event: Event) -> None:
            if isinstance(event, Finished):
                running.set()

        hanging = OddBuilder(
            castore,
            wait=lambda number: asyncio.get_running_loop().create_future() if number else None,
        )
        task = asyncio.create_task(
            run_async(state.put_plan(plan), [hanging], state, castore=castore, on_event=on_event)
        )
        await asyncio.wait_for(running.wait(), LIMIT)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(hanging.built) == 1

    asyncio.run(cancel())
    (unfinished,) = state.runs()
    assert unfinished.finished is None
    result, results = run_plan(plan, builder, state, castore)
    assert result.run.number == unfinished.number
    assert {results[digest].status for digest in digests} == {Status.BUILT}
    assert len(builder.built) == 2


@pytest.mark.parametrize("method", ["_check_outputs", "_write"])
def test_cancelling_while_builds_are_stored(
    castore: CastoreStore, state: PlanState, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    plan, _ = make_graph([[], [0]])
    original = getattr(_Runner, method)

    async def cancel() -> None:
        loop = asyncio.get_running_loop()

        def cancelled_meanwhile(*arguments: Any) -> None:
            monkeypatch.setattr(_Runner, method, original)
            cancelled = threading.Event()
            loop.call_soon_threadsafe(task.cancel)
            loop.call_soon_threadsafe(cancelled.set)
            assert cancelled.wait(LIMIT)
            original(*arguments)

        monkeypatch.setattr(_Runner, method, cancelled_meanwhile)
        builder = FakeBuilder(castore)
        task = asyncio.create_task(
            run_async(state.put_plan(plan), [builder], state, castore=castore, max_builds=1)
        )
        with pytest.raises(asyncio.CancelledError):
            await task
        stored = {build.record.request_digest for _, build in state.builds.builds()}
        (unfinished,) = state.runs()
        assert stored == {result.request for result in state.results(unfinished)}
        assert stored == set(builder.built)

    asyncio.run(asyncio.wait_for(cancel(), LIMIT))


def test_a_builder_that_cancels_its_build(castore: CastoreStore, state: PlanState) -> None:
    class Cancelling(FakeBuilder):
        async def build_async(self, *_: Any, **__: Any) -> BuildResult[Any]:
            raise asyncio.CancelledError

    plan, _ = make_graph([[]])
    with pytest.raises(RuntimeError, match="a build was cancelled"):
        run_plan(plan, Cancelling(castore), state, castore)


LIES: dict[str, Callable[[BuildResult[Any]], BuildResult[Any]]] = {
    "no response": lambda result: replace(result, response=b"\xff"),
    "another request": lambda result: replace(
        result, response=result.response.replace(b"/bin/sh", b"/bin/sx")
    ),
    "another record": lambda result: replace(
        result, record=replace(result.record, request_digest=bytes(32))
    ),
    "no outputs": lambda result: replace(result, outputs={}),
    "missing blobs": lambda result: replace(
        result, outputs={path: Node(file={"digest": bytes(32)}) for path in result.outputs}
    ),
    "nothing": lambda _: None,  # type: ignore[dict-item,return-value]
}


@pytest.mark.parametrize("lie", LIES)
def test_lies(castore: CastoreStore, state: PlanState, lie: str) -> None:
    plan, digests = make_graph([[], [0]])
    builder = OddBuilder(castore, change=lambda _, result: LIES[lie](result))
    _, results = run_plan(plan, builder, state, castore)
    assert results[digests[0]].status is Status.FAILED
    assert results[digests[1]] == StepResult(digests[1], Status.SKIPPED, cause=digests[0])
    assert list(state.builds.builds()) == []


# ---- the model

OK, DIFFERS, FAILS, LIES_, HANGS, DIES, STAYS_DEAD = range(7)
RETRIES = 3


def expected_statuses(needs: Sequence[Sequence[int]], behaviour: Sequence[int]) -> list[Status]:
    """The model: what must happen to each step."""
    found: list[Status] = []
    for needed, how in zip(needs, behaviour, strict=True):
        if any(found[one] is not Status.BUILT for one in needed):
            found.append(Status.SKIPPED)
        else:
            found.append(Status.FAILED if how in (FAILS, LIES_, STAYS_DEAD) else Status.BUILT)
    return found


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[list[int]], list[int]]:
    """Return for each step the earlier steps that it needs, and how it behaves."""
    size = draw(st.integers(1, 25))
    needs = [
        sorted(draw(st.sets(st.integers(0, number - 1), max_size=3))) if number else []
        for number in range(size)
    ]
    behaviours = st.sampled_from((OK, OK, OK, DIFFERS, FAILS, LIES_, HANGS, DIES, STAYS_DEAD))
    return needs, [draw(behaviours) for _ in range(size)]


@pytest.mark.slow
@settings(max_examples=40)
@given(graph=graphs(), builders=st.integers(1, 3), max_builds=st.integers(1, 4))
def test_random_graphs(
    graph: tuple[list[list[int]], list[int]], builders: int, max_builds: int
) -> None:
    needs, behaviour = graph
    plan, digests = make_graph(needs)
    expected = expected_statuses(needs, behaviour)
    hanging = {i for i, how in enumerate(behaviour) if how == HANGS}
    for number, needed in enumerate(needs):  # Steps that wait for hanging ones.
        if not hanging.isdisjoint(needed):
            hanging.add(number)
    others = {digest for number, digest in enumerate(digests) if number not in hanging}
    attempts: Counter[int] = Counter()
    lies = itertools.cycle(LIES.values())
    numbers = itertools.count()

    def behave(request: Request) -> bytes:
        number = step_number(request)
        how = behaviour[number]
        attempts[number] += 1
        if how == FAILS:
            record = FakeBuilder(store).build(request.encoding).record
            raise BuildFailedError("exit status 1", record)
        if how == STAYS_DEAD or (how == DIES and attempts[number] <= RETRIES):
            raise UnavailableError("the builder died")
        return str(next(numbers)).encode() if how == DIFFERS else describe(request)

    def change(number: int, result: BuildResult[Any]) -> BuildResult[Any]:
        return next(lies)(result) if behaviour[number] == LIES_ else result

    async def run_all(state: PlanState) -> dict[bytes, StepResult]:
        released = asyncio.Event()
        left = set(others)

        def on_event(event: Event) -> None:
            if isinstance(event, Finished):
                left.discard(event.result.step)
                if not left:
                    released.set()

        if not left:
            released.set()

        def wait(number: int) -> asyncio.Future[Any] | None:
            return asyncio.ensure_future(released.wait()) if behaviour[number] == HANGS else None

        found = await run_async(
            state.put_plan(plan),
            [OddBuilder(store, behave=behave, change=change, wait=wait) for _ in range(builders)],
            state,
            castore=store,
            max_builds=max_builds + len(hanging),
            retries=RETRIES,
            backoff=lambda _: 0,
            on_event=on_event,
        )
        results = {one.step: one for one in state.results(found.run)}
        assert found.counts == Counter(one.status for one in results.values())
        return results

    with (
        tempfile.TemporaryDirectory() as directory,
        CastoreStore(f"{directory}/castore") as store,
        PlanState(f"{directory}/state") as state,
    ):
        results = asyncio.run(asyncio.wait_for(run_all(state), LIMIT))
        assert [results[digest].status for digest in digests] == expected
        by_digest = dict(zip(digests, zip(needs, expected, strict=True), strict=True))
        for result in results.values():
            assert (result.reason is not None) == (result.status is Status.FAILED)
            if result.status is Status.SKIPPED:
                assert result.cause is not None
                assert by_digest[result.cause][1] is Status.FAILED
                assert _needs(digests, needs, result.step, result.cause)
        for number, status in enumerate(expected):
            wanted = {DIES: RETRIES + 1, STAYS_DEAD: RETRIES + 1}.get(behaviour[number], 1)
            assert attempts[number] == (0 if status is Status.SKIPPED else wanted)
        stored = {build.record.request_digest for _, build in state.builds.builds()}
        assert stored == {one.request for one in results.values() if one.succeeded}


def _needs(
    digests: Sequence[bytes], needs: Sequence[Sequence[int]], step: bytes, cause: bytes
) -> bool:
    """Return whether a step needs another one, directly or indirectly."""
    waiting = [digests.index(step)]
    while waiting:
        number = waiting.pop()
        if digests[number] == cause:
            return True
        waiting += needs[number]
    return False
