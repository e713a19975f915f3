# SPDX-License-Identifier: MIT
"""The benchmarks' corpora have the documented contents, and their peer in Python finds the same as
tvix_build."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

import tvix_build
from bench import cluster, corpora, plan_cluster
from bench.cluster import Job, Prices, Run, Store, Stragglers
from bench.peers.python import upb
from vector_files import ROWS

CORPORA = {
    "tiny": list(corpora.tiny(50)),
    "unsorted": list(corpora.unsorted(3, 300)),
    "common prefix": list(corpora.common_prefix(2, 300)),
    "shuffled": list(corpora.shuffled(corpora.tiny(50))),
}
VECTORS = [row.data for row in ROWS if (row.kind, row.schema) == ("build-request", "tvix.build.v1")]


@pytest.mark.parametrize("messages", [*CORPORA.values(), VECTORS], ids=[*CORPORA, "vectors"])
def test_peer_agrees(messages: Sequence[bytes]) -> None:
    batch = tvix_build.check_batch(messages)
    found = upb.check_all(messages)
    assert (found.valid, found.digests) == (batch.valid_count, bytes(batch.digests))
    for data, report in zip(messages, batch, strict=True):
        verdict, digest = upb.check(data)
        assert (verdict is upb.Verdict.VALID) == report.valid
        assert digest == (report.digest or bytes(32))


def test_tiny_is_canonical() -> None:
    batch = tvix_build.check_batch(CORPORA["tiny"])
    assert batch.canonical_count == len(batch)
    assert 250 < sum(map(len, CORPORA["tiny"])) / len(batch) < 350


@pytest.mark.parametrize("name", ["unsorted", "common prefix"])
def test_nothing_but_order_is_wrong(name: str) -> None:
    for report in tvix_build.check_batch(CORPORA[name]):
        codes = [violation.code.value for violation in report.violations]
        assert codes == ["not_sorted"]


def test_same_each_time() -> None:
    assert list(corpora.tiny(50)) == CORPORA["tiny"]


def test_split() -> None:
    rng = random.Random(3)
    messages = [rng.randbytes(size) for size in (0, 1, 127, 128, 70_000)]
    stream = b"".join(map(corpora.delimited, messages))
    assert list(corpora.messages_of(stream)) == messages


JOB = Job(size=1000.0, packed=100.0, task=10.0, rate=5.0, task_seconds=1.0, start_seconds=7.0)
FAST = Store(bandwidth=float("inf"), gets=float("inf"), task_gets=2)


def test_model_is_the_line_through_two_runs() -> None:
    model = cluster.fitted(Run(10, 1, 0.0, 25.0), Run(30, 1, 0.0, 35.0))
    assert (model.start, model.byte) == (20.0, 0.5)
    assert model.cpu(100) == 70.0


@pytest.mark.parametrize(
    ("cores", "seconds"),
    # 100 tasks of 3 s: all at once, in rounds of which the last is not full, one after the other.
    [(1000, 3.0), (100, 3.0), (99, 6.0), (30, 12.0), (1, 300.0)],
)
def test_simulation_of_tasks_that_are_alike(cores: int, seconds: float) -> None:
    assert cluster.simulate(JOB, FAST, cores) == pytest.approx(7 + seconds)
    assert cluster.bounds(JOB, FAST, cores)["cores"] <= seconds


def test_simulation_of_a_store() -> None:
    """All that is read goes through it, and all requests."""
    slow = Store(bandwidth=1.0, gets=float("inf"), task_gets=2)
    assert cluster.simulate(JOB, slow, 50) == pytest.approx(7 + 100)
    busy = Store(bandwidth=float("inf"), gets=0.5, task_gets=2)
    assert cluster.simulate(JOB, busy, 50) == pytest.approx(7 + 400)
    assert list(cluster.bounds(JOB, slow, 50).values()) == [6.0, 100.0, 0.0]
    assert list(cluster.bounds(JOB, busy, 50).values()) == [6.0, 0.0, 400.0]


@pytest.mark.parametrize("seed", range(5))
def test_simulation_of_stragglers(seed: int) -> None:
    """Never less than the work shared evenly, nor more than that and the longest task."""
    slow = Stragglers(0.3, 9.0)
    taken = cluster.simulate(JOB, FAST, 20, slow, seed) - 7
    rng = random.Random(seed)
    tasks = [27.0 if rng.random() < 0.3 else 3.0 for _ in range(100)]
    assert sum(tasks) / 20 <= taken <= sum(tasks) / 20 + 27
    again = cluster.simulate(JOB, FAST, 20, Stragglers(0.3, 9.0, 1.5), seed) - 7
    tasks = [min(task, 7.5) for task in tasks]
    assert sum(tasks) / 20 <= again <= sum(tasks) / 20 + 7.5
    assert again < taken


def test_costs() -> None:
    prices = Prices(core_hour=0.36, gets=4.0, puts=5.0)
    # 10 cores for 100 s, 200 reads, 100 writes.
    assert cluster.dollars(JOB, FAST, prices, 10, 100.0) == pytest.approx(0.1 + 0.8 + 0.5)


def test_simulation_of_plans() -> None:
    chain_and_two = [[], [0], [1], [], []]
    seconds = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert plan_cluster.bound(chain_and_two, seconds, 1) == 15
    assert plan_cluster.simulate(chain_and_two, seconds, 1) == 15
    assert plan_cluster.simulate(chain_and_two, seconds, 2) == 9
    assert plan_cluster.bound(chain_and_two, seconds, 9) == 6
    assert plan_cluster.simulate(chain_and_two, seconds, 9) == 6


@pytest.mark.slow
def test_a_thousand_builders_are_used_well() -> None:
    rng = random.Random(5)
    # As wide and as deep as nixpkgs: most steps need a few that come early.
    needs = [
        sorted({int(number * rng.random() ** 4) for _ in range(7)} if number > 300 else set())
        for number in range(20_000)
    ]
    seconds = plan_cluster.durations(len(needs), 7)
    lowest = plan_cluster.bound(needs, seconds, 1000)
    assert plan_cluster.simulate(needs, seconds, 1000) <= 1.05 * lowest
