# SPDX-License-Identifier: MIT
"""Writes docs/tvix-build.1, the man page, from the help of the commands.

usage: PYTHONPATH=py:tests/generators python -m make_man_page
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from tvix_build.cli.group import group
from tvix_build.cli.program import PROGRAM

PAGE = Path(__file__).parents[2] / "docs" / "tvix-build.1"


def man_page() -> str:
    """Return the man page, in troff."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    context = group.make_context(PROGRAM, [], resilient_parsing=True)
    about, _, rest = inspect.cleandoc(group.help or "").partition("\n\n")
    yield r".\" SPDX-License-Identifier: MIT"
    yield r".\" Made by tests/generators/make_man_page.py. Do not edit."
    yield f".TH {PROGRAM.upper()} 1"
    yield ".SH NAME"
    yield f"{_escape(PROGRAM)} \\- {_escape(about[0].lower() + about[1:].rstrip('.'))}"
    yield ".SH SYNOPSIS"
    yield f".B {_escape(PROGRAM)}"
    yield _escape(" ".join(group.collect_usage_pieces(context)))
    yield ".SH DESCRIPTION"
    yield from _text(rest)
    yield ".SH OPTIONS"
    yield from _options(group, context)
    yield ".SH COMMANDS"
    yield from _commands(group, context)


def _commands(parent: click.Group, parent_context: click.Context) -> Iterator[str]:
    for name in parent.list_commands(parent_context):
        command = parent.get_command(parent_context, name)
        assert command
        context = command.make_context(name, [], parent_context, resilient_parsing=True)
        usage = " ".join(command.collect_usage_pieces(context))
        yield f".SS {_escape(context.command_path)} {_escape(usage)}"
        yield from _text(inspect.cleandoc(command.help or ""))
        yield from _options(command, context)
        if isinstance(command, click.Group):
            yield from _commands(command, context)


def _text(text: str) -> Iterator[str]:
    """Yield paragraphs of help. Lines of a paragraph that begins with \\b are not joined."""
    for paragraph in text.split("\n\n"):
        lines = [_escape(line) for line in paragraph.splitlines()]
        yield ".PP"
        if lines[:1] == ["\b"]:
            yield from (".nf", *lines[1:], ".fi")
        else:
            yield from lines


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record and isinstance(parameter, click.Option):
            yield from (".TP", f".B {_escape(record[0])}", _escape(record[1]))


def _escape(text: str) -> str:
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return r"\&" + escaped if escaped[:1] in (".", "'") else escaped


if __name__ == "__main__":
    PAGE.write_text(man_page())
