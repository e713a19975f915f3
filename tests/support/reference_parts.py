# SPDX-License-Identifier: MIT
"""The parts that the rules of all schemas share: paths and violations, and the rules for values,
lists, castore nodes and Directories, which are the same in tvix and snix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

import snix.build.protos.build_pb2 as snix_build
import snix.castore.protos.castore_pb2 as snix_castore
import tvix.build.protos.build_pb2 as tvix_build
import tvix.castore.protos.castore_pb2 as tvix_castore

#: The codes in their order in the rules' table, by which violations with equal paths are sorted.
CODES = (
    "malformed",
    "unknown_field",
    "required",
    "invalid_arg",
    "invalid_name",
    "invalid_digest",
    "invalid_symlink_target",
    "invalid_env_key",
    "invalid_env_value",
    "invalid_path",
    "not_sorted",
    "duplicate",
    "output_is_input",
    "missing_output",
    "unexpected_output",
    "size_overflow",
    "invalid_needle",
    "needles_mismatch",
    "unknown_step",
    "unreachable_step",
)

#: A code and a path.
Violation = tuple[str, str]

Directory: TypeAlias = tvix_castore.Directory | snix_castore.Directory
Node: TypeAlias = tvix_castore.Node | snix_castore.Entry
Request: TypeAlias = tvix_build.BuildRequest | snix_build.BuildRequest
Constraints: TypeAlias = (
    tvix_build.BuildRequest.BuildConstraints | snix_build.BuildRequest.BuildConstraints
)


# ---- paths and findings


@dataclass(frozen=True)
class Path:
    """A path as text, and as (field number, index or -1) for each step."""

    text: str
    steps: tuple[tuple[int, int], ...]

    def field(self, message: Message, name: str, index: int = -1) -> Path:
        """Return the path of field `name`, or of its element `index`, in `message` at this path."""
        number = message.DESCRIPTOR.fields_by_name[name].number
        text = f"{self.text}.{name}" if self.text else name
        if index >= 0:
            text += f"[{index}]"
        return Path(text, (*self.steps, (number, index)))


ROOT = Path("", ())


class Findings:
    """The violations of a message."""

    def __init__(self) -> None:
        self._found: list[tuple[Path, str]] = []

    def add(self, code: str, path: Path) -> None:
        self._found.append((path, code))

    def add_if(self, holds: bool, code: str, path: Path) -> None:
        if holds:
            self.add(code, path)

    def extend(self, others: Findings) -> None:
        """Add the violations of others."""
        self._found += others._found

    def in_order(self) -> list[Violation]:
        """Return the violations by field number and index along the path, then by CODES."""
        ordered = sorted(self._found, key=lambda found: (found[0].steps, CODES.index(found[1])))
        return [(code, path.text) for path, code in ordered]


# ---- values


def is_name(value: bytes) -> bool:
    """Return whether `value` is a path component."""
    if value in (b"", b".", b".."):
        return False
    return len(value) <= 255 and b"/" not in value and b"\0" not in value


def is_symlink_target(value: bytes) -> bool:
    """Return whether `value` is a valid symlink target."""
    return 1 <= len(value) <= 4095 and b"\0" not in value


def is_env_key(value: str) -> bool:
    """Return whether `value` is a valid name of an environment variable."""
    return value != "" and "=" not in value and "\0" not in value


def is_clean_relative(value: str) -> bool:
    """Return whether `value` is a clean relative path without NUL."""
    components = value.split("/")
    return "\0" not in value and not any(part in ("", ".", "..") for part in components)


def is_clean_absolute(value: str) -> bool:
    """Return whether `value` is a clean absolute path without NUL."""
    return value == "/" or (value.startswith("/") and is_clean_relative(value[1:]))


def is_at_or_below(value: str, directory: str) -> bool:
    """Return whether the path `value` is `directory` or below it."""
    return value == directory or value.startswith(directory + "/")


# ---- messages and lists


def check_unknown_fields(message: Message, path: Path, findings: Findings) -> None:
    unknown = UnknownFieldSet(message)
    findings.add_if(len(unknown) > 0, "unknown_field", path)


def check_order(keyed_paths: Sequence[tuple[bytes, Path]], findings: Findings) -> None:
    for i in range(1, len(keyed_paths)):
        if keyed_paths[i][0] < keyed_paths[i - 1][0]:
            findings.add("not_sorted", keyed_paths[i][1])
            return


def check_duplicates(keyed_paths: Sequence[tuple[bytes, Path]], findings: Findings) -> None:
    seen = set()
    for key, path in keyed_paths:
        findings.add_if(key in seen, "duplicate", path)
        seen.add(key)


def check_list(
    message: Message, name: str, keys: Sequence[bytes], path: Path, findings: Findings
) -> None:
    """Check order and uniqueness of the `keys` of list `name` in `message`, which is at `path`."""
    keyed_paths = [(key, path.field(message, name, i)) for i, key in enumerate(keys)]
    check_order(keyed_paths, findings)
    check_duplicates(keyed_paths, findings)


# ---- nodes


def check_member(
    member: Any, path: Path, findings: Findings, is_right: Callable[[bytes], bool] = is_name
) -> None:
    """Check a member of a Node or an element of a Directory; `is_right` checks its name."""
    check_unknown_fields(member, path, findings)
    findings.add_if(not is_right(member.name), "invalid_name", path.field(member, "name"))
    if "digest" in member.DESCRIPTOR.fields_by_name:
        findings.add_if(len(member.digest) != 32, "invalid_digest", path.field(member, "digest"))
    else:
        is_bad = not is_symlink_target(member.target)
        findings.add_if(is_bad, "invalid_symlink_target", path.field(member, "target"))


def name_of_member(node: Node) -> str | None:
    """Return the name of the member that is set; None if none is."""
    (oneof,) = node.DESCRIPTOR.oneofs
    name: str | None = node.WhichOneof(oneof.name)
    return name


def check_node(
    node: Node, path: Path, findings: Findings, is_right: Callable[[bytes], bool] = is_name
) -> None:
    check_unknown_fields(node, path, findings)
    member = name_of_member(node)
    if member is None:
        findings.add("required", path)
    else:
        check_member(getattr(node, member), path.field(node, member), findings, is_right)


def node_name(node: Node) -> bytes:
    """Return the name of the node; empty if no member is set."""
    member = name_of_member(node)
    name: bytes = b"" if member is None else getattr(node, member).name
    return name


# ---- requests of all schemas


def check_command_args(request: Request, path: Path, findings: Findings) -> None:
    if not request.command_args:
        findings.add("required", path.field(request, "command_args"))
    for i, arg in enumerate(request.command_args):
        findings.add_if("\0" in arg, "invalid_arg", path.field(request, "command_args", i))


def check_inputs(request: Request, path: Path, findings: Findings) -> None:
    node: Any
    for i, node in enumerate(request.inputs):
        check_node(node, path.field(request, "inputs", i), findings)
    names = [node_name(node) for node in request.inputs]
    check_list(request, "inputs", names, path, findings)


def check_environment_vars(request: Request, path: Path, findings: Findings) -> None:
    variable: Any
    for i, variable in enumerate(request.environment_vars):
        place = path.field(request, "environment_vars", i)
        check_unknown_fields(variable, place, findings)
        key_path, value_path = place.field(variable, "key"), place.field(variable, "value")
        findings.add_if(not is_env_key(variable.key), "invalid_env_key", key_path)
        findings.add_if(b"\0" in variable.value, "invalid_env_value", value_path)
    keys = [variable.key.encode() for variable in request.environment_vars]
    check_list(request, "environment_vars", keys, path, findings)


def check_system(constraints: Constraints, path: Path, findings: Findings) -> None:
    findings.add_if(constraints.system == "", "required", path.field(constraints, "system"))


# ---- Directories


def directory_size(directory: Directory) -> int:
    """Return the number of elements below a directory, at every depth; it may exceed 64 bits."""
    below = sum(1 + node.size for node in directory.directories)
    return below + len(directory.files) + len(directory.symlinks)


def check_directory(directory: Directory, path: Path, findings: Findings) -> None:
    check_unknown_fields(directory, path, findings)
    findings.add_if(directory_size(directory) > 2**64 - 1, "size_overflow", path)

    all_names = []
    for list_name in ("directories", "files", "symlinks"):
        names = []
        for i, member in enumerate(getattr(directory, list_name)):
            place = path.field(directory, list_name, i)
            check_member(member, place, findings)
            names.append((member.name, place))
        check_order(names, findings)
        all_names += names
    check_duplicates(all_names, findings)


def sort_directory(directory: Directory) -> None:
    """Sort the lists of a Directory."""
    directory.directories.sort(key=lambda node: node.name)
    directory.files.sort(key=lambda node: node.name)
    directory.symlinks.sort(key=lambda node: node.name)
