# SPDX-License-Identifier: MIT
"""Runs a command in bubblewrap: passes its output on, enforces the limits, and ends every process.

The command is process 1 of its own pid namespace. When it ends, or is killed, the kernel kills all
other processes of the namespace before bubblewrap sees the end.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from tvix_build._core.mounts import Mount, make_mounts
from tvix_build.builders.interface import (
    OnLog,
    RefusedError,
    UnavailableError,
    describe_status,
)
from tvix_build.builders.layout import STAGE
from tvix_build.builders.limits import Limits, make_cgroup, measure, set_rlimits
from tvix_build.builders.log import Log
from tvix_build.builders.seccomp import seccomp_filter

_CHUNK = 1 << 18
_INTERVAL = 0.1  # seconds between measurements, at least
_SHARE = 10  # a measurement takes at most one part of this many of the time
_GET_USER_NAMESPACE = 0xB701  # NS_GET_USERNS
# Says that the sandbox is ready, waits, enters the working directory again, which may be below what
# was mounted meanwhile, closes all descriptors, and runs the command with exactly the environment
# of the request: bubblewrap sets PWD.
_TRAMPOLINE = (
    'echo >&{ready}; read -r _ <&{go} && cd "$PWD" || exit; exec {tools}<&- {ready}>&- {go}<&-; '
    'exec env -i -- "$@"'
)
REMEDY = (
    "install bubblewrap 0.8 or newer and a static busybox (Debian: apt-get install bubblewrap "
    "busybox-static), and allow user namespaces (sysctl kernel.unprivileged_userns_clone=1 and "
    "user.max_user_namespaces; in a container, an unconfined seccomp and AppArmor profile)"
)


@dataclass(frozen=True)
class Command:
    """A command in a sandbox.

    Attributes:
        bubblewrap: the path of bubblewrap.
        options: the options of bubblewrap.
        busybox: the path of the static busybox, which starts the command.
        arguments: the command and its arguments.
        environment: the environment, all of it.
        writable: directories of the host that the command can write to.
        name: the name of a cgroup.
        castore: the directory of the host with the sources of inputs.
        directory: the directory of the host with the root and a directory `work`.
        inputs: returns the inputs. It is called while bubblewrap makes the sandbox.
        overlay: as in `make_mounts`.
        files: the contents of other files by path.
    """

    bubblewrap: str
    options: Sequence[str]
    busybox: str
    arguments: Sequence[bytes]
    environment: Sequence[bytes]
    writable: Sequence[str]
    name: str
    castore: str
    directory: str
    inputs: Callable[[], Sequence[Mount]] = tuple
    overlay: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        exit_status: its status, 128 plus the number of a signal, or None if it was killed here.
        failure: why it failed; None if it did not.
        cpu_seconds: CPU time of all processes.
        peak_memory: in bytes.
    """

    exit_status: int | None
    failure: str | None
    cpu_seconds: float
    peak_memory: int


def run(
    command: Command,
    limits: Limits,
    log: Log,
    on_log: OnLog | None,
    cancelled: int | None,
    background: Executor,
) -> Ended:
    """Run a command until it ends, or exceeds a limit.

    Args:
        command: the command.
        limits: the limits.
        log: the log to which the output is written.
        on_log: called with the output.
        cancelled: a descriptor that becomes readable when the build must end.
        background: unmounts the inputs when the command has ended.

    Raises:
        UnavailableError: if bubblewrap cannot make the sandbox.
        RefusedError: if the arguments and the environment are too large.
    """
    with _Running(command, limits, log, on_log, background) as running:
        return running.wait(cancelled)


