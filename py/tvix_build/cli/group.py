# SPDX-License-Identifier: MIT
"""All commands, and how one is run."""

from __future__ import annotations

import click

from tvix_build import Error
from tvix_build._version import __version__
from tvix_build.cli.build import build
from tvix_build.cli.canonicalize import canonicalize
from tvix_build.cli.convert import convert
from tvix_build.cli.diff import diff
from tvix_build.cli.digest import digest
from tvix_build.cli.from_drv import from_drv
from tvix_build.cli.ingest import ingest
from tvix_build.cli.serve import serve
from tvix_build.cli.show import show
from tvix_build.cli.store import store
from tvix_build.cli.terminal import PROGRAM, Monitor
from tvix_build.cli.validate import validate


def run(arguments: list[str]) -> int:
    """Run a command; its exit status.

    Raises:
        OSError: if an output cannot be written.
    """
    try:
        # Not click's own main(), which ends the process on a pipe that nobody reads.
        with group.make_context(PROGRAM, arguments) as context:
            return int(group.invoke(context) or 0)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except OSError:  # also an OutputError
        raise
    except Error as error:  # of a store, or of a file that is not there
        Monitor().error(error)
        return 2


@click.group(
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
def group() -> None:
    """Check tvix build requests, write them canonically, and name them by digest.

    \b
    Formats, told by a file's name:
      .binpb    one message
      .binpbs   a stream of messages, each behind its length as a varint
      .json     one message as proto3 JSON
      .ndjson   one such JSON message a line
      .txtpb    one message in protobuf's text format
    each also compressed: .zst, .gz, .xz (recognised by their first bytes, too);
      .parquet  a table with a column of messages
      .arrow    the same as an Arrow file or stream (also .feather).

    FILE[INDEX] names one record of a file, counted from 0, as all commands print it; where a file
    is read, FILE[INDEX] reads that record. A file whose own name ends so is taken for itself.

    Exit status: 0 all valid, 1 something invalid, 2 usage, or a file that cannot be read to
    its end or written.
    """


for _command in (
    *(validate, canonicalize, digest, show, diff),
    *(build, convert, from_drv, ingest, serve, store),
):
    group.add_command(_command)
