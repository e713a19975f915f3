# SPDX-License-Identifier: MIT
"""The command `build`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from tvix_build.cli.command import Command
from tvix_build.cli.connections import FILE, parse_builder
from tvix_build.cli.options import (
    PATH,
    SECONDS,
    column_option,
    input_format_option,
    output_format_option,
    schema_option,
)
from tvix_build.proxy.shared.addresses import FORMS


def _limit(name: str, metavar: str, what: str) -> Callable[[Any], Any]:
    return click.option(
        f"--max-{name}",
        metavar=metavar,
        type=click.IntRange(1),
        help=f"With sandbox: limit of {what}.",
    )


@click.command(cls=Command)
@click.argument("file", metavar="FILE", type=PATH)
@click.option(
    "--builder",
    metavar="ADDRESS",
    required=True,
    callback=parse_builder,
    help=f"The builder: 'sandbox:' on this machine, or the address of a server: {FORMS}.",
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
@click.option(
    "--timeout", metavar="SECONDS", type=SECONDS, help="Time limit of the call or of the build."
)
@click.option(
    "--castore",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="With sandbox: the castore store of inputs, outputs and logs.",
)
@click.option(
    "--out-link",
    metavar="DIR",
    type=PATH,
    help="With sandbox: also write the outputs to this new directory, by name.",
)
@click.option(
    "--keep-failed",
    is_flag=True,
    help="With sandbox: keep the directory of a failed build, and print how to enter it.",
)
@_limit("memory", "BYTES", "memory of all processes; the default is the memory of this machine")
@_limit("disk", "BYTES", "files in scratch paths and /tmp; by default 64 GiB")
@_limit("processes", "N", "processes and threads; by default 4096")
@_limit("output-size", "BYTES", "files of all outputs; by default 16 GiB")
@_limit("log-size", "BYTES", "the log; by default 1 GiB")
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
    """Run the request in FILE with a builder, and print the response. '-' is stdin, and FILE[INDEX]
    is one of several requests.

    \b
    Examples:
      tvix-build build request.json --builder grpc+unix:/run/builder.sock
      tvix-build build 'requests.binpbs[17]' --builder grpc+http://host:8000 -o build.binpb
      tvix-build build request.json --builder sandbox: --castore store --out-link result

    'sandbox:' needs Linux and bubblewrap, and prints the log on stderr while the build runs.

    An invalid request is not sent. Exit status: 0 the builder returned a valid response, 1 the
    request is invalid or the call or the build failed, 2 wrong usage, or a file cannot be read or
    written.
    """
    from tvix_build.cli.build import run

    limits = {
        name.removeprefix("max_"): options.pop(name)
        for name in list(options)
        if name.startswith("max_")
    }
    return run(**options, limits=limits)
