# SPDX-License-Identifier: MIT
"""Runs requests on this machine, in a sandbox that bubblewrap makes."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from google.protobuf.message import Message

from tvix_build._core.mounts import Mount, MountKind
from tvix_build._core.ranges import BytesLike
from tvix_build._core.report import SchemaLike
from tvix_build.builders.directories import BUILDS, build_directory
from tvix_build.builders.interface import (
    BuildFailedError,
    BuildRecord,
    BuildResult,
    MissingInputsError,
    OnLog,
    RefusedError,
    UnavailableError,
)
from tvix_build.builders.layout import NETWORK_FILES, TEMPORARY, Layout, bubblewrap_arguments, plan
from tvix_build.builders.limits import Limits, host_memory
from tvix_build.builders.log import Log
from tvix_build.builders.messages import Request, read_request, write_response
from tvix_build.builders.outputs import InvalidOutputError, OutputScan, find_output
from tvix_build.builders.run import REMEDY, Command, Ended, describe_limit, run
from tvix_build.builders.threads import run_in_thread
from tvix_build.castore import CastoreStore, IngestError, MissingError

if TYPE_CHECKING:
    from snix.build.protos import build_pb2 as snix_build_pb2
    from snix.build.protos.build_pb2 import BuildRequest
    from snix.castore.protos.castore_pb2 import Entry
    from tvix.build.protos import build_pb2
    from tvix.castore.protos.castore_pb2 import Node

SANDBOX = "sandbox:"
_WORK = "work"
_SYSTEMS = {
    "x86_64": ("x86_64-linux", "i686-linux"),
    "aarch64": ("aarch64-linux",),
}


class SandboxBuilder:
    """Runs requests in a sandbox on this machine. It needs Linux, bubblewrap and a static busybox.

    Inputs come from a castore, and outputs and logs are added to it. Calls of several threads run
    concurrently.

    Args:
        castore: the store.
        directory: the directory in which builds run, best on the file system of the store. By
            default, `builds` in the directory of the store.
        limits: the limits of each build.
        keep_failed: whether to keep the directories of failed builds. Their file `enter` starts a
            shell in the sandbox.

    Raises:
        UnavailableError: if bubblewrap or busybox is missing.
    """

    def __init__(
        self,
        castore: CastoreStore,
        *,
        directory: str | os.PathLike[str] | None = None,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
        keep_failed: bool = False,
    ) -> None:
        self._castore = castore
        self._directory = Path(directory or os.path.join(castore.path, BUILDS)).absolute()
        self._limits = limits
        self._keep_failed = keep_failed
        self._bubblewrap = _find_program("bwrap")
        self._busybox = _find_program("busybox")
        self._made_a_sandbox = False

    @overload
    def build(
        self,
        request: build_pb2.BuildRequest,
        *,
        schema: SchemaLike | None = None,
        on_log: OnLog | None = None,
    ) -> BuildResult[build_pb2.Build]: ...
    @overload
    def build(
        self,
        request: snix_build_pb2.BuildRequest,
        *,
        schema: SchemaLike | None = None,
        on_log: OnLog | None = None,
    ) -> BuildResult[snix_build_pb2.BuildResponse]: ...
    @overload
    def build(
        self,
        request: BytesLike,
        *,
        schema: SchemaLike | None = None,
        on_log: OnLog | None = None,
    ) -> BuildResult[bytes]: ...
    @overload
    def build(
        self,
        request: Message | BytesLike,
        *,
        schema: SchemaLike | None = None,
        on_log: OnLog | None = None,
    ) -> BuildResult[Any]: ...
    def build(
        self,
        request: Message | BytesLike,
        *,
        schema: SchemaLike | None = None,
        on_log: OnLog | None = None,
    ) -> BuildResult[Any]:
        """As `Builder.build`."""
        return self._build(read_request(request, schema), on_log, None)

    @overload
    async def build_async(
        self,
        request: build_pb2.BuildRequest,
        *,
        schema: SchemaLike | None = None,
        on_log: OnLog | None = None,
    ) -> BuildResult[build_pb2.Build]: ...
    @overload
    async def build_async(
        self,
        request: snix_build_pb2.BuildRequest,
        *,
        schema: SchemaLike | None = None,
        on_log: OnLog | None = None,
    ) -> BuildResult[snix_build_pb2.BuildResponse]: ...
    @overload
    async def build_async(
        self,
        request: BytesLike,
        *,
        schema: SchemaLike | None = None,
        on_log: OnLog | None = None,
    ) -> BuildResult[bytes]: ...
    @overload
    async def build_async(
        self,
        request: Message | BytesLike,
        *,
        schema: SchemaLike | None = None,
        on_log: OnLog | None = None,
    ) -> BuildResult[Any]: ...
    async def build_async(
        self,
        request: Message | BytesLike,
        *,
        schema: SchemaLike | None = None,
        on_log: OnLog | None = None,
    ) -> BuildResult[Any]:
        """As `Builder.build_async`."""
        cancelled = os.eventfd(0)
        # The thread's own descriptor: a second cancellation ends this call before the thread.
        watched = os.dup(cancelled)

        def build() -> BuildResult[Any]:
            try:
                return self._build(read_request(request, schema), on_log, watched)
            finally:
                os.close(watched)

        try:
            return await run_in_thread(build, lambda: os.eventfd_write(cancelled, 1))
        finally:
            os.close(cancelled)

    def _build(
        self, request: Request, on_log: OnLog | None, cancelled: int | None
    ) -> BuildResult[Any]:
        self._refuse(request)
        files = {path: data for path in NETWORK_FILES if (data := _read(path)) is not None}
        layout = plan(request.message, host_files=files)
        castore = os.path.abspath(self._castore.path)
        with (
            build_directory(self._directory) as directory,
            ExitStack() as uses,
            ThreadPoolExecutor(1) as background,
        ):

            def share() -> list[str]:
                return uses.enter_context(self._share_inputs(request.message))

            build = _Build(directory, request, layout, castore, share)
            build.make_root()
            command = build.command(self._bubblewrap, self._busybox)
            with Log(self._limits.log_size, directory) as log:
                try:
                    ended = run(command, self._limits, log, on_log, cancelled, background)
                except UnavailableError as error:
                    permanent = not self._made_a_sandbox  # else this host allows sandboxes
                    raise UnavailableError(str(error), permanent=permanent) from None
                self._made_a_sandbox = True
                build.release_overlay()
                taken = self._take_outputs(build, ended)
                record = self._record(build, ended, taken.failure, log)
            if taken.failure:
                kept = build.keep(command) if self._keep_failed else None
                missing = taken.missing
                raise BuildFailedError(taken.failure, record, kept, missing_output=missing)
            response = write_response(request, taken.nodes, taken.needles)
            outputs = dict(zip(request.message.outputs, taken.nodes, strict=True))
            return BuildResult(response, outputs, record)

    def _refuse(self, request: Request) -> None:
        """Raise RefusedError if this host lacks what the request needs."""
        message = request.message
        constraints = message.constraints
        systems = _SYSTEMS.get(platform.machine(), ())
        reasons = []
        if constraints.system and constraints.system not in systems:
            reasons.append(
                f"constraints.system: this host runs {' and '.join(systems) or 'no known system'}, "
                f"found {constraints.system!r}"
            )
        for place, available in (
            ("this host has", host_memory()),
            ("the limit of memory is", self._limits.memory_bytes),
        ):
            if constraints.min_memory > available:
                found = f"{place} {available} bytes, found {constraints.min_memory}"
                reasons.append(f"constraints.min_memory: {found}")
                break
        for i, path in enumerate(constraints.available_ro_paths):
            if not os.path.exists(path):
                reasons.append(f"constraints.available_ro_paths[{i}]: this host has no {path}")
        if reasons:
            raise RefusedError(reasons)

    @contextmanager
    def _share_inputs(self, message: BuildRequest) -> Iterator[list[str]]:
        """Yield the paths of the inputs that are not symbolic links, as `CastoreStore.shared`."""
        inputs = {i: one for i, one in enumerate(message.inputs) if not one.HasField("symlink")}
        with ExitStack() as uses:
            try:
                paths = uses.enter_context(self._castore.shared(inputs.values()))
            except MissingError:
                raise MissingInputsError([*self._missing_inputs(inputs)]) from None
            yield paths

    def _missing_inputs(self, inputs: Mapping[int, Entry]) -> Iterator[str]:
        """Yield the reason for each input that is not complete."""
        for i, one in inputs.items():
            try:
                with self._castore.shared([one]):
                    pass
            except MissingError as error:
                yield f"inputs[{i}]: {error}"

    def _take_outputs(self, build: _Build, ended: Ended) -> _Outputs:
        """Add the outputs to the castore."""
        if ended.failure:
            return _Outputs(failure=ended.failure)
        message = build.request.message
        scan = OutputScan(message.refscan_needles, self._limits.output_size)
        try:
            build.check_symlinks()
            paths = {output: find_output(build.root, output) for output in message.outputs}
            needles = [scan.scan(path, output) for output, path in paths.items()]
            if scan.exceeded:
                return _Outputs(failure=describe_limit("output_size", self._limits))
            return _Outputs([self._castore.ingest(path) for path in paths.values()], needles)
        except InvalidOutputError as error:
            return _Outputs(failure=str(error), missing=error.missing)
        except IngestError as error:
            return _Outputs(failure=str(error))

    def _record(self, build: _Build, ended: Ended, failure: str | None, log: Log) -> BuildRecord:
        return BuildRecord(
            builder=SANDBOX,
            request_digest=build.request.digest,
            started=build.started,
            finished=datetime.now(timezone.utc),
            exit_status=ended.exit_status,
            cpu_seconds=ended.cpu_seconds,
            peak_memory=ended.peak_memory,
            log_digest=log.store(self._castore),
            log_size=log.size,
            failure=failure,
        )


@dataclass(frozen=True)
class _Outputs:
    """The outputs of a build.

    Attributes:
        nodes: their nodes.
        needles: the indices of the needles in each output.
        failure: why the build failed; None if it did not.
        missing: the output that is missing, if the build failed for this reason.
    """

    nodes: Sequence[Node] = ()
    needles: Sequence[list[int]] = ()
    failure: str | None = None
    missing: str | None = None


@dataclass
class _Build:
    """One build in its directory.

    Attributes:
        castore: the absolute path of the store.
        share: returns the paths of the inputs that are not symbolic links, in the store.
        root: the directory with the writable directories.
    """

    directory: Path
    request: Request
    layout: Layout
    castore: str
    share: Callable[[], Sequence[str]]
    started: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    @property
    def root(self) -> str:
        return str(self.directory / "root")

    def make_root(self) -> None:
        """Make the writable directories with their files."""
        os.mkdir(self.root, 0o755)
        if self._overlay:
            os.mkdir(self.directory / _WORK)
        for path in self.layout.host_directories():
            os.mkdir(f"{self.root}/{path}")
        os.chmod(f"{self.root}/{TEMPORARY}", 0o1777)
        for path, contents in self.layout.files.items():
            if self.layout.is_writable(path):
                Path(self.root, path).write_bytes(contents)

    @property
    def _overlay(self) -> str:
        """The directory of the inputs, if they need mount points beside what the build writes."""
        path = self.layout.inputs_directory
        return f"/{path}" if path and self.layout.inputs and self.layout.is_writable(path) else ""

    @property
    def _overlay_work(self) -> Path:
        """The directory that exists if an overlay file system was mounted."""
        return self.directory / _WORK / _WORK

    def release_overlay(self) -> None:
        """Let the directories of the overlay be removed: their owner may not read them."""
        for name in ("", "incompat", "incompat/volatile"):
            with suppress(FileNotFoundError):
                (self._overlay_work / name).chmod(0o700)

    def _read_only_files(self) -> dict[str, bytes]:
        files = self.layout.files
        return {path: files[path] for path in files if not self.layout.is_writable(path)}

    @cached_property
    def mounts(self) -> list[Mount]:
        """The inputs. Garbage collection keeps them from now on."""
        return list(self._make_mounts())

    def _make_mounts(self) -> Iterator[Mount]:
        sources = iter(self.share())
        for path, entry in zip(self.layout.inputs, self.request.message.inputs, strict=True):
            place = os.fsencode(f"/{path}")
            if entry.HasField("symlink"):
                yield Mount(MountKind.SYMLINK, place, entry.symlink.target)
            else:
                kind = MountKind.DIRECTORY if entry.HasField("directory") else MountKind.FILE
                yield Mount(kind, place, os.fsencode(next(sources)))

    def check_symlinks(self) -> None:
        """Raise InvalidOutputError if the build changed an input that is a symbolic link, which
        cannot be mounted."""
        overlaid = self._overlay_work.exists()
        for path, one in zip(self.layout.inputs, self.mounts, strict=True):
            if one.kind is not MountKind.SYMLINK or not self.layout.is_writable(path):
                continue
            full = os.fsencode(f"{self.root}/{path}")
            if overlaid:
                changed = os.path.lexists(full)
            else:
                changed = not os.path.islink(full) or os.readlink(full) != one.source
            if changed:
                raise InvalidOutputError(f"the build changed its input {path}")

    def command(self, bubblewrap: str, busybox: str) -> Command:
        """Return the command of the request in the sandbox."""
        message = self.request.message
        return Command(
            bubblewrap=bubblewrap,
            options=bubblewrap_arguments(self.layout, root=self.root, shell=busybox),
            busybox=busybox,
            arguments=[os.fsencode(one) for one in message.command_args],
            environment=[one.key.encode() + b"=" + one.value for one in message.environment_vars],
            writable=[f"{self.root}/{path}" for path in self.layout.writable],
            name=f"tvix-build-{self.directory.name}",
            castore=self.castore,
            directory=str(self.directory),
            overlay=self._overlay,
            inputs=lambda: self.mounts,
            files=self._read_only_files(),
        )

    def keep(self, command: Command) -> Path:
        """Rename the directory, so that it stays, with a script that enters the sandbox."""
        kept = self.directory.with_name(f"failed-{self.directory.name}")
        self.directory.rename(kept)
        options = bubblewrap_arguments(self.layout, root=str(kept / "root"), shell=command.busybox)
        words = [
            os.fsencode(one)
            for one in (command.bubblewrap, *options)
            if one not in ("--as-pid-1", "--new-session", "--die-with-parent")
        ]
        for i, (path, contents) in enumerate(command.files.items()):
            file = kept / f"file-{i}"
            file.write_bytes(contents)
            words += [b"--ro-bind", os.fsencode(file), os.fsencode(f"/{path}")]
        for one in self.mounts:
            if one.kind is not MountKind.SYMLINK:
                words += [b"--ro-bind", os.fsencode(f"{self.castore}/") + one.source, one.path]
            elif not os.path.lexists(os.fsencode(kept / "root") + one.path):
                words += [b"--symlink", one.source, one.path]
        shell = "/bin/sh" if self.layout.shell else "/tmp/sh"
        if not self.layout.shell:
            words += [b"--ro-bind", os.fsencode(command.busybox), os.fsencode(shell)]
        words += [b"--remount-ro", b"/"]
        words += [word for one in command.environment for word in _set_variable(one)]
        line = b" ".join(_quote(word) for word in [*words, os.fsencode(shell)])
        script = kept / "enter"
        script.write_bytes(b"#!/bin/sh\nexec " + line + b"\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        return kept


def _set_variable(variable: bytes) -> tuple[bytes, bytes, bytes]:
    name, _, value = variable.partition(b"=")
    return b"--setenv", name, value


def _quote(word: bytes) -> bytes:
    return shlex.quote(word.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def _read(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except OSError:
        return None


def _find_program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise UnavailableError(f"expected {name} in the PATH, found none: {REMEDY}")
    return os.path.realpath(found)
