# SPDX-License-Identifier: MIT
"""The command `canonicalize`."""

from __future__ import annotations

from typing import Any

import click

from tvix_build.cli.command import Command
from tvix_build.cli.options import (
    PATH,
    column_option,
    input_format_option,
    kind_option,
    output_format_option,
)


@click.command(cls=Command)
@click.argument("source", metavar="IN", type=PATH)
@click.argument("target", metavar="OUT", type=PATH)
@kind_option
@column_option
@input_format_option
@output_format_option
def canonicalize(**options: Any) -> int:
    """Write the canonical encoding of each record of IN to OUT. '-' is stdin or stdout.

    \b
    Examples:
      tvix-build canonicalize request.json request.binpb
      tvix-build canonicalize requests.binpbs.xz sorted.binpbs.zst

    Lists that are out of order are sorted. If a record has other violations, they are printed
    on stderr and no file is written. Output on stdout ends before the first such record.
    """
    from tvix_build.cli.canonicalize import run

    return run(**options)
