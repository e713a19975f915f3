# SPDX-License-Identifier: MIT
"""The command `plan run`."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvix_build.builders import Builder
from tvix_build.castore import CastoreStore
from tvix_build.cli.connections import client_credentials
from tvix_build.cli.materialize import check_target, materialize
from tvix_build.cli.opening import open_builder
from tvix_build.cli.plan_report import SUFFIXES, write_reports
from tvix_build.cli.plan_show import read_valid_plan
from tvix_build.cli.plan_view import View, open_view
from tvix_build.cli.targets import check_format
from tvix_build.cli.terminal import Monitor, stdout_console
from tvix_build.plan import PlanResult, PlanState, Status, run_async
from tvix_build.records.output import output_errors
from tvix_build.store import RequestStore

if TYPE_CHECKING:
    from tvix_build.builders.reapi.address import Address as ReapiAddress
    from tvix_build.proxy.shared.addresses import Address


def run(
    file: str,
    builders: Sequence[tuple[float, Address | ReapiAddress]],
    state: str,
    castore: str,
    builds: str | None,
    max_builds: int | None,
    timeout: float | None,
    retries: int,
    fail_fast: bool,
    out_link: str | None,
    reports: tuple[str, ...],
    properties: list[tuple[str, str, str | None]],
    no_cache: bool,
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
    limits: dict[str, int],
) -> int:
    """Run the command, and return its exit status."""
    if out_link is not None:
        check_target(out_link)
    for report in reports:
        check_format("--report", report, SUFFIXES)
    monitor = Monitor(quiet=True)
    plan = read_valid_plan(file, monitor)
    if plan is None:
        return 1
    files = (ca, certificate, key)
    with ExitStack() as stack:
        store = stack.enter_context(CastoreStore(castore))
        stored = None if builds is None else stack.enter_context(RequestStore(builds))
        opened = stack.enter_context(PlanState(state, builds=stored))
        found: list[Builder] = []
        for _, address in builders:
            builder = open_builder(
                address,
                store,
                limits=limits,
                timeout=timeout,
                credentials=client_credentials(address, *files) if address.tls else None,
                properties=properties,
                cache=not no_cache,
            )
            found.append(stack.enter_context(builder))
        digest = opened.put_plan(plan)
        with open_view(opened, digest, [address.text for _, address in builders]) as view:
            result = asyncio.run(
                _until_signal(
                    run_async(
                        digest,
                        found,
                        opened,
                        castore=store,
                        weights=[weight for weight, _ in builders],
                        max_builds=max_builds,
                        timeout=timeout,
                        retries=retries,
                        fail_fast=fail_fast,
                        on_event=view.show,
                    ),
                    view,
                )
            )
        write_reports(reports, opened, result.run)
        if out_link is not None and result.succeeded:
            materialize(store, opened.root_outputs(result.run), out_link)
    with output_errors("standard output"):
        counts = (f"{result.counts.get(status, 0):,} {status.value}" for status in Status)
        stdout_console().say(", ".join(counts))
    return 0 if result.succeeded else 1


async def _until_signal(run: Coroutine[Any, Any, PlanResult], view: View) -> PlanResult:
    """Return the result of a run. A signal ends its builds, and then this process as always. The
    view handles keys."""
    task = asyncio.ensure_future(run)
    received: list[int] = []

    def stop(number: int) -> None:
        received.append(number)
        task.cancel()

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    loop = asyncio.get_running_loop()
    for number, handler in handlers.items():
        if handler != signal.SIG_IGN:
            loop.add_signal_handler(number, stop, number)
    try:
        with view.keys():
            return await task
    finally:
        for number, handler in handlers.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
        if received:
            os.kill(os.getpid(), received[0])
