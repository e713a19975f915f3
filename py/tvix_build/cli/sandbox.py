# SPDX-License-Identifier: MIT
"""Runs requests of the command `build` in the sandbox."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tvix_build import Schema
from tvix_build.builders import (
    Builder,
    BuilderError,
    BuildFailedError,
    BuildRecord,
    Limits,
    SandboxBuilder,
)
from tvix_build.castore import CastoreStore
from tvix_build.cli.command import verbosity
from tvix_build.cli.failures import FailedError
from tvix_build.cli.terminal import Monitor

if TYPE_CHECKING:
    from tvix.castore.protos.castore_pb2 import Node


@dataclass(frozen=True)
class Sandbox:
    """The options of a build in the sandbox.

    Attributes:
        file: the name of the request, for messages.
        schema: the schema of the request.
        castore: the directory of the castore store.
        out_link: the directory for the outputs, or None.
        keep_failed: whether to keep the directory of a failed build.
        timeout: the limit of time in seconds, or None for the default.
        limits: the other members of Limits that are given.
    """

    file: str
    schema: Schema
    castore: str
    out_link: str | None
    keep_failed: bool
    timeout: float | None
    limits: dict[str, int]

    def build(self, monitor: Monitor, request: bytes) -> bytes:
        """Return the response. Print the log while the build runs.

        Raises:
            FailedError: if the build fails.
        """
        if self.out_link is not None and os.path.lexists(self.out_link):
            raise click.UsageError(
                f"--out-link: {self.out_link!r} exists; expected a new directory"
            )
        with CastoreStore(self.castore) as castore:
            try:
                on_log = None if verbosity() < 0 or sys.stderr is None else _write_log
                with self.open_builder(castore) as builder:
                    result = builder.build(request, schema=self.schema, on_log=on_log)
            except BuildFailedError as error:
                monitor.error(f"{self.file}: {error}")
                _note_record(monitor, error.record)
                if error.kept:
                    monitor.error(
                        f"{error.kept}: kept; to enter the sandbox, run {error.kept}/enter"
                    )
                raise FailedError from None
            except BuilderError as error:
                monitor.error(f"{self.file}: {error}")
                raise FailedError from None
            _note_record(monitor, result.record)
            if self.out_link is not None:
                _materialize(castore, result.outputs, self.out_link)
        return bytes(result.response)

    def open_builder(self, castore: CastoreStore) -> AbstractContextManager[Builder]:
        """Return the builder."""
        limits = Limits(**self.limits)
        if self.timeout is not None:
            limits = replace(limits, seconds=self.timeout)
        return nullcontext(SandboxBuilder(castore, limits=limits, keep_failed=self.keep_failed))


def _write_log(data: bytes) -> None:
    sys.stderr.flush()
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()


def _note_record(monitor: Monitor, record: BuildRecord) -> None:
    if verbosity() > 0:
        seconds = (record.finished - record.started).total_seconds()
        monitor.note(
            f"{seconds:.2f} s, {record.cpu_seconds:.2f} s of CPU time, "
            f"{record.peak_memory >> 20} MiB of memory, {record.log_size} bytes of log in the blob "
            f"{record.log_digest.hex()}"
        )


def _materialize(castore: CastoreStore, outputs: Mapping[str, Node], target: str) -> None:
    """Write all outputs to a new directory, atomically."""
    path = Path(target).absolute()
    temporary = tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        os.chmod(temporary, 0o755)
        for output, node in outputs.items():
            castore.materialize(node, os.path.join(temporary, os.path.basename(output)))
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
