# SPDX-License-Identifier: MIT
"""The command `build`."""

from __future__ import annotations

from typing import Any

import click

from tvix_build.cli.command import Command
from tvix_build.cli.connections import FILE, parse_builder
from tvix_build.cli.options import (
    PATH,
    SECONDS,
    castore_option,
    column_option,
    input_format_option,
    limit_options,
    output_format_option,
    property_option,
    schema_option,
)
from tvix_build.proxy.shared.addresses import FORMS

_REAPI = "reapi+grpc://HOST:PORT/INSTANCE or reapi+grpcs://HOST:PORT/INSTANCE"


@click.command(cls=Command)
@click.argument("file", metavar="FILE", type=PATH)
@click.option(
    "--builder",
    metavar="ADDRESS",
    required=True,
    callback=parse_builder,
    help=f"The builder: 'sandbox:' on this machine, a Remote Execution engine at {_REAPI}, or the "
    f"address of a server: {FORMS}.",
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
@castore_option
@click.option(
    "--store",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    help="Directory of input derivations and sources of a .drv file; the default is the directory "
    "of FILE.",
)
@click.option(
    "--out-link",
    metavar="DIR",
    type=PATH,
    help="With --castore: also write the outputs to this new directory, by name.",
)
@click.option(
    "--builds",
    metavar="FILE",
    type=PATH,
    help="With --castore: store of builds. A stored build is returned, a new one is stored.",
)
@click.option("--rebuild", is_flag=True, help="With --builds: also build what is stored.")
@click.option(
    "--check",
    "check_outputs",
    is_flag=True,
    help="With --castore: build twice, or a stored build once more, and compare outputs.",
)
@click.option(
    "--keep-failed",
    is_flag=True,
    help="With sandbox: keep the directory of a failed build, and print how to enter it.",
)
@limit_options
@property_option
@click.option("--no-cache", is_flag=True, help="With Remote Execution: do not use a cached result.")
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
    is one of several requests. If FILE is a derivation (.drv), build the derivations that it needs
    first; requests and the response are of snix.build.v1.

    \b
    Examples:
      tvix-build build request.json --builder grpc+unix:/run/builder.sock
      tvix-build build 'requests.binpbs[17]' --builder grpc+http://host:8000 -o build.binpb
      tvix-build build request.json --builder grpc+http://host:8000 --castore store
      tvix-build build request.json --builder sandbox: --castore store --out-link result
      tvix-build build request.json --builder reapi+grpc://host:8980/main --castore store
      tvix-build build x.drv --builder sandbox: --castore store --out-link result
      tvix-build build x.drv --builder sandbox: --castore store --builds builds.sqlite --check

    'sandbox:' needs Linux and bubblewrap, and prints the log on stderr while the build runs.

    An invalid request is not sent. Exit status: 0 the builder returned a valid response, 1 the
    request is invalid, the call or the build failed, or the outputs of --check differ, 2 wrong
    usage, or a file cannot be read or written.
    """
    from tvix_build.cli.build import run

    return run(**options)
