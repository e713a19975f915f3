# SPDX-License-Identifier: MIT
"""The command `diff`."""

from __future__ import annotations

from typing import Any

import click

from tvix_build.cli.command import Command
from tvix_build.cli.options import (
    PATH,
    column_option,
    input_format_option,
    kind_option,
)


@click.command(cls=Command)
@click.argument("old", metavar="A", type=PATH)
@click.argument("new", metavar="B", type=PATH)
@kind_option
@column_option
@input_format_option
@click.option("--full", is_flag=True, help="Show long values in full.")
def diff(**options: Any) -> int:
    """Show the differences between the records A and B, field by field, and their digests.

    \b
    Examples:
      tvix-build diff old.json new.binpb
      tvix-build diff requests.binpbs[3] requests.binpbs[17]

    A and B are files with one record, FILE[INDEX], or '-' (stdin). Elements of sorted lists are
    compared by name or key, so their order makes no difference. Long values are shown around the
    difference only.

    Exit status: 0 A and B have the same digest, 1 they differ, 2 a record has no canonical
    encoding or cannot be read.
    """
    from tvix_build.cli.diff import run

    return run(**options)
