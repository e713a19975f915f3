# SPDX-License-Identifier: MIT
"""Makes requests and nodes; what is made is canonical, or refused.

The classes of messages are imported once they are needed: that takes longer than all the rest, and
whoever has bytes or Arrow arrays does without.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, SupportsIndex

from tvix_build._core.check import canonicalize, check
from tvix_build._core.ranges import BytesLike, bytes_of
from tvix_build._core.report import ValidationError

if TYPE_CHECKING:
    from tvix.build.protos import build_pb2
    from tvix.castore.protos.castore_pb2 import Node


def directory_node(name: str | BytesLike, *, digest: BytesLike, size: SupportsIndex) -> Node:
    """A node for a directory.

    Args:
        name: one path component; a str is encoded as UTF-8.
        digest: BLAKE3 of the canonical encoding of the Directory, 32 bytes.
        size: number of elements below the directory.

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
    """A node for a regular file.

    Args:
        name: one path component; a str is encoded as UTF-8.
        digest: BLAKE3 of the contents, 32 bytes.
        size: length of the contents in bytes.
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
    """A node for a symbolic link.

    Args:
        name: one path component; a str is encoded as UTF-8.
        target: the path that the link contains, 1 to 4095 bytes; a str is encoded as UTF-8.

    Raises:
        ValidationError: if no valid message can contain the node.
        TypeError, ValueError: if a value does not fit its field.
    """
    from tvix.castore.protos import castore_pb2

    node = castore_pb2.SymlinkNode(name=_bytes(name, "name"), target=_bytes(target, "target"))
    return _valid(castore_pb2.Node(symlink=node))


def _valid(node: Node) -> Node:
    """The node, checked as the only input of a request."""
    from tvix.build.protos import build_pb2

    report = check(build_pb2.BuildRequest(command_args=["-"], inputs=[node]))
    if not report.valid:
        inside = f"inputs[0].{node.WhichOneof('node')}."
        found = [replace(one, path=one.path.removeprefix(inside)) for one in report.violations]
        raise ValidationError(found, report.violation_count)
    return node


def build_request(
    *,
    command_args: Iterable[str | BytesLike],
    outputs: Iterable[str | BytesLike] = (),
    environment_vars: Mapping[str, str | BytesLike] | Iterable[tuple[str, str | BytesLike]] = (),
    inputs: Iterable[Node] = (),
    system: str | None = None,
    min_memory: int = 0,
    available_ro_paths: Iterable[str | BytesLike] = (),
) -> build_pb2.BuildRequest:
    """A valid BuildRequest with its lists sorted, so that its serialization is canonical.

    Args:
        command_args: the command and its arguments, kept in order.
        outputs: base names inside /nix/store that the command must produce.
        environment_vars: the whole environment, as a mapping or as pairs; a str value is encoded as
            UTF-8.
        inputs: nodes visible in /nix/store during the build.
        system: Nix system that the command runs on; None for a request without constraints.
        min_memory: least memory of the host in bytes.
        available_ro_paths: host paths that the command may read.

    Raises:
        ValidationError: if a rule is violated, duplicates among them; indices in its paths are
            those of the arguments.
        TypeError, ValueError: if a value does not fit its field, such as bytes that are not UTF-8
            in a string; the error names the argument, such as `command_args[1]`.
    """
    from tvix.build.protos import build_pb2

    request = assemble_request(
        command_args=command_args,
        outputs=outputs,
        environment_vars=environment_vars,
        inputs=inputs,
        system=system,
        min_memory=min_memory,
        available_ro_paths=available_ro_paths,
    )
    return build_pb2.BuildRequest.FromString(canonicalize(request))


def assemble_request(
    *,
    command_args: Iterable[str | BytesLike],
    outputs: Iterable[str | BytesLike],
    environment_vars: Mapping[str, str | BytesLike] | Iterable[tuple[str, str | BytesLike]],
    inputs: Iterable[Node],
    system: str | None,
    min_memory: int,
    available_ro_paths: Iterable[str | BytesLike],
) -> build_pb2.BuildRequest:
    """What `build_request` makes, not checked and with its lists as they come."""
    from tvix.build.protos import build_pb2
    from tvix.castore.protos import castore_pb2

    variables = environment_vars
    pairs = variables.items() if isinstance(variables, Mapping) else variables
    paths = _strings(available_ro_paths, "available_ro_paths")
    request = build_pb2.BuildRequest(
        command_args=_strings(command_args, "command_args"),
        outputs=_strings(outputs, "outputs"),
        environment_vars=[
            _variable(pair, i) for i, pair in enumerate(_several(pairs, "environment_vars"))
        ],
        inputs=[
            _expect(node, castore_pb2.Node, f"inputs[{i}]", "a tvix.castore.v1.Node")
            for i, node in enumerate(_several(inputs, "inputs"))
        ],
    )
    least = _uint64(min_memory, "min_memory")
    if system is not None or least or paths:
        request.constraints.SetInParent()
        request.constraints.system = "" if system is None else _string(system, "system")
        request.constraints.min_memory = least
        request.constraints.available_ro_paths.extend(paths)
    return request


def _variable(pair: Any, index: int) -> dict[str, Any]:
    """The fields of a variable, the argument's element with this index."""
    try:
        if isinstance(pair, (str, bytes)):
            raise TypeError
        key, value = pair
    except (TypeError, ValueError):
        found = type(pair).__name__
        raise TypeError(f"environment_vars[{index}]: expected a pair, found {found}") from None
    key = _string(key, f"environment_vars[{index}]")
    return {"key": key, "value": _bytes(value, f"environment_vars[{key!r}]")}


def _bytes(value: str | BytesLike, argument: str) -> bytes:
    """The bytes of a value; an error names the argument."""
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
    """A value as text that has an encoding in UTF-8."""
    try:
        if not isinstance(value, str):
            return str(_bytes(value, argument), "utf-8")
        if not value.isascii():
            value.encode()
    except UnicodeError as error:
        raise UnicodeError(f"{argument}: expected UTF-8, found {value!r:.100}: {error}") from None
    return value


def _strings(values: Iterable[str | BytesLike], argument: str) -> list[str]:
    several = _several(values, argument)
    return [_string(value, f"{argument}[{i}]") for i, value in enumerate(several)]


def _several(values: Any, argument: str) -> Iterable[Any]:
    if isinstance(values, (str, bytes, bytearray, memoryview)) or not hasattr(values, "__iter__"):
        found = type(values).__name__
        raise TypeError(f"{argument}: expected an iterable of values, found {found}")
    several: Iterable[Any] = values
    return several


def _uint64(value: SupportsIndex, argument: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        found = type(value).__name__
        raise TypeError(f"{argument}: expected an integer, found {found}") from None
    if not 0 <= number < 1 << 64:
        raise ValueError(f"{argument}: expected an integer from 0 to 2^64 - 1, found {number}")
    return number


def _expect(value: Any, wanted: type, argument: str, expected: str) -> Any:
    if isinstance(value, wanted):
        return value
    descriptor = getattr(value, "DESCRIPTOR", None)
    found = type(value).__name__ if descriptor is None else f"a message {descriptor.full_name}"
    raise TypeError(f"{argument}: expected {expected}, found {found}")
