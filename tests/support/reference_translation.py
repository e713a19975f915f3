# SPDX-License-Identifier: MIT
"""The rules of docs/translation.md in plain Python on protobuf, to test `convert` against.

The functions expect valid requests. An error has the paths of all fields that prevent the
translation, in path order.
"""

from __future__ import annotations

from typing import Any

from reference_parts import ROOT, Path, name_of_member, node_name
from snix.build.protos.build_pb2 import BuildRequest as LaterRequest
from tvix.build.protos.build_pb2 import BuildRequest as FirstRequest

DIGITS = frozenset(b"0123456789abcdfghijklmnpqrsvwxyz")
STORE = "nix/store/"
FORM = {
    "working_dir": "build",
    "scratch_paths": ["build", "nix/store"],
    "inputs_dir": "nix/store",
    "additional_files": [],
}


class NoTranslationError(Exception):
    """Raised if a request has no translation. `places` are the paths of fields that prevent it."""

    def __init__(self, places: list[Path]) -> None:
        super().__init__(places)
        self.places = [path.text for path in sorted(places, key=lambda path: path.steps)]


def to_later(request: FirstRequest, network_access: bool) -> LaterRequest:
    """Return the request in the later schemas."""
    against = _inputs_without_hash(request)
    against += [
        ROOT.field(request, "outputs", i)
        for i, name in enumerate(request.outputs)
        if not _has_hash(name.encode())
    ]
    if not request.HasField("constraints"):
        against.append(ROOT.field(request, "constraints"))
    if against:
        raise NoTranslationError(against)
    return in_form(request, network_access)


def in_form(request: FirstRequest, network_access: bool) -> LaterRequest:
    """Return the request in the later schemas, without checking that it has a translation."""
    later = LaterRequest(
        working_dir="build", scratch_paths=["build", "nix/store"], inputs_dir="nix/store"
    )
    _copy(request, later)
    later.outputs.extend(STORE + name for name in request.outputs)
    later.constraints.provide_bin_sh = True
    later.constraints.network_access = network_access
    later.refscan_needles.extend(name[:32] for name in request.outputs)
    for node in request.inputs:
        later.refscan_needles.append(node_name(node)[:32].decode(errors="replace"))
    return later


def to_first(request: LaterRequest, network_access: bool) -> FirstRequest:
    """Return the request in tvix.build.v1."""
    against = [
        ROOT.field(request, name)
        for name, value in FORM.items()
        if (list(getattr(request, name)) if isinstance(value, list) else getattr(request, name))
        != value
    ]
    against += _against_constraints(request, network_access)
    nameless = _inputs_without_hash(request)
    inputs = {node_name(entry) for entry in request.inputs}
    names = []
    for i, path in enumerate(request.outputs):
        directory, name = path[: len(STORE)], path[len(STORE) :]
        is_name = directory == STORE and "/" not in name and len(name.encode()) <= 255
        if not is_name or not _has_hash(name.encode()):
            nameless.append(ROOT.field(request, "outputs", i))
        if is_name and name.encode() in inputs:
            against.append(ROOT.field(request, "outputs", i))
        names.append(name)
    against += nameless
    if not nameless:
        needles = [name[:32] for name in names]
        needles += [node_name(entry)[:32].decode() for entry in request.inputs]
        against += _differing_needles(request, needles)
    if against:
        raise NoTranslationError(against)
    first = FirstRequest(outputs=names)
    _copy(request, first)
    return first


def _has_hash(name: bytes) -> bool:
    return DIGITS.issuperset(name[:32]) and name[32:33] == b"-" and len(name) > 33


def _inputs_without_hash(request: FirstRequest | LaterRequest) -> list[Path]:
    places = []
    node: Any
    for i, node in enumerate(request.inputs):
        if not _has_hash(node_name(node)):
            member = name_of_member(node)
            assert member
            place = ROOT.field(request, "inputs", i).field(node, member)
            places.append(place.field(getattr(node, member), "name"))
    return places


def _against_constraints(request: LaterRequest, network_access: bool) -> list[Path]:
    constraints = request.constraints
    place = ROOT.field(request, "constraints")
    against = []
    if constraints.network_access is not network_access:
        against.append(place.field(constraints, "network_access"))
    if not constraints.provide_bin_sh:
        against.append(place.field(constraints, "provide_bin_sh"))
    for i, path in enumerate(constraints.available_ro_paths):
        if path.split("/")[1:3] == ["nix", "store"]:
            against.append(place.field(constraints, "available_ro_paths", i))
    return against


def _differing_needles(request: LaterRequest, wanted: list[str]) -> list[Path]:
    found = list(request.refscan_needles)
    if len(found) != len(wanted):
        return [ROOT.field(request, "refscan_needles")]
    differing = [i for i, needle in enumerate(wanted) if found[i] != needle]
    return [ROOT.field(request, "refscan_needles", i) for i in differing]


def _copy(source: Any, target: Any) -> None:
    """Copy the fields that both schemas have."""
    target.command_args.extend(source.command_args)
    for variable in source.environment_vars:
        target.environment_vars.add(key=variable.key, value=variable.value)
    for node in source.inputs:
        member = name_of_member(node)
        copied = getattr(target.inputs.add(), str(member))
        for field, value in getattr(node, str(member)).ListFields():
            setattr(copied, field.name, value)
    target.constraints.system = source.constraints.system
    target.constraints.min_memory = source.constraints.min_memory
    target.constraints.available_ro_paths.extend(source.constraints.available_ro_paths)
