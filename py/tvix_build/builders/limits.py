# SPDX-License-Identifier: MIT
"""Limits of a build, and two ways to enforce them: a cgroup, or rlimits and measurements."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def host_memory() -> int:
    """Return the memory of this host in bytes."""
    return _PAGE * os.sysconf("SC_PHYS_PAGES")


@dataclass(frozen=True)
class Limits:
    """Limits of one build. A build that exceeds one ends, and fails with the name of the limit.

    Attributes:
        seconds: wall time of the command.
        memory: bytes of memory of all processes; the default is the memory of the host.
        disk: bytes that scratch paths and /tmp may hold.
        processes: number of processes and threads.
        output_size: total size of the files of all outputs, in bytes.
        log_size: size of the log in bytes.
    """

    seconds: float = 6 * 3600.0
    memory: int | None = None
    disk: int = 64 << 30
    processes: int = 4096
    output_size: int = 16 << 30
    log_size: int = 1 << 30

    @property
    def memory_bytes(self) -> int:
        """The limit of memory, at most that of the host."""
        return min(self.memory or host_memory(), host_memory())


class Cgroup:
    """A cgroup (version 2) of one build."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self._write("memory.max", limits.memory_bytes)
        self._write("pids.max", limits.processes)
        with suppress(OSError):  # The kernel may lack swap.
            self._write("memory.swap.max", 0)
        # Out of memory, the kernel ends all processes; else the build could go on without one.
        self._write("memory.oom.group", 1)

    def _write(self, name: str, value: int) -> None:
        (self.path / name).write_text(str(value))

    def add(self, process: int) -> None:
        """Move a process into the cgroup."""
        self._write("cgroup.procs", process)

    def exceeded(self) -> str | None:
        """Return the name of the limit that the build reached; None if there is none."""
        if self._event("memory.events", "oom_kill"):
            return "memory"
        return "processes" if self._event("pids.events", "max") else None

    def _event(self, name: str, key: str) -> int:
        with suppress(OSError):
            for line in (self.path / name).read_text().splitlines():
                if line.split()[0] == key:
                    return int(line.split()[1])
        return 0

    def peak_memory(self) -> int | None:
        """Return the peak of memory in bytes; None if the kernel does not record it."""
        try:
            return int((self.path / "memory.peak").read_text())
        except OSError:
            return None

    def remove(self) -> None:
        """Remove the cgroup, whose processes have ended."""
        with suppress(OSError):
            self.path.rmdir()


def _own_cgroup() -> str | None:
    """Return the cgroup (version 2) of this process, relative to the root."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    return next((line[3:].lstrip("/") for line in lines if line.startswith("0::")), None)


def make_cgroup(name: str, limits: Limits, root: Path = CGROUPS) -> Cgroup | None:
    """Make a cgroup below the one of this process, or beside it. Return None if this process may
    not do that, or the cgroup has no controllers of memory and processes."""
    here = _own_cgroup()
    if here is None:
        return None
    own = root / here
    for parent in [own, own.parent][: 2 if own != root else 1]:
        path = parent / name
        with suppress(OSError):
            path.mkdir()
            try:
                if (path / "memory.max").exists() and (path / "pids.max").exists():
                    return Cgroup(path, limits)
            except OSError:
                pass
            path.rmdir()
    return None


def set_rlimits(process: int, limits: Limits) -> None:
    """Set the rlimits of a process and its future descendants.

    They stop what grows faster than `Usage` is measured. Memory and processes get more than the
    limit, so that a measurement finds the excess and the failure names the limit. Without a limit
    of memory, programs may map more than the host has. The limit of processes is not one for root.
    """
    values = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: limits.disk,
        resource.RLIMIT_NPROC: 2 * limits.processes,
    }
    if limits.memory is not None:
        values[resource.RLIMIT_DATA] = 2 * limits.memory_bytes
    for kind, value in values.items():
        _, hard = resource.prlimit(process, kind)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.prlimit(process, kind, (value, value))


@dataclass(frozen=True)
class Usage:
    """What a build uses at one time."""

    processes: int
    memory: int
    disk: int

    def exceeded(self, limits: Limits) -> str | None:
        """Return the name of the limit that is exceeded; None if there is none."""
        if self.processes > limits.processes:
            return "processes"
        if self.memory > limits.memory_bytes:
            return "memory"
        return "disk" if self.disk >= limits.disk else None


def measure(process: int, directories: Iterable[str]) -> Usage:
    """Return what a process, its descendants and files in directories use."""
    processes = memory = 0
    waiting = [process]
    while waiting:
        one = f"/proc/{waiting.pop()}"
        with suppress(OSError):  # It has ended.
            with open(f"{one}/statm") as file:
                memory += int(file.read().split()[1]) * _PAGE
            for thread in os.listdir(f"{one}/task"):
                processes += 1
                with open(f"{one}/task/{thread}/children") as file:
                    waiting += map(int, file.read().split())
    return Usage(processes, memory, disk_usage(directories))


def disk_usage(directories: Iterable[str]) -> int:
    """Return the bytes that files in directories occupy on disk."""
    total = 0
    waiting = list(directories)
    seen: set[int] = set()
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if status.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                        if status.st_ino in seen:
                            continue
                        seen.add(status.st_ino)
                    total += status.st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
    return total
