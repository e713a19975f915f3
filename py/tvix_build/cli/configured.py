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


def command_arguments() -> list[str]:
    """Return the arguments of the program that run the running command again."""
    context = click.get_current_context()
    return [str(context.info_name), *context.meta[_ARGUMENTS]]


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
        """Parse the arguments, and keep them."""
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
            values = value if option.multiple and isinstance(value, list) else [value]
            texts = [_write(one, option) for one in values]
            if None in texts:
                kind = "true or false" if option.is_flag else "a string or a number"
                expected = f"{kind} as {'each' if option.multiple else 'the'} value of {name!r}"
                raise click.UsageError(f"{path}: expected {expected}, found {value!r}")
            defaults[option.name] = texts if option.multiple else texts[0]
        context.default_map = {name: texts for name, texts in defaults.items() if texts}


def _write(value: object, option: click.Option) -> str | None:
    """Return a value as it is on the command line, because click converts other types without a
    check; None if it has a wrong type."""
    if option.is_flag:
        return str(value).lower() if isinstance(value, bool) else None
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    return str(value)


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
