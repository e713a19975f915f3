# SPDX-License-Identifier: MIT
"""`tvix-build plan run`, with the sandbox."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import select
import signal
import termios
from datetime import datetime
from pathlib import Path

import pytest

from builders_support import needs_sandbox
from cli_support import Result, run, start
from made_plans import add_step, digest_of, output_name, write_greetings, write_plan
from tvix_build.cli import keys
from tvix_build.plan import PlanState, Status
from waiting import LIMIT, until, wait_until


def run_plan(directory: Path, *options: str) -> Result:
    wanted = ("--builder", "sandbox:", "--state", "state", "--castore", "castore")
    return run("plan", "run", "plan.binpb", *wanted, *options, cwd=directory)


@needs_sandbox
def test_a_plan(tmp_path: Path) -> None:
    steps = write_greetings(tmp_path)
    found = run_plan(tmp_path, "--out-link", "result", "--report", "report.json")
    assert found.status == 0
    assert found.stdout == b"4 built, 0 cached, 0 failed, 0 skipped\n"
    assert f"{output_name('hello')}: building on sandbox:\n" in found.stderr
    assert f"{output_name('run')}: built in " in found.stderr
    assert (tmp_path / "result" / output_name("run")).read_text() == "echo 'hello, world!'\n"
    report = json.loads((tmp_path / "report.json").read_text())
    by_step = {one["step"]: one for one in report["steps"]}
    assert by_step.keys() == {digest_of(one).hex() for one in steps.values()}
    assert report["counts"] == {"built": 4}
    assert report["critical_path"][-1] == digest_of(steps["run"]).hex()
    assert len(report["critical_path"]) == 3
    for one in by_step.values():
        assert one["builder"] == "sandbox:"
        assert datetime.fromisoformat(one["started"]) <= datetime.fromisoformat(one["finished"])
    again = run_plan(tmp_path, "--quiet")
    assert (again.stdout, again.stderr) == (b"0 built, 4 cached, 0 failed, 0 skipped\n", "")
    builds = run("store", "builds", tmp_path / "state" / "builds.sqlite")
    assert len(builds.stdout.splitlines()) == 4


@needs_sandbox
def test_failures(tmp_path: Path) -> None:
    steps: dict[str, bytes] = {}
    add_step(steps, "bad", "echo this is why >&2; exit 3")
    add_step(steps, "after", "echo > $out", "bad")
    add_step(steps, "good", "echo > $out")
    write_plan(tmp_path, steps, "after", "good")
    found = run_plan(tmp_path, "--out-link", "result", "--report", "report.html")
    assert (found.status, found.stdout) == (1, b"1 built, 0 cached, 1 failed, 1 skipped\n")
    bad = output_name("bad")
    assert f"{bad}: this is why\n" in found.stderr
    assert f"{bad}: failed: exit status 3\n" in found.stderr
    assert not (tmp_path / "result").exists()
    page = (tmp_path / "report.html").read_text()
    assert page.count("<rect ") == 2
    assert f"<td>{output_name('after')}</td><td>because of {bad}</td>" in page


@needs_sandbox
def test_limits(tmp_path: Path) -> None:
    steps: dict[str, bytes] = {}
    add_step(steps, "endless", "while :; do :; done")
    write_plan(tmp_path, steps, "endless")
    found = run_plan(tmp_path, "--timeout", "0.2", "--max-builds", "1", "--fail-fast")
    assert found.status == 1
    assert "failed: the limit of time, 0.2 s, is exceeded" in found.stderr
    steps = {}
    add_step(steps, "verbose", "while :; do echo y; done")
    write_plan(tmp_path, steps, "verbose")
    found = run_plan(tmp_path, "--max-log-size", "9", "--quiet")
    assert (found.status, found.stdout) == (1, b"0 built, 0 cached, 1 failed, 0 skipped\n")
    assert "failed: the limit of the size of the log, 9 bytes, is exceeded" in found.stderr


@pytest.mark.slow
@needs_sandbox
def test_a_table(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write_greetings(tmp_path)
    assert run_plan(tmp_path, "--report", "report.parquet").status == 0
    rows = parquet.read_table(tmp_path / "report.parquet").to_pylist()
    assert {row["name"] for row in rows} == {
        output_name(name) for name in ("hello", "world", "both", "run")
    }
    assert {row["status"] for row in rows} == {"built"}


@needs_sandbox
@pytest.mark.slow
def test_a_signal(tmp_path: Path) -> None:
    steps: dict[str, bytes] = {}
    add_step(steps, "first", "echo > $out")
    add_step(steps, "second", "while :; do :; done", "first")
    write_plan(tmp_path, steps, "second")
    options = ("--builder", "sandbox:", "--state", "state", "--castore", "castore")
    process = start("plan", "run", "plan.binpb", *options, cwd=tmp_path)
    lines = process.stderr
    assert lines
    expected = f"{output_name('second')}: building".encode()
    wait_until(lambda: expected in lines.readline())
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    with PlanState(tmp_path / "state") as state:
        (unfinished,) = state.runs()
        assert unfinished.finished is None
        (result,) = state.results(unfinished)
        assert result.status is Status.BUILT


@needs_sandbox
@pytest.mark.slow
def test_keys_on_a_terminal(tmp_path: Path) -> None:
    steps: dict[str, bytes] = {}
    # Both lines at once, so that the table never shows the first one.
    add_step(steps, "endless", r"printf 'alpha\nomega\n'; while :; do :; done")
    write_plan(tmp_path, steps, "endless")
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    options = ("--builder", "sandbox:", "--state", "state", "--castore", "castore")
    process = start(
        *("plan", "run", "plan.binpb", *options),
        terminal="xterm",
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=tmp_path,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    shown = b""

    def shows(text: bytes = b"") -> bool:
        """Read from the terminal, and return whether it has shown a text."""
        nonlocal shown
        if select.select([ours], [], [], 0)[0]:
            shown += os.read(ours, 1 << 16)
        return text in shown

    wait_until(lambda: shows(b"omega"))
    assert b"log of a build" in shown
    assert b"alpha" not in shown
    os.write(ours, b"l")
    wait_until(lambda: shows(f"log of {output_name('endless')}:".encode()))
    wait_until(lambda: shows(b"alpha"))
    os.write(ours, b"\x03")
    wait_until(lambda: shows() and process.poll() is not None)
    assert process.returncode == 128 + signal.SIGINT
    assert termios.tcgetattr(theirs) == before
    for descriptor in (ours, theirs):
        os.close(descriptor)


def test_keys_while_another_process_group_has_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Keys are left to that group, without a busy loop."""
    ours, theirs = pty.openpty()
    looks: list[bool] = []
    foreground = True

    def is_foreground(_: int) -> bool:
        looks.append(foreground)
        return foreground

    async def main() -> None:
        nonlocal foreground
        typed: asyncio.Queue[bytes] = asyncio.Queue()
        with keys.reading_keys(typed.put_nowait) as reads:
            assert reads
            foreground = False
            os.write(ours, b"l")
            await until(lambda: False in looks)
            for _ in range(100):
                await asyncio.sleep(0)
            assert looks.count(False) == 1
            foreground = True
        monkeypatch.setattr(keys, "PAUSE", 0)
        with keys.reading_keys(typed.put_nowait):
            foreground = False
            os.write(ours, b"l")
            await until(lambda: looks.count(False) > 2)
            assert typed.empty()
            foreground = True
            assert await typed.get() == b"l"

    with open(theirs, "rb", buffering=0) as stdin:
        monkeypatch.setattr(keys, "_is_foreground", is_foreground)
        monkeypatch.setattr(keys, "PAUSE", LIMIT)
        monkeypatch.setattr("sys.stdin", stdin)
        asyncio.run(main())
    os.close(ours)


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--report", "x.txt"), 2, "--report: expected .json, .parquet, .html, found 'x.txt'"),
        (("--out-link", "."), 2, "--out-link: '.' exists"),
        (("--builder", "grpc+x:y"), 2, "expected sandbox:, grpc+http://HOST:PORT"),
        (("--builder", "0:sandbox:"), 2, "expected a weight of at least 1, found 0:sandbox:"),
        (("--builder", "x:sandbox:"), 2, "expected sandbox:, grpc+http://HOST:PORT"),
        (("--report", "no/x.json"), 2, "--report: expected an existing directory, found 'no'"),
        (("--out-link", "no/x"), 2, "--out-link: expected an existing directory, found 'no'"),
    ],
)
def test_usage(tmp_path: Path, options: tuple[str, ...], status: int, message: str) -> None:
    write_greetings(tmp_path)
    found = run_plan(tmp_path, *options)
    assert found.status == status
    assert message in " ".join(found.stderr.split())


def test_an_invalid_plan(tmp_path: Path) -> None:
    (tmp_path / "plan.binpb").write_bytes(b"")
    found = run_plan(tmp_path)
    assert found.status == 1
    assert "roots: required" in found.stderr
    (tmp_path / "plan.binpb").unlink()
    assert run_plan(tmp_path).status == 2


@pytest.mark.parametrize("command", ["check", "show"])
def test_json_that_is_no_plan(command: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"stepz": 1}')
    found = run("plan", command, "plan.json", cwd=tmp_path)
    assert found.status == 1
    assert "plan.json: malformed: expected a Plan in proto3 JSON" in found.stderr
