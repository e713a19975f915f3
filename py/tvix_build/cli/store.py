# SPDX-License-Identifier: MIT
"""The commands of `tvix-build store`. They import `tvix_build.store` when they run, because Python
may have been built without SQLite."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tvix_build._core.report import message_type
from tvix_build.cli.arguments import input_sources, output_target
from tvix_build.cli.command import Command
from tvix_build.cli.digest import write_digests
from tvix_build.cli.options import (
    column_option,
    input_format_option,
    output_format_option,
)
from tvix_build.cli.refusals import Refusals, RefusedError
from tvix_build.cli.terminal import Monitor, printable, stdout_console
from tvix_build.records import InputError, Writer
from tvix_build.records.output import Output, output_errors
from tvix_build.records.writing import write_target

if TYPE_CHECKING:
    from tvix_build.store import RequestStore


@click.group(no_args_is_help=False, short_help="Store requests by digest in an SQLite file.")
def store() -> None:
    """Store build requests of tvix.build.v1 by digest, in canonical encoding, in the file STORE.

    Several processes may use a STORE at the same time. Stored requests survive crashes.
    """


def _open(path: str, create: bool = False) -> RequestStore:
    from tvix_build.store import RequestStore

    return RequestStore(path, create=create)


@store.command(cls=Command, short_help="Add the requests of files.")
@click.argument("path", metavar="STORE")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@column_option
@input_format_option
def add(path: str, files: tuple[str, ...], column: str | None, input_format: str | None) -> int:
    """Add the requests of FILEs, which are files, directories or '-' (stdin). Create STORE if it
    does not exist.

    \b
    Example:
      tvix-build store add requests.sqlite requests.binpbs.zst

    Prints the same lines as the command digest, each when its request is stored. A record without
    a canonical encoding is reported on stderr and not stored.
    """
    monitor = Monitor(quiet=True)
    refusals = Refusals(monitor, limit=None)
    failed = False
    sources = input_sources(files, input_format, column)
    with _open(path, create=True) as requests, Output("-") as output:
        for source in sources:
            try:
                if isinstance(source, InputError):
                    raise source
                write_digests(source, output, message_type(), refusals, requests.put_many)
            except InputError as error:
                failed = True
                monitor.error(error)
    return 2 if failed else 1 if refusals.count else 0


@store.command(cls=Command, short_help="Write requests to a file.")
@click.argument("path", metavar="STORE")
@click.argument("digests", metavar="DIGEST...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    "target",
    metavar="OUT",
    default="-",
    help="File to write; the default is stdout.",
)
@output_format_option
def get(path: str, digests: tuple[str, ...], target: str, output_format: str | None) -> int:
    """Write the requests with these DIGESTs, in hexadecimal. A prefix is enough if it is unique.

    \b
    Examples:
      tvix-build store get requests.sqlite 38c9a4df -o request.json
      tvix-build store get requests.sqlite 38c9a4df 4be1598f --output-format binpbs

    Exit status 1: a DIGEST matches no request, or several. Then no file is written. Output on
    stdout ends before the first such DIGEST.
    """
    wanted = output_target(target, output_format)
    if len(digests) > 1 and not wanted.many:
        raise click.UsageError(
            f"expected one DIGEST for a .{wanted.format} file, found {len(digests)}; write .binpbs "
            "or .ndjson"
        )
    monitor = Monitor(quiet=True)
    try:
        with _open(path) as requests, write_target(wanted, message_type()) as writer:
            _get(requests, digests, writer, monitor)
    except RefusedError:
        return 1
    return 0


def _get(
    requests: RequestStore,
    digests: tuple[str, ...],
    writer: Writer,
    monitor: Monitor,
) -> None:
    from tvix_build.store import AmbiguousDigestError, UnknownDigestError

    refused = False
    for digest in digests:
        try:
            request = requests.get(digest)
        except (AmbiguousDigestError, UnknownDigestError) as error:
            monitor.error(error)
            refused = True
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        else:
            if not refused:
                writer.write([request])
    if refused:
        raise RefusedError


@store.command("list", cls=Command, short_help="Print the digests of all requests.")
@click.argument("path", metavar="STORE")
def list_requests(path: str) -> int:
    """Print the digest and the size in bytes of each request, 'HEX  SIZE', ordered by digest.

    \b
    Example:
      tvix-build store list requests.sqlite
    """
    with _open(path) as requests, Output("-") as output:
        for digest, request in requests:
            output.write(f"{digest.hex()}  {len(request)}\n".encode())
    return 0


@store.command(cls=Command, short_help="Check each request against its digest.")
@click.argument("path", metavar="STORE")
def verify(path: str) -> int:
    """Check the database, and that each request is canonical and has the right digest.

    \b
    Example:
      tvix-build store verify requests.sqlite

    Print one line per damage. Exit status 1: something is damaged.
    """
    console = stdout_console()
    with _open(path) as requests, output_errors("standard output"):
        damages = requests.verify()
        for damage in damages:
            place = "" if damage.digest is None else f"{damage.digest.hex()}: "
            console.say(f"{place}{printable(damage.message)}", style="red")
        if not damages:
            console.say(f"{len(requests):,} requests, no damage")
    return 1 if damages else 0
