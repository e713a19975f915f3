# SPDX-License-Identifier: MIT
"""Builds derivations, with the derivations that they need, by one builder."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from snix.build.protos.build_pb2 import BuildRequest, BuildResponse
from tvix.castore.protos.castore_pb2 import Node
from tvix_build._core.construct import symlink_node
from tvix_build._core.report import Error, Schema
from tvix_build.builders.interface import Builder, BuilderError, BuildResult, OnLog
from tvix_build.builders.output_hashes import output_hash
from tvix_build.builders.references import scan_node
from tvix_build.castore import CastoreStore
from tvix_build.nix import Derivation, DerivationDirectory, DerivationError
from tvix_build.nix.derivation import STORE
from tvix_build.nix.requests import RequestMaker
from tvix_build.nix.validation import is_fixed

__all__ = ["DerivationBuildError", "DerivationResult", "build_derivation"]

_HASH = re.compile(r"[0-9a-df-np-sv-z]{32}(?=-)")


class DerivationBuildError(BuilderError):
    """A derivation cannot be built. Its `__cause__` is the error of the builder, if it ran.

    Attributes:
        derivation: the store path of the derivation.
        reasons: why it cannot be built.
        needed_by: the store paths of the derivations that need it: a derivation with this input,
            and so on up to the derivation that was to be built.
    """

    def __init__(
        self, derivation: str, reasons: Iterable[str], needed_by: Iterable[str] = ()
    ) -> None:
        self.derivation = derivation
        self.reasons: tuple[str, ...] = tuple(reasons)
        self.needed_by: tuple[str, ...] = tuple(needed_by)
        super().__init__(derivation, self.reasons, self.needed_by)

    def __str__(self) -> str:
        needed = "".join(f"; needed by {path}" for path in self.needed_by)
        return f"{self.derivation}: {'; '.join(self.reasons)}{needed}"


@dataclass(frozen=True)
class DerivationResult:
    """A successful build of a derivation.

    Attributes:
        outputs: the castore nodes of the outputs, by the names of the outputs, such as `out`.
        closure: the castore nodes of the outputs and of all store paths to which they refer,
            directly or not, by store path.
        references: for each store path of the closure, the store paths to which it refers.
        results: the results of all builds by the store path of the derivation, in the order of the
            builds. The last is that of the derivation itself.
    """

    outputs: Mapping[str, Node]
    closure: Mapping[str, Node]
    references: Mapping[str, Sequence[str]]
    results: Mapping[str, BuildResult[BuildResponse]]


def build_derivation(
    file: str | os.PathLike[str],
    *,
    builder: Builder,
    castore: CastoreStore,
    store: str | os.PathLike[str] | None = None,
    on_start: Callable[[str], object] | None = None,
    on_log: OnLog | None = None,
) -> DerivationResult:
    """Build a derivation, after the derivations that it needs, one by one. Inputs and outputs are
    added to the castore.

    All derivations are checked before the first build. Derivations with the same request are built
    once. The inputs of a build are those of the derivation, and all store paths to which they
    refer. The references of an output are those that its build found. The references of a source
    are the store paths whose hashes are in its contents and which are in the store.

    The output of a fixed derivation is compared with its hash.

    Args:
        file: the .drv file.
        builder: the builder.
        castore: the castore of the builder.
        store: a directory such as /nix/store, with the input derivations and the sources; by
            default, the directory of the file.
        on_start: called with the store path of each derivation before it is built.
        on_log: called with the output of the commands while they run.

    Raises:
        DerivationError: if the file cannot be read or is not a derivation.
        DerivationBuildError: if a derivation cannot be built. Then no further derivation is built.
    """
    directory = os.fspath(store) if store is not None else os.path.dirname(file) or "."
    derivations = DerivationDirectory(directory)
    root = derivations.read(file)
    graph = _Graph(root, derivations)
    sources = _Sources(directory, castore)
    order = graph.order()
    for derivation in order:
        graph.check(derivation, sources)
    run = _Run(builder, castore, derivations, sources, on_log)
    for derivation in order:
        if on_start is not None:
            on_start(derivation.path)
        try:
            run.build(derivation)
        except Error as error:
            reasons = error.reasons if isinstance(error, DerivationError) else [str(error)]
            raise graph.error(derivation, reasons) from error
    paths = {name: output.path for name, output in root.outputs.items()}
    closure = run.closure(paths.values())
    return DerivationResult(
        {name: closure[path] for name, path in paths.items()},
        closure,
        {path: run.references[path] for path in closure},
        run.results,
    )


class _Graph:
    """A derivation and all derivations that it needs."""

    def __init__(self, root: Derivation, derivations: DerivationDirectory) -> None:
        self._root = root
        self._maker = RequestMaker(_placeholder, derivations, schema=Schema.SNIX_BUILD_V1)
        self._found = {root.path: root}
        self._needed_by: dict[str, str] = {}
        waiting = [root]
        # Breadth first, so that errors name few derivations.
        for derivation in waiting:
            for path in derivation.input_derivations:
                found = derivations.get(path)  # `check` reports what is missing or invalid.
                if found is not None and path not in self._found:
                    self._found[path] = found
                    self._needed_by[path] = derivation.path
                    waiting.append(found)

    def order(self) -> list[Derivation]:
        """Return the derivations, each after its inputs.

        Raises:
            DerivationBuildError: if there is no such order.
        """
        inputs = {
            path: [one for one in derivation.input_derivations if one in self._found]
            for path, derivation in self._found.items()
        }
        try:
            return [self._found[path] for path in TopologicalSorter(inputs).static_order()]
        except CycleError as error:
            cycle = " <- ".join(reversed(error.args[1]))
            reason = f"the inputs form a cycle: {cycle}"
            raise self.error(self._found[error.args[1][-1]], [reason]) from None

    def check(self, derivation: Derivation, sources: _Sources) -> None:
        """Check that a derivation has a request, whatever the outputs of its inputs are.

        Raises:
            DerivationBuildError: with all reasons.
        """
        reasons = [
            f"input {path}: expected a file in {sources.directory}, found none"
            for path in derivation.input_sources
            if not sources.has(path)
        ]
        try:
            self._maker.valid_request(derivation)
        except DerivationError as error:
            reasons += error.reasons
        if reasons:
            raise self.error(derivation, reasons)

    def error(self, derivation: Derivation, reasons: Iterable[str]) -> DerivationBuildError:
        """Return the error of a derivation."""
        return DerivationBuildError(derivation.path, reasons, self._above(derivation.path))

    def _above(self, path: str) -> Iterator[str]:
        while path != self._root.path:
            path = self._needed_by[path]
            yield path


def _placeholder(path: str) -> Node:
    """Return a node that stands for an output that is not built yet."""
    return symlink_node(os.fsencode(path.removeprefix(STORE)), target="placeholder")


class _Sources:
    """The sources in a directory such as /nix/store."""

    def __init__(self, directory: str, castore: CastoreStore) -> None:
        self.directory = directory
        self._castore = castore
        # Nix makes files such as NAME.lock beside NAME: the shortest name with a hash counts.
        names = sorted(os.listdir(directory), key=len, reverse=True)
        self._names = {match[0]: name for name in names if (match := _HASH.match(name))}

    def has(self, path: str) -> bool:
        """Return whether the directory has a source."""
        name = path.removeprefix(STORE)
        return self._names.get(name[:32]) == name

    def add(self, path: str) -> tuple[Node, list[str]]:
        """Add a source to the castore. Return its node, and the store paths to which it refers.

        Raises:
            DerivationError: if the source cannot be read.
        """
        name = path.removeprefix(STORE)
        try:
            node = self._castore.ingest(os.path.join(self.directory, name))
        except (Error, OSError) as error:
            raise DerivationError(path, [f"input {path}: {error}"]) from error
        needles = list(self._names)
        found = scan_node(self._castore, node, needles)
        return node, [STORE + self._names[needles[i]] for i in found]


class _Run:
    """The builds of one call.

    Attributes:
        references: the references of each built output and of each source that was added.
        results: the results by the paths of the derivations.
    """

    def __init__(
        self,
        builder: Builder,
        castore: CastoreStore,
        derivations: DerivationDirectory,
        sources: _Sources,
        on_log: OnLog | None,
    ) -> None:
        self._builder = builder
        self._castore = castore
        self._derivations = derivations
        self._sources = sources
        self._on_log = on_log
        self._nodes: dict[str, Node] = {}
        self._maker = RequestMaker(self._nodes, derivations, schema=Schema.SNIX_BUILD_V1)
        self._by_request: dict[bytes, BuildResult[Any]] = {}
        self.references: dict[str, Sequence[str]] = {}
        self.results: dict[str, BuildResult[BuildResponse]] = {}

    def build(self, derivation: Derivation) -> None:
        """Build a derivation whose input derivations are built."""
        inputs = self.closure(
            [
                *derivation.input_sources,
                *(
                    self._derivations[path].outputs[name].path
                    for path, names in derivation.input_derivations.items()
                    for name in names
                ),
            ]
        )
        request = self._maker.valid_request(replace(derivation, input_sources=tuple(inputs)))
        assert isinstance(request, BuildRequest)
        data = request.SerializeToString(deterministic=True)
        result = self._by_request.get(data)
        if result is None:
            result = self._builder.build(request, on_log=self._on_log)
            self._by_request[data] = result
        self._check_hash(derivation, result.outputs)
        self._add_outputs(request, result)
        self.results[derivation.path] = result

    def closure(self, paths: Iterable[str]) -> dict[str, Node]:
        """Return the nodes of store paths and of all to which they refer. Add the sources among
        them to the castore."""
        found: dict[str, Node] = {}
        waiting = list(paths)
        while waiting:
            path = waiting.pop()
            if path in found:
                continue
            if path not in self._nodes:
                self._nodes[path], self.references[path] = self._sources.add(path)
            found[path] = self._nodes[path]
            waiting += self.references[path]
        return found

    def _check_hash(self, derivation: Derivation, nodes: Mapping[str, Node]) -> None:
        if not is_fixed(derivation):
            return
        ((name, output),) = derivation.outputs.items()
        try:
            found = output_hash(self._castore, nodes[output.path[1:]], output.hash_algorithm)
        except ValueError as error:
            raise DerivationError(derivation.path, [f"output {name}: {error}"]) from None
        if found != output.hash:
            reason = f"output {name}: expected the {output.hash_algorithm} hash {output.hash}"
            raise DerivationError(derivation.path, [f"{reason}, found {found}"])

    def _add_outputs(self, request: BuildRequest, result: BuildResult[BuildResponse]) -> None:
        # The needles are the hashes of these paths.
        paths = [f"/{output}" for output in request.outputs]
        for entry in request.inputs:
            ((_, member),) = entry.ListFields()
            paths.append(STORE + member.name.decode())
        for (output, node), found in zip(
            result.outputs.items(), result.response.outputs, strict=True
        ):
            self._nodes[f"/{output}"] = node
            self.references[f"/{output}"] = [paths[i] for i in found.needles]
