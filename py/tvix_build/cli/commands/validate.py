# SPDX-License-Identifier: MIT
"""The command `validate`."""

from __future__ import annotations

from typing import Any

import click

from tvix_build.cli.command import Command
from tvix_build.cli.options import (
    PATH,
    column_option,
    input_format_option,
    kind_of_file_option,
)


@click.command(cls=Command)
@click.argument("files", metavar="FILE...", type=PATH, nargs=-1, required=True)
@kind_of_file_option
@column_option
@input_format_option
@click.option(
    "--output",
    metavar="FILE",
    type=PATH,
    help="Write one JSON object per record to FILE (also .zst, .gz, .xz), or one row per record if "
    "FILE is .parquet or .arrow; '-' prints only the objects to stdout.",
)
def validate(**options: Any) -> int:
    """Check each record of FILEs: files, directories (all files of known formats in them), or '-'
    (stdin).

    \b
    Examples:
      tvix-build validate requests.binpbs.zst
      zcat log.gz | tvix-build validate --input-format ndjson --output - -

    With --output, each record gives one line, in order:
    {"source", "index", "offset", "valid", "canonical", "digest",
    "violations": [{"code", "path", "message"}]}. The offset is the position of the record in
    the uncompressed file in bytes, or null in a table. At most 100 violations of a record are
    listed; if it has more, "violation_count" is their total number. A .parquet or .arrow file
    has these members as columns.
    """
    from tvix_build.cli.validate import run

    return run(**options)
