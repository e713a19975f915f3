# SPDX-License-Identifier: MIT
"""Converts build requests between schemas.

A request of tvix.build.v1 describes a Nix build. Requests of the later schemas, which are alike,
can describe other builds, too: `to_later` writes Nix builds, and `to_first` rejects all others.
Both take and return valid requests with sorted lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from google.protobuf.message import Message

from tvix_build._core.batch import serialized, type_of
from tvix_build._core.check import canonicalize, validate
from tvix_build._core.names import publish
from tvix_build._core.report import (
    Kind,
    NotRepresentableError,
    Reason,
    Schema,
    SchemaLike,
)

if TYPE_CHECKING:
    from snix.build.protos import build_pb2 as later_pb2
    from snix.castore.protos import castore_pb2 as later_castore_pb2
    from tvix.build.protos import build_pb2
    from tvix.castore.protos import castore_pb2
    from tvix_build._core.ranges import BytesLike
    from tvix_build._core.report import SnixSchema, TvixSchema

BUILD = "build"
STORE = "nix/store"

_SCRATCH_PATHS = [BUILD, STORE]
_HASH_PART = re.compile(rb"([0-9a-df-np-sv-z]{32})-.", re.DOTALL)
_FIELD = re.compile(r"(\w+)(?:\[(\d+)\])?")
_NAME_SIZE = 255  # bytes of a path component
_SHOWN = 80  # characters of a value that a reason shows
_FIRST = Schema.TVIX_BUILD_V1


@overload
def convert(
    request: BytesLike,
    *,
    to: SchemaLike,
    schema: SchemaLike | None = None,
    network_access: bool = False,
) -> bytes: ...
@overload
def convert(
    request: Message,
    *,
    to: TvixSchema,
    schema: SchemaLike | None = None,
    network_access: bool = False,
) -> build_pb2.BuildRequest: ...
@overload
def convert(
    request: Message,
    *,
    to: SnixSchema,
    schema: SchemaLike | None = None,
    network_access: bool = False,
) -> later_pb2.BuildRequest: ...
@overload
def convert(
    request: Message,
    *,
    to: SchemaLike,
    schema: SchemaLike | None = None,
    network_access: bool = False,
) -> build_pb2.BuildRequest | later_pb2.BuildRequest: ...
def convert(
    request: BytesLike | Message,
    *,
    to: SchemaLike,
    schema: SchemaLike | None = None,
    network_access: bool = False,
) -> bytes | build_pb2.BuildRequest | later_pb2.BuildRequest:
    """Convert a valid BuildRequest to another schema, as described in docs/translation.md.
    Converting it back returns the canonical request.

    Args:
        request: a protobuf message, or the bytes of one.
        to: the new schema.
        schema: the present schema; by default the schema of the protobuf message, or tvix.build.v1
            for bytes.
        network_access: whether the build may use the network. tvix.build.v1 has no field for this:
            a request converted from tvix.build.v1 gets this value, and a request converted to
            tvix.build.v1 must have it.

    Returns:
        The canonical request in the schema `to`, as a message if the request is a message, and as
        bytes if the request is bytes.

    Raises:
        ValidationError: with all violations, if the request is invalid. Nothing is repaired, not
            even the order of lists.
        NotRepresentableError: with all reasons, if the other schema cannot represent the request.
        TypeError: if the request is neither bytes-like nor a BuildRequest of the schema, or is a
            message and `to` is tvix.build.v1@2024, which has no Python module.
        ValueError: if a schema is unknown, or `network_access` is true although not exactly one of
            the schemas is tvix.build.v1.
    """
    found = type_of(request, Kind.BUILD_REQUEST, schema).schema
    target = Schema(to)
    check_network_access(found, target, network_access)
    if isinstance(request, Message) and target is Schema.TVIX_BUILD_V1_2024:
        raise TypeError(
            f"expected bytes to convert to {target}, which has no Python module, found a message "
            f"{request.DESCRIPTOR.full_name}: pass request.SerializeToString()"
        )
    data = bytes(serialized(request))
    validate(data, schema=found)
    translated = translate(data, found, target, network_access)
    return request_of(translated, target) if isinstance(request, Message) else translated


def request_of(data: bytes, schema: Schema) -> build_pb2.BuildRequest | later_pb2.BuildRequest:
    """Parse a serialized request of tvix.build.v1 or snix.build.v1."""
    if schema is _FIRST:
        from tvix.build.protos import build_pb2

        return build_pb2.BuildRequest.FromString(data)
    from snix.build.protos import build_pb2 as later_pb2

    return later_pb2.BuildRequest.FromString(data)


def check_network_access(schema: Schema, target: Schema, network_access: bool) -> None:
    """Raise a ValueError if network_access is true, and both schemas have the field or neither."""
    if network_access and not _differ(schema, target):
        raise ValueError(
            f"network_access is for conversions from or to {_FIRST.value} only, found a conversion "
            f"from {schema.value} to {target.value}"
        )


def translate(data: bytes, schema: Schema, target: Schema, network_access: bool) -> bytes:
    """Convert valid bytes, or raise NotRepresentableError."""
    if not _differ(schema, target):
        return canonicalize(data, schema=target)
    request: Any = request_of(data, schema)
    translated: Message
    if target is _FIRST:
        translated = to_first(request, network_access)
    else:
        translated = to_later(request, network_access)
    return translated.SerializeToString()


def _differ(schema: Schema, target: Schema) -> bool:
    """Return whether requests of the two schemas have different fields."""
    return (schema is _FIRST) != (target is _FIRST)


def to_later(request: build_pb2.BuildRequest, network_access: bool) -> later_pb2.BuildRequest:
    """Convert a request of tvix.build.v1 to the later schemas.

    Raises:
        NotRepresentableError: if it has no constraints, or a name has no hash.
    """
    needles, reasons = _needles(dict(enumerate(request.outputs)), request.inputs)
    if not request.HasField("constraints"):
        reasons.append(Reason("constraints", "expected constraints, found none"))
    _refuse(request, reasons)
    return with_later_fields(
        request,
        {"network_access": network_access, "provide_bin_sh": True},
        working_dir=BUILD,
        scratch_paths=_SCRATCH_PATHS,
        inputs_dir=STORE,
        outputs=[f"{STORE}/{name}" for name in request.outputs],
        refscan_needles=needles,
    )


def with_later_fields(
    request: build_pb2.BuildRequest,
    constraints: Mapping[str, bool],
    *,
    outputs: Iterable[str],
    **fields: Any,
) -> later_pb2.BuildRequest:
    """Return a request of the later schemas with the fields of a request of tvix.build.v1, except
    for the outputs, and with the given fields and constraints of the later schemas."""
    from snix.build.protos import build_pb2 as later_pb2
    from snix.castore.protos import castore_pb2 as later_castore_pb2

    entry, variable = later_castore_pb2.Entry.FromString, later_pb2.BuildRequest.EnvVar
    first = request.constraints
    return later_pb2.BuildRequest(
        inputs=[entry(node.SerializeToString()) for node in request.inputs],
        command_args=request.command_args,
        outputs=outputs,
        environment_vars=[variable(key=v.key, value=v.value) for v in request.environment_vars],
        constraints=later_pb2.BuildRequest.BuildConstraints(
            system=first.system,
            min_memory=first.min_memory,
            available_ro_paths=first.available_ro_paths,
            **constraints,
        )
        if request.HasField("constraints") or any(constraints.values())
        else None,
        **fields,
    )


def to_first(request: later_pb2.BuildRequest, network_access: bool) -> build_pb2.BuildRequest:
    """Convert a request of the later schemas to tvix.build.v1.

    Raises:
        NotRepresentableError: if `to_later` does not return such a request.
    """
    from tvix.build.protos import build_pb2
    from tvix.castore.protos import castore_pb2

    constraints = request.constraints
    form = [
        ("working_dir", BUILD, request.working_dir),
        ("scratch_paths", _SCRATCH_PATHS, list(request.scratch_paths)),
        ("inputs_dir", STORE, request.inputs_dir),
        ("constraints.network_access", network_access, constraints.network_access),
        ("constraints.provide_bin_sh", True, constraints.provide_bin_sh),
        ("additional_files", [], [file.path for file in request.additional_files]),
    ]
    reasons = _paths_in_store(constraints.available_ro_paths)
    reasons += [_unequal(*one) for one in form if one[1] != one[2]]
    outputs = _names_in_store(request.outputs, reasons)
    reasons += _outputs_that_are_inputs(outputs, request.inputs)
    needles, nameless = _needles(outputs, request.inputs)
    reasons += nameless
    if len(outputs) == len(request.outputs) and not nameless:
        reasons += _compare_needles(needles, request.refscan_needles)
    _refuse(request, reasons)
    node, variable = castore_pb2.Node.FromString, build_pb2.BuildRequest.EnvVar
    return build_pb2.BuildRequest(
        command_args=request.command_args,
        outputs=outputs.values(),
        environment_vars=[variable(key=v.key, value=v.value) for v in request.environment_vars],
        inputs=[node(entry.SerializeToString()) for entry in request.inputs],
        constraints=build_pb2.BuildRequest.BuildConstraints(
            system=constraints.system,
            min_memory=constraints.min_memory,
            available_ro_paths=constraints.available_ro_paths,
        ),
    )


def _paths_in_store(paths: Iterable[str]) -> list[Reason]:
    """Return a reason for each path of the host that is in the store."""
    return [
        Reason(
            f"constraints.available_ro_paths[{i}]",
            f"expected a path outside of /{STORE}, found {_shown(path)}",
        )
        for i, path in enumerate(paths)
        if f"{path}/".startswith(f"/{STORE}/")
    ]


def _names_in_store(paths: Iterable[str], reasons: list[Reason]) -> dict[int, str]:
    """Return the names of the outputs in the store, by index, and add reasons for the others."""
    names = {}
    for i, path in enumerate(paths):
        name = path.removeprefix(f"{STORE}/")
        if name == path or "/" in name or len(name.encode()) > _NAME_SIZE:
            wanted = f"{STORE}/ and a name of at most {_NAME_SIZE} bytes"
            reasons.append(Reason(f"outputs[{i}]", f"expected {wanted}, found {_shown(path)}"))
        else:
            names[i] = name
    return names


def _outputs_that_are_inputs(
    outputs: Mapping[int, str], inputs: Iterable[later_castore_pb2.Entry]
) -> list[Reason]:
    """Return a reason for each output that has the name of an input."""
    names = {_named(entry)[1] for entry in inputs}
    return [
        Reason(f"outputs[{i}]", f"an input has the same name, {_shown(name)}")
        for i, name in outputs.items()
        if name.encode() in names
    ]


def _needles(
    outputs: Mapping[int, str],
    inputs: Iterable[castore_pb2.Node | later_castore_pb2.Entry],
) -> tuple[list[str], list[Reason]]:
    """Return the hashes in the names, and a reason for each name without a hash."""
    names = [(f"outputs[{i}]", name.encode()) for i, name in outputs.items()]
    for i, node in enumerate(inputs):
        member, name = _named(node)
        names.append((f"inputs[{i}].{member}.name", name))
    needles, reasons = [], []
    for path, name in names:
        match = _HASH_PART.match(name)
        if match:
            needles.append(match[1].decode())
        else:
            found = _shown(name.decode(errors="backslashreplace"))
            wanted = "a name as in a store path: a hash of 32 characters, '-' and more"
            reasons.append(Reason(path, f"expected {wanted}, found {found}"))
    return needles, reasons


def _named(node: castore_pb2.Node | later_castore_pb2.Entry) -> tuple[str, bytes]:
    """Return the member of the oneof that is set, and the name in it."""
    # The two message types have the same members.
    ((member, value),) = node.ListFields()
    return member.name, value.name


def _compare_needles(wanted: Sequence[str], found: Sequence[str]) -> list[Reason]:
    if len(wanted) != len(found):
        what = f"{len(wanted)} needles, one per output and input"
        return [Reason("refscan_needles", f"expected {what}, found {len(found)}")]
    return [
        _unequal(f"refscan_needles[{i}]", wanted[i], found[i])
        for i in range(len(wanted))
        if wanted[i] != found[i]
    ]


def _unequal(path: str, wanted: object, found: object) -> Reason:
    return Reason(path, f"expected {_shown(wanted)}, found {_shown(found)}")


def _shown(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _refuse(request: Message, reasons: Iterable[Reason]) -> None:
    """Raise NotRepresentableError if there are reasons."""
    fields = request.DESCRIPTOR.fields_by_name

    def place(reason: Reason) -> tuple[int, int]:
        name, index = _FIELD.findall(reason.path)[0]
        return fields[name].number, int(index or 0)

    in_order = sorted(reasons, key=place)
    if in_order:
        raise NotRepresentableError(in_order)


publish("tvix_build", convert)
