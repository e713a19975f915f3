# SPDX-License-Identifier: MIT
"""Limits of a build: what is measured, and the files of a cgroup."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tvix_build.builders import limits
from tvix_build.builders.limits import (
    Cgroup,
    Limits,
    Usage,
    disk_usage,
    host_memory,
    make_cgroup,
    measure,
)


def test_the_limit_of_memory_is_at_most_that_of_the_host() -> None:
    assert Limits().memory_bytes == host_memory()
    assert Limits(memory=1 << 60).memory_bytes == host_memory()
    assert Limits(memory=1000).memory_bytes == 1000


@pytest.mark.parametrize(
    ("usage", "exceeded"),
    [
        (Usage(processes=2, memory=20, disk=29), None),
        (Usage(processes=3, memory=0, disk=0), "processes"),
        (Usage(processes=0, memory=21, disk=0), "memory"),
        (Usage(processes=0, memory=0, disk=30), "disk"),
    ],
)
def test_exceeded_limits(usage: Usage, exceeded: str | None) -> None:
    assert usage.exceeded(Limits(memory=20, disk=30, processes=2)) == exceeded


def test_a_process_and_its_descendants_are_measured() -> None:
    process = subprocess.Popen(["sh", "-c", "cat & echo; cat"], stdin=subprocess.PIPE, stdout=-1)
    assert process.stdout
    process.stdout.readline()
    found = measure(process.pid, [])
    process.communicate()
    assert found.processes >= 2
    assert found.memory > 0
    assert measure(process.pid, []) == Usage(0, 0, 0)


def test_a_file_with_two_names_is_measured_once(tmp_path: Path) -> None:
    empty = disk_usage([str(tmp_path)])
    (tmp_path / "a").write_bytes(bytes(1 << 20))
    os.link(tmp_path / "a", tmp_path / "b")
    (tmp_path / "link").symlink_to("a")
    assert 1 << 20 <= disk_usage([str(tmp_path)]) - empty < 1 << 21
    assert disk_usage([str(tmp_path / "missing")]) == 0


def test_a_cgroup(tmp_path: Path) -> None:
    cgroup = Cgroup(tmp_path, Limits(memory=1000, processes=7))
    cgroup.add(123)
    files = {name: (tmp_path / name).read_text() for name in os.listdir(tmp_path)}
    assert files == {
        "cgroup.procs": "123",
        "memory.max": "1000",
        "memory.oom.group": "1",
        "memory.swap.max": "0",
        "pids.max": "7",
    }
    assert (cgroup.exceeded(), cgroup.peak_memory()) == (None, None)
    (tmp_path / "memory.peak").write_text("999\n")
    (tmp_path / "pids.events").write_text("max 2\n")
    assert (cgroup.exceeded(), cgroup.peak_memory()) == ("processes", 999)
    (tmp_path / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    assert cgroup.exceeded() == "memory"


def test_a_cgroup_without_controllers_is_not_used(tmp_path: Path) -> None:
    assert make_cgroup("name", Limits(), root=tmp_path) is None
    assert os.listdir(tmp_path) == []


def test_a_cgroup_with_controllers_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mkdir(path: Path) -> None:
        os.mkdir(path)
        for name in ("memory.max", "pids.max"):
            (path / name).touch()  # as the kernel does

    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr(limits, "_own_cgroup", lambda: "")
    cgroup = make_cgroup("name", Limits(processes=7), root=tmp_path)
    assert cgroup
    assert cgroup.path == tmp_path / "name"
    assert (cgroup.path / "pids.max").read_text() == "7"
