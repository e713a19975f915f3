# SPDX-License-Identifier: MIT
"""Makes plans from derivations."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from tvix_build._core.check import check
from tvix_build._core.report import Kind, Schema, SchemaLike
from tvix_build._core.varint import varint
from tvix_build.nix import Derivation, DerivationDirectory, DerivationError, Lookup
from tvix_build.nix.aterm import to_bytes
from tvix_build.nix.derivation import STORE
from tvix_build.nix.reasons import Kind as ReasonKind
from tvix_build.nix.reasons import Reason
from tvix_build.nix.requests import (
    RequestMaker,
    cycle_of,
    invalid_request,
    is_part_of_nix,
    show_cycle,
)
from tvix_build.plan.wire import make_plan

if TYPE_CHECKING:
    from tvix.castore.protos.castore_pb2 import Node
    from tvix_build.plan.v1.plan_pb2 import Plan

# Tags of the fields of a step and of a ref; those of digests with the length.
_REQUEST, _REF, _SCHEMA = b"\x0a", b"\x12", b"\x1a"
_REF_STEP, _REF_OUTPUT = b"\x0a\x20", b"\x12"


def from_derivations(
    paths: Iterable[str | os.PathLike[str]],
    *,
    nodes: Lookup[Node],
    store: str | os.PathLike[str] | None = None,
    closure: bool = False,
    cores: int = 0,
    system: str | None = None,
    schema: SchemaLike = Schema.TVIX_BUILD_V1,
) -> Plan:
    """Return the plan of derivations: a step for each of them and for each derivation that they
    need. The roots are the given derivations.

    An input derivation whose builder is part of Nix, such as `builtin:fetchurl`, has no step; its
    outputs are inputs like sources.

    Args:
        paths: the .drv files.
        nodes: the castore nodes of sources by store path: a mapping, or a function that returns
            None for an unknown path.
        store: the directory of input derivations; by default, the directories of the files.
        closure: whether the inputs of a step include the inputs of input derivations, recursively.
        cores: the value of NIX_BUILD_CORES; 0 means all cores of the builder.
        system: the system of the requests; by default the systems of the derivations.
        schema: the schema of the requests.

    Returns:
        The canonical message.

    Raises:
        DerivationError: for the first derivation that is rejected, with all reasons: as
            `nix.to_build_request`, or because its inputs form a cycle.
        ValueError: if the schema is unknown, or there are no paths.
    """
    from tvix_build.plan.v1.plan_pb2 import Plan

    files = [os.fspath(path) for path in paths]
    if not files:
        raise ValueError("expected derivations, found none")
    places = [store] if store is not None else dict.fromkeys(map(os.path.dirname, files))
    directory = DerivationDirectory(*(place or "." for place in places))
    schema = Schema(schema)
    maker = RequestMaker(
        nodes, directory, closure=closure, cores=cores, system=system, schema=schema
    )
    plan = PlanMaker(maker, directory, schema)
    plan.add(map(directory.read, files))
    for path, reasons in plan.rejected.items():
        if reasons:
            raise DerivationError(path, reasons)
    return Plan.FromString(b"".join(plan.encode()))


class PlanMaker:
    """Makes a plan from derivations. It keeps the steps, which are canonical. Of a derivation whose
    step is made, it keeps neither the arguments nor the environment.

    Attributes:
        roots: the digests of the steps of the given derivations.
        made: the digest of the step of each derivation, by store path.
        rejected: the reasons why derivations have no step, by store path: none if only derivations
            that they need are rejected.
    """

    def __init__(
        self, maker: RequestMaker, derivations: DerivationDirectory, schema: Schema
    ) -> None:
        self._maker = maker
        self._derivations = derivations
        self._schema = _SCHEMA + _sized(schema.value.encode())
        # The outputs of later schemas are paths below the build root.
        self._prefix = b"" if schema is Schema.TVIX_BUILD_V1 else STORE[1:].encode()
        self._steps: dict[bytes, tuple[bytes, tuple[bytes, ...]]] = {}
        # The derivations that depend on a cycle, by store path, with the cycle.
        self._cycles: dict[str, tuple[str, ...]] = {}
        # Encoded refs, by store path and derivation.
        self._refs: dict[tuple[str, str], bytes] = {}
        self.roots: set[bytes] = set()
        self.made: dict[str, bytes] = {}
        self.rejected: dict[str, list[str]] = {}

    def add(self, roots: Iterable[Derivation], on_step: Callable[[], object] | None = None) -> None:
        """Add the steps of derivations and of those that they need.

        Args:
            roots: parsed derivations of the directory, each with its path. Each is taken after the
                steps of those before it are made.
            on_step: called after each derivation.
        """
        for derivation in roots:
            for one in self._in_order(derivation):
                self._add(one)
                self._derivations.forget_command(one.path)
                if on_step is not None:
                    on_step()
            if derivation.path in self.made:
                self.roots.add(self.made[derivation.path])

    def encode(self) -> Iterator[bytes]:
        """Yield the canonical plan of the derivations that are not rejected, in pieces."""
        steps = (self._steps[digest][0] for digest in sorted(self.reached()))
        return make_plan(steps, sorted(self.roots))

    def reached(self) -> set[bytes]:
        """Return the digests of the steps that roots need: not of those that only rejected
        derivations need."""
        reached = set(self.roots)
        waiting = list(reached)
        while waiting:
            _, needed = self._steps[waiting.pop()]
            new = set(needed) - reached
            reached |= new
            waiting += new
        return reached

    def _is_done(self, path: str) -> bool:
        return path in self.made or path in self.rejected

    def _in_order(self, root: Derivation) -> Iterator[Derivation]:
        """Yield the derivations that are not done and that a derivation needs, itself last, each
        after those that it needs."""
        if self._is_done(root.path):
            return
        above: dict[str, object] = {root.path: None}
        visits = [(root, self._needed(root, above))]
        while visits:
            derivation, needed = visits[-1]
            one = next(needed, None)
            if one is not None:
                above[one.path] = None
                visits.append((one, self._needed(one, above)))
            else:
                visits.pop()
                del above[derivation.path]
                yield derivation

    def _needed(self, derivation: Derivation, above: dict[str, object]) -> Iterator[Derivation]:
        """Yield the input derivations that are not done, can be read and are to have steps, and
        find cycles. `above` has the derivations that are waiting for their inputs."""
        for path in derivation.input_derivations:
            if path in above:
                self._cycles.setdefault(derivation.path, cycle_of(above, path, self._cycles))
                continue
            one = None if self._is_done(path) else self._derivations.get(path)
            if one is not None and not is_part_of_nix(one):
                yield one
            if path in self._cycles:
                self._cycles.setdefault(derivation.path, self._cycles[path])

    def _add(self, derivation: Derivation) -> None:
        if cycle := self._cycles.get(derivation.path):
            words = f"the inputs form a cycle: {show_cycle(cycle)}"
            self.rejected[derivation.path] = [Reason(ReasonKind.CYCLE, words)]
            return
        try:
            request, refs = self._maker.step(derivation)
        except DerivationError as error:
            self.rejected[derivation.path] = list(error.reasons)
            return
        if any(path not in self.made for path in refs.values()):
            self.rejected[derivation.path] = []
            return
        step = self._encode_step(request.SerializeToString(), refs)
        report = check(step, kind=Kind.STEP)
        if not report.canonical or report.digest is None:
            self.rejected[derivation.path] = list(invalid_request(report.violations))
            return
        needed = tuple({self.made[path] for path in refs.values()})
        self._steps[report.digest] = step, needed
        self.made[derivation.path] = report.digest

    def _encode_step(self, request: bytes, refs: Mapping[str, str]) -> bytes:
        pieces = [_REQUEST, _sized(request)]
        for path in sorted(refs, key=to_bytes):
            ref = path, refs[path]
            if ref not in self._refs:
                self._refs[ref] = self._encode_ref(*ref)
            pieces.append(self._refs[ref])
        return b"".join((*pieces, self._schema))

    def _encode_ref(self, path: str, maker: str) -> bytes:
        output = self._prefix + to_bytes(path.removeprefix(STORE))
        return _REF + _sized(_REF_STEP + self.made[maker] + _REF_OUTPUT + _sized(output))


def _sized(content: bytes) -> bytes:
    return varint(len(content)) + content
