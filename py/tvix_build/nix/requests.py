# SPDX-License-Identifier: MIT
"""Makes build requests from derivations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from tvix_build._core.check import validate
from tvix_build._core.construct import assemble_request
from tvix_build._core.convert import to_later
from tvix_build._core.report import (
    Error,
    NotRepresentableError,
    Schema,
    SchemaLike,
    ValidationError,
    Violation,
)
from tvix_build.nix.aterm import to_bytes, to_str
from tvix_build.nix.derivation import STORE, Derivation, DerivationError, Found, Lookup
from tvix_build.nix.directory import DerivationDirectory
from tvix_build.nix.environment import make_command
from tvix_build.nix.reasons import Kind, Reason
from tvix_build.nix.validation import is_fixed, violations

if TYPE_CHECKING:
    from snix.build.protos.build_pb2 import BuildRequest as LaterBuildRequest
    from tvix.build.protos.build_pb2 import BuildRequest
    from tvix.castore.protos.castore_pb2 import Node
    from tvix_build._core.report import BytesSchema, SnixSchema, TvixSchema

_ENVIRONMENT = {
    "HOME": b"/homeless-shelter",
    "NIX_BUILD_CORES": b"0",
    "NIX_BUILD_TOP": b"/build",
    "NIX_LOG_FD": b"2",
    "NIX_STORE": b"/nix/store",
    "PATH": b"/path-not-set",
    "PWD": b"/build",
    "TEMP": b"/build",
    "TEMPDIR": b"/build",
    "TERM": b"xterm-256color",
    "TMP": b"/build",
    "TMPDIR": b"/build",
}
"""The variables that Nix sets in every build."""


class _Uses(NamedTuple):
    """The direct inputs of a derivation.

    Attributes:
        paths: the store path of each input, with that of the derivation that makes it; None for a
            source.
    """

    paths: dict[str, str | None]
    reasons: list[Reason]
    derivations: dict[str, Derivation]


class _Known(dict[str, "Found | Reason"]):
    """The results of a lookup by store path, which is called once per path."""

    def __init__(self, find: Callable[[str], Found | Reason]) -> None:
        super().__init__()
        self._find = find

    def __missing__(self, path: str) -> Found | Reason:
        found = self[path] = self._find(path)
        return found


@overload
def to_build_request(
    derivation: Derivation,
    *,
    nodes: Lookup[Node],
    derivations: Lookup[Derivation] = ...,
    closure: bool = ...,
    cores: int = ...,
    system: str | None = ...,
    min_memory: int = ...,
    available_ro_paths: Iterable[str] = ...,
    schema: TvixSchema = ...,
) -> BuildRequest: ...
@overload
def to_build_request(
    derivation: Derivation,
    *,
    nodes: Lookup[Node],
    derivations: Lookup[Derivation] = ...,
    closure: bool = ...,
    cores: int = ...,
    system: str | None = ...,
    min_memory: int = ...,
    available_ro_paths: Iterable[str] = ...,
    schema: SnixSchema,
) -> LaterBuildRequest: ...
@overload
def to_build_request(
    derivation: Derivation,
    *,
    nodes: Lookup[Node],
    derivations: Lookup[Derivation] = ...,
    closure: bool = ...,
    cores: int = ...,
    system: str | None = ...,
    min_memory: int = ...,
    available_ro_paths: Iterable[str] = ...,
    schema: BytesSchema,
) -> bytes: ...
@overload
def to_build_request(
    derivation: Derivation,
    *,
    nodes: Lookup[Node],
    derivations: Lookup[Derivation] = ...,
    closure: bool = ...,
    cores: int = ...,
    system: str | None = ...,
    min_memory: int = ...,
    available_ro_paths: Iterable[str] = ...,
    schema: SchemaLike,
) -> BuildRequest | LaterBuildRequest | bytes: ...
def to_build_request(
    derivation: Derivation,
    *,
    nodes: Lookup[Node],
    derivations: Lookup[Derivation] = MappingProxyType({}),
    closure: bool = False,
    cores: int = 0,
    system: str | None = None,
    min_memory: int = 0,
    available_ro_paths: Iterable[str] = (),
    schema: SchemaLike = Schema.TVIX_BUILD_V1,
) -> BuildRequest | LaterBuildRequest | bytes:
    """Return the canonical request for a build of a derivation.

    The command is the builder with its arguments. The environment contains the variables that Nix
    sets in every build and those of the derivation, which take precedence. Placeholders of the
    outputs are replaced by their paths.

    In the later schemas, the request also contains the files that Nix writes for passAsFile and
    for structured attributes, and the build has network access if the only output is `out` and is
    fixed by a hash.

    Args:
        derivation: the derivation to build.
        nodes: the castore nodes of inputs by store path: a mapping, or a function that returns
            None for an unknown path.
        derivations: the input derivations by store path, likewise.
        closure: whether the inputs include the inputs of input derivations, recursively.
        cores: the value of NIX_BUILD_CORES; 0 means all cores of the builder.
        system: the system of the request; by default the system of the derivation.
        min_memory: the minimum memory of the host, in bytes.
        available_ro_paths: the paths of the host that the command may read.
        schema: the schema of the request.

    Returns:
        A message of the schema, or canonical bytes for `tvix.build.v1@2024`, which has no Python
        module.

    Raises:
        DerivationError: with all reasons, if the derivation violates a rule of Nix, as in `parse`;
            if its builder is part of Nix (such as `builtin:fetchurl`); if an input derivation, a
            node or the path of an output is unknown; or if a request cannot represent the
            derivation.
        ValueError: if the schema is unknown.
    """
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
    request = maker.valid_request(derivation)
    if schema is Schema.TVIX_BUILD_V1_2024:
        return request.SerializeToString()
    return request


class RequestMaker:
    """Makes requests from many derivations. A request is canonical if it is valid.

    The arguments are those of `to_build_request`. It is not safe to use from several threads.

    Attributes:
        omitted: the number of requests that omit each option of Nix.
    """

    def __init__(
        self,
        nodes: Lookup[Node],
        derivations: Lookup[Derivation],
        *,
        closure: bool = False,
        cores: int = 0,
        system: str | None = None,
        min_memory: int = 0,
        available_ro_paths: Sequence[str] = (),
        schema: Schema = Schema.TVIX_BUILD_V1,
    ) -> None:
        if isinstance(derivations, DerivationDirectory):
            derivations = derivations.find  # Raises the error of a damaged file.
        self._nodes: _Known[Node] = _Known(partial(_find_node, _function(nodes)))
        self._derivations: _Known[Derivation] = _Known(
            partial(_find_derivation, _function(derivations))
        )
        self._uses: dict[str, _Uses] = {}
        self._closure = closure
        self._environment = {**_ENVIRONMENT, "NIX_BUILD_CORES": b"%d" % cores}
        self._system = system
        self._min_memory = min_memory
        self._available_ro_paths = sorted(available_ro_paths)
        self._schema = schema
        self.omitted: Counter[str] = Counter()

    def request(self, derivation: Derivation) -> BuildRequest | LaterBuildRequest:
        """Return the request of a parsed, and therefore valid, derivation. The request is not
        validated.

        Raises:
            DerivationError: as `to_build_request`, except for violations of the request.
        """
        return self._in_schema(*self._make(derivation, []), derivation)

    def step(
        self, derivation: Derivation
    ) -> tuple[BuildRequest | LaterBuildRequest, dict[str, str]]:
        """Return the request of a parsed derivation without the inputs that other derivations make,
        and the store paths of these inputs with those of their derivations. The request is not
        validated. An output of a derivation whose builder is part of Nix is an input.

        Raises:
            DerivationError: as `to_build_request`, except for violations of the request.
        """
        refs: dict[str, str] = {}
        request = self._in_schema(*self._make(derivation, [], refs), derivation)
        return request, refs

    def valid_request(self, derivation: Derivation) -> BuildRequest | LaterBuildRequest:
        """Validate a derivation and its request, and return the request.

        Raises:
            DerivationError: as `to_build_request`.
        """
        request, files = self._make(derivation, violations(derivation))
        try:
            # A valid request stays valid in the later schemas.
            validate(request)
        except ValidationError as error:
            raise DerivationError(derivation.name, invalid_request(error.violations)) from error
        return self._in_schema(request, files, derivation)

    def _make(
        self, derivation: Derivation, reasons: list[str], refs: dict[str, str] | None = None
    ) -> tuple[BuildRequest, Mapping[str, bytes]]:
        """Return a request of tvix.build.v1, and the files for the later schemas.

        Args:
            reasons: the reasons so far to reject the derivation.
            refs: gets the paths of inputs that other derivations make, which are then not inputs of
                the request; None if they are.
        """
        if is_part_of_nix(derivation):
            words = _PART_OF_NIX.format(derivation.builder)
            reasons.append(Reason(Kind.BUILTIN, words))
        command = make_command(derivation, self._schema is not Schema.TVIX_BUILD_V1, reasons)
        outputs = []
        for name, output in derivation.outputs.items():
            if output.path:
                outputs.append(output.path.removeprefix(STORE))
            else:
                reasons.append(Reason(Kind.UNKNOWN_PATH, f"output {name}: {_UNKNOWN_PATH}"))
        inputs = []
        # All paths are in one directory, so they are ordered like the names. Bytes are compared,
        # because a str with lone surrogates has another order.
        found = self._input_paths(derivation, reasons)
        if refs is not None:
            refs.update(self._made_by_steps(found))
        paths = sorted(found.keys() - (refs or ()), key=to_bytes)
        for node in map(self._nodes.__getitem__, paths):
            if isinstance(node, Reason):
                reasons.append(node)
            else:
                inputs.append(node)
        if reasons:
            raise DerivationError(derivation.name, reasons)
        try:
            request = assemble_request(
                command_args=(derivation.builder, *command.arguments),
                outputs=sorted(outputs),
                environment_vars=sorted({**self._environment, **command.environment}.items()),
                inputs=inputs,
                system=derivation.system if self._system is None else self._system,
                min_memory=self._min_memory,
                available_ro_paths=self._host_paths(command.host_paths),
            )
        except UnicodeError:
            raise DerivationError(derivation.name, self._not_unicode(derivation)) from None
        self.omitted.update(command.omitted)
        return request, command.files

    def _host_paths(self, wanted: Sequence[str]) -> list[str]:
        """Return the sorted paths of the host, including those that a derivation requires."""
        new = set(wanted).difference(self._available_ro_paths)
        return sorted([*self._available_ro_paths, *new]) if new else self._available_ro_paths

    def _not_unicode(self, derivation: Derivation) -> list[Reason]:
        """Return a reason for each string that is not UTF-8."""
        strings = {
            "system": derivation.system if self._system is None else self._system,
            "builder": derivation.builder,
            **{f"argument {i}": one for i, one in enumerate(derivation.arguments)},
            **{f"output {to_bytes(name)!r}": one.path for name, one in derivation.outputs.items()},
            **{f"variable {to_bytes(one)!r}": one for one in derivation.environment},
            **{f"path {i} of the host": one for i, one in enumerate(self._available_ro_paths)},
        }
        return [
            Reason(Kind.NOT_REPRESENTABLE, f"{place}: expected UTF-8, found {to_bytes(string)!r}")
            for place, string in strings.items()
            if any("\ud800" <= char <= "\udfff" for char in string)
        ]

    def _in_schema(
        self, request: BuildRequest, files: Mapping[str, bytes], derivation: Derivation
    ) -> BuildRequest | LaterBuildRequest:
        if self._schema is Schema.TVIX_BUILD_V1:
            return request
        try:
            later = to_later(request, network_access=is_fixed(derivation))
        except NotRepresentableError as error:
            reasons = [Reason(Kind.NOT_REPRESENTABLE, str(one)) for one in error.reasons]
            raise DerivationError(derivation.name, reasons) from error
        for path, contents in sorted(files.items()):
            later.additional_files.add(path=path, contents=contents)
        return later

    def _made_by_steps(self, paths: Mapping[str, str | None]) -> Iterator[tuple[str, str]]:
        """Yield the paths of inputs that derivations make, with those of the derivations."""
        for path, maker in paths.items():
            derivation = None if maker is None else self._derivations[maker]
            if maker and isinstance(derivation, Derivation) and not is_part_of_nix(derivation):
                yield path, maker

    def _input_paths(self, derivation: Derivation, reasons: list[str]) -> Mapping[str, str | None]:
        """Return the distinct store paths of all inputs, as in `_Uses`."""
        own = self._find_uses(derivation)
        reasons += own.reasons
        if not self._closure:
            return own.paths
        paths = dict(own.paths)
        seen = dict(own.derivations)
        waiting = list(seen.items())
        while waiting:
            path, one = waiting.pop()
            uses = self._uses.get(path)
            if uses is None:
                uses = self._uses[path] = self._find_uses(one)
            paths.update(uses.paths)
            reasons += [Reason(one.kind, f"{path}: {one}") for one in uses.reasons]
            for path, one in uses.derivations.items():
                if path not in seen:
                    seen[path] = one
                    waiting.append((path, one))
        return paths

    def _find_uses(self, derivation: Derivation) -> _Uses:
        paths: dict[str, str | None] = dict.fromkeys(derivation.input_sources)
        reasons: list[Reason] = []
        derivations = {}
        for path, names in derivation.input_derivations.items():
            used = self._derivations[path]
            if isinstance(used, Reason):
                reasons.append(used)
                continue
            derivations[path] = used
            for name in names:
                output = used.outputs.get(name)
                if output is None:
                    words = f"{path} has no output {name}"
                    reasons.append(Reason(Kind.MISSING_DERIVATION, words))
                elif not output.path:
                    words = f"output {name} of {path}: {_UNKNOWN_PATH}"
                    reasons.append(Reason(Kind.UNKNOWN_PATH, words))
                else:
                    paths[output.path] = path
        return _Uses(paths, reasons, derivations)


def is_part_of_nix(derivation: Derivation) -> bool:
    """Return whether the builder of a derivation is part of Nix, such as `builtin:fetchurl`."""
    return derivation.builder.startswith("builtin:")


def _find_derivation(look_up: Callable[[str], Derivation | None], path: str) -> Derivation | Reason:
    try:
        derivation = look_up(path)
    except DerivationError as error:
        return Reason(Kind.MISSING_DERIVATION, f"input derivation {error}")
    if derivation is None:
        words = f"missing input derivation {path}"
        return Reason(Kind.MISSING_DERIVATION, words)
    return derivation


def _find_node(look_up: Callable[[str], Node | None], path: str) -> Node | Reason:
    if not path.startswith(STORE):
        return Reason(Kind.INVALID, f"input: expected a path in {STORE}, found {path!r}")
    try:
        node = look_up(path)
    except (Error, OSError) as error:
        return Reason(Kind.UNREADABLE, f"input {path}: {error}")
    if node is None:
        words = f"missing node for the input {path}"
        return Reason(Kind.MISSING_NODE, words)
    member = node.WhichOneof("node")
    name = getattr(node, member).name if member else b""
    if name != to_bytes(path.removeprefix(STORE)):
        expected = f"expected a node with the name of the input {path}"
        return Reason(Kind.MISSING_NODE, f"{expected}, found the name {to_str(name)!r}")
    return node


def find_cycles(
    derivations: Iterable[Derivation], look_up: Callable[[str], Derivation | None]
) -> dict[str, tuple[str, ...]]:
    """Find the derivations that can never be built, because they depend on a cycle.

    Args:
        derivations: the derivations to start from, each with its path.
        look_up: returns an input derivation by path. Unknown and unreadable derivations are treated
            as derivations without inputs.

    Returns:
        The path of each such derivation, and the paths of a cycle. The first path of the cycle is
        repeated at the end.
    """
    cycles: dict[str, tuple[str, ...]] = {}
    done: set[str] = set()

    def inputs(derivation: Derivation | None) -> Iterator[str]:
        return iter(derivation.input_derivations if derivation else ())

    for derivation in derivations:
        above = {} if derivation.path in done else {derivation.path: inputs(derivation)}
        while above:
            path, waiting = next(reversed(above.items()))
            for one in waiting:
                if one in above:
                    cycles.setdefault(path, cycle_of(above, one, cycles))
                elif one in cycles:
                    cycles.setdefault(path, cycles[one])
                elif one not in done:
                    try:
                        above[one] = inputs(look_up(one))
                    except DerivationError:
                        done.add(one)
                        continue
                    break
            else:
                done.add(path)
                del above[path]
                if path in cycles and above:
                    cycles.setdefault(next(reversed(above)), cycles[path])
    return cycles


def cycle_of(
    above: dict[str, Any], first: str, cycles: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    """Return the cycle of the last path in `above`, which depends on `first`: a known cycle, or the
    paths from `first` to the last one. Each path is visited once only."""
    members = [first]
    for path in reversed(above):
        if path in cycles:
            return cycles[path]
        members.append(path)
        if path == first:
            break
    return tuple(reversed(members))


_CYCLE_LIMIT = 8
"""The number of derivations of a cycle that an error shows."""


def show_cycle(cycle: tuple[str, ...]) -> str:
    """Return a cycle as text. A long cycle is shortened, because many derivations report it."""
    if len(cycle) <= _CYCLE_LIMIT:
        return " <- ".join(cycle)
    first = " <- ".join(cycle[:_CYCLE_LIMIT])
    return f"{first} <- … <- {cycle[-1]} ({len(cycle) - 1:,} derivations)"


def invalid_request(violations: Iterable[Violation]) -> list[Reason]:
    """Return the violations of a request as reasons."""
    return [Reason(Kind.INVALID_REQUEST, str(one)) for one in violations]


_UNKNOWN_PATH = "the path is unknown before the build"


_PART_OF_NIX = (
    "builder: expected a program, found {!r}, which is part of Nix and not a program; build the "
    "derivation with Nix, and pass the nodes of its outputs"
)


def _function(lookup: Lookup[Found]) -> Callable[[str], Found | None]:
    return lookup.get if isinstance(lookup, Mapping) else lookup
