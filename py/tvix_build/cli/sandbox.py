# SPDX-License-Identifier: MIT
"""Runs requests and derivations of the command `build` in the sandbox."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tvix_build import Schema
from tvix_build.builders import (
    Builder,
    BuilderError,
    BuildFailedError,
    BuildRecord,
    SandboxBuilder,
)
from tvix_build.builders.interface import OnLog
from tvix_build.castore import CastoreStore
from tvix_build.cli.command import verbosity
from tvix_build.cli.failures import FailedError
from tvix_build.cli.materialize import check_target, materialize
from tvix_build.cli.opening import make_limits
from tvix_build.cli.reuse import Reuse
from tvix_build.cli.terminal import Monitor
from tvix_build.records import InputError

if TYPE_CHECKING:
    from tvix.castore.protos.castore_pb2 import Node


@dataclass(frozen=True)
class Sandbox:
    """The options of a build in the sandbox.

    Attributes:
        file: the file of the derivation, or the name of the request for messages.
        schema: the schema of the request.
        castore: the directory of the castore store.
        out_link: the directory for the outputs, or None.
        reuse: how builds are reused.
        keep_failed: whether to keep the directory of a failed build.
        timeout: the limit of time in seconds, or None for the default.
        limits: the other members of Limits that are given.
    """

    file: str
    schema: Schema
    castore: str
    out_link: str | None
    reuse: Reuse
    keep_failed: bool
    timeout: float | None
    limits: dict[str, int]

    def build(self, monitor: Monitor, request: bytes) -> bytes:
        """Return the response. Print the log while the build runs.

        Raises:
            FailedError: if the build fails.
        """
        with self._open(monitor) as (castore, builder, log):
            result = builder.build(request, schema=self.schema, on_log=log.writer)
            log.end_line()
            _note_record(monitor, result.record)
            self._write_outputs(castore, result.outputs)
        return bytes(result.response)

    def build_derivation(self, monitor: Monitor, store: str | None) -> bytes:
        """Build the derivation in the file, after the derivations that it needs, and return its
        response. Print the logs while the builds run.

        Args:
            store: the directory of input derivations and sources, or None for that of the file.

        Raises:
            FailedError: if a build fails.
            InputError: if the file cannot be read.
        """
        from tvix_build.builders.derivations import DerivationBuildError, build_derivation
        from tvix_build.nix import DerivationError

        with self._open(monitor) as (castore, builder, log):

            def on_start(path: str) -> None:
                log.end_line()
                monitor.note(f"building {path}")

            try:
                found = build_derivation(
                    self.file,
                    builder=builder,
                    castore=castore,
                    store=store,
                    on_start=on_start,
                    on_log=log.writer,
                )
            except DerivationError as error:
                reasons = "; ".join(error.reasons)
                if isinstance(error.__cause__, OSError):
                    raise InputError(reasons, self.file) from None
                monitor.error(f"{self.file}: {reasons}")
                raise FailedError from None
            except DerivationBuildError as error:
                log.end_line()
                _report(monitor, str(error), error.__cause__)
                raise FailedError from None
            log.end_line()
            result = list(found.results.values())[-1]
            _note_record(monitor, result.record)
            self._write_outputs(castore, result.outputs)
        return result.response.SerializeToString(deterministic=True)

    @contextmanager
    def _open(self, monitor: Monitor) -> Iterator[tuple[CastoreStore, Builder, _Log]]:
        """Yield the castore, the builder and its log, and report its errors.

        Raises:
            FailedError: if the builder raises an error.
        """
        if self.out_link is not None:
            check_target(self.out_link)
        log = _Log()
        with CastoreStore(self.castore) as castore:
            try:
                with (
                    self.open_builder(castore) as builder,
                    self.reuse.apply(builder, castore) as reusing,
                ):
                    yield castore, reusing, log
                    if self.reuse.check:
                        monitor.note("the outputs of a second build are equal")
            except BuilderError as error:
                log.end_line()
                _report(monitor, f"{self.file}: {error}", error)
                raise FailedError from None

    def _write_outputs(self, castore: CastoreStore, outputs: Mapping[str, Node]) -> None:
        if self.out_link is not None:
            materialize(castore, outputs, self.out_link)

    def open_builder(self, castore: CastoreStore) -> AbstractContextManager[Builder]:
        """Return the builder."""
        limits = make_limits(self.limits, self.timeout)
        return nullcontext(SandboxBuilder(castore, limits=limits, keep_failed=self.keep_failed))


def _report(monitor: Monitor, text: str, error: BaseException | None) -> None:
    monitor.error(text)
    if isinstance(error, BuildFailedError):
        _note_record(monitor, error.record)
        if error.kept:
            monitor.error(f"{error.kept}: kept; to enter the sandbox, run {error.kept}/enter")


class _Log:
    """Prints the logs of builds on stderr."""

    def __init__(self) -> None:
        self._line_ended = True

    @property
    def writer(self) -> OnLog | None:
        """The function that prints a part of a log, unless the command is quiet."""
        return None if verbosity() < 0 or sys.stderr is None else self._write

    def end_line(self) -> None:
        """Let the next message begin on a new line, although the log has no newline at its end."""
        if not self._line_ended:
            self._write(b"\n")

    def _write(self, data: bytes) -> None:
        sys.stderr.flush()
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()
        self._line_ended = data.endswith(b"\n")


def _note_record(monitor: Monitor, record: BuildRecord) -> None:
    if verbosity() > 0:
        seconds = (record.finished - record.started).total_seconds()
        monitor.note(
            f"{seconds:.2f} s, {record.cpu_seconds:.2f} s of CPU time, "
            f"{record.peak_memory >> 20} MiB of memory, {record.log_size} bytes of log in the blob "
            f"{record.log_digest.hex()}"
        )
