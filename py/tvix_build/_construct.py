# SPDX-License-Identifier: MIT
"""Makes requests and nodes; what is made is canonical, or refused.

The classes of messages are imported once they are needed: that takes longer than all the rest, and
whoever has bytes or Arrow arrays does without.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from tvix_build._check import canonicalize

if TYPE_CHECKING:
    from tvix.build.protos import build_pb2
    from tvix.castore.protos import castore_pb2


def directory_node(name: str | bytes, digest: bytes, size: int) -> castore_pb2.Node:
    """A node for a directory.

    Args:
        name: one path component; a str is encoded as UTF-8.
        digest: BLAKE3 of the canonical encoding of the Directory, 32 bytes.
        size: number of elements below the directory.

    The values are checked with the message that the node goes into.

    Raises:
        TypeError, ValueError: if a value does not fit its field, such as a negative size.
    """
    from tvix.castore.protos import castore_pb2

    node = castore_pb2.DirectoryNode(name=_bytes(name), digest=digest, size=size)
    return castore_pb2.Node(directory=node)


def file_node(
    name: str | bytes, digest: bytes, size: int, executable: bool = False
) -> castore_pb2.Node:
    """A node for a regular file.

    Args:
        name: one path component; a str is encoded as UTF-8.
        digest: BLAKE3 of the contents, 32 bytes.
        size: length of the contents in bytes.
        executable: whether the file has the executable bit.

    The values are checked with the message that the node goes into.

    Raises:
        TypeError, ValueError: if a value does not fit its field, such as a negative size.
    """
    from tvix.castore.protos import castore_pb2

    node = castore_pb2.FileNode(name=_bytes(name), digest=digest, size=size, executable=executable)
    return castore_pb2.Node(file=node)


def symlink_node(name: str | bytes, target: str | bytes) -> castore_pb2.Node:
    """A node for a symbolic link.

    Args:
        name: one path component; a str is encoded as UTF-8.
        target: what the link says, 1 to 4095 bytes; likewise.

    The values are checked with the message that the node goes into.
    """
    from tvix.castore.protos import castore_pb2

    node = castore_pb2.SymlinkNode(name=_bytes(name), target=_bytes(target))
    return castore_pb2.Node(symlink=node)


def build_request(
    *,
    command_args: Iterable[str | bytes],
    outputs: Iterable[str | bytes] = (),
    environment_vars: Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]] = (),
    inputs: Iterable[castore_pb2.Node] = (),
    system: str | None = None,
    min_memory: int = 0,
    available_ro_paths: Iterable[str | bytes] = (),
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
        InvalidMessage: if a rule is violated, duplicates among them; indices in its paths are those
            of the arguments.
        TypeError, ValueError: if a value does not fit its field, such as bytes that are not UTF-8
            in a string.
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
    command_args: Iterable[str | bytes],
    outputs: Iterable[str | bytes],
    environment_vars: Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]],
    inputs: Iterable[castore_pb2.Node],
    system: str | None,
    min_memory: int,
    available_ro_paths: Iterable[str | bytes],
) -> build_pb2.BuildRequest:
    """What `build_request` makes, not checked and with its lists as they come."""
    from tvix.build.protos import build_pb2

    variables = environment_vars
    pairs = variables.items() if isinstance(variables, Mapping) else variables
    paths = _strings(available_ro_paths)
    request = build_pb2.BuildRequest(
        command_args=_strings(command_args),
        outputs=_strings(outputs),
        environment_vars=[
            {"key": key, "value": value.encode() if isinstance(value, str) else value}
            for key, value in pairs
        ],
        inputs=inputs,
    )
    if system is not None or min_memory or paths:
        request.constraints.SetInParent()
        request.constraints.system = system or ""
        request.constraints.min_memory = min_memory
        request.constraints.available_ro_paths.extend(paths)
    return request


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _strings(values: Iterable[str | bytes]) -> list[str]:
    if isinstance(values, (str, bytes)):
        raise TypeError(f"expected an iterable of strings, found a single one, {values!r:.100}")
    return [one if isinstance(one, str) else str(one, "utf-8") for one in values]
