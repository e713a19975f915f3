# SPDX-License-Identifier: MIT
"""Runs plans with a server, a builder and a client in processes of their own, each of which kills
itself at random events.

usage: python -m plan_service_kills SEED KILLS

Runs plans until KILLS processes were killed, and prints the numbers by kind. After each kill, the
process is started again. The builder notes builds whose outcome is stored; the client, all events.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import random
import select
import signal
import socket
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from fake_builder import FakeBuilder
from made_plans import digest_of
from plan_kills import (
    Killer,
    behave,
    check_finished,
    make_random_plan,
    read_recorded,
    run_undisturbed,
)
from serving import open_proxy
from tvix_build.builders import BuildResult, UnavailableError
from tvix_build.builders.messages import read_request
from tvix_build.castore import CastoreStore
from tvix_build.plan.client import PlanClient
from tvix_build.plan.journal import Journal
from tvix_build.plan.running import run_async
from tvix_build.plan.state import PlanState, StepResult
from tvix_build.plan.v1.rpc_plan_pb2 import Event
from tvix_build.proxy import plan_runs
from tvix_build.proxy.plan_recording import Recorder
from tvix_build.proxy.plan_runs import PlanOptions
from tvix_build.proxy.shared.addresses import parse
from tvix_build.store import RequestStore

EVENTS = {"builder": 40, "client": 80, "server": 200}
"""The numbers of events before which processes are killed."""
RETRY = 3
"""The status of a client whose server was killed."""


class RemoteBuilder:
    """Sends requests to the process of the builder."""

    def __init__(self, path: str) -> None:
        self._path = path

    def build(self, request: Any, **options: Any) -> BuildResult[Any]:
        raise NotImplementedError

    async def build_async(
        self, request: Any, *, schema: Any = None, on_log: Any = None
    ) -> BuildResult[Any]:
        reader, writer = await asyncio.open_unix_connection(self._path)
        try:
            writer.write(pickle.dumps((bytes(request), schema)))
            writer.write_eof()
            result = pickle.loads(await reader.read())
        except (EOFError, OSError, pickle.UnpicklingError):
            raise UnavailableError("the builder was killed") from None
        finally:
            writer.close()
        if isinstance(result, Exception):
            raise result
        assert isinstance(result, BuildResult)
        return result


def run_builder(directory: Path, listener: socket.socket, killer: Killer) -> None:
    """Accept requests. Connections wait while there is no builder."""
    with CastoreStore(directory / "castore") as castore, PlanState(directory / "plans") as state:
        builder = FakeBuilder(castore, behave)

        def respond(connection: socket.socket) -> None:
            with connection, suppress(EOFError, OSError):  # if the server was killed
                killer.event()
                with connection.makefile("rb") as file:
                    data, schema = pickle.load(file)
                digest = read_request(data, schema).digest
                if digest in read_recorded(state) and not _is_closed(connection):
                    (directory / "repeated").write_text(digest.hex())
                killer.event()
                try:
                    result: object = builder.build(data, schema=schema)
                except ValueError as error:
                    result = error
                killer.event()
                connection.sendall(pickle.dumps(result))

        while True:
            connection, _ = listener.accept()
            threading.Thread(target=respond, args=(connection,)).start()


def _is_closed(connection: socket.socket) -> bool:
    """Return whether the server of a connection was killed."""
    poll = select.poll()
    poll.register(connection, 0)  # POLLHUP is always reported
    return bool(poll.poll(0))


def run_server(directory: Path, address: str, started: int, killer: Killer) -> None:
    """Serve plans."""
    for owner, names in (
        (PlanState, ("put_steps", "put_plan", "start_run", "put_results", "finish_run")),
        (RequestStore, ("put_builds",)),
        (Journal, ("start", "append")),
        (Recorder, ("record",)),
    ):
        for name in names:
            setattr(owner, name, killer.between_events(getattr(owner, name)))
    retrying = partial(run_async, retries=sys.maxsize, backoff=lambda _: 0.0)
    setattr(plan_runs, "run_async", retrying)  # noqa: B010 - mypy knows no such attribute

    async def serve() -> None:
        with CastoreStore(directory / "castore") as castore:
            builder = RemoteBuilder(str(directory / "builder"))
            plans = PlanOptions(str(directory / "plans"), builder, "fake:", 3)
            async with open_proxy(castore=castore, plans=plans, listen=[parse(address)]):
                os.write(started, b".")
                await asyncio.Event().wait()

    asyncio.run(serve())


def run_client(directory: Path, address: str, plan: bytes, killer: Killer) -> None:
    """Note the events of a plan until it is finished. Submit it, unless the server has it."""
    digest = digest_of(plan)
    seen = directory / "seen"
    first = len(seen.read_text().splitlines()) + 1 if seen.exists() else 1
    with PlanClient(address) as client, seen.open("a", buffering=1) as file:

        def watch() -> None:
            for event in client.watch(digest, first=first):
                killer.event()
                file.write(f"{event.number} {event.kind} {event.step.hex()}\n")
                killer.event()

        for method in ("_find_missing", "_submit", "_start"):
            setattr(client, method, killer.between_events(getattr(client, method)))
        try:
            try:
                killer.event()
                watch()
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
                client.submit(plan)
                watch()
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            os._exit(RETRY)


class Trial:
    """Runs a plan once.

    Args:
        directory: a new directory with a short path.
        plan: the plan.
        source: the events at which processes are killed.

    Attributes:
        kills: the numbers of processes that were killed, by kind.
    """

    def __init__(self, directory: Path, plan: bytes, source: random.Random) -> None:
        self._directory = directory
        self._plan = plan
        self._source = source
        self._names: dict[int, str] = {}
        self._recorded: set[bytes] = set()
        self._servers = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self.kills: Counter[str] = Counter()

    def run(self, expected: dict[bytes, StepResult]) -> None:
        """Run the plan until the client has seen its end, and check the result."""
        PlanState(self._directory / "plans").close()
        self._listener.bind(str(self._directory / "builder"))
        self._listener.listen(128)
        try:
            for name in ("builder", "server", "client"):
                self._start(name)
            while not self._wait():
                pass
        finally:
            self._listener.close()
            for pid in self._names:
                os.kill(pid, signal.SIGKILL)
            for pid in self._names:
                os.waitpid(pid, 0)
        self._check_recorded()
        with PlanState(self._directory / "plans") as state:
            check_finished(state, self._plan, expected)
        self._check_events(set(expected))

    def _wait(self) -> bool:
        """Wait until a process ends, and start it again. Return whether the client was done."""
        pid, status = os.wait()
        name = self._names.pop(pid)
        code = os.waitstatus_to_exitcode(status)
        if name == "client" and code == 0:
            return True
        if code == -signal.SIGKILL:
            self.kills[name] += 1
            self._check_recorded()
        else:
            assert (name, code) == ("client", RETRY)
        self._start(name)
        return False

    def _start(self, name: str) -> None:
        """Start a process that is killed at a random event."""
        killer = Killer(self._source.randrange(1, EVENTS[name]))
        directory = self._directory
        if name == "builder":
            self._fork(name, lambda: run_builder(directory, self._listener, killer))
            return
        if name == "client":
            address = self._address()
            self._fork(name, lambda: run_client(directory, address, self._plan, killer))
            return
        self._servers += 1
        address = self._address()
        end, started = os.pipe()
        self._fork(name, lambda: run_server(directory, address, started, killer))
        os.close(started)
        os.read(end, 1)  # or the server was killed
        os.close(end)

    def _address(self) -> str:
        return f"grpc+unix:{self._directory}/{self._servers}"

    def _fork(self, name: str, function: Callable[[], None]) -> None:
        pid = os.fork()
        if pid:
            self._names[pid] = name
            return
        try:
            function()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)

    def _check_recorded(self) -> None:
        """Check that no outcome that was stored is lost or repeated."""
        assert not (self._directory / "repeated").exists()
        with PlanState(self._directory / "plans") as state:
            recorded = read_recorded(state)
        assert self._recorded <= recorded
        self._recorded = recorded

    def _check_events(self, steps: set[bytes]) -> None:
        """Check that the client has seen each event once, and one outcome for each step."""
        lines = [line.split(" ") for line in (self._directory / "seen").read_text().splitlines()]
        assert [int(line[0]) for line in lines] == [*range(1, len(lines) + 1)]
        kinds = {Event.KIND_BUILT, Event.KIND_CACHED, Event.KIND_FAILED, Event.KIND_SKIPPED}
        outcomes = Counter(bytes.fromhex(step) for _, kind, step in lines if int(kind) in kinds)
        assert outcomes == dict.fromkeys(steps, 1)
        assert int(lines[-1][1]) == Event.KIND_FINISHED


def main(seed: int, wanted: int) -> None:
    """Run plans."""
    source = random.Random(seed)
    kills: Counter[str] = Counter()
    while kills.total() < wanted:
        plan = make_random_plan(source)
        with tempfile.TemporaryDirectory(dir="/tmp") as path:
            directory = Path(path)
            expected = run_undisturbed(directory, plan)
            trial = Trial(directory, plan, source)
            trial.run(expected)
            kills += trial.kills
    print(" ".join(f"{kills[name]} {name}" for name in ("client", "server", "builder")))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
