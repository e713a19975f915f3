# SPDX-License-Identifier: MIT
"""The class of all commands."""

from __future__ import annotations

from typing import Any

import click

from tvix_build.records import FormatError, MissingPackageError


class Command(click.Command):
    """A command that reads or writes files. A file of a wrong format is wrong usage."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except FormatError as error:
            raise click.UsageError(str(error), ctx) from None
        except MissingPackageError as error:
            raise click.ClickException(str(error)) from None
