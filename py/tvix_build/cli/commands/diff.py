# SPDX-License-Identifier: MIT
"""The command `diff`."""

from __future__ import annotations

from typing import Any

import click

from tvix_build.cli.command import Command
from tvix_build.cli.options import (
    FORMATS,
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
@click.option(
    "--input-format-a", type=click.Choice(FORMATS), help="Input format of A, if B has another."
)
@click.option(
    "--input-format-b", type=click.Choice(FORMATS), help="Input format of B, if A has another."
)
@click.option("--full", is_flag=True, help="Show long values in full.")
@click.option("--json", is_flag=True, help="Print one JSON object.")
def diff(**options: Any) -> int:
    """Show the differences between the records A and B, field by field, and their digests.

    \b
    Examples:
      tvix-build diff old.json new.binpb
      tvix-build diff requests.binpbs[3] requests.binpbs[17]
      curl https://example.org/request | tvix-build diff request.json - --input-format-b binpb

    A and B are files with one record, FILE[INDEX], or '-' (stdin). Elements of sorted lists are
    compared by name or key, so their order makes no difference. Long values are shown around the
    difference only, and of texts with several lines the lines that differ. If A and B are the same
    bytes, 'identical' is printed.

    With --json, the object has the members "a" and "b", which are as in show without the message,
    "same_bytes", "same_digest" and "differences": [{"path", "a", "b"}], where values are proto3
    JSON, or null if they are absent.

    Exit status: 0 A and B have the same digest, 1 they differ, 2 a record has no canonical
    encoding or cannot be read.
    """
    from tvix_build.cli.diff import run

    return run(**options)
