# SPDX-License-Identifier: MIT
"""The commands of `tvix-build castore`."""

from __future__ import annotations

from typing import Any

import click

from tvix_build.cli.command import Command
from tvix_build.cli.options import PATH, SECONDS, directory_sizes_option


@click.group(no_args_is_help=False)
def castore() -> None:
    """Store files and directories by digest in the directory STORE.

    Several processes may use a STORE at the same time. Stored objects survive crashes. A DIGEST is
    in hexadecimal; a prefix is enough if it is unique.
    """


@castore.command(cls=Command, short_help="Add files and directories.")
@click.argument("path", metavar="STORE", type=PATH)
@click.argument("paths", metavar="PATH...", type=PATH, nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=PATH,
    help="Write nodes to FILE (.ndjson or .binpbs); '-' prints only ndjson to stdout.",
)
@directory_sizes_option
def add(**options: Any) -> int:
    """Add each PATH, a file, a directory tree, or a symbolic link, and print its castore node.
    Create STORE if it does not exist.

    \b
    Example:
      tvix-build castore add castore src

    Prints the same lines as the command ingest, each when the PATH is stored.
    """
    from tvix_build.cli.castore import add as run

    return run(**options)


@castore.command(cls=Command, short_help="Write a file or directory.")
@click.argument("path", metavar="STORE", type=PATH)
@click.argument("digest", metavar="DIGEST")
@click.argument("target", metavar="PATH", type=PATH)
@click.option(
    "--method",
    type=click.Choice(["auto", "reflink", "hard-link", "copy"]),
    default="auto",
    show_default=True,
    help="How to make files; 'auto' is the first of the others that works.",
)
@click.option("--executable", is_flag=True, help="Make the file of a blob executable.")
def get(**options: Any) -> int:
    """Write the Directory or the blob with a DIGEST to PATH, which must not exist.

    \b
    Example:
      tvix-build castore get castore 6f5d2ac1 copy

    Files are read-only. With 'hard-link', they are files of the STORE. The digest of the empty blob
    is also that of the empty Directory, which comes first.

    Exit status 1: DIGEST matches nothing, or several objects.
    """
    from tvix_build.cli.castore import get as run

    return run(**options)


@castore.command("ls", cls=Command, short_help="List a Directory.")
@click.argument("path", metavar="STORE", type=PATH)
@click.argument("digest", metavar="DIGEST")
@click.option("-R", "--recursive", is_flag=True, help="Also list the Directories below.")
def list_directory(**options: Any) -> int:
    """Print the nodes in the Directory with a DIGEST, as the command ingest prints them.

    \b
    Example:
      tvix-build castore ls castore 6f5d2ac1

    Exit status 1: DIGEST matches no Directory, or several objects.
    """
    from tvix_build.cli.castore import list_directory as run

    return run(**options)


@castore.command(cls=Command, short_help="Print a blob.")
@click.argument("path", metavar="STORE", type=PATH)
@click.argument("digest", metavar="DIGEST")
def cat(**options: Any) -> int:
    """Write the blob with a DIGEST to stdout.

    \b
    Example:
      tvix-build castore cat castore 0d0f24ae

    Exit status 1: DIGEST matches no blob, or several objects.
    """
    from tvix_build.cli.castore import cat as run

    return run(**options)


@castore.command(cls=Command, short_help="Check each object against its digest.")
@click.argument("path", metavar="STORE", type=PATH)
def verify(**options: Any) -> int:
    """Check that each object has the right digest, and that all objects are stored to which a
    Directory refers.

    \b
    Example:
      tvix-build castore verify castore

    Print one line per damaged file. To repair STORE, delete these files and add them again. Exit
    status 1: something is damaged.
    """
    from tvix_build.cli.castore import verify as run

    return run(**options)


@castore.command(cls=Command, short_help="Remove objects that no root needs.")
@click.argument("path", metavar="STORE", type=PATH)
@click.argument("digests", metavar="[DIGEST...]", nargs=-1)
@click.option(
    "--builds",
    metavar="FILE",
    type=PATH,
    multiple=True,
    help="Keep the outputs and logs of all builds in this store of builds; repeatable.",
)
@click.option(
    "--grace",
    metavar="SECONDS",
    type=SECONDS,
    default=3600,
    show_default=True,
    help="Keep what was added or used in the last SECONDS, and what it needs.",
)
def gc(**options: Any) -> int:
    """Remove all objects except those with these DIGESTs and those that they need. Writers wait
    meanwhile.

    \b
    Examples:
      tvix-build castore gc castore 6f5d2ac1 9c3e4b70
      tvix-build castore gc castore --builds builds.sqlite

    Exit status 1: a DIGEST matches nothing, or several objects. Then nothing is removed.
    """
    from tvix_build.cli.castore import gc as run

    return run(**options)
