# SPDX-License-Identifier: MIT
"""Constructs canonical requests and nodes, and rejects invalid ones.

The protobuf modules are imported when they are needed: this is slow, and callers with bytes or
Arrow arrays do not need them.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeAlias, overload

from tvix_build._core.check import canonicalize, check
from tvix_build._core.convert import request_of, with_later_fields
from tvix_build._core.names import publish
from tvix_build._core.ranges import BytesLike, bytes_of
from tvix_build._core.report import Schema, SchemaLike, ValidationError

if TYPE_CHECKING:
    from snix.build.protos import build_pb2 as later_pb2
    from snix.castore.protos.castore_pb2 import Entry
    from tvix.build.protos import build_pb2
    from tvix.castore.protos.castore_pb2 import Node
    from tvix_build._core.report import BytesSchema, SnixSchema, TvixSchema

Strings: TypeAlias = "Iterable[str | BytesLike]"
Pairs: TypeAlias = "Mapping[str, str | BytesLike] | Iterable[tuple[str, str | BytesLike]]"


def directory_node(name: str | BytesLike, *, digest: BytesLike, size: SupportsIndex) -> Node:
    """Return the node of a directory.

    Args:
        name: the name, one path component; a str is encoded as UTF-8.
        digest: the BLAKE3 digest of the canonical encoding of the Directory, 32 bytes.
        size: the number of entries below the directory.

    Raises:
        ValidationError: if no valid message can contain the node.
        TypeError, ValueError: if a value does not fit its field, such as a negative size.
    """
    from tvix.castore.protos import castore_pb2

    node = castore_pb2.DirectoryNode(
        name=_bytes(name, "name"), digest=_digest(digest), size=_uint64(size, "size")
    )
    return _valid(castore_pb2.Node(directory=node))


def file_node(
    name: str | BytesLike, *, digest: BytesLike, size: SupportsIndex, executable: bool = False
) -> Node:
    """Return the node of a regular file.

    Args:
        name: the name, one path component; a str is encoded as UTF-8.
        digest: the BLAKE3 digest of the contents, 32 bytes.
        size: the length of the contents in bytes.
        executable: whether the file has the executable bit.

    Raises:
        ValidationError: if no valid message can contain the node.
        TypeError, ValueError: if a value does not fit its field, such as a negative size.
    """
    from tvix.castore.protos import castore_pb2

    node = castore_pb2.FileNode(
        name=_bytes(name, "name"),
        digest=_digest(digest),
        size=_uint64(size, "size"),
        executable=bool(executable),
    )
    return _valid(castore_pb2.Node(file=node))


def symlink_node(name: str | BytesLike, *, target: str | BytesLike) -> Node:
    """Return the node of a symbolic link.

    Args:
        name: the name, one path component; a str is encoded as UTF-8.
        target: the path that the link contains, 1 to 4095 bytes; a str is encoded as UTF-8.

    Raises:
        ValidationError: if no valid message can contain the node.
        TypeError, ValueError: if a value does not fit its field.
    """
    from tvix.castore.protos import castore_pb2

    node = castore_pb2.SymlinkNode(name=_bytes(name, "name"), target=_bytes(target, "target"))
    return _valid(castore_pb2.Node(symlink=node))


def _valid(node: Node) -> Node:
    """Check a node as the only input of a request, and return it."""
    from tvix.build.protos import build_pb2

    report = check(build_pb2.BuildRequest(command_args=["-"], inputs=[node]))
    if not report.valid:
        inside = f"inputs[0].{node.WhichOneof('node')}."
        found = [replace(one, path=one.path.removeprefix(inside)) for one in report.violations]
        raise ValidationError(found, report.violation_count)
    return node


@overload
def build_request(
    *,
    command_args: Strings,
    outputs: Strings = ...,
    environment_vars: Pairs = ...,
    inputs: Iterable[Node] = ...,
    system: str | None = ...,
    min_memory: int = ...,
    available_ro_paths: Strings = ...,
    schema: TvixSchema = ...,
) -> build_pb2.BuildRequest: ...
@overload
def build_request(
    *,
    command_args: Strings,
    outputs: Strings = ...,
    environment_vars: Pairs = ...,
    inputs: Iterable[Node | Entry] = ...,
    system: str | None = ...,
    min_memory: int = ...,
    available_ro_paths: Strings = ...,
    schema: SnixSchema,
    working_dir: str | BytesLike = ...,
    scratch_paths: Strings = ...,
    inputs_dir: str | BytesLike = ...,
    network_access: bool = ...,
    provide_bin_sh: bool = ...,
    additional_files: Pairs = ...,
    refscan_needles: Strings = ...,
) -> later_pb2.BuildRequest: ...
@overload
def build_request(
    *,
    command_args: Strings,
    outputs: Strings = ...,
    environment_vars: Pairs = ...,
    inputs: Iterable[Node | Entry] = ...,
    system: str | None = ...,
    min_memory: int = ...,
    available_ro_paths: Strings = ...,
    schema: BytesSchema,
    working_dir: str | BytesLike = ...,
    scratch_paths: Strings = ...,
    inputs_dir: str | BytesLike = ...,
    network_access: bool = ...,
    provide_bin_sh: bool = ...,
    additional_files: Pairs = ...,
    refscan_needles: Strings = ...,
) -> bytes: ...
@overload
def build_request(
    *,
    command_args: Strings,
    outputs: Strings = ...,
    environment_vars: Pairs = ...,
    inputs: Iterable[Node | Entry] = ...,
    system: str | None = ...,
    min_memory: int = ...,
    available_ro_paths: Strings = ...,
    schema: SchemaLike,
    working_dir: str | BytesLike = ...,
    scratch_paths: Strings = ...,
    inputs_dir: str | BytesLike = ...,
    network_access: bool = ...,
    provide_bin_sh: bool = ...,
    additional_files: Pairs = ...,
    refscan_needles: Strings = ...,
) -> build_pb2.BuildRequest | later_pb2.BuildRequest | bytes: ...
def build_request(
    *,
    command_args: Strings,
    outputs: Strings = (),
    environment_vars: Pairs = (),
    inputs: Iterable[Node | Entry] = (),
    system: str | None = None,
    min_memory: int = 0,
    available_ro_paths: Strings = (),
    schema: SchemaLike = Schema.TVIX_BUILD_V1,
    working_dir: str | BytesLike = "",
    scratch_paths: Strings = (),
    inputs_dir: str | BytesLike = "",
    network_access: bool = False,
    provide_bin_sh: bool = False,
    additional_files: Pairs = (),
    refscan_needles: Strings = (),
) -> build_pb2.BuildRequest | later_pb2.BuildRequest | bytes:
    """Return a valid BuildRequest with sorted lists, so that its serialization is canonical.

    In the later schemas, paths are relative to the root of the build, except for those of the host.
    The arguments from `working_dir` on are fields that only the later schemas have.

    Args:
        command_args: the command and its arguments, in order.
        outputs: the outputs of the command: base names in /nix/store; paths in the later schemas.
        environment_vars: the complete environment, as a mapping or as pairs; a str value is encoded
            as UTF-8.
        inputs: the nodes that are visible during the build: in /nix/store, or in `inputs_dir` in
            the later schemas.
        system: the Nix system of the command; None for a request without constraints.
        min_memory: the minimum memory of the host in bytes.
        available_ro_paths: the paths of the host that the command may read.
        schema: the schema of the request.
        working_dir: the directory in which the command starts.
        scratch_paths: paths that the command may write.
        inputs_dir: the directory of the inputs.
        network_access: whether the command may use the network.
        provide_bin_sh: whether the builder provides a shell at /bin/sh.
        additional_files: the contents of files by path, as a mapping or as pairs; str contents are
            encoded as UTF-8.
        refscan_needles: the strings that the builder searches for in the outputs, in order.

    Returns:
        A message of the schema, or canonical bytes for `tvix.build.v1@2024`, which has no Python
        module.

    Raises:
        ValidationError: if a rule is violated, for example by duplicates. Indices in paths are
            those of the arguments.
        TypeError, ValueError: if a value does not fit its field, such as bytes that are not UTF-8
            in a string, or the schema has no such field. The error names the argument, such as
            `command_args[1]`.
    """
    schema = Schema(schema)
    request = assemble_request(
        command_args=command_args,
        outputs=outputs,
        environment_vars=environment_vars,
        inputs=inputs if schema is Schema.TVIX_BUILD_V1 else _nodes(inputs),
        system=system,
        min_memory=min_memory,
        available_ro_paths=available_ro_paths,
    )
    if schema is Schema.TVIX_BUILD_V1:
        for name, value in (
            ("working_dir", working_dir),
            ("scratch_paths", scratch_paths),
            ("inputs_dir", inputs_dir),
            ("network_access", network_access),
            ("provide_bin_sh", provide_bin_sh),
            ("additional_files", additional_files),
            ("refscan_needles", refscan_needles),
        ):
            if value:
                raise ValueError(
                    f"{name}: expected a schema with this field, such as snix.build.v1, found "
                    f"{schema}"
                )
        return request_of(canonicalize(request), schema)
    later = with_later_fields(
        request,
        {"network_access": bool(network_access), "provide_bin_sh": bool(provide_bin_sh)},
        outputs=request.outputs,
        working_dir=_string(working_dir, "working_dir"),
        scratch_paths=_strings(scratch_paths, "scratch_paths"),
        inputs_dir=_string(inputs_dir, "inputs_dir"),
        additional_files=_pairs(additional_files, "additional_files", "path", "contents"),
        refscan_needles=_strings(refscan_needles, "refscan_needles"),
    )
    data = canonicalize(later.SerializeToString(), schema=schema)
    return data if schema is Schema.TVIX_BUILD_V1_2024 else request_of(data, schema)


def _nodes(inputs: Iterable[Node | Entry]) -> Iterator[Node]:
    """Yield the inputs of a request of the later schemas as nodes. An Entry is the same message."""
    from snix.castore.protos.castore_pb2 import Entry
    from tvix.castore.protos.castore_pb2 import Node

    for node in _several(inputs, "inputs"):
        is_entry = isinstance(node, Entry)
        yield Node.FromString(node.SerializeToString()) if is_entry else node


def assemble_request(
    *,
    command_args: Strings,
    outputs: Strings,
    environment_vars: Pairs,
    inputs: Iterable[Node | Entry],
    system: str | None,
    min_memory: int,
    available_ro_paths: Strings,
) -> build_pb2.BuildRequest:
    """Return the request of `build_request`, unchecked, with lists in the given order."""
    from tvix.build.protos import build_pb2
    from tvix.castore.protos import castore_pb2

    paths = _strings(available_ro_paths, "available_ro_paths")
    least = _uint64(min_memory, "min_memory")
    constraints = None
    if system is not None or least or paths:
        name = "" if system is None else _string(system, "system")
        constraints = {"system": name, "min_memory": least, "available_ro_paths": paths}
    return build_pb2.BuildRequest(
        command_args=_strings(command_args, "command_args"),
        outputs=_strings(outputs, "outputs"),
        environment_vars=_pairs(environment_vars, "environment_vars", "key", "value"),
        inputs=_messages(inputs, castore_pb2.Node, "inputs", "a tvix.castore.v1.Node"),
        constraints=constraints,
    )


def _pairs(values: Pairs, argument: str, first: str, second: str) -> list[dict[str, Any]]:
    """Return pairs of text and bytes as values of two fields. Errors name the argument."""
    pairs = list(_several(values.items() if isinstance(values, Mapping) else values, argument))
    plain = _plain_pairs(pairs)
    if plain is None:
        plain = [_pair(pair, i, argument) for i, pair in enumerate(pairs)]
    return [{first: key, second: value} for key, value in plain]


def _plain_pairs(pairs: list[Any]) -> list[tuple[str, bytes]] | None:
    """Return tuples of ASCII text and either text or bytes with their text encoded; None if a pair
    needs another conversion."""
    with suppress(TypeError, ValueError):
        if {*map(type, pairs)} <= {tuple} and "".join([key for key, _ in pairs]).isascii():
            types = {type(value) for _, value in pairs}
            if types <= {bytes}:
                return pairs
            if types == {str}:
                return [(key, value.encode()) for key, value in pairs]
    return None


def _pair(pair: Any, index: int, argument: str) -> tuple[str, bytes]:
    """Return the element of the argument with this index."""
    try:
        if isinstance(pair, (str, bytes)):
            raise TypeError
        key, value = pair
    except (TypeError, ValueError):
        found = type(pair).__name__
        raise TypeError(f"{argument}[{index}]: expected a pair, found {found}") from None
    key = _string(key, f"{argument}[{index}]")
    return key, _bytes(value, f"{argument}[{key!r}]")


def _bytes(value: str | BytesLike, argument: str) -> bytes:
    """Return the bytes of a value. Errors name the argument."""
    if isinstance(value, str):
        return _string(value, argument).encode()
    try:
        return bytes_of(value, "str or bytes")
    except TypeError as error:
        raise TypeError(f"{argument}: {error}") from None


def _digest(value: BytesLike) -> bytes:
    try:
        return bytes_of(value, "bytes")
    except TypeError as error:
        raise TypeError(f"digest: {error}") from None


def _string(value: str | BytesLike, argument: str) -> str:
    """Return a value as text that can be encoded in UTF-8."""
    try:
        if not isinstance(value, str):
            return str(_bytes(value, argument), "utf-8")
        if not value.isascii():
            value.encode()
    except UnicodeError as error:
        raise UnicodeError(f"{argument}: expected UTF-8, found {value!r:.100}: {error}") from None
    return value


def _strings(values: Iterable[str | BytesLike], argument: str) -> list[str]:
    several = list(_several(values, argument))
    with suppress(TypeError):  # An item is not a str.
        if "".join(several).isascii():
            return several
    return [_string(value, f"{argument}[{i}]") for i, value in enumerate(several)]


def _several(values: Any, argument: str) -> Iterator[Any]:
    try:
        if isinstance(values, (str, bytes, bytearray, memoryview)):
            raise TypeError
        return iter(values)
    except TypeError:
        found = type(values).__name__
        raise TypeError(f"{argument}: expected an iterable of values, found {found}") from None


def _uint64(value: SupportsIndex, argument: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        found = type(value).__name__
        raise TypeError(f"{argument}: expected an integer, found {found}") from None
    if not 0 <= number < 1 << 64:
        raise ValueError(f"{argument}: expected an integer from 0 to 2^64 - 1, found {number}")
    return number


def _messages(values: Iterable[Any], wanted: type, argument: str, expected: str) -> list[Any]:
    several = list(_several(values, argument))
    for i, value in enumerate(several):
        if not isinstance(value, wanted):
            descriptor = getattr(value, "DESCRIPTOR", None)
            name = None if descriptor is None else descriptor.full_name
            found = f"a message {name}" if name else type(value).__name__
            raise TypeError(f"{argument}[{i}]: expected {expected}, found {found}")
    return several


publish("tvix_build", build_request, directory_node, file_node, symlink_node)
