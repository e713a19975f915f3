# SPDX-License-Identifier: MIT
"""The commands of `tvix-build store`."""

from __future__ import annotations

from typing import Any

import click

from tvix_build.cli.command import Command
from tvix_build.cli.options import (
    PATH,
    column_option,
    input_format_option,
    output_format_option,
)


@click.group(no_args_is_help=False)
def store() -> None:
    """Store build requests of tvix.build.v1 by digest, in canonical encoding, in the file STORE.
    The command build stores builds in it, too.

    Several processes may use a STORE at the same time. Stored requests and builds survive crashes.
    """


@store.command(cls=Command, short_help="Add the requests of files.")
@click.argument("path", metavar="STORE", type=PATH)
@click.argument("files", metavar="FILE...", type=PATH, nargs=-1, required=True)
@column_option
@input_format_option
def add(**options: Any) -> int:
    """Add the requests of FILEs, which are files, directories or '-' (stdin). Create STORE if it
    does not exist.

    \b
    Example:
      tvix-build store add requests.sqlite requests.binpbs.zst

    Prints the same lines as the command digest, each when its request is stored. A record without
    a canonical encoding is reported on stderr and not stored.
    """
    from tvix_build.cli.store import add as run

    return run(**options)


@store.command(cls=Command, short_help="Write requests to a file.")
@click.argument("path", metavar="STORE", type=PATH)
@click.argument("digests", metavar="DIGEST...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    "target",
    metavar="OUT",
    type=PATH,
    default="-",
    help="File to write; the default is stdout.",
)
@output_format_option
def get(**options: Any) -> int:
    """Write the requests with these DIGESTs, in hexadecimal. A prefix is enough if it is unique.

    \b
    Examples:
      tvix-build store get requests.sqlite 38c9a4df -o request.json
      tvix-build store get requests.sqlite 38c9a4df 4be1598f --output-format binpbs

    Exit status 1: a DIGEST matches no request, or several. Then no file is written. Output on
    stdout ends before the first such DIGEST.
    """
    from tvix_build.cli.store import get as run

    return run(**options)


@store.command("list", cls=Command, short_help="Print the digests of all requests.")
@click.argument("path", metavar="STORE", type=PATH)
def list_requests(**options: Any) -> int:
    """Print the digest and the size in bytes of each request, 'HEX  SIZE', ordered by digest.

    \b
    Example:
      tvix-build store list requests.sqlite
    """
    from tvix_build.cli.store import list_requests as run

    return run(**options)


@store.command(cls=Command, short_help="Print the builds.")
@click.argument("path", metavar="STORE", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per build.")
def builds(**options: Any) -> int:
    """Print the digest of the request, the schema, the builder and the duration in seconds of each
    build, 'HEX  SCHEMA  BUILDER  SECONDS', in the order in which they were stored.

    \b
    Example:
      tvix-build store builds builds.sqlite --json

    A JSON object has the record of the build, its schema, and its outputs: path, type and digest or
    target.
    """
    from tvix_build.cli.store import list_builds as run

    return run(**options)


@store.command(cls=Command, short_help="Check each request and each build.")
@click.argument("path", metavar="STORE", type=PATH)
def verify(**options: Any) -> int:
    """Check the database, that each request is canonical and has the right digest, and that each
    build has a valid response.

    \b
    Example:
      tvix-build store verify requests.sqlite

    Print one line per damage. Exit status 1: something is damaged.
    """
    from tvix_build.cli.store import verify as run

    return run(**options)
