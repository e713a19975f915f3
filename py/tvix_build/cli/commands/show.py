# SPDX-License-Identifier: MIT
"""The command `show`."""

from __future__ import annotations

import re
from typing import Any

import click

from tvix_build.cli.command import Command
from tvix_build.cli.options import (
    PATH,
    column_option,
    input_format_option,
    kind_option,
    property_option,
)


def _parse_range(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> tuple[int, int | None]:
    if value is None:
        return 0, None
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", value, re.ASCII)
    if match is None or (match[2] is not None and int(match[2]) < int(match[1])):
        raise click.BadParameter(f"expected N or FIRST-LAST, counted from 0, found {value!r}")
    return int(match[1]), int(match[2] or match[1])


@click.command(cls=Command)
@click.argument("file", metavar="FILE", type=PATH)
@kind_option
@column_option
@input_format_option
@click.option(
    "--records",
    metavar="N|FIRST-LAST",
    callback=_parse_range,
    help="Show only these records, counted from 0.",
)
@click.option("--full", is_flag=True, help="Show long values in full.")
@click.option("--json", is_flag=True, help="Print one JSON object per record.")
@click.option(
    "--reapi",
    type=click.Choice(["sha256", "blake3"]),
    help="Print the digest of each request's Remote Execution action, in this digest function.",
)
@click.option(
    "--castore",
    metavar="DIR",
    type=click.Path(file_okay=False, exists=True),
    help="With --reapi: the castore store of the inputs.",
)
@property_option
def show(**options: Any) -> int:
    """Print the records of FILE in readable form, with their violations. '-' is stdin.

    \b
    Examples:
      tvix-build show 'requests.binpbs.zst[17]'
      tvix-build show --records 17-19 requests.binpbs.zst
      tvix-build show --json requests.binpbs.zst | jq .message.environmentVars
      tvix-build show --reapi sha256 --castore store request.json

    With --json, each record is one line with an object: {"source", "index", "valid", "canonical",
    "digest", "violations": [{"code", "path", "message"}], "message"}. The message is proto3 JSON,
    or null if the record is malformed.

    With --reapi, each record is one line "HASH/SIZE  SOURCE[INDEX]": the digest of the action that
    an engine runs. A CONSTRAINT is network_access, min_memory or a path of available_ro_paths.
    """
    from tvix_build.cli.show import run

    return run(**options)
