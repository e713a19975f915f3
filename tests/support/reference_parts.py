# SPDX-License-Identifier: MIT
"""What the reference's rules of every schema are made of: places and findings, rules of single
values, of lists, and of castore's nodes and Directories, which are alike in tvix and snix."""

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

#: The codes in the order of the rules' table: the last resort when violations are sorted.
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
)

#: A code and the path it holds at.
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
    """Where something lies: its text, and (field number, index or -1) for each step of it."""

    text: str
    steps: tuple[tuple[int, int], ...]

    def field(self, message: Message, name: str, index: int = -1) -> Path:
        """The field `name` of `message`, which lies at this path, or element `index` of it."""
        number = message.DESCRIPTOR.fields_by_name[name].number
        text = f"{self.text}.{name}" if self.text else name
        if index >= 0:
            text += f"[{index}]"
        return Path(text, (*self.steps, (number, index)))


ROOT = Path("", ())


class Findings:
    """Violations in the order found."""

    def __init__(self) -> None:
        self._found: list[tuple[Path, str]] = []

    def add(self, code: str, path: Path) -> None:
        self._found.append((path, code))

    def add_if(self, holds: bool, code: str, path: Path) -> None:
        if holds:
            self.add(code, path)

    def in_order(self) -> list[Violation]:
        """By field number along the path, then index, then the order of CODES."""
        ordered = sorted(self._found, key=lambda found: (found[0].steps, CODES.index(found[1])))
        return [(code, path.text) for path, code in ordered]


# ---- values


def is_name(value: bytes) -> bool:
    """Whether `value` is a path component."""
    if value in (b"", b".", b".."):
        return False
    return len(value) <= 255 and b"/" not in value and b"\0" not in value


def is_symlink_target(value: bytes) -> bool:
    """Whether a symlink can say `value`."""
    return 1 <= len(value) <= 4095 and b"\0" not in value


def is_env_key(value: str) -> bool:
    """Whether an environment variable can be called `value`."""
    return value != "" and "=" not in value and "\0" not in value


def is_clean_relative(value: str) -> bool:
    """Whether `value` is a path of one component or more, none of them odd."""
    components = value.split("/")
    return "\0" not in value and not any(part in ("", ".", "..") for part in components)


def is_clean_absolute(value: str) -> bool:
    """Whether `value` is "/", or that and a clean relative path."""
    return value == "/" or (value.startswith("/") and is_clean_relative(value[1:]))


def is_at_or_below(value: str, folder: str) -> bool:
    """Whether the text of the path `value` is that of `folder` or of something in it."""
    return value == folder or value.startswith(folder + "/")


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
    """Order and duplicates of the list `name` of `message` (at `path`), which has `keys`."""
    keyed_paths = [(key, path.field(message, name, i)) for i, key in enumerate(keys)]
    check_order(keyed_paths, findings)
    check_duplicates(keyed_paths, findings)


# ---- nodes


def check_member(
    member: Any, path: Path, findings: Findings, is_right: Callable[[bytes], bool] = is_name
) -> None:
    """A member of a Node or an element of a Directory, of either castore, with the right name."""
    check_unknown_fields(member, path, findings)
    findings.add_if(not is_right(member.name), "invalid_name", path.field(member, "name"))
    if "digest" in member.DESCRIPTOR.fields_by_name:
        findings.add_if(len(member.digest) != 32, "invalid_digest", path.field(member, "digest"))
    else:
        is_bad = not is_symlink_target(member.target)
        findings.add_if(is_bad, "invalid_symlink_target", path.field(member, "target"))


def name_of_member(node: Node) -> str | None:
    """Which member of the oneof is set."""
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
    """The name of the member that is set; empty if none is."""
    member = name_of_member(node)
    name: bytes = b"" if member is None else getattr(node, member).name
    return name


# ---- what requests of every schema have


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
    """The number of elements below `directory`, at every depth; may exceed 64 bits."""
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
    """Sorts its lists."""
    directory.directories.sort(key=lambda node: node.name)
    directory.files.sort(key=lambda node: node.name)
    directory.symlinks.sort(key=lambda node: node.name)
