# SPDX-License-Identifier: MIT
"""The class of all commands."""

from __future__ import annotations

import time
from typing import Any

import click

from tvix_build._core.report import Error
from tvix_build.cli.program import PROGRAM

_VERBOSITY = "tvix_build.verbosity"


def verbosity() -> int:
    """Return -1 if the command has the option --quiet, 1 for --verbose, 0 for neither."""
    context = click.get_current_context(silent=True)
    return 0 if context is None else int(context.meta.get(_VERBOSITY, 0))


def _level(flag: str, name: str, level: int, about: str) -> click.Option:
    def set_level(context: click.Context, _option: click.Parameter, given: bool) -> None:
        if given:
            context.meta[_VERBOSITY] = level

    names = [flag, f"--{name}"]
    return click.Option(names, is_flag=True, expose_value=False, callback=set_level, help=about)


class Command(click.Command):
    """A command that reads or writes files. A file of a wrong format is wrong usage.

    Args:
        verbosity: whether the command has the options --quiet and --verbose.
    """

    def __init__(self, *arguments: Any, verbosity: bool = True, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if verbosity:
            quiet = "Print only results and errors: no progress, notes and summaries."
            verbose = "Also print how each file is read, and the elapsed time, on stderr."
            self.params.extend(
                [_level("-q", "quiet", -1, quiet), _level("-v", "verbose", 1, verbose)]
            )

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        start = time.monotonic()
        try:
            return super().invoke(ctx)
        except Error as error:
            from tvix_build.records import FormatError, MissingPackageError

            if isinstance(error, FormatError):
                raise click.UsageError(str(error), ctx) from None
            if isinstance(error, MissingPackageError):
                raise click.ClickException(str(error)) from None
            raise
        finally:
            if verbosity() > 0:
                elapsed = time.monotonic() - start
                click.echo(f"{PROGRAM}: elapsed time: {elapsed:.2f} s", err=True)