class _Running:
    """A running command. Leaving the context kills it."""

    def __init__(
        self,
        command: Command,
        limits: Limits,
        log: Log,
        on_log: OnLog | None,
        background: Executor,
    ) -> None:
        self._command = command
        self._limits = limits
        self._log = log
        self._on_log = on_log
        self._background = background
        self._stack = ExitStack()
        self._failure: str | None = None
        self._killed = False
        self._peak = 0

    def __enter__(self) -> _Running:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _descriptor(self, descriptor: int) -> int:
        """Close a descriptor at the end."""
        self._stack.callback(lambda: os.close(descriptor))
        return descriptor

    def _file(self, data: bytes) -> int:
        """Return a descriptor from which the data can be read."""
        descriptor = self._descriptor(os.memfd_create("tvix-build"))
        os.write(descriptor, data)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor

    def _start(self) -> None:
        """Start bubblewrap, set the limits, and let it run the command."""
        self._cgroup = make_cgroup(self._command.name, self._limits)
        if self._cgroup:
            self._stack.callback(self._cgroup.remove)
        words = list(self._command.options)
        given = []
        code = seccomp_filter(platform.machine())
        if code:
            given.append(self._file(code))
            words += ["--seccomp", str(given[0])]
        for path, contents in self._command.files.items():
            given.append(self._file(contents))
            words += ["--perms", "0644", "--file", str(given[-1]), f"/{path}"]
        words += ["--ro-bind", self._command.castore, f"{STAGE}/castore"]
        words += ["--bind", self._command.directory, f"{STAGE}/build"]
        options = self._file(os.fsencode("\0".join([*words, ""])))
        directory, program = os.path.split(self._command.busybox)
        tools = self._descriptor(os.open(directory, os.O_PATH | os.O_DIRECTORY))
        status, status_end = os.pipe()
        ready, ready_end = os.pipe()
        go_end, go = os.pipe()
        self.output, output_end = os.pipe()
        for one in (ready, go, self.output):
            self._descriptor(one)
        self._status = self._stack.enter_context(os.fdopen(status, "rb"))
        given += [options, tools, status_end, ready_end, go_end]
        trampoline = _TRAMPOLINE.format(tools=tools, ready=ready_end, go=go_end)
        command: list[str | bytes] = [
            *(self._command.bubblewrap, "--args", str(options)),
            *("--json-status-fd", str(status_end), "--"),
            *(f"/proc/self/fd/{tools}/{program}", "sh", "-c", trampoline, "sh"),
            *self._command.environment,
            *self._command.arguments,
        ]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output_end,
                stderr=output_end,
                env={},
                pass_fds=given,
            )
        except OSError as error:
            if error.errno == errno.E2BIG:
                raise RefusedError(["command_args, environment_vars: too large"]) from None
            raise UnavailableError(
                f"{self._command.bubblewrap}: {error.strerror}: {REMEDY}"
            ) from None
        finally:
            for one in (status_end, ready_end, go_end, output_end):
                os.close(one)
        self._stack.callback(self._finish)
        first = self._status.readline()
        if not first:
            self._fail_to_start()
        self._child = json.loads(first)["child-pid"]
        self._pidfd = self._descriptor(os.pidfd_open(self._child))
        self._stack.callback(self._kill)
        inputs = self._command.inputs()
        if not os.read(ready, 1):
            self._fail_to_start()
        if self._cgroup:
            self._cgroup.add(self._child)
        set_rlimits(self._child, self._limits)
        self._mount(inputs)
        self._end = time.monotonic() + self._limits.seconds
        self._measure()
        os.write(go, b"\n")

    def _mount(self, inputs: Sequence[Mount]) -> None:
        """Mount the inputs in the namespaces of the sandbox, and make its root read-only."""
        mounts = os.open(f"/proc/{self._child}/ns/mnt", os.O_RDONLY)
        # The last descriptor of the namespace: to close it unmounts everything.
        self._stack.callback(self._background.submit, os.close, mounts)
        # The owner of the mounts is not the namespace of the command, which has no rights.
        user = self._descriptor(fcntl.ioctl(mounts, _GET_USER_NAMESPACE))
        try:
            make_mounts(user, mounts, STAGE, inputs, overlay=self._command.overlay)
        except OSError as error:
            raise UnavailableError(f"cannot mount the inputs: {error}: {REMEDY}") from None

    def wait(self, cancelled: int | None) -> Ended:
        """Wait until the command has ended."""
        poll = select.poll()
        for one in (self.output, self._pidfd, *(() if cancelled is None else (cancelled,))):
            poll.register(one, select.POLLIN)
        interval, next_measurement = _INTERVAL, time.monotonic() + _INTERVAL
        while True:
            now = time.monotonic()
            if now >= self._end:
                self._stop(describe_limit("time", self._limits))
                break
            timeout = min(self._end, next_measurement) - now
            ready = dict(poll.poll(max(timeout, 0) * 1000))
            if cancelled in ready:
                self._failure = "cancelled"
                self._kill()
                break
            if self.output in ready and not self._read():
                poll.unregister(self.output)
            if self._failure or self._pidfd in ready:
                break
            if time.monotonic() >= next_measurement:
                begin = time.monotonic()
                self._measure()
                interval = max(_INTERVAL, _SHARE * (time.monotonic() - begin))
                next_measurement = time.monotonic() + interval
        return self._ended()

    def _measure(self) -> None:
        usage = measure(self._child, self._command.writable)
        self._peak = max(self._peak, usage.memory)
        exceeded = usage.exceeded(self._limits)
        if exceeded:
            self._stop(describe_limit(exceeded, self._limits))

    def _read(self) -> bool:
        """Take the next output. Return whether there may be more."""
        data = os.read(self.output, _CHUNK)
        kept = self._log.write(data)
        if self._log.failure:
            self._stop(self._log.failure)
        if kept and self._on_log:
            self._on_log(kept)
        return bool(kept)

    def _stop(self, failure: str) -> None:
        """Kill the command, because it exceeded a limit."""
        self._failure = self._failure or failure
        self._kill()

    def _kill(self) -> None:
        if self._process.returncode is None:
            self._killed = True
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _finish(self) -> None:
        """Wait for bubblewrap, which waits for all processes."""
        if self._process.returncode is None:
            if not hasattr(self, "_pidfd"):
                os.kill(self._process.pid, signal.SIGKILL)  # Popen.kill() may reap it.
            _, _, self._resources = os.wait4(self._process.pid, 0)
            self._process.returncode = 0

    def _ended(self) -> Ended:
        """Wait for the end of all processes, and return how the command ended."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        poll.poll()
        os.set_blocking(self.output, False)
        with suppress(BlockingIOError):
            while not self._failure and self._read():
                pass
        self._finish()
        if not self._failure:
            # The files of a failed build may be why it failed.
            self._measure()
        rest = self._status.read()
        exit_status = json.loads(rest)["exit-code"] if rest.strip() else None
        peak = self._peak
        if self._cgroup:
            peak = self._cgroup.peak_memory() or peak
            exceeded = self._cgroup.exceeded() if exit_status != 0 else None
            if exceeded and not self._failure:
                self._failure = describe_limit(exceeded, self._limits)
        if exit_status is None and not self._killed and not self._failure:
            self._fail_to_start()
        failure = self._failure or (describe_status(exit_status) if exit_status else None)
        return Ended(
            None if self._killed else exit_status,
            failure,
            self._resources.ru_utime + self._resources.ru_stime,
            peak,
        )

    def _fail_to_start(self) -> None:
        """Raise UnavailableError with the message of bubblewrap."""
        os.set_blocking(self.output, False)
        self._finish()
        text = next(self._log.pieces(), b"")
        with suppress(BlockingIOError):
            text += os.read(self.output, _CHUNK)
        found = text.decode(errors="replace").strip() or "bubblewrap ended"
        raise UnavailableError(f"cannot make a sandbox: {found}: {REMEDY}")


def describe_limit(limit: str, limits: Limits) -> str:
    """Return the words for a limit that was exceeded."""
    texts = {
        "time": f"the limit of time, {limits.seconds:g} s,",
        "memory": f"the limit of memory, {limits.memory_bytes} bytes,",
        "disk": f"the limit of disk space, {limits.disk} bytes,",
        "processes": f"the limit of processes, {limits.processes},",
        "output_size": f"the limit of the size of outputs, {limits.output_size} bytes,",
    }
    return f"{texts[limit]} is exceeded"
