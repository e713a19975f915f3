# SPDX-License-Identifier: MIT
"""The state of plans: what it stores, and what happens if it fails."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from fake_builder import FakeBuilder
from made_plans import digest_of, make_graph
from tvix_build.castore import CastoreStore
from tvix_build.plan import PlanRunningError, PlanState, UnknownPlanError, run
from tvix_build.plan.attempts import Resolved
from tvix_build.plan.running import _LARGEST_BATCH, _Runner
from tvix_build.plan.v1.plan_pb2 import Plan
from tvix_build.store import RequestStore, StoreError


@pytest.fixture
def state(tmp_path: Path) -> Iterator[PlanState]:
    with PlanState(tmp_path / "state") as opened:
        yield opened


def test_states_share_an_empty_store_of_builds(tmp_path: Path) -> None:
    plan, _ = make_graph([[]])
    with CastoreStore(tmp_path / "castore") as castore, RequestStore(tmp_path / "builds") as builds:
        for name, built in (("first", 1), ("second", 0)):
            with PlanState(tmp_path / name, builds=builds) as state:
                builder = FakeBuilder(castore)
                run(state.put_plan(plan), [builder], state, castore=castore)
                assert len(builder.built) == built


def test_other_encodings_of_a_plan(state: PlanState) -> None:
    canonical, digests = make_graph([[], [0]])
    plan = Plan.FromString(canonical)
    other = Plan(roots=plan.roots).SerializeToString() + Plan(steps=plan.steps).SerializeToString()
    assert other != canonical
    assert state.put_plan(other) == digest_of(canonical)
    found = state.plan_steps(digest_of(canonical))
    assert sorted(digest for digest, _ in found) == sorted(digests)


def test_a_state_that_fails_between_builds(
    state: PlanState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, _ = make_graph([[] for _ in range(_LARGEST_BATCH + 10)])
    digest = state.put_plan(plan)
    resolve = _Runner._resolve
    numbers = itertools.count()

    def fail(self: _Runner, step: int) -> Resolved:
        if next(numbers) == _LARGEST_BATCH:  # the first one after the end of a task
            raise StoreError("the disk failed")
        return resolve(self, step)

    monkeypatch.setattr(_Runner, "_resolve", fail)
    with (
        CastoreStore(tmp_path / "castore") as castore,
        pytest.raises(StoreError, match="the disk failed"),
    ):
        run(digest, [FakeBuilder(castore)], state, castore=castore)


def test_a_plan_is_deleted_with_what_only_it_has(state: PlanState, tmp_path: Path) -> None:
    small, large = make_graph([[]]), make_graph([[], [0], [0]])
    kept, deleted = state.put_plan(small[0]), state.put_plan(large[0])
    with CastoreStore(tmp_path / "castore") as castore:
        for plan in (kept, deleted):
            run(plan, [FakeBuilder(castore)], state, castore=castore)
        with state.lock(deleted), pytest.raises(PlanRunningError):
            state.delete_plan(deleted)
        assert state.delete_plan(deleted) == 2
        with pytest.raises(UnknownPlanError):
            state.delete_plan(deleted)
        assert state.missing_steps(large[1]) == [one for one in large[1] if one not in small[1]]
        assert [one.plan for one in state.runs()] == [kept]
        assert state.put_plan(large[0]) == deleted
        assert run(deleted, [FakeBuilder(castore)], state, castore=castore).succeeded
    assert not list((tmp_path / "state").glob("*.lock"))


def test_steps_that_no_plan_has_are_deleted_after_a_day(
    state: PlanState, monkeypatch: pytest.MonkeyPatch
) -> None:
    (small, kept), (_, unused) = make_graph([[]]), make_graph([[], [0]])
    state.put_plan(small)
    state.put_steps((digest, b"step") for digest in unused)
    assert state.delete_unused_steps() == 0
    monkeypatch.setattr("tvix_build.plan.state._UNUSED_SECONDS", 0)
    assert state.delete_unused_steps() == len(unused) - 1
    assert state.missing_steps([*kept, *unused]) == unused[1:]


def test_a_plan_is_deleted_while_another_one_is_stored(
    state: PlanState, monkeypatch: pytest.MonkeyPatch
) -> None:
    (small, _), (large, digests) = make_graph([[]]), make_graph([[], [0]])
    deleted = state.put_plan(small)
    put_steps = state.put_steps

    def put_and_delete(steps: Iterable[tuple[bytes, bytes]]) -> int:
        count = put_steps(steps)
        assert state.delete_plan(deleted) == 0
        return count

    monkeypatch.setattr(state, "put_steps", put_and_delete)
    state.put_plan(large)
    assert state.missing_steps(digests) == []
