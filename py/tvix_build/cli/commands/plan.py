# SPDX-License-Identifier: MIT
"""The commands of `tvix-build plan`."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from tvix_build.cli.command import Command
from tvix_build.cli.connections import FILE, parse_address, parse_weighted_builders
from tvix_build.cli.options import (
    PATH,
    SECONDS,
    derivation_options,
    limit_options,
    property_option,
    schema_option,
)
from tvix_build.proxy.shared.addresses import FORMS


def _parse_digest(
    _context: click.Context, _argument: click.Parameter, value: str | None
) -> bytes | None:
    if value is None:
        return None
    if not re.fullmatch("[0-9a-f]{64}", value):
        raise click.BadParameter(f"expected 64 hexadecimal digits, found {value!r}")
    return bytes.fromhex(value)


def _server_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add --server and the options of certificates. The command gets the argument `files`."""

    @wraps(command)
    def run(
        *arguments: Any, ca: Path | None, certificate: Path | None, key: Path | None, **others: Any
    ) -> int:
        return command(*arguments, files=(ca, certificate, key), **others)

    for name, text in (
        ("--key", "Private key of the certificate, in PEM."),
        ("--certificate", "Certificate of this client, in PEM."),
        ("--ca", "CA certificates that verify the certificate of the server, in PEM."),
    ):
        run = click.option(name, metavar="FILE", type=FILE, help=text)(run)
    return click.option(
        "--server",
        metavar="ADDRESS",
        required=True,
        callback=parse_address,
        help=f"The server: {FORMS}.",
    )(run)


@click.group(no_args_is_help=False)
def plan() -> None:
    """Work with plans: all requests of an evaluation at once."""


@plan.command(cls=Command, short_help="Make a plan from Nix derivations.")
@click.argument("paths", metavar="PATH...", type=PATH, nargs=-1, required=True)
@derivation_options
@schema_option
@click.option(
    "-o",
    "--output",
    metavar="PLAN",
    type=PATH,
    required=True,
    help="The file of the plan (.binpb, .json or .txtpb; may be compressed).",
)
@click.option(
    "--errors",
    metavar="FILE",
    type=PATH,
    help="Write all reasons why derivations are rejected to FILE, as JSON lines.",
)
def make(**options: Any) -> int:
    """Make a plan: a step for each derivation that a PATH names, and for each derivation that they
    need. A PATH is a .drv file, or a directory of .drv files.

    \b
    Examples:
      tvix-build plan make /nix/store/*-hello-2.12.drv --ingest -o plan.binpb
      tvix-build plan make derivations --nodes nodes.ndjson -o plan.binpb.zst

    The derivations that PATHs name are the roots of the plan. Only sources need nodes, and the
    outputs of derivations whose builder is part of Nix, such as builtin:fetchurl, which have no
    step.

    A derivation that is rejected, or that needs a rejected one, has no step. The reasons are
    printed on stderr as those of the command from-drv. If no PATH has a step, no file is written.
    """
    from tvix_build.cli.plan_make import run

    return run(**options)


@plan.command(cls=Command, short_help="Check a plan.")
@click.argument("path", metavar="PLAN", type=PATH)
def check(path: str) -> int:
    """Check the plan in the file PLAN, and print its digest, as the command digest.

    Prints violations on stderr. Exit status 1: the plan is invalid.
    """
    from tvix_build.cli.plan_show import check_plan

    return check_plan(path)


