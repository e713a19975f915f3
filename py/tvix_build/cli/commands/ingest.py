# SPDX-License-Identifier: MIT
"""The command `ingest`."""

from __future__ import annotations

from typing import Any

import click

from tvix_build.cli.command import Command
from tvix_build.cli.options import PATH, directory_sizes_option


@click.command(cls=Command)
@click.argument("paths", metavar="PATH...", type=PATH, nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=PATH,
    help="Write nodes to FILE (.ndjson or .binpbs); '-' prints only ndjson to stdout.",
)
@click.option(
    "--blobs",
    metavar="DIR",
    type=PATH,
    help="Also write each Directory and the contents of each file to DIR/XX/DIGEST.",
)
@click.option(
    "--store",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    help="Treat DIR as /nix/store, and each PATH in it as a store path.",
)
@directory_sizes_option
def ingest(**options: Any) -> int:
    """Print the castore node of each PATH: a file, a directory tree, or a symbolic link.

    \b
    Examples:
      tvix-build ingest src
      tvix-build ingest --output nodes.ndjson --blobs blobs /nix/store/*-source
      tvix-build ingest --output nodes.ndjson --store root/nix/store root/nix/store/*

    A line has the kind, the digest, the size and the name. An .ndjson file has one object
    {"path", "node"} per PATH: the absolute path, and the node in proto3 JSON. A .binpbs file has
    Node messages. With --store, "path" is /nix/store/NAME, and a PATH that is not directly in DIR
    is an error. With --blobs, XX is the first two digits of DIGEST, and existing files are not
    written again. A file that changes while it is read is an error.
    """
    from tvix_build.cli.ingest import run

    return run(**options)
