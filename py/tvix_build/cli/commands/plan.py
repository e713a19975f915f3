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
