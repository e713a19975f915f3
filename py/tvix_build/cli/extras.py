# SPDX-License-Identifier: MIT
"""Packages of optional extras."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import packages of the extra `name` in this context.

    Raises:
        click.ClickException: if a package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("tvix"):
            raise
        raise click.ClickException(
            f"the command needs {error.name}: pip install 'tvix-build[cli,{name}]'"
        ) from None
