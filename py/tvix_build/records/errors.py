# SPDX-License-Identifier: MIT
"""What goes wrong with files of records."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tvix_build._core.report import Error


class InputError(Error):
    """A file cannot be read to its end: it is unreadable, truncated or corrupt.

    Attributes:
        reason: what was expected and what was found.
        path: the file; None if it is not known.
        index: the record (from 0) at which it happened, in a file that can hold several records.
        offset: the byte of the uncompressed file at which it happened; None in tables.
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
    """A file cannot be written; `filename` says which, `strerror` why."""


class FormatError(Error, ValueError):
    """A file has no known format, or one that cannot hold the records."""


class MissingPackageError(Error, ImportError):
    """A format needs a package that is not installed; `name` says which."""


@contextmanager
def needed_for(what: str, remedy: str) -> Iterator[None]:
    """Imports of an optional package.

    Args:
        what: what needs it.
        remedy: what pip is to install.

    Raises:
        MissingPackageError: if it is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("tvix"):
            raise
        reason = f"{what} needs {error.name}: pip install {remedy}"
        raise MissingPackageError(reason, name=error.name) from None
