# SPDX-License-Identifier: MIT
"""Derivations in directories such as /nix/store, by store path."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TypeVar, overload

from tvix_build.nix.aterm import to_bytes
from tvix_build.nix.derivation import STORE, Derivation, DerivationError
from tvix_build.nix.text import parse

Default = TypeVar("Default")


class DerivationDirectory(Mapping[str, Derivation]):
    """The derivations in directories such as /nix/store: each is read when it is asked for, once.

    A derivation's key is its store path, `/nix/store/` and the name of its file, wherever the
    directory is. Where the file cannot be read, or is no derivation, `directory[path]` raises a
    DerivationError each time; `path in directory` is true and `directory.get(path)` returns the
    default. Not for several threads at once.

    Args:
        directories: where to look, in this order.
    """

    def __init__(self, *directories: str | os.PathLike[str]) -> None:
        self._directories = tuple(os.fspath(directory) for directory in directories)
        self._found: dict[str, Derivation | DerivationError] = {}

    def read(self, file: str | os.PathLike[str]) -> Derivation:
        """Read one file, wherever it is; from now on it is found here, too.

        Raises:
            DerivationError: if it cannot be read, is no derivation, or is another one than was
                read under this name before.
        """
        path = STORE + os.path.basename(file)
        found = _read(os.fspath(file), path)
        before = self._found.get(path)
        if not isinstance(before, Derivation):
            self._found[path] = found
        elif isinstance(found, DerivationError):
            raise found
        elif found != before:
            reason = "expected the derivation that was read under this name, found another one"
            raise DerivationError(path, [reason])
        return self[path]

    def __getitem__(self, path: str) -> Derivation:
        found = self._found.get(path)
        if found is None:
            found = self._found[path] = _read(self._file(path), path)
        if isinstance(found, DerivationError):
            raise found
        return found

    def __contains__(self, path: object) -> bool:
        """Whether there is a file; it is not read."""
        if not isinstance(path, str):
            return False
        try:
            return path in self._found or bool(self._file(path))
        except KeyError:
            return False

    @overload
    def get(self, path: str, /) -> Derivation | None: ...
    @overload
    def get(self, path: str, /, default: Derivation | Default) -> Derivation | Default: ...
    def get(self, path: str, /, default: object = None) -> object:
        try:
            return self[path]
        except (KeyError, DerivationError):
            return default

    def find(self, path: str) -> Derivation | None:
        """The derivation, or None where there is no file.

        Raises:
            DerivationError: if the file cannot be read, or is no derivation.
        """
        try:
            return self[path]
        except KeyError:
            return None

    def __iter__(self) -> Iterator[str]:
        names = {name for directory in self._directories for name in os.listdir(directory)}
        paths = {STORE + name for name in names if name.endswith(".drv")}
        return iter(sorted(paths | self._found.keys(), key=to_bytes))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _file(self, path: str) -> str:
        name = path.removeprefix(STORE)
        if name != path and "/" not in name:
            for directory in self._directories:
                file = os.path.join(directory, name)
                if os.path.lexists(file):
                    return file
        raise KeyError(path)


def _read(file: str, path: str) -> Derivation | DerivationError:
    try:
        with open(file, "rb", buffering=0) as stream:
            return parse(stream.readall(), path=path)
    except OSError as error:
        failure = DerivationError(path, [error.strerror or str(error)])
        failure.__cause__ = error
        return failure
    except DerivationError as error:
        return error
