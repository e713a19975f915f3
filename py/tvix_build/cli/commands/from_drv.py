# SPDX-License-Identifier: MIT
"""The command `from-drv`."""

from __future__ import annotations

from typing import Any

import click

from tvix_build.cli.command import Command
from tvix_build.cli.options import PATH, derivation_options, output_format_option, schema_option


@click.command("from-drv", cls=Command)
@click.argument("paths", metavar="PATH...", type=PATH, nargs=-1, required=True)
@derivation_options
@schema_option
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    type=PATH,
    help="Write the requests to OUT instead of printing their digests.",
)
@output_format_option
@click.option(
    "--errors",
    metavar="FILE",
    type=PATH,
    help="Write all reasons why derivations are rejected to FILE, as JSON lines.",
)
def from_drv(**options: Any) -> int:
    """Make a request from each derivation. A PATH is a .drv file, or a directory of .drv files.

    \b
    Examples:
      tvix-build from-drv /nix/store/*-hello-2.12.drv --ingest
      tvix-build from-drv derivations --nodes nodes.ndjson -o requests.binpbs.zst

    Requests are canonical, and ordered as the PATHs; files of a directory are ordered by name.
    Without -o, one line 'HEX  FILE' is printed per request, with its digest. x.drv!out,
    x.drv^out,dev and x.drv^* mean x.drv.

    A derivation that is rejected has no request. The reasons are printed on stderr by kind, with a
    count, three examples and the remedy. With --errors, FILE contains one object {"source",
    "kind", "reason"} per reason.
    """
    from tvix_build.cli.from_drv import run

    return run(**options)
