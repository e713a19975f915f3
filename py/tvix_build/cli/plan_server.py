# SPDX-License-Identifier: MIT
"""The commands `plan submit`, `watch`, `cancel`, `delete`, `list` and `fetch`, for plans on a
server."""

from __future__ import annotations

import codecs
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from rich.text import Text

from tvix_build._core.nodes import name_of
from tvix_build.castore import CastoreStore
from tvix_build.cli.connections import client_credentials
from tvix_build.cli.extras import extra
from tvix_build.cli.materialize import check_target, materialize
from tvix_build.cli.plan_show import read_valid_plan
from tvix_build.cli.statuses import print_status
from tvix_build.cli.terminal import Monitor, printable, stdout_console
from tvix_build.plan.v1.rpc_plan_pb2 import Event, ListPlansResponse
from tvix_build.records.output import output_errors

if TYPE_CHECKING:
    from tvix_build.plan.client import PlanClient
    from tvix_build.proxy.shared.addresses import Address

_Files: TypeAlias = "tuple[Path | None, Path | None, Path | None]"
"""The files of --ca, --certificate and --key."""


def submit(
    file: str, server: Address, fail_fast: bool, timeout: float | None, files: _Files
) -> int:
    """Run the command, and return its exit status."""
    monitor = Monitor(quiet=True)
    plan = read_valid_plan(file, monitor)
    if plan is None:
        return 1
    with _errors(monitor, server), _connect(server, files) as client:
        submitted = client.submit(plan, fail_fast=fail_fast, timeout=timeout)
        monitor.note(f"sent {submitted.sent:,} steps")
        with output_errors("standard output"):
            stdout_console().say(submitted.plan.hex())
        return 0
    return 1


def watch(plan: bytes, server: Address, first: int, files: _Files) -> int:
    """Run the command, and return its exit status."""
    monitor = Monitor(quiet=True)
    last = None
    with _errors(monitor, server), _connect(server, files) as client:
        for last in client.watch(plan, first=first):
            with output_errors("standard output"):
                for line in _lines(last):
                    stdout_console().say(line)
    return 0 if last is not None and _succeeded(last) else 1


def follow_log(plan: bytes, step: bytes, server: Address, first: int, files: _Files) -> int:
    """Print the log of a step until its build ends, and return the exit status."""
    monitor = Monitor(quiet=True)
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    with _errors(monitor, server), _connect(server, files) as client:
        for event in client.watch(plan, first=first, step=step):
            if event.kind == Event.KIND_LOG:
                text = Text(printable(decoder.decode(event.log), lines=True))
                with output_errors("standard output"):
                    stdout_console().print(text, soft_wrap=True, end="")
            elif event.step and event.kind not in (Event.KIND_QUEUED, Event.KIND_STARTED):
                for line in _lines(event):
                    monitor.note(line)
                return 0 if event.kind in (Event.KIND_BUILT, Event.KIND_CACHED) else 1
        monitor.error(f"{plan.hex()}: the run ended without the step {step.hex()}")
    return 1


def cancel(plan: bytes, server: Address, files: _Files) -> int:
    """Run the command, and return its exit status."""
    with _errors(Monitor(quiet=True), server), _connect(server, files) as client:
        client.cancel(plan)
        return 0
    return 1


def delete(plan: bytes, server: Address, files: _Files) -> int:
    """Run the command, and return its exit status."""
    monitor = Monitor(quiet=True)
    with _errors(monitor, server), _connect(server, files) as client:
        monitor.note(f"deleted {client.delete(plan):,} steps")
        return 0
    return 1


def list_plans(server: Address, files: _Files) -> int:
    """Run the command, and return its exit status."""
    with _errors(Monitor(quiet=True), server), _connect(server, files) as client:
        with output_errors("standard output"):
            for plan in client.plans():
                status = ListPlansResponse.Status.Name(plan.status).removeprefix("STATUS_")
                started = datetime.fromtimestamp(plan.started // 1_000_000, timezone.utc)
                stdout_console().say(
                    f"{plan.plan.hex()}  {status.lower():9}  {started:%Y-%m-%dT%H:%M:%SZ}  "
                    f"{plan.steps:,} steps"
                )
        return 0
    return 1


def fetch(plan: bytes, server: Address, out_link: str, files: _Files) -> int:
    """Run the command, and return its exit status."""
    check_target(out_link)
    monitor = Monitor(quiet=True)
    with _errors(monitor, server):
        kinds = [Event.KIND_FINISHED, Event.KIND_CANCELLED]
        with _connect(server, files) as client:
            (last,) = client.watch(plan, kinds=kinds)
        if not _succeeded(last):
            for line in _lines(last):
                monitor.error(f"{plan.hex()}: {line}")
            return 1
        with extra("grpc"):
            from tvix_build.castore.client import CastoreClient
        credentials = client_credentials(server, *files)
        directory = Path(out_link).absolute().parent
        with (
            tempfile.TemporaryDirectory(prefix=".castore.", dir=directory) as path,
            CastoreStore(path) as castore,
            CastoreClient(server.text, credentials=credentials) as outputs,
        ):
            for node in last.outputs:
                outputs.download(node, castore)
            materialize(
                castore, {os.fsdecode(name_of(node)): node for node in last.outputs}, out_link
            )
        return 0
    return 1


@contextmanager
def _connect(server: Address, files: _Files) -> Iterator[PlanClient]:
    with extra("grpc"):
        from tvix_build.plan.client import PlanClient
    with PlanClient(server.text, credentials=client_credentials(server, *files)) as client:
        yield client


@contextmanager
def _errors(monitor: Monitor, server: Address) -> Iterator[None]:
    """Print the status of a call that fails, and leave the context."""
    with extra("grpc"):
        import grpc
    try:
        yield
    except grpc.RpcError as error:
        print_status(monitor, server.text, error)


def _succeeded(event: Event) -> bool:
    """Return whether an event is the end of a run in which all steps have outputs."""
    counts = event.counts
    return (
        event.kind == Event.KIND_FINISHED
        and not event.reason
        and not (counts.failed or counts.skipped)
    )


def _lines(event: Event) -> Iterator[str]:
    """Yield the lines that show an event. There are several for a log."""
    kind = Event.Kind.Name(event.kind).removeprefix("KIND_").lower()
    line = " ".join(filter(None, (str(event.number), kind, event.step.hex())))
    if event.kind == Event.KIND_LOG:
        for text in event.log.decode(errors="replace").splitlines():
            yield f"{line}: {printable(text)}"
        return
    counts = event.counts
    if event.reason:
        line += f": {printable(event.reason)}"
    elif event.kind == Event.KIND_STARTED:
        line += f" on {event.builder}"
    elif event.kind == Event.KIND_BUILT:
        line += f" in {(event.finished - event.started) / 1e6:.1f} s"
    elif event.kind == Event.KIND_SKIPPED:
        line += f": {event.cause.hex()} failed"
    elif event.kind == Event.KIND_FINISHED:
        line += (
            f": {counts.built:,} built, {counts.cached:,} cached, {counts.failed:,} failed, "
            f"{counts.skipped:,} skipped"
        )
    yield line
