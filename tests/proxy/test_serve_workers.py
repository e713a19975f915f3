# SPDX-License-Identifier: MIT
"""`tvix-build serve --workers`: several processes that listen on the same ports."""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

import tvix_build
from proxy_process import Proxy, metric, running_proxy
from serving import FREE_METRICS, FREE_PORT, METHOD, response_to
from threaded_builder import Builder, building
from tvix_build import cli
from tvix_build.proxy.client import BuildService
from tvix_build.proxy.line_writer import LineWriter
from tvix_build.proxy.server import Options
from tvix_build.proxy.shared.addresses import parse
from tvix_build.proxy.shared.channels import Connections, Memory
from tvix_build.proxy.supervisor import Supervised, Supervisor
from tvix_build.proxy.worker import METRICS, Place, Worker
from tvix_build.proxy.worker_metrics import Described, WorkerMetrics
from waiting import LIMIT, wait_until

pytestmark = pytest.mark.slow

REQUEST = tvix_build.build_request(command_args=["a"], outputs=["b"])
WORKERS = ("--workers", "2", "--listen", FREE_PORT)


def call(address: str) -> None:
    """Send an invalid request over a new connection."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(parse(address).target, options) as channel:
        method: Any = channel.unary_unary(METHOD)
        with pytest.raises(grpc.RpcError) as error:
            method(b"\x08", timeout=LIMIT, wait_for_ready=True)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def counted(port: int) -> tuple[int, int]:
    """Return the workers and the completed calls, as the metrics have them."""
    return metric(port, "tvix_build_workers"), metric(port, "tvix_build_calls_total")


@contextmanager
def held_proxy() -> Iterator[tuple[Builder, Proxy]]:
    """Yield a builder that holds its responses back, and a proxy in front of it."""
    builder = Builder()
    builder.gate.clear()
    with (
        building(builder) as upstream,
        running_proxy(*WORKERS, "--upstream", upstream, "--grace", str(LIMIT)) as proxy,
    ):
        yield builder, proxy


def test_calls_reach_all_workers_and_a_dead_one_is_replaced() -> None:
    with running_proxy(*WORKERS, "--check-only", *FREE_METRICS) as proxy:
        port = proxy.metrics_port
        called = 0
        seen: set[object] = set()
        while seen != {0, 1}:
            call(proxy.address)
            called += 1
            seen.add(proxy.line_of("call")["worker"])
        assert counted(port) == (2, called)
        os.kill(proxy.first["workers"][0], signal.SIGKILL)
        ended = proxy.line_of("worker ended")
        assert (ended["worker"], ended["status"]) == (0, -signal.SIGKILL)
        started = proxy.line_of("worker started")
        assert started["worker"] == 0
        assert started["process"] not in proxy.first["workers"]
        call(proxy.address)
        wait_until(lambda: counted(port) == (2, called + 1))
        assert proxy.end(signal.SIGTERM) == 0
    assert [one["event"] for one in proxy.lines if one["event"] != "call"] == [
        "draining",
        "stopped",
    ]


def test_running_calls_of_all_workers_end_after_a_signal() -> None:
    with held_proxy() as (builder, proxy), ThreadPoolExecutor() as threads:

        def build() -> object:
            with BuildService(proxy.address) as client:
                return client.do_build(REQUEST)

        calls = [threads.submit(build) for _ in range(4)]
        assert all(builder.arrived.acquire(timeout=LIMIT) for _ in calls)
        proxy.process.send_signal(signal.SIGTERM)
        assert proxy.line_of("draining")["signal"] == "SIGTERM"
        builder.gate.set()
        assert [one.result(LIMIT) for one in calls] == [response_to(REQUEST)] * 4
        assert proxy.end() == 0


def test_a_second_signal_ends_the_calls_of_all_workers() -> None:
    with (
        held_proxy() as (builder, proxy),
        ThreadPoolExecutor() as threads,
        BuildService(proxy.address) as client,
    ):
        running = threads.submit(client.do_build, REQUEST)
        assert builder.arrived.acquire(timeout=LIMIT)
        proxy.process.send_signal(signal.SIGINT)
        assert proxy.line_of("draining")["signal"] == "SIGINT"
        assert proxy.end(signal.SIGINT) == 0
        assert isinstance(running.exception(LIMIT), grpc.RpcError)
        builder.gate.set()


def test_signals_to_workers_have_no_effect() -> None:
    with running_proxy(*WORKERS, "--check-only") as proxy:
        for worker in proxy.first["workers"]:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(worker, number)
            # A program that a worker starts would ignore a signal that the worker ignores.
            (ignored,) = re.findall(r"SigIgn:\s*(.*)", Path(f"/proc/{worker}/status").read_text())
            assert not int(ignored, 16) & 1 << signal.SIGTERM - 1
        call(proxy.address)
        assert proxy.end(signal.SIGTERM) == 0
    assert {one["event"] for one in proxy.lines} <= {"call", "draining", "stopped"}


def test_all_workers_reload() -> None:
    with running_proxy(*WORKERS, "--check-only") as proxy:
        proxy.process.send_signal(signal.SIGHUP)
        assert {proxy.line_of("reloaded")["worker"] for _ in range(2)} == {0, 1}
        assert proxy.end(signal.SIGTERM) == 0


def test_workers_do_not_outlive_the_first_process() -> None:
    with running_proxy(*WORKERS, "--check-only") as proxy:
        call(proxy.address)
        proxy.process.kill()
        port = parse(proxy.address).port
        assert port

        def is_free() -> bool:
            with socket.socket() as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    one.bind(("127.0.0.1", port))
                    one.listen()
                except OSError:
                    return False
                return True

        wait_until(is_free)


def test_the_port_of_another_server_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with running_proxy(*WORKERS, "--check-only") as proxy:
        options = ["serve", "--check-only", "--workers", "2", "--listen", proxy.address]
        assert cli.main(options) == 2
        assert "Address already in use" in capfd.readouterr().err
        call(proxy.address)


def test_workers_that_cannot_start(capfd: pytest.CaptureFixture[str]) -> None:
    options = ["serve", "--check-only", *WORKERS, "--castore", str(Path(__file__).parent)]
    assert cli.main(options) == 2
    error = " ".join(capfd.readouterr().err.split())
    assert error.count("expected a castore store or an empty") == 1


def test_a_worker_that_ends_within_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text(
        f"#!{sys.executable}\n"
        "import json, os\n"
        'place = json.loads(os.environ["TVIX_BUILD_WORKER"])\n'
        """os.write(place["connection"], b'{"max_connections": 1')\n"""
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert asyncio.run(supervise()) == 2


def test_a_worker_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/program")
    assert asyncio.run(supervise()) == 2


async def supervise() -> int:
    """Run workers, and return the exit status."""
    options = Supervised([], 2, [parse(FREE_PORT)], metrics=None, grace=0, drain_delay=0)
    return await Supervisor(options).run()


def test_a_worker_stops_when_the_first_process_does_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    async def main() -> None:
        ours, theirs = socket.socketpair()
        worker = Worker(Place(0, 1, [], theirs.detach()))
        stops: asyncio.Queue[str] = asyncio.Queue()
        await worker.begin(stops)
        ours.send(METRICS.encode() + b"\n")
        await asyncio.to_thread(select.select, [ours], [], [])
        ours.close()  # with unread bytes, so the worker gets an error
        await stops.get()
        worker.stopped()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--listen", "grpc+unix:/tmp/a"], "processes cannot share a unix socket"),
        (["--max-buffered", "16777216"], "expected --max-buffered 33554432 or more"),
        (["--upstream", "sandbox:", "--castore", "a", "--plans", "b"], "one worker with --plans"),
    ],
)
def test_usage(options: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    kind = [] if "--upstream" in options else ["--check-only"]
    assert cli.main(["serve", *kind, "--workers", "2", *options]) == 2
    assert expected in " ".join(capsys.readouterr().err.split())


def test_workers_share_limits() -> None:
    options = Options(
        [parse(FREE_PORT)],
        [],
        max_builds=5,
        max_queue=0,
        connections=Connections(max_connections=9, max_streams=7),
        memory=Memory(max_buffered=101),
    )
    address = "grpc+http://127.0.0.1:1"
    found = Place(0, 2, [address], -1).share(options)
    assert (found.max_builds, found.max_queue, found.memory.max_buffered) == (3, 0, 51)
    assert (found.connections.max_connections, found.connections.max_streams) == (5, 7)
    assert [one.text for one in found.listen] == [address]


def test_metrics_are_added() -> None:
    healthy = "tvix_build_healthy_builders"

    def metrics(calls: float, builds: float, builders: float) -> Described:
        return [
            ("a", "A.", "counter", [("a_total", {"code": "OK"}, calls)]),
            ("b", "B.", "gauge", [("b", {}, builds)]),
            (healthy, "C.", "gauge", [(healthy, {}, builders)]),
        ]

    found = WorkerMetrics()

    def values() -> list[float | None]:
        labels = {"a_total": {"code": "OK"}}
        names = ["a_total", "b", healthy, "tvix_build_workers"]
        return [found.registry.get_sample_value(name, labels.get(name, {})) for name in names]

    found.set(0, metrics(1, 2, 3))
    found.set(1, metrics(10, 20, 2))
    assert values() == [11, 22, 2, 2]
    found.end(0)
    assert values() == [11, 20, 2, 1]
    found.set(0, metrics(5, 1, 3))
    assert values() == [16, 21, 2, 2]
    found.end(0)
    found.end(1)
    assert values() == [16, None, None, 0]


def test_lines_are_written_whole() -> None:
    read, write = os.pipe()
    writer = LineWriter(write)
    lines = [f"{number:0700}" for number in range(20)]
    for line in lines:
        writer.write(line)
    writer.close()
    os.close(write)
    with open(read, "rb") as file:
        assert file.read().decode().split() == lines
