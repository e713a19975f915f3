# SPDX-License-Identifier: MIT
"""Runs requests on this machine, in a sandbox that bubblewrap makes."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import stat
import tempfile
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast, overload

from google.protobuf.message import Message

from tvix_build._core.ranges import BytesLike
from tvix_build._core.report import SchemaLike
from tvix_build.builders.directories import BUILDS, build_directory
from tvix_build.builders.interface import (
    BuildFailedError,
    BuildRecord,
    BuildResult,
    OnLog,
    RefusedError,
    UnavailableError,
)
from tvix_build.builders.layout import NETWORK_FILES, Layout, bubblewrap_arguments, plan
from tvix_build.builders.limits import Limits, host_memory
from tvix_build.builders.messages import Request, read_request, write_response
from tvix_build.builders.outputs import InvalidOutputError, OutputScan, find_output
from tvix_build.builders.run import REMEDY, Command, Ended, describe_limit, run
from tvix_build.builders.threads import run_in_thread
from tvix_build.castore import CastoreStore, IngestError, MissingError

if TYPE_CHECKING:
    from snix.build.protos import build_pb2 as snix_build_pb2
    from tvix.build.protos import build_pb2
    from tvix.castore.protos.castore_pb2 import Node

SANDBOX = "sandbox:"
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
        with build_directory(self._directory) as directory:
            build = _Build(directory, request, layout)
            build.make_root(self._castore)
            command = build.command(self._bubblewrap, self._busybox)
            with tempfile.TemporaryFile(dir=directory) as log:
                ended = run(command, self._limits, log, on_log, cancelled)
                nodes, needles, failure = self._take_outputs(build, ended)
                record = self._record(build, ended, failure, log)
            if failure:
                kept = build.keep(command) if self._keep_failed else None
                raise BuildFailedError(failure, record, kept)
            response = write_response(request, nodes, needles)
            outputs = dict(zip(request.message.outputs, nodes, strict=True))
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
        for i, entry in enumerate(message.inputs):
            if entry.HasField("file"):
                kind, digest, has = "blob", entry.file.digest, self._castore.has_blob
            elif entry.HasField("directory"):
                kind, digest = "Directory", entry.directory.digest
                has = self._castore.has_directory
            else:
                continue
            if not has(digest):
                reasons.append(f"inputs[{i}]: the castore has no {kind} {digest.hex()}")
        if reasons:
            raise RefusedError(reasons)

    def _take_outputs(
        self, build: _Build, ended: Ended
    ) -> tuple[list[Node], list[list[int]], str | None]:
        """Add the outputs to the castore. Return their nodes and needles, and why this failed."""
        nodes: list[Node] = []
        needles: list[list[int]] = []
        if ended.failure:
            return nodes, needles, ended.failure
        message = build.request.message
        scan = OutputScan(message.refscan_needles, self._limits.output_size)
        try:
            build.check_symlinks()
            paths = {output: find_output(build.root, output) for output in message.outputs}
            needles = [scan.scan(path, output) for output, path in paths.items()]
            if scan.exceeded:
                return nodes, needles, describe_limit("output_size", self._limits)
            nodes = [self._castore.ingest(path) for path in paths.values()]
        except (InvalidOutputError, IngestError) as error:
            return nodes, needles, str(error)
        return nodes, needles, None

    def _record(
        self, build: _Build, ended: Ended, failure: str | None, log: IO[bytes]
    ) -> BuildRecord:
        log.flush()
        size = log.tell()
        log.seek(0)
        return BuildRecord(
            builder=SANDBOX,
            request_digest=build.request.digest,
            started=build.started,
            finished=datetime.now(timezone.utc),
            exit_status=ended.exit_status,
            cpu_seconds=ended.cpu_seconds,
            peak_memory=ended.peak_memory,
            log_digest=self._castore.add_blob(cast(Any, log)),
            log_size=size,
            failure=failure,
        )


@dataclass
class _Build:
    """One build in its directory.

    Attributes:
        root: what the build sees as `/`.
    """

    directory: Path
    request: Request
    layout: Layout
    started: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    _symlinks: dict[str, bytes] = field(default_factory=dict)

    @property
    def root(self) -> str:
        return str(self.directory / "root")

    @property
    def _inputs(self) -> str:
        return str(self.directory / "inputs")

    def make_root(self, castore: CastoreStore) -> None:
        """Make the root with all files, and the inputs."""
        os.mkdir(self.root, 0o755)
        if self.layout.mounted_inputs and self.layout.inputs:
            os.mkdir(self._inputs)
        for path in self.layout.directories:
            os.mkdir(f"{self.root}/{path}")
        os.chmod(f"{self.root}/tmp", 0o1777)
        for path, contents in self.layout.files.items():
            Path(self.root, path).write_bytes(contents)
        if self.layout.shell:
            Path(self.root, "bin/sh").touch()
        for path in self.layout.host_paths:
            if not path.startswith("/dev/"):
                self._make_mount_point(path[1:], os.path.isdir(path))
        for path, index in self.layout.inputs.items():
            try:
                self._make_input(castore, path, self.request.message.inputs[index])
            except MissingError as error:
                raise RefusedError([f"inputs[{index}]: {error}"]) from None

    def _make_input(self, castore: CastoreStore, path: str, entry: Any) -> None:
        if entry.WhichOneof("entry") == "symlink":
            self._symlinks[path] = entry.symlink.target
            os.symlink(entry.symlink.target, os.fsencode(f"{self.root}/{path}"))
        elif self.layout.mounted_inputs:
            castore.materialize(entry, f"{self._inputs}/{os.path.basename(path)}")
            self._make_mount_point(path, entry.WhichOneof("entry") == "directory")
        else:
            castore.materialize(entry, f"{self.root}/{path}")

    def _make_mount_point(self, path: str, is_directory: bool) -> None:
        target = Path(self.root, path)
        if is_directory:
            target.mkdir(exist_ok=True)
        else:
            target.touch()

    def check_symlinks(self) -> None:
        """Raise InvalidOutputError if the build changed an input that is a symbolic link, which
        cannot be mounted."""
        for path, target in self._symlinks.items():
            full = os.fsencode(f"{self.root}/{path}")
            if not os.path.islink(full) or os.readlink(full) != target:
                raise InvalidOutputError(f"the build changed its input {path}")

    def command(self, bubblewrap: str, busybox: str) -> Command:
        """Return the command of the request in the sandbox."""
        message = self.request.message
        options = bubblewrap_arguments(
            self.layout,
            root=self.root,
            inputs=self._inputs,
            shell=busybox,
            symlinks=self._symlinks.__contains__,
        )
        return Command(
            bubblewrap=bubblewrap,
            options=options,
            busybox=busybox,
            arguments=[os.fsencode(one) for one in message.command_args],
            environment=[one.key.encode() + b"=" + one.value for one in message.environment_vars],
            writable=[f"{self.root}/{path}" for path in self.layout.writable],
            name=f"tvix-build-{self.directory.name}",
            mounted_later=[
                os.fsencode(f"/{path}") for path in self.layout.inputs if path not in self._symlinks
            ]
            if self.layout.has_many_inputs
            else (),
        )

    def keep(self, command: Command) -> Path:
        """Rename the directory, so that it stays, with a script that enters the sandbox."""
        kept = self.directory.with_name(f"failed-{self.directory.name}")
        self.directory.rename(kept)
        before, after = str(self.directory), str(kept)
        options = [
            after + one[len(before) :] if one.startswith(f"{before}/") else one
            for one in command.options
            if one not in ("--as-pid-1", "--new-session", "--die-with-parent")
        ]
        if not self.layout.shell:
            options += ["--ro-bind", command.busybox, "/tmp/sh"]
            Path(kept, "root/tmp/sh").touch()
        shell = "/bin/sh" if self.layout.shell else "/tmp/sh"
        variables = [word for one in command.environment for word in _set_variable(one)]
        words = [os.fsencode(word) for word in (command.bubblewrap, *options)]
        line = b" ".join(_quote(word) for word in [*words, *variables, os.fsencode(shell)])
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