@plan.command(cls=Command, short_help="Print the shape of a plan.")
@click.argument("path", metavar="PLAN", type=PATH)
@click.option("--steps", is_flag=True, help="Print all steps instead of the critical path.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def show(**options: Any) -> int:
    """Print the numbers of steps, references and roots of the plan in the file PLAN; the depth, the
    number of steps on the longest path; the width, the largest number of steps at one level; and a
    longest path, the critical path.

    With --json, the first line is an object with these. With --steps, a line follows per step,
    after those of the steps that it needs.
    """
    from tvix_build.cli.plan_show import show as run

    return run(**options)


@plan.command(cls=Command, short_help="Write a plan as a graph for Graphviz.")
@click.argument("path", metavar="PLAN", type=PATH)
@click.option("--dot", is_flag=True, required=True, help="Write the language of Graphviz.")
@click.option("-o", "--output", metavar="FILE", type=PATH, help="Write to FILE; '-' is stdout.")
def graph(path: str, dot: bool, output: str | None) -> int:
    """Write the steps of the plan in the file PLAN as a graph. An edge leads from a step to a step
    that it needs; roots are bold.

    \b
    Example:
      tvix-build plan graph plan.binpb --dot | dot -Tsvg > plan.svg
    """
    from tvix_build.cli.plan_show import write_dot

    return write_dot(path, output)


@plan.command(cls=Command, short_help="Explain the difference between two plans.")
@click.argument("old", metavar="OLD", type=PATH)
@click.argument("new", metavar="NEW", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines, with all root causes.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=PATH,
    help="Also write the root causes to FILE, a table (.arrow or .parquet).",
)
def diff(**options: Any) -> int:
    """Print which steps of two plans differ, and why: the root causes, and the number of steps that
    differ only because they need them.

    A root cause is a step with another source, variable, argument, builder or input. Steps of both
    plans correspond to each other by name.

    \b
    Example:
      tvix-build plan diff old.binpb new.binpb

    With --json, the first line is an object with the numbers of steps; then there is one per root
    cause. The table has a row per root cause, with the same members.

    Exit status: 0 the plans are equal, 1 they differ or one is invalid, 2 wrong usage, or a file
    cannot be read or written.
    """
    from tvix_build.cli.plan_diff import run

    return run(**options)


@plan.command(cls=Command, short_help="Build the steps of a plan.")
@click.argument("file", metavar="PLAN", type=PATH)
@click.option(
    "--builder",
    "builders",
    metavar="[WEIGHT:]ADDRESS",
    multiple=True,
    required=True,
    callback=parse_weighted_builders,
    help="A builder: 'sandbox:', reapi+grpc://HOST:PORT/INSTANCE, or a server with castore "
    f"services at {FORMS}; repeatable. One of WEIGHT 2 gets twice as many builds as one of WEIGHT "
    "1, the default.",
)
@click.option(
    "--state",
    metavar="DIR",
    type=click.Path(file_okay=False),
    required=True,
    help="The directory of the outcomes. With the same DIR, an interrupted run continues.",
)
@click.option(
    "--castore",
    metavar="DIR",
    type=click.Path(file_okay=False),
    required=True,
    help="The castore store of inputs, outputs and logs.",
)
@click.option(
    "--builds",
    metavar="FILE",
    type=PATH,
    help="The store of builds; by default, builds.sqlite in the directory of the state.",
)
@click.option(
    "--max-builds",
    metavar="N",
    type=click.IntRange(1),
    help="Run at most N builds at the same time; by default, as many as this machine has CPUs.",
)
@click.option("--timeout", metavar="SECONDS", type=SECONDS, help="Time limit of each build.")
@click.option(
    "--retries",
    metavar="N",
    type=click.IntRange(0),
    default=5,
    show_default=True,
    help="Retry a build at most N times if builders are unavailable.",
)
@click.option("--fail-fast", is_flag=True, help="Start no build after the first failure.")
@click.option(
    "--out-link",
    metavar="DIR",
    type=PATH,
    help="Write the outputs of the roots to this new directory, by name, if all steps succeed.",
)
@click.option(
    "--report",
    "reports",
    metavar="FILE",
    type=PATH,
    multiple=True,
    help="Write what happened to each step to FILE: .json, .parquet, or .html with a timeline; "
    "repeatable.",
)
@limit_options
@property_option
@click.option("--no-cache", is_flag=True, help="With Remote Execution: do not use cached results.")
@click.option(
    "--ca",
    metavar="FILE",
    type=FILE,
    help="CA certificates that verify the certificates of builders, in PEM.",
)
@click.option(
    "--certificate", metavar="FILE", type=FILE, help="Certificate of this client, in PEM."
)
@click.option("--key", metavar="FILE", type=FILE, help="Private key of the certificate, in PEM.")
def run(**options: Any) -> int:
    """Build the steps of the plan in the file PLAN, each after the steps that it needs. Steps whose
    builds are stored are not built again.

    \b
    Examples:
      tvix-build plan run plan.binpb --builder sandbox: --state state --castore castore
      tvix-build plan run plan.binpb --builder sandbox: --builder 8:reapi+grpc://host:8980/main \\
          --max-builds 9 --state state --castore castore --report report.html

    Prints what happens on stderr, and the numbers of steps by outcome on stdout. If the command is
    interrupted or killed, run it again: finished builds are not repeated.

    Exit status: 0 all steps have outputs, 1 PLAN is invalid or steps failed, 2 wrong usage, or a
    file cannot be read or written.
    """
    from tvix_build.cli.plan_run import run as run_plan

    return run_plan(**options)


@plan.command(cls=Command, short_help="Start a plan on a server.")
@click.argument("file", metavar="PLAN", type=PATH)
@_server_options
@click.option("--fail-fast", is_flag=True, help="Start no build after the first failure.")
@click.option("--timeout", metavar="SECONDS", type=SECONDS, help="Time limit of each build.")
def submit(**options: Any) -> int:
    """Upload the steps of the plan in the file PLAN that the server lacks, start the plan, and
    print its digest. The server builds it without this command.

    \b
    Example:
      tvix-build plan submit plan.binpb --server grpc+http://127.0.0.1:8000

    The server is `tvix-build serve --plans`. Exit status 1: PLAN is invalid, or a call fails.
    """
    from tvix_build.cli.plan_server import submit as run_submit

    return run_submit(**options)


_digest_argument = click.argument("plan", metavar="DIGEST", callback=_parse_digest)


@plan.command(cls=Command, short_help="Show what happens to a plan on a server.")
@_digest_argument
@_server_options
@click.option(
    "--from",
    "first",
    metavar="N",
    type=click.IntRange(0),
    default=0,
    help="The number of the first event; by default, all events of the last run are shown.",
)
@click.option(
    "--log",
    "step",
    metavar="STEP",
    callback=_parse_digest,
    help="Print only the log of the step with this digest, until its build ends.",
)
def watch(step: bytes | None, **options: Any) -> int:
    """Print the events of the last run of the plan with a DIGEST, those that happened and those
    that happen, until the run ends. A line has the number of the event, what happened, and the
    digest of the step.

    \b
    Examples:
      tvix-build plan watch "$digest" --server grpc+http://127.0.0.1:8000 --from 120
      tvix-build plan watch "$digest" --server grpc+http://127.0.0.1:8000 --log "$step"

    Exit status: 0 all steps have outputs, 1 steps failed, the plan was cancelled, or the call
    fails. With --log, 0 if the step has outputs.
    """
    from tvix_build.cli.plan_server import follow_log
    from tvix_build.cli.plan_server import watch as run_watch

    return run_watch(**options) if step is None else follow_log(step=step, **options)


@plan.command(cls=Command, short_help="Cancel a plan on a server.")
@_digest_argument
@_server_options
def cancel(**options: Any) -> int:
    """End the builds of the plan with a DIGEST, if it is running. To continue it, submit it again.

    Exit status 1: the call fails.
    """
    from tvix_build.cli.plan_server import cancel as run_cancel

    return run_cancel(**options)


@plan.command(cls=Command, short_help="Delete a plan on a server.")
@_digest_argument
@_server_options
def delete(**options: Any) -> int:
    """Delete the plan with a DIGEST, which must not be running, its events, and the steps that no
    other plan has. Stored builds remain.

    Exit status 1: the call fails.
    """
    from tvix_build.cli.plan_server import delete as run_delete

    return run_delete(**options)


@plan.command("list", cls=Command, short_help="List the plans on a server.")
@_server_options
def list_plans(**options: Any) -> int:
    """Print the digest, the status, the time of the start and the number of steps of each plan, the
    one that was started last first.

    Exit status 1: the call fails.
    """
    from tvix_build.cli.plan_server import list_plans as run_list

    return run_list(**options)


@plan.command(cls=Command, short_help="Fetch the outputs of a plan from a server.")
@_digest_argument
@_server_options
@click.option(
    "--out-link",
    metavar="DIR",
    type=PATH,
    required=True,
    help="Write the outputs of the roots to this new directory, by name.",
)
def fetch(**options: Any) -> int:
    """Wait until the plan with a DIGEST is finished, and download the outputs of its roots.

    \b
    Example:
      tvix-build plan fetch "$digest" --server grpc+http://127.0.0.1:8000 --out-link result

    Exit status 1: steps failed, the plan was cancelled, or a call fails. Then DIR is not written.
    """
    from tvix_build.cli.plan_server import fetch as run_fetch

    return run_fetch(**options)
