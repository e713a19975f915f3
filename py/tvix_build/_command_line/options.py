# SPDX-License-Identifier: MIT
"""Options that several commands have."""

from __future__ import annotations

import click

from tvix_build import Kind
from tvix_build._command_line.sources import FORMATS

kind_option = click.option(
    "--kind",
    type=click.Choice([kind.value for kind in Kind]),
    default=Kind.BUILD_REQUEST.value,
    show_default=True,
    callback=lambda _context, _option, value: Kind(value),
    help="What message the records are.",
)
input_format_option = click.option(
    "--input-format",
    type=click.Choice(list(FORMATS)),
    help="Format of the input, whatever its name; needed for stdin.",
)
column_option = click.option(
    "--column",
    metavar="NAME",
    help="Column of a table that holds the messages; by default the only binary one.",
)
output_format_option = click.option(
    "--output-format",
    type=click.Choice(list(FORMATS)),
    help="Format of OUT, whatever its name; needed for stdout.",
)
