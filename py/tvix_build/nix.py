# SPDX-License-Identifier: MIT
"""Nix derivations, and the build requests that they ask for.

A string of Nix is bytes. Here it is a str wherever the protocol has a string, with bytes that are
not UTF-8 as lone surrogates (the error handler `surrogateescape`); values of variables are bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, Union, overload

from tvix_build import _aterm
from tvix_build._aterm import to_bytes, to_str
from tvix_build._nix_validation import twice, violations
from tvix_build._report import Error, Schema

if TYPE_CHECKING:
    from snix.build.protos.build_pb2 import BuildRequest as SnixBuildRequest
    from tvix.build.protos.build_pb2 import BuildRequest
    from tvix.castore.protos.castore_pb2 import Node
    from tvix_build._report import BytesSchema, SnixSchema, TvixSchema

__all__ = ["Derivation", "DerivationError", "DerivationFolder", "Lookup", "Output"]

Found = TypeVar("Found")
Default = TypeVar("Default")
Lookup = Union[Mapping[str, Found], Callable[[str], Union[Found, None]]]  # noqa: UP007
"""What is known by store path: a mapping, or a function that returns None for what it lacks."""

STORE = "/nix/store/"

_NOTHING: Mapping[str, Derivation] = MappingProxyType({})


class DerivationError(Error, ValueError):
    """A derivation that cannot be read, or that no request can say.

    Attributes:
        derivation: its store path or file; its name where neither is known.
        reasons: all that is wrong, each with what was expected and what was found.
    """

    def __init__(self, derivation: str, reasons: Iterable[str]) -> None:
        self.derivation = derivation
        self.reasons: tuple[str, ...] = tuple(reasons)
        super().__init__(derivation, self.reasons)

    def __str__(self) -> str:
        return f"{self.derivation}: {'; '.join(self.reasons)}"


@dataclass(frozen=True)
class Output:
    """What a derivation makes."""

    path: str
    """Its store path; empty where that is not known before the build, as the output or an input is
    addressed by its content."""
    hash_algorithm: str = ""
    """Of an output whose content is fixed, such as `sha256` for a file and `r:sha256` for anything;
    also of one that is addressed by its content."""
    hash: str = ""
    """Of an output whose content is fixed, in lowercase base 16; `impure` says that it never
    is."""


@dataclass(frozen=True)
class Derivation:
    """A derivation. Mappings keep the order of the text, which is sorted where Nix wrote it."""

    # hash=False: of use to dataclasses that are derived from this one.
    outputs: Mapping[str, Output] = field(hash=False)
    """By name, such as `out` and `dev`."""
    input_derivations: Mapping[str, tuple[str, ...]] = field(hash=False)
    """Store path of a derivation to the names of those of its outputs that this one uses."""
    input_sources: tuple[str, ...]
    """Store paths."""
    system: str
    builder: str
    arguments: tuple[str, ...]
    environment: Mapping[str, bytes] = field(hash=False)
    path: str = ""
    """Its own store path, or the file it was read from; empty where not known."""

    @classmethod
    def parse(cls, data: bytes, path: str = "") -> Derivation:
        """Parse and validate the text of a derivation, as a `.drv` file holds it.

        Args:
            data: the text.
            path: where it is from, for errors.

        Raises:
            DerivationError: with all reasons, if the text is not what Nix writes (not the ATerm of
                a derivation, or escapes other than Nix's), or if the derivation violates a rule of
                Nix: on store paths, hashes, kinds and names of outputs, the builder, and names
                that come twice. Outputs whose path only the build tells are valid.
        """
        try:
            term = _aterm.parse(data)
        except _aterm.ATermError as error:
            raise DerivationError(path or "derivation", [str(error)]) from None
        derivation = cls(
            outputs=MappingProxyType(
                {to_str(one[0]): Output(*map(to_str, one[1:])) for one in term.outputs}
            ),
            input_derivations=MappingProxyType(
                {to_str(one): tuple(map(_name, names)) for one, names in term.input_derivations}
            ),
            input_sources=tuple(map(to_str, term.input_sources)),
            system=to_str(term.system),
            builder=to_str(term.builder),
            arguments=tuple(map(to_str, term.arguments)),
            environment=MappingProxyType({_name(name): value for name, value in term.environment}),
            path=path,
        )
        reasons = violations(derivation)
        for what, read, kept in (
            ("output", term.outputs, derivation.outputs),
            ("input derivation", term.input_derivations, derivation.input_derivations),
            ("variable", term.environment, derivation.environment),
        ):
            if len(read) != len(kept):
                reasons += twice(what, [to_str(one[0]) for one in read])
        if reasons:
            raise DerivationError(derivation.name, reasons)
        return derivation

    def unparse(self) -> bytes:
        """Its text; of a derivation that was read, the very bytes."""
        outputs = self.outputs.items()
        return _aterm.unparse(
            _aterm.Term(
                outputs=[
                    (
                        to_bytes(name),
                        to_bytes(one.path),
                        to_bytes(one.hash_algorithm),
                        to_bytes(one.hash),
                    )
                    for name, one in outputs
                ],
                input_derivations=[
                    (to_bytes(path), [to_bytes(name) for name in names])
                    for path, names in self.input_derivations.items()
                ],
                input_sources=[to_bytes(path) for path in self.input_sources],
                system=to_bytes(self.system),
                builder=to_bytes(self.builder),
                arguments=[to_bytes(argument) for argument in self.arguments],
                environment=[(to_bytes(name), value) for name, value in self.environment.items()],
            )
        )

    def __hash__(self) -> int:
        # Mappings are equal in any order.
        mappings = self.outputs, self.input_derivations, self.environment
        others = self.input_sources, self.system, self.builder, self.arguments, self.path
        return hash((*(frozenset(one.items()) for one in mappings), *others))

    def __getstate__(self) -> tuple[dict[str, object], frozenset[str]]:
        # A read-only mapping can be neither copied nor pickled.
        state = vars(self).copy()
        proxies = frozenset(
            name for name, value in state.items() if isinstance(value, MappingProxyType)
        )
        return state | {name: dict(state[name]) for name in proxies}, proxies

    def __setstate__(self, state: tuple[dict[str, Any], frozenset[str]]) -> None:
        values, proxies = state
        vars(self).update(values)
        vars(self).update((name, MappingProxyType(values[name])) for name in proxies)

    @property
    def name(self) -> str:
        """What errors call it: its path, or else its variable `name`."""
        name = self.environment.get("name", b"derivation")
        return self.path or name.decode(errors="backslashreplace")

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of what it asks of Nix and a request leaves out, as it cannot change the outputs:
        checks of references, for one. The documentation has the whole table."""
        from tvix_build._nix_command import left_out

        return tuple(left_out(self))

    @overload
    def to_build_request(
        self,
        nodes: Lookup[Node],
        derivations: Lookup[Derivation] = ...,
        *,
        closure: bool = ...,
        cores: int = ...,
        system: str | None = ...,
        min_memory: int = ...,
        available_ro_paths: Iterable[str] = ...,
        schema: TvixSchema = ...,
    ) -> BuildRequest: ...
    @overload
    def to_build_request(
        self,
        nodes: Lookup[Node],
        derivations: Lookup[Derivation] = ...,
        *,
        closure: bool = ...,
        cores: int = ...,
        system: str | None = ...,
        min_memory: int = ...,
        available_ro_paths: Iterable[str] = ...,
        schema: SnixSchema,
    ) -> SnixBuildRequest: ...
    @overload
    def to_build_request(
        self,
        nodes: Lookup[Node],
        derivations: Lookup[Derivation] = ...,
        *,
        closure: bool = ...,
        cores: int = ...,
        system: str | None = ...,
        min_memory: int = ...,
        available_ro_paths: Iterable[str] = ...,
        schema: BytesSchema,
    ) -> bytes: ...
    @overload
    def to_build_request(
        self,
        nodes: Lookup[Node],
        derivations: Lookup[Derivation] = ...,
        *,
        closure: bool = ...,
        cores: int = ...,
        system: str | None = ...,
        min_memory: int = ...,
        available_ro_paths: Iterable[str] = ...,
        schema: Schema | str,
    ) -> BuildRequest | SnixBuildRequest | bytes: ...
    def to_build_request(
        self,
        nodes: Lookup[Node],
        derivations: Lookup[Derivation] = _NOTHING,
        *,
        closure: bool = False,
        cores: int = 0,
        system: str | None = None,
        min_memory: int = 0,
        available_ro_paths: Iterable[str] = (),
        schema: Schema | str = Schema.TVIX_BUILD_V1,
    ) -> BuildRequest | SnixBuildRequest | bytes:
        """The canonical request for a build of this derivation.

        The command is the builder and its arguments; the environment is what Nix sets in every
        build, overlaid by the derivation's; placeholders of its own outputs become their paths.

        The later schemas also say what Nix writes into files: variables of passAsFile, structured
        attributes. There a derivation has network access if its only output is `out` and fixed by a
        hash.

        Args:
            nodes: store path to what lies there: a mapping, or a function that returns None where
                it knows nothing.
            derivations: store path of an input derivation to the derivation; likewise.
            closure: whether inputs are also those of input derivations, and of theirs in turn.
            cores: NIX_BUILD_CORES; 0 stands for all that the builder has.
            system: instead of the derivation's.
            min_memory: least memory of the host in bytes.
            available_ro_paths: host paths that the command may read.
            schema: of the request.

        Returns:
            A message of the schema; its canonical bytes for `tvix.build.v1@2024`, which has no
            Python module.

        Raises:
            DerivationError: with all reasons: if the derivation violates a rule of Nix, as for
                `parse`, its builder is code inside Nix (`builtin:fetchurl`), an input derivation,
                an output's path or a node is not known, or the derivation says what a request
                cannot.
            ValueError: if there is no such schema.
        """
        from tvix_build._nix_requests import RequestMaker

        schema = Schema(schema)
        maker = RequestMaker(
            nodes,
            derivations,
            closure=closure,
            cores=cores,
            system=system,
            min_memory=min_memory,
            available_ro_paths=tuple(available_ro_paths),
            schema=schema,
        )
        request = maker.valid_request(self)
        if schema is Schema.TVIX_BUILD_V1_2024:
            return request.SerializeToString()
        return request


class DerivationFolder(Mapping[str, Derivation]):
    """The derivations in folders such as /nix/store: each is read when it is asked for, once.

    A derivation's key is its store path, `/nix/store/` and the name of its file, wherever the
    folder is. Where the file cannot be read, or is no derivation, `folder[path]` raises a
    DerivationError each time; `path in folder` is true and `folder.get(path)` returns the default.
    Not for several threads at once.

    Args:
        folders: where to look, in this order.
    """

    def __init__(self, *folders: str | os.PathLike[str]) -> None:
        self._folders = tuple(os.fspath(folder) for folder in folders)
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
        names = {name for folder in self._folders for name in os.listdir(folder)}
        paths = {STORE + name for name in names if name.endswith(".drv")}
        return iter(sorted(paths | self._found.keys(), key=to_bytes))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _file(self, path: str) -> str:
        name = path.removeprefix(STORE)
        if name != path and "/" not in name:
            for folder in self._folders:
                file = os.path.join(folder, name)
                if os.path.lexists(file):
                    return file
        raise KeyError(path)


def _read(file: str, path: str) -> Derivation | DerivationError:
    try:
        with open(file, "rb", buffering=0) as stream:
            return Derivation.parse(stream.readall(), path)
    except OSError as error:
        failure = DerivationError(path, [error.strerror or str(error)])
        failure.__cause__ = error
        return failure
    except DerivationError as error:
        return error


# Names of variables and outputs are few; one object for each makes mappings small and fast.
_name = lru_cache(1 << 12)(to_str)
