# SPDX-License-Identifier: MIT
"""The class of all commands."""

from __future__ import annotations

from typing import Any

import click

from tvix_build._core.report import Error

PROGRAM = "tvix-build"


class Command(click.Command):
    """A command that reads or writes files. A file of a wrong format is wrong usage."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except Error as error:
            from tvix_build.records import FormatError, MissingPackageError

            if isinstance(error, FormatError):
                raise click.UsageError(str(error), ctx) from None
            if isinstance(error, MissingPackageError):
                raise click.ClickException(str(error)) from None
            raise
