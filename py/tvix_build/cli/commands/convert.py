# SPDX-License-Identifier: MIT
"""The command `convert`."""

from __future__ import annotations

from typing import Any

import click

from tvix_build._core.report import Schema
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
@click.option(
    "--to",
    type=click.Choice([schema.value for schema in Schema]),
    callback=lambda _context, _option, value: value and Schema(value),
    help="Convert requests to this version of the protocol.",
)
@click.option(
    "--network-access",
    is_flag=True,
    help="With --to: builds may use the network. tvix.build.v1 has no field for this.",
)
@column_option
@input_format_option
@output_format_option
def convert(**options: Any) -> int:
    """Write the records of IN to OUT in another format or, with --to, in another schema. IN is a
    file, a directory or '-' (stdin); OUT is a file or '-' (stdout).

    \b
    Examples:
      tvix-build convert request.binpb request.json
      tvix-build convert request.json request.binpb
      tvix-build convert requests.binpbs.zst requests.parquet
      tvix-build convert --to snix.build.v1 requests.binpbs snix.binpbs

    Without --to, messages may be invalid, and keep their bytes from one binary format to another.
    JSON and text cannot represent malformed messages and unknown fields. From a table, only the
    column of messages is read. In OUT, the column is called NAME, or else request, build or
    directory.

    With --to, requests must be valid, and are written in canonical encoding.

    Records that cannot be converted are reported on stderr with all reasons: null, text that
    cannot be parsed, messages that OUT cannot represent and, with --to, invalid requests. Then no
    file is written. Output on stdout ends before the first such record.
    """
    from tvix_build.cli.convert import run

    return run(**options)
