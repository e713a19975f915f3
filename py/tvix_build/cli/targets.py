# SPDX-License-Identifier: MIT
"""Checks the files that a command writes at its end, before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from tvix_build.cli.extras import extra

_TABLES = (".arrow", ".parquet")


def check_parent(option: str, target: str) -> None:
    """Raise click.UsageError if the file or directory of an option has no directory."""
    parent = Path(target).parent
    if not parent.is_dir():
        raise click.UsageError(f"{option}: expected an existing directory, found {str(parent)!r}")


def check_format(option: str, target: str, suffixes: Sequence[str]) -> None:
    """Raise an error if the file of an option has none of the suffixes or no directory, or needs a
    package that is missing."""
    suffix = Path(target).suffix
    if suffix not in suffixes:
        raise click.UsageError(f"{option}: expected {', '.join(suffixes)}, found {target!r}")
    check_parent(option, target)
    if suffix in _TABLES:
        with extra("arrow"):
            import pyarrow.parquet  # noqa: F401
