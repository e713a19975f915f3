# SPDX-License-Identifier: MIT
"""The command `build`."""

from __future__ import annotations

from typing import Any

import click

from tvix_build.cli.command import Command
from tvix_build.cli.connections import FILE, parse_address
from tvix_build.cli.options import (
    PATH,
    SECONDS,
    column_option,
    input_format_option,
    output_format_option,
    schema_option,
)
from tvix_build.proxy.shared.addresses import FORMS


@click.command(cls=Command)
@click.argument("file", metavar="FILE", type=PATH)
@click.option(
    "--builder",
    metavar="ADDRESS",
    required=True,
    callback=parse_address,
    help=f"The address of the builder: {FORMS}.",
)
@schema_option
@click.option(
    "-o",
    "--output",
    "target",
    metavar="OUT",
    type=PATH,
    help="Write the response to OUT ('-': stdout).",
)
@click.option("--timeout", metavar="SECONDS", type=SECONDS, help="Time limit of the call.")
@click.option(
    "--ca",
    metavar="FILE",
    type=FILE,
    help="CA certificates that verify the builder's certificate, in PEM.",
)
@click.option(
    "--certificate", metavar="FILE", type=FILE, help="Certificate of this client, in PEM."
)
@click.option("--key", metavar="FILE", type=FILE, help="Private key of the certificate, in PEM.")
@column_option
@input_format_option
@output_format_option
def build(**options: Any) -> int:
    """Send the request in FILE to a builder, and print the response. '-' is stdin, and FILE[INDEX]
    is one of several requests.

    \b
    Examples:
      tvix-build build request.json --builder grpc+unix:/run/builder.sock
      tvix-build build 'requests.binpbs[17]' --builder grpc+http://host:8000 -o build.binpb

    An invalid request is not sent. Exit status: 0 the builder returned a valid response, 1 the
    request is invalid or the call failed, 2 wrong usage, or a file cannot be read or written.
    """
    from tvix_build.cli.build import run

    return run(**options)
