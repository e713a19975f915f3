# SPDX-License-Identifier: MIT
"""Derivations in directories such as /nix/store, by store path."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar, overload

from tvix_build.nix.aterm import to_bytes
from tvix_build.nix.derivation import STORE, Derivation, DerivationError
from tvix_build.nix.text import parse

Default = TypeVar("Default")

_NO_VARIABLES: Mapping[str, bytes] = MappingProxyType({})


class DerivationDirectory(Mapping[str, Derivation]):
    """A mapping of the derivations in directories such as /nix/store. Each is read once, on access.

    The key of a derivation is its store path, which is `/nix/store/` and the name of its file in
    any directory. If the file cannot be read or is not a derivation, `directory[path]` raises a
    DerivationError, `path in directory` is true and `directory.get(path)` returns the default. It
    is not safe to use from several threads.

    Args:
        directories: the directories to search, in this order.
    """

    def __init__(self, *directories: str | os.PathLike[str]) -> None:
        self._directories = tuple(os.fspath(directory) for directory in directories)
        self._found: dict[str, Derivation | DerivationError] = {}
        self._files: dict[str, str] = {}  # of derivations

    def read(self, file: str | os.PathLike[str]) -> Derivation:
        """Read a file in any directory, and add its derivation to the mapping. A file whose
        derivation the mapping has is not read again.

        Raises:
            DerivationError: if the file cannot be read or is not a derivation, or another
                derivation with the same name has been read before.
        """
        file = os.fspath(file)
        path = STORE + os.path.basename(file)
        if self._files.get(path) == file:
            return self[path]
        found = _read(file, path)
        before = self._found.get(path)
        if not isinstance(before, Derivation):
            self._add(path, file, found)
        elif isinstance(found, DerivationError):
            raise found
        elif found != before and found != _read(self._files[path], path):
            reason = "another derivation with this name has been read before"
            raise DerivationError(path, [reason])
        return self[path]

    def forget_command(self, path: str) -> None:
        """Forget the arguments and the environment of a derivation, which take most of its memory.
        The mapping then has the derivation without them.

        Raises:
            DerivationError: if the file cannot be read or is not a derivation.
            KeyError: if the file does not exist.
        """
        found = self[path]
        self._found[path] = replace(found, arguments=(), environment=_NO_VARIABLES)

    def __getitem__(self, path: str) -> Derivation:
        found = self._found.get(path)
        if found is None:
            file = self._file(path)
            found = self._add(path, file, _read(file, path))
        if isinstance(found, DerivationError):
            raise found
        return found

    def __contains__(self, path: object) -> bool:
        """Return whether the file exists, without reading it."""
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
        """Return the derivation, or None if the file does not exist.

        Raises:
            DerivationError: if the file cannot be read or is not a derivation.
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

    def _add(
        self, path: str, file: str, found: Derivation | DerivationError
    ) -> Derivation | DerivationError:
        self._found[path] = found
        if isinstance(found, Derivation):
            self._files[path] = file
        return found

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
