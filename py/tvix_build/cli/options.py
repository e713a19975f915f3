# SPDX-License-Identifier: MIT
"""Options that several commands share."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from tvix_build._core.report import Kind, MessageType, Schema, message_type

if TYPE_CHECKING:
    from tvix_build.records.source import Source

FORMATS = ("binpb", "binpbs", "json", "ndjson", "txtpb", "parquet", "arrow")
"""The keys of `records.source.FORMATS`, whose module imports protobuf."""

Decorator: TypeAlias = "Callable[[Callable[..., int]], Callable[..., int]]"


class _Seconds(click.FloatRange):
    """A number of seconds that clocks and gRPC support."""

    def __init__(self) -> None:
        super().__init__(0, 1_000_000_000)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


SECONDS: _Seconds = _Seconds()
PATH = click.Path(readable=False)
"""A path, which shells complete; the commands check it."""
_kind_option: Decorator = click.option(
    "--kind",
    type=click.Choice([kind.value for kind in Kind]),
    default=Kind.BUILD_REQUEST.value,
    show_default=True,
    callback=lambda _context, _option, value: Kind(value),
    help="Message type of the records.",
)
schema_option: Decorator = click.option(
    "--schema",
    type=click.Choice([schema.value for schema in Schema]),
    default=Schema.TVIX_BUILD_V1.value,
    show_default=True,
    callback=lambda _context, _option, value: Schema(value),
    help="Protocol version of the messages.",
)
castore_option: Decorator = click.option(
    "--castore",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="The castore store of inputs, outputs and logs; only servers work without it.",
)
directory_sizes_option: Decorator = click.option(
    "--directory-sizes",
    type=click.Choice(["specified", "snix-2024"]),
    default="specified",
    show_default=True,
    help="How the sizes of Directories are counted: as specified, or each entry twice, as tvix and "
    "snix count since August 2024.",
)
_WITH_SANDBOX = "With sandbox: limit of"
_LIMITS = {
    "memory": (
        "BYTES",
        f"{_WITH_SANDBOX} memory of all processes; the default is the memory of this machine.",
    ),
    "disk": ("BYTES", f"{_WITH_SANDBOX} files in scratch paths and /tmp; by default 64 GiB."),
    "processes": ("N", f"{_WITH_SANDBOX} processes and threads; by default 4096."),
    "output_size": ("BYTES", f"{_WITH_SANDBOX} files of all outputs; by default 16 GiB."),
    "log_size": ("BYTES", "Limit of the log; by default 1 GiB."),
}


def are_of_sandbox(limits: Mapping[str, int]) -> bool:
    """Return whether any of the limits is one that only the sandbox has. All builders limit the
    log."""
    return bool(limits.keys() - {"log_size"})


def limit_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options of limits of builds. The command gets the argument `limits`, those that are
    given, by their names in builders.Limits."""

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> int:
        limits = {name: options.pop(f"max_{name}") for name in _LIMITS}
        given = {name: value for name, value in limits.items() if value is not None}
        return command(*arguments, limits=given, **options)

    for name, (metavar, text) in reversed(_LIMITS.items()):
        run = click.option(
            f"--max-{name.replace('_', '-')}",
            metavar=metavar,
            type=click.IntRange(1),
            help=text,
        )(run)
    return run


_DERIVATION_OPTIONS: tuple[Decorator, ...] = (
    click.option(
        "--store",
        metavar="DIR",
        type=click.Path(exists=True, file_okay=False),
        help="Directory of input derivations and inputs; the default is the directory of each "
        "PATH.",
    ),
    click.option(
        "--nodes",
        "node_files",
        metavar="FILE",
        type=PATH,
        multiple=True,
        help="Castore nodes of the inputs, as written by ingest (.binpbs or .ndjson); repeatable.",
    ),
    click.option(
        "--ingest", is_flag=True, help="Make the nodes of inputs from files in the store."
    ),
    click.option("--closure", is_flag=True, help="Include the inputs of inputs, recursively."),
    click.option(
        "--cores",
        metavar="N",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Value of NIX_BUILD_CORES.",
    ),
    click.option(
        "--system",
        metavar="SYSTEM",
        help="System of the requests, instead of the systems of the derivations.",
    ),
)


def derivation_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options of commands that make requests from derivations."""
    for option in reversed(_DERIVATION_OPTIONS):
        command = option(command)
    return command


_AUTO = "auto"
_schema_or_auto_option: Decorator = click.option(
    "--schema",
    type=click.Choice([*(schema.value for schema in Schema), _AUTO]),
    default=Schema.TVIX_BUILD_V1.value,
    show_default=True,
    help="Protocol version of the messages; auto detects it for each file from its first records.",
)


def kind_of_file_option(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options --kind and --schema, which may be auto. The command gets the argument
    `kind_of`, a function that returns the MessageType of a Source."""

    @_kind_option
    @_schema_or_auto_option
    @wraps(command)
    def run(*arguments: Any, kind: Kind, schema: str, **options: Any) -> int:
        def kind_of(source: Source) -> MessageType:
            if schema == _AUTO:
                from tvix_build.cli.detection import detect_type

                return detect_type(source, kind)
            return message_type(kind, Schema(schema))

        return command(*arguments, kind_of=kind_of, **options)

    return run


def kind_option(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options --kind and --schema. The command gets their MessageType as `kind`."""

    @_kind_option
    @schema_option
    @wraps(command)
    def run(*arguments: Any, kind: Kind, schema: Schema, **options: Any) -> int:
        return command(*arguments, kind=message_type(kind, schema), **options)

    return run


input_format_option: Decorator = click.option(
    "--input-format",
    type=click.Choice(FORMATS),
    help="Input format; overrides the file name. Required for stdin.",
)
column_option: Decorator = click.option(
    "--column",
    metavar="NAME",
    help="Column of messages in a table; the default is the only binary column.",
)
output_format_option: Decorator = click.option(
    "--output-format",
    type=click.Choice(FORMATS),
    help="Output format; overrides the file name. Required for stdout.",
)


def _parse_properties(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> list[tuple[str, str, str | None]]:
    found = []
    for value in values:
        match = re.fullmatch(r"(?:(network_access|min_memory|/[^:=]+):)?([^=]+)=(.*)", value)
        if match is None:
            raise click.BadParameter(f"expected [CONSTRAINT:]NAME=VALUE, found {value!r}")
        found.append((match[2], match[3], match[1]))
    return found


property_option: Decorator = click.option(
    "--property",
    "properties",
    metavar="[CONSTRAINT:]NAME=VALUE",
    multiple=True,
    callback=_parse_properties,
    help="With Remote Execution: a platform property, of all actions or for a constraint.",
)
