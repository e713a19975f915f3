# SPDX-License-Identifier: MIT
"""Packages that an optional extra brings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Imports of packages that the extra `name` brings.

    Raises:
        click.ClickException: if one is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("tvix"):
            raise
        raise click.ClickException(
            f"the command needs {error.name}: pip install 'tvix-build[cli,{name}]'"
        ) from None
