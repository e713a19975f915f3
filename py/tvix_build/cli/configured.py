# SPDX-License-Identifier: MIT
"""The class of commands whose options can also be in a TOML file and in environment variables."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tvix_build.cli.command import Command
from tvix_build.cli.program import PROGRAM

OPTIONS = "tvix_build.options"
"""Where a command with --check-config leaves its options in the context."""
_ARGUMENTS = "tvix_build.arguments"


def reload_options() -> Callable[[], Any]:
    """Return a function that reads the options of the running command again: its file and all files
    that they name. It raises a click.ClickException if they are invalid."""
    context = click.get_current_context()
    command, arguments = context.command, context.meta[_ARGUMENTS]

    def read() -> Any:
        again = [*arguments, "--check-config"]
        with command.make_context(context.info_name, again, parent=context.parent) as new:
            command.invoke(new)
            return new.meta[OPTIONS]

    return read


class ConfiguredCommand(Command):
    """A command with the options --config and --check-config.

    An option on the command line comes before its environment variable, which comes before the
    file. The command gets the argument `check_config`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for name, option in self._configurable().items():
            option.envvar = f"{self._prefix()}_{name.upper().replace('-', '_')}"
        config = click.Option(
            ["--config"],
            metavar="FILE",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            is_eager=True,
            expose_value=False,
            callback=self._read,
            envvar=f"{self._prefix()}_CONFIG",
            help="Read options from this TOML file, by their names without dashes in front. "
            f"Environment variables such as {self._prefix()}_MAX_BUILDS come before the file.",
        )
        check = click.Option(
            ["--check-config"], is_flag=True, help="Check the options and files, and exit."
        )
        self.params.extend([config, check])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, and keep them for `reload_options`."""
        ctx.meta[_ARGUMENTS] = [*args]
        return super().parse_args(ctx, args)

    def _prefix(self) -> str:
        return f"{PROGRAM}_{self.name}".upper().replace("-", "_")

    def _configurable(self) -> dict[str, click.Option]:
        """Return the options by their names without dashes in front."""
        return {
            option.opts[0].removeprefix("--"): option
            for option in self.params
            if isinstance(option, click.Option)
        }

    def _read(self, context: click.Context, _option: click.Parameter, path: Path | None) -> None:
        """Make the options in a file the defaults of the command."""
        if path is None or context.resilient_parsing:
            return
        options = self._configurable()
        defaults = {}
        for name, value in _parse(path).items():
            option = options.get(name)
            if option is None or name in ("config", "check-config"):
                raise click.UsageError(f"{path}: expected names of options, found {name!r}")
            if option.multiple and not isinstance(value, list):
                value = [value]
            if isinstance(value, dict) or (isinstance(value, list) and not option.multiple):
                raise click.UsageError(f"{path}: expected one value of {name!r}, found {value!r}")
            defaults[option.name] = value
        context.default_map = defaults


def _parse(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        found: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path}: expected TOML: {error}") from None
    return found
