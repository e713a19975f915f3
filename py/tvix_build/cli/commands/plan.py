# SPDX-License-Identifier: MIT
"""The commands of `tvix-build plan`."""

from __future__ import annotations

from typing import Any

import click

from tvix_build.cli.command import Command
from tvix_build.cli.options import PATH, derivation_options, schema_option


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
def diff(**options: Any) -> int:
    """Print which steps of two plans differ, and why: the root causes, and the number of steps that
    differ only because they need them.

    A root cause is a step with another source, variable, argument, builder or input. Steps of both
    plans correspond to each other by name.

    \b
    Example:
      tvix-build plan diff old.binpb new.binpb

    With --json, the first line is an object with the numbers of steps; then there is one per root
    cause. Exit status: 0 the plans are equal, 1 they differ or one is invalid, 2 wrong usage, or a
    file cannot be read.
    """
    from tvix_build.cli.plan_diff import run

    return run(**options)
