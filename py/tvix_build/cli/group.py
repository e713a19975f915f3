# SPDX-License-Identifier: MIT
"""The group of all commands, and the function that runs one."""

from __future__ import annotations

import os
from difflib import get_close_matches
from importlib import import_module

import click
from click.shell_completion import CompletionItem, shell_complete

from tvix_build._version import __version__
from tvix_build.cli.program import PROGRAM

COMPLETION = "_TVIX_BUILD_COMPLETE"
"""The environment variable with which a shell asks for completions."""
COMMANDS = {
    "build": "Run a request with a builder.",
    "canonicalize": "Write records in canonical encoding.",
    "castore": "Store files and directories by digest.",
    "convert": "Write records in another format or schema.",
    "diff": "Show the differences between two records.",
    "digest": "Print the digest of each record.",
    "from-drv": "Make requests from Nix derivations.",
    "ingest": "Print castore nodes of files and directories.",
    "plan": "Make, explain and run graphs of requests.",
    "serve": "Run a validating proxy in front of a builder.",
    "show": "Print records in readable form.",
    "store": "Store requests by digest in an SQLite file.",
    "validate": "Check records, and report their violations.",
}


class Commands(click.Group):
    """The group of COMMANDS. It imports the module of a command only to run, complete or describe
    that command, so that `--version` and `--help` start fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; None if there is none with this name."""
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(import_module(f"tvix_build.cli.commands.{name}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first argument names, and the other arguments.

        Raises:
            click.UsageError: if there is none, with a command that has a similar name.
        """
        if args[0] not in COMMANDS and not ctx.resilient_parsing:
            similar = get_close_matches(args[0], COMMANDS, 1)
            if similar:
                ctx.fail(f"No such command {args[0]!r}. Did you mean {similar[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of all commands."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands and options that begin with `incomplete`."""
        found = [
            CompletionItem(name, help=about)
            for name, about in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)


def run(arguments: list[str]) -> int:
    """Run a command, and return its exit status.

    If a shell asks for completions, print these instead.

    Raises:
        OSError: if an output cannot be written.
    """
    instruction = os.environ.get(COMPLETION)
    if instruction:
        return shell_complete(group, {}, PROGRAM, COMPLETION, instruction)
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
    except Exception as error:
        from tvix_build._core.report import Error
        from tvix_build.cli.terminal import Monitor

        if not isinstance(error, Error):
            raise
        Monitor().error(error)  # of a store, or of a missing file
        return 2


@click.group(
    cls=Commands,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(
    __version__, "-V", "--version", prog_name=PROGRAM, message="%(prog)s %(version)s"
)
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
