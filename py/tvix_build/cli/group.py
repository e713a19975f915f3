# SPDX-License-Identifier: MIT
"""The group of all commands, and the function that runs one."""

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
    """Run a command, and return its exit status.

    Raises:
        OSError: if an output cannot be written.
    """
    try:
        # click's own main() would end the process when a pipe is closed.
        with group.make_context(PROGRAM, arguments) as context:
            return int(group.invoke(context) or 0)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except OSError:  # includes OutputError
        raise
    except Error as error:  # errors of a store, or of a missing file
        Monitor().error(error)
        return 2


@click.group(
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
def group() -> None:
    """Validate, canonicalize and hash tvix build requests.

    \b
    Formats, by file name:
      .binpb    one message
      .binpbs   messages, each with its length before it (a varint)
      .json     one message in proto3 JSON
      .ndjson   messages in proto3 JSON, one per line
      .txtpb    one message in protobuf text format
    These may be compressed: .zst, .gz, .xz (also detected by their first bytes).
      .parquet  a table with a column of messages
      .arrow    the same as an Arrow file or stream (also .feather)

    FILE[INDEX] is one record of a file, counted from 0. Commands print records in this form and
    accept it as an argument. If a file with the name 'FILE[INDEX]' exists, it is read instead.

    Exit status: 0 everything is valid, 1 something is invalid, 2 wrong usage, or a file cannot be
    read or written.
    """


for _command in (
    *(validate, canonicalize, digest, show, diff),
    *(build, convert, from_drv, ingest, serve, store),
):
    group.add_command(_command)
