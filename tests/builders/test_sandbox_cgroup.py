# SPDX-License-Identifier: MIT
"""Limits of memory and processes that the kernel enforces, by a cgroup (version 2) of the build.

Few machines allow it: tools/test_cgroups runs these tests in a kernel of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builders_support import busybox_input, needs_sandbox, request
from tvix_build.builders import BuildFailedError, Limits, SandboxBuilder, run
from tvix_build.builders.limits import CGROUPS, Usage, make_cgroup
from tvix_build.castore import CastoreStore

MEGABYTE = 1 << 20


def has_cgroup() -> bool:
    """Return whether this process can make a cgroup with both controllers."""
    cgroup = make_cgroup(f"tvix-build-test-{os.getpid()}", Limits())
    if cgroup is None:
        return False
    cgroup.remove()
    return True


pytestmark = [
    needs_sandbox,
    pytest.mark.skipif(
        not has_cgroup(),
        reason="needs a cgroup (version 2) with memory and pids that this process may divide: "
        "tools/test_cgroups",
    ),
]


@pytest.fixture
def castore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CastoreStore]:
    """A store. Its builds are not measured, so that only the cgroup limits them."""
    monkeypatch.setattr(run, "measure", lambda *_: Usage(0, 0, 0))
    before = cgroups()
    with CastoreStore(tmp_path / "castore") as store:
        yield store
    assert cgroups() == before


def cgroups() -> set[str]:
    """Return the paths of all cgroups."""
    return {path for path, _, _ in os.walk(CGROUPS)}


def build(castore: CastoreStore, directory: Path, script: str, limits: Limits) -> Any:
    busybox = busybox_input(castore, directory / "sources")
    return SandboxBuilder(castore, limits=limits).build(request(script, inputs=[busybox]))


@pytest.mark.parametrize(
    ("script", "limits", "reason"),
    [
        (
            "dd if=/dev/zero of=/dev/null bs=48M",
            Limits(memory=32 * MEGABYTE),
            "the limit of memory, 33554432 bytes, is exceeded",
        ),
        (
            "for i in 1 2 3 4; do dd if=/dev/zero of=/dev/null bs=12M & done; wait",
            Limits(memory=32 * MEGABYTE),
            "the limit of memory, 33554432 bytes, is exceeded",
        ),
        (
            "while :; do sleep 100000 & done",
            Limits(processes=20),
            "the limit of processes, 20, is exceeded",
        ),
    ],
    ids=["memory", "memory of all processes", "processes"],
)
def test_limits(
    castore: CastoreStore, tmp_path: Path, script: str, limits: Limits, reason: str
) -> None:
    with pytest.raises(BuildFailedError) as caught:
        build(castore, tmp_path, script, limits)
    assert caught.value.reason == reason


def test_a_build_within_its_limits(castore: CastoreStore, tmp_path: Path) -> None:
    script = "dd if=/dev/zero of=/dev/null bs=16M count=1; : > /nix/store/out"
    limits = Limits(memory=32 * MEGABYTE, processes=20)
    record = build(castore, tmp_path, script, limits).record
    assert 16 * MEGABYTE <= record.peak_memory <= 32 * MEGABYTE
