# SPDX-License-Identifier: MIT
"""The exceptions of files of records."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from tvix_build._core.report import Error


class InputError(Error):
    """A file cannot be read to its end: it is unreadable, truncated or corrupt.

    Attributes:
        reason: what was expected and what was found.
        path: the file; None if it is unknown.
        index: the index of the record (from 0), in a file that can hold several records.
        offset: the offset in the uncompressed file, in bytes; None in tables.
    """

    def __init__(self, reason: str, path: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path
        self.index: int | None = None
        self.offset: int | None = None

    def __str__(self) -> str:
        place = self.path or ""
        if self.index is not None:
            place += f"[{self.index}]"
        if self.offset is not None:
            place += f" at byte {self.offset}"
        return f"{place}: {self.reason}" if place else self.reason


class OutputError(Error, OSError):
    """A file cannot be written. `filename` is its name and `strerror` the reason."""


class FormatError(Error, ValueError):
    """The format of a file is unknown, or cannot hold the records."""


class MissingPackageError(Error, ImportError):
    """A format needs a package that is not installed. `name` is its name."""


def import_zstd() -> Any:
    """Import the module of Python 3.14 for zstd, or its backport.

    Raises:
        MissingPackageError: if it is missing.
    """
    with needed_for("a file compressed with zstd", "backports.zstd"):
        return import_module(
            "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
        )


@contextmanager
def needed_for(what: str, remedy: str) -> Iterator[None]:
    """Import an optional package in this context.

    Args:
        what: what needs the package.
        remedy: the argument for `pip install`.

    Raises:
        MissingPackageError: if the package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("tvix"):
            raise
        reason = f"{what} needs {error.name}: pip install {remedy}"
        raise MissingPackageError(reason, name=error.name) from None
