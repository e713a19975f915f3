# SPDX-License-Identifier: MIT
"""The command `digest`."""

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
def digest(**options: Any) -> int:
    """Print the digest of each record of FILEs: the BLAKE3 hash of its canonical encoding.

    \b
    Example:
      tvix-build digest request.binpb requests.binpbs

    Lines have the format of sha256sum, 'HEX  FILE', or 'HEX  FILE[INDEX]' if the file can hold
    several records. A record without a canonical encoding is reported on stderr instead.
    """
    from tvix_build.cli.digest import run

    return run(**options)
