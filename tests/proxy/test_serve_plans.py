# SPDX-License-Identifier: MIT
"""PlanService, with a builder that runs no command, over real sockets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import grpc.aio
import pytest
from google.protobuf.message_factory import GetMessageClass

from fake_builder import FakeBuilder, describe
from made_plans import digest_of, make_graph, make_plan, make_step, output_name
from serving import details_of, error_of, open_proxy
from tvix_build.builders.messages import Request
from tvix_build.castore import CastoreStore
from tvix_build.plan import PlanGraph, PlanState, Run
from tvix_build.plan.v1 import rpc_plan_pb2 as rpc
from tvix_build.plan.v1.plan_pb2 import Step
from tvix_build.proxy.plan_runs import PlanOptions
from tvix_build.proxy.shared.addresses import parse
from tvix_build.proxy.status import status_error
from tvix_build.store import StoreError
from waiting import LIMIT

INVALID = grpc.StatusCode.INVALID_ARGUMENT
KIND = rpc.Event.Kind
Status = rpc.ListPlansResponse.Status


class Stub:
    """The methods of PlanService."""

    def __init__(self, channel: Any) -> None:
        for method in rpc.DESCRIPTOR.services_by_name["PlanService"].methods:
            kinds = ["unary", "stream"]
            kind = f"{kinds[method.client_streaming]}_{kinds[method.server_streaming]}"
            made = getattr(channel, kind)(
                f"/tvix_build.plan.v1.PlanService/{method.name}",
                request_serializer=GetMessageClass(method.input_type).SerializeToString,
                response_deserializer=GetMessageClass(method.output_type).FromString,
            )
            setattr(self, method.name, made)


class Client(NamedTuple):
    """A client of a server, and the builder of the server."""

    stub: Any
    builder: FakeBuilder
    castore: CastoreStore

    async def submit(self, steps: Iterable[bytes]) -> rpc.SubmitStepsResponse:
        found: rpc.SubmitStepsResponse = await self.stub.SubmitSteps(
            iter([Step.FromString(step) for step in steps])
        )
        return found

    async def start(self, roots: Sequence[bytes], **options: Any) -> bytes:
        response = await self.stub.StartPlan(rpc.StartPlanRequest(roots=roots, **options))
        plan: bytes = response.plan
        return plan

    async def watch(self, plan: bytes, **options: Any) -> list[rpc.Event]:
        return [
            one async for one in self.stub.WatchPlan(rpc.WatchPlanRequest(plan=plan, **options))
        ]

    async def missing(self, digests: Iterable[bytes]) -> list[bytes]:
        requests = iter([rpc.FindMissingStepsRequest(digests=digests)])
        found = [list(one.digests) async for one in self.stub.FindMissingSteps(requests)]
        (missing,) = found
        return missing

    async def plans(self) -> list[rpc.ListPlansResponse]:
        return [one async for one in self.stub.ListPlans(rpc.ListPlansRequest())]


@asynccontextmanager
async def served(
    path: Path,
    contents: Callable[[Request], bytes] = describe,
    max_builds: int = 2,
    max_plans: int = 16,
    **options: Any,
) -> AsyncIterator[Client]:
    """Run a server with the state and the castore in a directory, and yield a client."""
    with CastoreStore(path / "castore") as castore:
        builder = FakeBuilder(castore, contents)
        plans = PlanOptions(str(path / "plans"), builder, "fake:", max_builds, max_plans)
        async with open_proxy(castore=castore, plans=plans, **options) as proxy:
            channel = grpc.aio.insecure_channel(parse(proxy.addresses[0]).target)
            yield Client(Stub(channel), builder, castore)
        await channel.close()


def steps_of(plan: bytes) -> list[bytes]:
    graph = PlanGraph(plan)
    return [graph.encoding(i) for i in range(len(graph))]


def chain(*, contents: str = "") -> tuple[list[bytes], bytes]:
    """Return two steps, the second of which needs the first, and the digest of their plan."""
    first = make_step("first", script=contents)
    second = make_step("second", {digest_of(first): [output_name("first")]})
    plan = make_plan([first, second], [digest_of(second)])
    return [first, second], digest_of(plan)


def test_a_plan_is_built_and_watched(tmp_path: Path) -> None:
    async def main() -> None:
        steps, plan = chain()
        digests = [digest_of(step) for step in steps]
        async with served(tmp_path) as client:
            assert await client.missing(digests) == digests
            summary = await client.submit(reversed(steps))
            assert (summary.received, summary.stored) == (2, 2)
            assert await client.missing(digests) == []
            assert await client.start(digests[1:]) == plan
            events = await client.watch(plan)
            of_step = [KIND.KIND_QUEUED, KIND.KIND_STARTED, KIND.KIND_LOG, KIND.KIND_BUILT]
            assert [event.kind for event in events] == [*of_step, *of_step, KIND.KIND_FINISHED]
            assert [event.number for event in events] == list(range(1, 10))
            assert [event.step for event in events] == [digests[0]] * 4 + [digests[1]] * 4 + [b""]
            assert [one.request for one in events[::4][:2]] == client.builder.built
            assert {one.request for one in events[:4]} == {client.builder.built[0]}
            assert events[1].builder == events[3].builder == "fake:"
            assert events[2].log == b"building\n"
            assert 0 < events[3].started <= events[3].finished
            assert events[-1].counts == rpc.Counts(built=2)
            (output,) = events[-1].outputs
            assert output.file.name == output_name("second").encode()
            with client.castore.open_blob(output.file.digest) as file:
                assert file.read() == client.builder.built[1].hex().encode()
            # From a number on, and of some kinds.
            assert await client.watch(plan, first=5) == events[4:]
            kinds = [KIND.KIND_BUILT, KIND.KIND_FINISHED]
            found = await client.watch(plan, kinds=kinds)
            assert found == [events[3], events[7], events[8]]
            # Of one step, with the end of the plan.
            first = [*events[:4], events[8]]
            assert await client.watch(plan, step=digests[0]) == first
            assert await client.watch(plan, step=digests[0], kinds=kinds) == first[3:]
            error = await error_of(client.watch(plan, step=b"short"))
            assert details_of(error)[0] == "INVALID_DIGEST"
            (listed,) = await client.plans()
            assert (listed.plan, listed.status, listed.steps) == (plan, Status.STATUS_SUCCEEDED, 2)

    asyncio.run(main())


def test_a_second_run_builds_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        steps, plan = chain()
        async with served(tmp_path) as client:
            await client.submit(steps)
            assert (await client.submit(steps)).stored == 0
            roots = [digest_of(steps[1])]
            await client.start(roots)
            before = await client.watch(plan)
            await client.start(roots)
            events = await client.watch(plan)
            assert events[0].number == before[-1].number + 1
            assert [event.kind for event in events[:-1]] == [KIND.KIND_CACHED] * 2
            assert events[-1].counts == rpc.Counts(cached=2)
            assert events[-1].outputs == before[-1].outputs
            assert len(client.builder.built) == 2

    asyncio.run(main())


class Gate:
    """Builds that wait until the gate is open.

    Attributes:
        started: is set when a build has started.
    """

    def __init__(self) -> None:
        self.started = threading.Event()
        self._open = threading.Event()

    def open(self) -> None:
        self._open.set()

    def build(self, request: Request) -> bytes:
        self.started.set()
        assert self._open.wait(LIMIT)
        return describe(request)

    async def wait(self) -> None:
        assert await asyncio.to_thread(self.started.wait, LIMIT)


def test_a_watcher_sees_events_when_they_happen(tmp_path: Path) -> None:
    async def main() -> None:
        steps, plan = chain()
        gate = Gate()
        async with served(tmp_path, gate.build) as client:
            await client.submit(steps)
            assert await client.start([digest_of(steps[1])]) == plan
            request = rpc.WatchPlanRequest(plan=plan, first=2)
            events = client.stub.WatchPlan(request).__aiter__()
            assert (await events.__anext__()).kind == KIND.KIND_STARTED
            assert [one.status for one in await client.plans()] == [Status.STATUS_RUNNING]
            # The same plan is not started twice.
            assert await client.start([digest_of(steps[1])]) == plan
            gate.open()
            kinds = [event.kind async for event in events]
            assert kinds[-1] == KIND.KIND_FINISHED
            assert len(client.builder.built) == 2

    asyncio.run(main())


def test_a_plan_is_cancelled_and_continued(tmp_path: Path) -> None:
    async def main() -> None:
        steps, plan = chain()
        gate = Gate()
        async with served(tmp_path, gate.build) as client:
            await client.submit(steps)
            roots = [digest_of(steps[1])]
            await client.start(roots)
            await gate.wait()
            await _cancel(client, plan)
            gate.open()
            events = await client.watch(plan)
            assert events[-1].kind == KIND.KIND_CANCELLED
            (listed,) = await client.plans()
            assert listed.status == Status.STATUS_CANCELLED
            await _cancel(client, plan)  # does nothing
            await client.start(roots)
            events = await client.watch(plan)
            assert [event.kind for event in events].count(KIND.KIND_CANCELLED) == 0
            assert events[-1].kind == KIND.KIND_FINISHED
            assert len(events[-1].outputs) == 1

    asyncio.run(main())


async def _cancel(client: Client, plan: bytes) -> None:
    await client.stub.CancelPlan(rpc.CancelPlanRequest(plan=plan))


def fail_first(request: Request) -> bytes:
    if request.message.command_args[-1] == "bad":
        raise ValueError("defect")
    return describe(request)


def test_failures_and_skips(tmp_path: Path) -> None:
    async def main() -> None:
        steps, plan = chain(contents="bad")
        async with served(tmp_path, fail_first) as client:
            await client.submit(steps)
            await client.start([digest_of(steps[1])])
            events = await client.watch(plan)
            assert events[-3].kind == KIND.KIND_FAILED
            assert events[-3].reason == "the builder failed: ValueError: defect"
            assert (events[-2].kind, events[-2].cause) == (KIND.KIND_SKIPPED, digest_of(steps[0]))
            assert events[-1].counts == rpc.Counts(failed=1, skipped=1)
            assert not events[-1].outputs
            (listed,) = await client.plans()
            assert listed.status == Status.STATUS_FAILED

    asyncio.run(main())


def test_plans_share_the_limit_of_builds(tmp_path: Path) -> None:
    running, most = 0, 0
    lock = threading.Lock()

    def build(request: Request) -> bytes:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        contents = describe(request)
        with lock:
            running -= 1
        return contents

    async def main() -> None:
        async with served(tmp_path, build, max_builds=1) as client:
            plans = []
            for number in range(4):
                step = make_step(f"alone-{number}")
                plan, digests = make_graph([[], [0], [0, 1]])
                await client.submit([step, *steps_of(plan)])
                plans.append(await client.start([digest_of(step), digests[-1]]))
            for plan in plans:
                events = await client.watch(plan)
                counts = events[-1].counts
                assert counts.built + counts.cached == 4
        assert most == 1

    asyncio.run(main())


def test_plans_wait_for_others_in_order(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate()
        async with served(tmp_path, gate.build, max_builds=8, max_plans=1) as client:
            steps = [make_step(f"step-{number}") for number in range(3)]
            await client.submit(steps)
            plans = [await client.start([digest_of(step)]) for step in steps]
            await gate.wait()
            (waiting,) = await _read_until(client, plans[2], KIND.KIND_WAITING)
            assert waiting.reason == "1 other plans are running"
            await client.stub.CancelPlan(rpc.CancelPlanRequest(plan=plans[1]))
            assert [one.kind for one in await client.watch(plans[1])] == [
                KIND.KIND_WAITING,
                KIND.KIND_CANCELLED,
            ]
            running = Status.STATUS_RUNNING
            assert [one.status for one in await client.plans()].count(running) == 2
            assert len(client.builder.built) == 1
            gate.open()
            for plan in (plans[0], plans[2]):
                events = await client.watch(plan)
                assert events[-1].counts.built == 1
            assert len(client.builder.built) == 2

    asyncio.run(main())


def test_calls_do_not_wait_for_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, gate = threading.Event(), threading.Event()
    start_run = PlanState.start_run

    def blocking(state: PlanState, plan: bytes) -> Run:
        entered.set()
        assert gate.wait(LIMIT)
        return start_run(state, plan)

    monkeypatch.setattr(PlanState, "start_run", blocking)

    async def main() -> None:
        async with served(tmp_path) as client:
            steps, plan = chain()
            await client.submit(steps)
            await client.start([digest_of(steps[1])])
            assert await asyncio.to_thread(entered.wait, LIMIT)
            (found,) = await client.plans()
            assert found.status == Status.STATUS_RUNNING
            assert await client.missing([digest_of(steps[0])]) == []
            gate.set()
            assert (await client.watch(plan))[-1].counts.built == 2

    asyncio.run(main())


def test_a_second_server_does_not_start(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path):
            with pytest.raises(StoreError, match="another server uses this state of plans"):
                async with served(tmp_path):
                    pass
        assert not list((tmp_path / "plans").glob("*.lock"))
        async with served(tmp_path):
            pass

    asyncio.run(main())


def test_steps_of_no_plan_are_deleted_when_the_server_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        gate = Gate()
        gate.open()
        steps, _ = chain()
        digests = [digest_of(step) for step in steps]
        async with served(tmp_path, gate.build) as client:
            await client.submit(steps)
            await client.start([digests[0]])
        async with served(tmp_path, gate.build) as client:
            assert await client.missing(digests) == []
        monkeypatch.setattr("tvix_build.plan.state._UNUSED_SECONDS", 0)
        async with served(tmp_path, gate.build) as client:
            assert await client.missing(digests) == digests[1:]

    asyncio.run(main())


def test_a_plan_is_deleted(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate()
        async with served(tmp_path, gate.build) as client:
            steps, plan = chain()
            digests = [digest_of(step) for step in steps]
            await client.submit(steps)
            await client.start([digests[0]])  # needs only the first step
            await client.start([digests[1]])
            request = rpc.DeletePlanRequest(plan=plan)
            error = await error_of(client.stub.DeletePlan(request))
            assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
            assert "cancel it first" in (error.details() or "")
            gate.open()
            await client.watch(plan)
            assert (await client.stub.DeletePlan(request)).steps == 1
            assert await client.missing(digests) == digests[1:]
            assert len(await client.plans()) == 1
            error = await error_of(client.stub.DeletePlan(request))
            assert error.code() == grpc.StatusCode.NOT_FOUND
            # Its builds are still stored.
            await client.submit(steps)
            await client.start([digests[1]])
            assert (await client.watch(plan))[-1].counts.cached == 2

    asyncio.run(main())


async def _read_until(client: Client, plan: bytes, kind: rpc.Event.Kind) -> list[rpc.Event]:
    found = []
    async for event in client.stub.WatchPlan(rpc.WatchPlanRequest(plan=plan)):
        found.append(event)
        if event.kind == kind:
            break
    return found


def test_the_next_server_continues(tmp_path: Path) -> None:
    async def main() -> None:
        steps, plan = chain()
        gate = Gate()
        second = digest_of(steps[1])

        def build(request: Request) -> bytes:
            if request.message.command_args[-1] == "second":
                return gate.build(request)
            return describe(request)

        async with served(tmp_path, build) as client:
            await client.submit(steps)
            await client.start([second], timeout=LIMIT)
            await gate.wait()
            before = await _read_until_started(client, plan, second)
        gate.open()
        async with served(tmp_path) as client:
            events = await client.watch(plan)
            assert events[: len(before)] == before
            assert events[-1].kind == KIND.KIND_FINISHED
            built = [event.step for event in events if event.kind == KIND.KIND_BUILT]
            assert sorted(built) == sorted(digest_of(step) for step in steps)
            assert len(client.builder.built) == 1

    asyncio.run(main())


async def _read_until_started(client: Client, plan: bytes, step: bytes) -> list[rpc.Event]:
    found = []
    async for event in client.stub.WatchPlan(rpc.WatchPlanRequest(plan=plan)):
        found.append(event)
        if (event.kind, event.step) == (KIND.KIND_STARTED, step):
            break
    return found


async def _read_all(events: AsyncIterator[rpc.Event]) -> list[rpc.Event]:
    return [event async for event in events]


def test_watchers_end_when_the_server_stops(tmp_path: Path) -> None:
    async def main() -> None:
        steps, plan = chain()
        gate = Gate()
        async with served(tmp_path, gate.build) as client:
            await client.submit(steps)
            await client.start([digest_of(steps[1])])
            await gate.wait()
            events = client.stub.WatchPlan(rpc.WatchPlanRequest(plan=plan)).__aiter__()
            await events.__anext__()
            watching = asyncio.create_task(error_of(_read_all(events)))
        gate.open()
        assert (await watching).code() is grpc.StatusCode.UNAVAILABLE

    asyncio.run(main())


def test_invalid_steps_are_rejected(tmp_path: Path) -> None:
    async def main() -> None:
        steps, _ = chain()
        bad = Step.FromString(steps[1])
        bad.input_refs[0].step = b"short"
        async with served(tmp_path) as client:
            error = await error_of(client.submit([steps[0], bad.SerializeToString()]))
            assert error.code() is INVALID
            reason, violations = details_of(error)
            assert reason == "INVALID_STEP"
            assert [(path, code) for path, code, _ in violations] == [
                ("input_refs[0].step", "invalid_digest")
            ]
            assert (error.details() or "").startswith("expected a valid step as message 1, found ")
            # The step before it is stored.
            assert await client.missing([digest_of(steps[0])]) == []

    asyncio.run(main())


def test_invalid_plans_are_rejected(tmp_path: Path) -> None:
    async def main() -> None:
        steps, _ = chain()
        wrong = make_step("wrong", {digest_of(steps[0]): [output_name("other")]})
        async with served(tmp_path) as client:
            await client.submit([steps[1], wrong])
            error = await error_of(client.start([digest_of(steps[1])]))
            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert details_of(error)[0] == "MISSING_STEP"
            await client.submit([steps[0]])
            error = await error_of(client.start([digest_of(wrong)]))
            assert error.code() is INVALID
            reason, violations = details_of(error)
            assert reason == "INVALID_PLAN"
            assert [code for _, code, _ in violations] == ["unexpected_output"]
            for roots, options in (([], {}), ([b"short"], {}), ([bytes(32)], {"timeout": -1})):
                assert (await error_of(client.start(roots, **options))).code() is INVALID
            for call in (client.watch(bytes(32)), _cancel(client, bytes(32))):
                error = await error_of(call)
                assert error.code() is grpc.StatusCode.NOT_FOUND
                assert details_of(error)[0] == "MISSING_PLAN"
            assert await client.plans() == []

    asyncio.run(main())


@pytest.mark.parametrize("limit", ["max_plan_calls", "max_upload_size"])
def test_limits(tmp_path: Path, limit: str) -> None:
    async def main() -> None:
        steps, plan = chain()
        gate = Gate()
        limits = {limit: 1 if limit == "max_plan_calls" else 100}
        async with served(tmp_path, gate.build, **limits) as client:
            if limit == "max_upload_size":
                error = await error_of(client.submit(steps))
                assert details_of(error)[0] == "UPLOAD_TOO_LARGE"
                gate.open()
                return
            await client.submit(steps)
            await client.start([digest_of(steps[1])])
            events = client.stub.WatchPlan(rpc.WatchPlanRequest(plan=plan)).__aiter__()
            await events.__anext__()
            error = await error_of(client.plans())
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert details_of(error)[0] == "TOO_MANY_CALLS"
            gate.open()
            assert [event.kind async for event in events][-1] == KIND.KIND_FINISHED

    asyncio.run(main())


class NoTokens:
    """Knows no token."""

    remote = None

    def name(self, _: object) -> str:
        raise status_error(grpc.StatusCode.UNAUTHENTICATED, "NO_TOKEN", "expected a token")


def test_callers_are_identified(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path, tokens=NoTokens()) as client:
            for call in (client.plans(), client.missing([]), client.start([bytes(32)])):
                assert (await error_of(call)).code() is grpc.StatusCode.UNAUTHENTICATED

    asyncio.run(main())
