# SPDX-License-Identifier: MIT
"""Options of `serve` that are the fields of a dataclass, which has their defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import click

from tvix_build.cli.options import SECONDS, Decorator
from tvix_build.proxy.shared.channels import Connections, Memory


class _Field(NamedTuple):
    """The option of a field. A time without a default is unlimited."""

    name: str
    metavar: str | None
    type: Any
    help: str


_CONNECTIONS = [
    _Field("max_streams", "N", click.IntRange(1), "Limit of concurrent calls of a connection."),
    _Field(
        "max_connections",
        "N",
        click.IntRange(1),
        "Limit of connections to an address; further ones are closed.",
    ),
    _Field(
        "max_connection_age",
        "SECONDS",
        SECONDS,
        "Close connections of this age when their calls have ended.",
    ),
    _Field(
        "max_connection_idle", "SECONDS", SECONDS, "Close connections without calls for this long."
    ),
    _Field("handshake_timeout", "SECONDS", SECONDS, "Time limit of a TLS handshake."),
    _Field(
        "keepalive_time",
        "SECONDS",
        SECONDS,
        "Ping a connection with calls that is silent for this long.",
    ),
    _Field(
        "keepalive_timeout",
        "SECONDS",
        SECONDS,
        "Close a connection that does not respond to a ping for this long.",
    ),
    _Field(
        "min_ping_interval",
        "SECONDS",
        SECONDS,
        "Close connections that ping repeatedly at shorter intervals.",
    ),
    _Field("compression", None, None, "Whether requests may be compressed."),
]


_MEMORY = [
    _Field(
        "max_buffered",
        "BYTES",
        click.IntRange(1),
        "Limit of the messages in memory, after decompression; a message that is not complete "
        "counts as --max-message-size.",
    ),
    _Field("upload_timeout", "SECONDS", SECONDS, "Time limit for a request to arrive."),
]


def connection_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options of Connections. The command gets it as the argument `connections`."""
    return _options("connections", Connections, _CONNECTIONS)(command)


def memory_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options of Memory. The command gets it as the argument `memory`."""
    return _options("memory", Memory, _MEMORY)(command)


def _options(argument: str, kind: Callable[..., Any], fields: list[_Field]) -> Decorator:
    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        @wraps(command)
        def run(*arguments: Any, **options: Any) -> int:
            value = kind(**{one.name: options.pop(one.name) for one in fields})
            return command(*arguments, **{argument: value}, **options)

        found: Callable[..., int] = run
        for one in reversed(fields):
            found = _option(kind, one)(found)
        return found

    return decorate


def _option(kind: Any, one: _Field) -> Decorator:
    default = next(field.default for field in dataclasses.fields(kind) if field.name == one.name)
    name = one.name.replace("_", "-")
    declaration = f"--{name}/--no-{name}" if isinstance(default, bool) else f"--{name}"
    return click.option(
        declaration,
        metavar=one.metavar,
        type=one.type,
        default=default,
        show_default=default is not None,
        help=one.help,
    )
