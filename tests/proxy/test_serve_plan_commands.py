# SPDX-License-Identifier: MIT
"""`tvix-build plan submit`, `watch`, `cancel`, `delete`, `list` and `fetch`, with a process of
`serve`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from builders_support import needs_sandbox
from cli_support import Result, run, run_process, start
from made_plans import add_step, digest_of, output_name, write_greetings, write_plan
from proxy_process import Proxy, running_proxy
from serving import socket_directory
from waiting import LIMIT


@contextmanager
def serving(directory: Path) -> Iterator[Proxy]:
    """Run a server with the state and the castore in a directory."""
    options = ("--castore", directory / "castore", "--plans", directory / "plans")
    with (
        socket_directory() as sockets,
        running_proxy(
            *("--listen", f"grpc+unix:{sockets}/s", "--upstream", "sandbox:"), *options
        ) as proxy,
    ):
        yield proxy


def follow_log(proxy: Proxy, plan: str, step: str) -> Result:
    """Run `plan watch --log` in another process: it ends a call early, and gRPC could give the
    connection, while it closes, to the next client of this process."""
    return run_process("plan", "watch", plan, "--server", proxy.address, "--log", step)


@pytest.mark.slow
@needs_sandbox
def test_submit_and_fetch(tmp_path: Path) -> None:
    steps = write_greetings(tmp_path)
    plan = (tmp_path / "plan.binpb").read_bytes()
    digest = digest_of(plan).hex()
    with serving(tmp_path) as proxy:
        server = ("--server", proxy.address)
        found = run("plan", "submit", "plan.binpb", *server, cwd=tmp_path)
        assert (found.status, found.stdout) == (0, f"{digest}\n".encode())
        assert found.stderr == "tvix-build: sent 4 steps\n"
        watched = run("plan", "watch", digest, *server)
        assert watched.status == 0
        lines = watched.stdout.decode().splitlines()
        assert lines[-1].endswith(" finished: 4 built, 0 cached, 0 failed, 0 skipped")
        assert any(line.endswith(": made hello") for line in lines)
        hello = digest_of(steps["hello"]).hex()
        logged = follow_log(proxy, digest, hello)
        assert (logged.status, logged.stdout) == (0, b"made hello\n")
        assert f" built {hello} in " in logged.stderr
        unknown = follow_log(proxy, digest, "0" * 64)
        assert (unknown.status, unknown.stdout) == (1, b"")
        assert f"the run ended without the step {'0' * 64}" in unknown.stderr
        number = len(lines) - 1
        again = run("plan", "watch", digest, *server, "--from", str(number))
        assert again.stdout.decode().splitlines() == lines[-2:]
        fetched = run("plan", "fetch", digest, *server, "--out-link", "result", cwd=tmp_path)
        assert (fetched.status, fetched.stdout, fetched.stderr) == (0, b"", "")
        output = tmp_path / "result" / output_name("run")
        assert output.read_text() == "echo 'hello, world!'\n"
        # Nothing is left beside it, and an existing directory is an error.
        assert {path.name for path in tmp_path.iterdir()} == {
            *("castore", "plan.binpb", "plans", "result")
        }
        again = run("plan", "fetch", digest, *server, "--out-link", "result", cwd=tmp_path)
        assert again.status == 2
        # The server has all steps.
        second = run("plan", "submit", "plan.binpb", *server, cwd=tmp_path)
        assert second.stderr == "tvix-build: sent 0 steps\n"
        listed = run("plan", "list", *server)
        (line,) = listed.stdout.decode().splitlines()
        assert line.startswith(digest)
        assert line.endswith("  4 steps")


@pytest.mark.slow
@needs_sandbox
def test_failures(tmp_path: Path) -> None:
    steps: dict[str, bytes] = {}
    add_step(steps, "bad", "printf 'oh \\303\\244\\033'; exit 3")
    add_step(steps, "after", "echo > $out", "bad")
    write_plan(tmp_path, steps, "after")
    with serving(tmp_path) as proxy:
        server = ("--server", proxy.address)
        digest = run("plan", "submit", tmp_path / "plan.binpb", *server).stdout.decode().strip()
        watched = run("plan", "watch", digest, *server)
        assert watched.status == 1
        bad, after = (digest_of(steps[one]).hex() for one in ("bad", "after"))
        texts = [line.partition(" ")[2] for line in watched.stdout.decode().splitlines()]
        assert texts[-3:] == [
            f"failed {bad}: exit status 3",
            f"skipped {after}: {bad} failed",
            "finished: 0 built, 0 cached, 1 failed, 1 skipped",
        ]
        logged = follow_log(proxy, digest, bad)
        assert (logged.status, logged.stdout) == (1, b"oh \xc3\xa4\\x1b")
        assert f" failed {bad}: exit status 3" in logged.stderr
        fetched = run("plan", "fetch", digest, *server, "--out-link", "result", cwd=tmp_path)
        assert fetched.status == 1
        assert "finished: 0 built, 0 cached, 1 failed, 1 skipped" in fetched.stderr
        assert not (tmp_path / "result").exists()


@pytest.mark.slow
@needs_sandbox
def test_the_server_is_killed(tmp_path: Path) -> None:
    steps: dict[str, bytes] = {}
    add_step(steps, "hello", "echo hello > $out")
    add_step(steps, "endless", "/bin/sh -c 'kill -STOP $$' & wait", "hello")
    write_plan(tmp_path, steps, "endless")
    hello, endless = (digest_of(steps[one]).hex() for one in ("hello", "endless"))
    started = f"started {endless} on sandbox:"
    with serving(tmp_path) as proxy:
        plan = tmp_path / "plan.binpb"
        digest = run("plan", "submit", plan, "--server", proxy.address).stdout.decode().strip()
        before = read_until(digest, proxy, started)
        assert any(f"built {hello} in " in line for line in before)
        proxy.process.send_signal(signal.SIGKILL)
        proxy.process.wait(LIMIT)
    with serving(tmp_path) as proxy:
        server = ("--server", proxy.address)
        # The build of the killed server is repeated, the finished one is not.
        after = read_until(digest, proxy, started, first=len(before) + 1)
        assert not any(hello in line for line in after)
        assert run("plan", "cancel", digest, *server).status == 0
        watched = run("plan", "watch", digest, *server)
        assert watched.status == 1
        assert watched.stdout.decode().splitlines()[: len(before)] == before
        assert watched.stdout.endswith(b" cancelled\n")
        listed = run("plan", "list", *server)
        assert listed.stdout.split()[1] == b"cancelled"
        deleted = run("plan", "delete", digest, *server)
        assert deleted.status == 0
        assert "deleted 2 steps" in deleted.stderr
        assert run("plan", "list", *server).stdout == b""


def read_until(digest: str, proxy: Proxy, text: str, first: int = 0) -> list[str]:
    """Return the lines of events up to one with a text."""
    watching = start("plan", "watch", digest, "--server", proxy.address, "--from", str(first))
    assert watching.stdout is not None
    lines = []
    try:
        for line in watching.stdout:
            lines.append(line.decode().rstrip("\n"))
            if lines[-1].endswith(text):
                return lines
    finally:
        watching.kill()
        watching.communicate()
    raise AssertionError(lines)


def test_calls_that_fail(tmp_path: Path) -> None:
    server = ("--server", "grpc+unix:/none")  # the path of a socket must be short
    write_greetings(tmp_path)
    for arguments in (
        ("submit", tmp_path / "plan.binpb", *server),
        ("watch", "0" * 64, *server),
        ("cancel", "0" * 64, *server),
        ("delete", "0" * 64, *server),
        ("list", *server),
        ("fetch", "0" * 64, *server, "--out-link", tmp_path / "result"),
    ):
        found = run("plan", *arguments)
        assert (found.status, found.stdout) == (1, b"")
        assert found.stderr.startswith("tvix-build: grpc+unix:/none: UNAVAILABLE: ")


def test_an_invalid_plan_is_not_sent(tmp_path: Path) -> None:
    (tmp_path / "plan.binpb").write_bytes(b"")
    found = run("plan", "submit", "plan.binpb", "--server", "grpc+unix:/none", cwd=tmp_path)
    assert found.status == 1
    assert "plan.binpb: roots" in found.stderr


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "G" * 64])
def test_invalid_digests(digest: str) -> None:
    found = run("plan", "watch", digest, "--server", "grpc+unix:/none")
    assert found.status == 2
    assert "expected 64 hexadecimal digits, found " in found.stderr
