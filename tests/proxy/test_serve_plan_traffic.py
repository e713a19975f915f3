# SPDX-License-Identifier: MIT
"""How many bytes a client sends for a plan."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fake_builder import FakeBuilder, describe
from made_plans import digest_of, make_graph, make_plan, make_step
from serving import open_proxy
from tvix_build.builders.messages import Request
from tvix_build.castore import CastoreStore
from tvix_build.plan import PlanState
from tvix_build.plan.client import PlanClient, Submitted
from tvix_build.proxy.plan_runs import PlanOptions
from tvix_build.proxy.shared.addresses import parse
from waiting import LIMIT

CONNECTION = 4096
"""The bytes that a connection and the headers of a call take at most."""


class Relay:
    """Forwards connections to a server, and counts what clients send.

    Attributes:
        sent: the number of bytes that clients sent.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.sent = 0

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        responses, requests = await asyncio.open_connection("127.0.0.1", self._port)

        async def respond() -> None:
            while data := await responses.read(1 << 16):
                writer.write(data)
                await writer.drain()
            writer.close()

        responding = asyncio.create_task(respond())
        while data := await reader.read(1 << 16):
            self.sent += len(data)
            requests.write(data)
            await requests.drain()
        requests.close()
        await asyncio.wait([responding])


@asynccontextmanager
async def relayed(directory: Path) -> AsyncIterator[tuple[Relay, str]]:
    """Run a server whose builds wait until the end, behind a relay. Yield the relay and its
    address."""
    end = threading.Event()

    def build(request: Request) -> bytes:
        assert end.wait(LIMIT)
        return describe(request)

    with CastoreStore(directory / "castore") as castore:
        plans = PlanOptions(f"{directory}/plans", FakeBuilder(castore, build), "fake:", 1)
        async with open_proxy(castore=castore, plans=plans) as proxy:
            relay = Relay(int(parse(proxy.addresses[0]).target.rpartition(":")[2]))
            server = await asyncio.start_server(relay.forward, "127.0.0.1", 0)
            yield relay, f"grpc+http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            server.close()
            end.set()


def submit_twice(directory: Path, plan: bytes) -> tuple[list[Submitted], list[int]]:
    """Submit a plan two times, each with a connection of its own. Return the results, and the
    numbers of bytes that were sent."""

    def submit(address: str) -> Submitted:
        with PlanClient(address) as client:
            return client.submit(plan)

    async def main() -> tuple[list[Submitted], list[int]]:
        async with relayed(directory) as (relay, address):
            submitted, sent = [], [0]
            for _ in range(2):
                submitted.append(await asyncio.to_thread(submit, address))
                sent.append(relay.sent)
        return submitted, [sent[1], sent[2] - sent[1]]

    return asyncio.run(main())


def test_unchanged_steps_are_not_sent(tmp_path: Path) -> None:
    plan, digests = make_graph([[], *([0] for _ in range(200)), range(201)])
    submitted, (first, second) = submit_twice(tmp_path, plan)
    assert submitted == [(digest_of(plan), len(digests)), (digest_of(plan), 0)]
    assert first > len(plan)
    assert second < CONNECTION < len(plan)


def test_steps_that_the_server_deletes_meanwhile_are_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, digests = make_graph([[], [0]])
    collect_plan = PlanState.collect_plan
    starts = []

    def delete_and_collect(state: PlanState, roots: Iterable[bytes]) -> bytes:
        starts.append(roots)
        if len(starts) == 2:
            assert state.delete_unused_steps() == len(digests)
        return collect_plan(state, roots)

    monkeypatch.setattr("tvix_build.plan.state._UNUSED_SECONDS", 0)
    monkeypatch.setattr(PlanState, "collect_plan", delete_and_collect)
    submitted, _ = submit_twice(tmp_path, plan)
    assert submitted == [(digest_of(plan), 2 * len(digests)), (digest_of(plan), 0)]


@pytest.mark.slow
@pytest.mark.exhaustive
def test_20_800_unchanged_steps_take_less_than_a_mebibyte(tmp_path: Path) -> None:
    steps = [make_step(f"step-{number}") for number in range(20_800)]
    # All of them are roots, which is the worst case.
    plan = make_plan(steps, map(digest_of, steps))
    submitted, (first, second) = submit_twice(tmp_path, plan)
    assert [one.sent for one in submitted] == [len(steps), 0]
    assert first > len(plan)
    assert second < 1 << 20
