# SPDX-License-Identifier: MIT
"""The rules of docs/canonical-form.md in plain Python, to test the engine against.

Decodes with protobuf's own decoder (upb), hashes with PyPI's blake3, and keeps every
violation. It follows the rules one by one and knows nothing of tvix_build; speed is no aim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blake3 import blake3
from google.protobuf.internal import api_implementation
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from tvix.build.protos.build_pb2 import Build, BuildRequest
from tvix.castore.protos.castore_pb2 import Directory, DirectoryNode, FileNode, Node, SymlinkNode

if api_implementation.Type() != "upb":
    raise RuntimeError(f"the reference needs protobuf's upb, found {api_implementation.Type()}")

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
)

#: A code and the path it holds at.
Violation = tuple[str, str]


@dataclass(frozen=True)
class ReferenceReport:
    """What the rules say of one message; `digest` is None where the encoding is refused."""

    valid: bool
    canonical: bool
    digest: bytes | None
    violations: list[Violation]


class RefusedError(Exception):
    """There is no canonical encoding; `violations` are those that forbid it."""

    def __init__(self, violations: list[Violation]) -> None:
        super().__init__(violations)
        self.violations = violations


def check(data: bytes, kind: str) -> ReferenceReport:
    """Everything the rules say of `data` as a "build-request", "build" or "directory"."""
    message, violations = _decode(data, kind)
    if message is None or not _has_encoding(violations):
        return ReferenceReport(False, False, None, violations)
    encoding = _encode(message)
    valid = not violations
    return ReferenceReport(valid, valid and encoding == data, blake3(encoding).digest(), violations)


def canonicalize(data: bytes, kind: str) -> bytes:
    """The canonical encoding; raises RefusedError where a violation other than not_sorted holds."""
    message, violations = _decode(data, kind)
    if message is None or not _has_encoding(violations):
        raise RefusedError([violation for violation in violations if violation[0] != "not_sorted"])
    return _encode(message)


def _decode(data: bytes, kind: str) -> tuple[Message | None, list[Violation]]:
    findings = _Findings()
    message: Message
    try:
        if kind == "build-request":
            message = BuildRequest.FromString(data)
            _check_build_request(message, _ROOT, findings)
        elif kind == "build":
            message = Build.FromString(data)
            _check_build(message, findings)
        elif kind == "directory":
            message = Directory.FromString(data)
            _check_directory(message, findings)
        else:
            raise ValueError(f"kind must be build-request, build or directory, is {kind!r}")
    except DecodeError:
        return None, [("malformed", "")]
    return message, findings.in_order()


def _has_encoding(violations: list[Violation]) -> bool:
    return all(code == "not_sorted" for code, _ in violations)


# ---- paths and findings


@dataclass(frozen=True)
class _Path:
    """Where something lies: its text, and (field number, index or -1) for each step of it."""

    text: str
    steps: tuple[tuple[int, int], ...]

    def field(self, message: Message, name: str, index: int = -1) -> _Path:
        """The field `name` of `message`, which lies at this path, or element `index` of it."""
        number = message.DESCRIPTOR.fields_by_name[name].number
        text = f"{self.text}.{name}" if self.text else name
        if index >= 0:
            text += f"[{index}]"
        return _Path(text, (*self.steps, (number, index)))


_ROOT = _Path("", ())


class _Findings:
    """Violations in the order found."""

    def __init__(self) -> None:
        self._found: list[tuple[_Path, str]] = []

    def add(self, code: str, path: _Path) -> None:
        self._found.append((path, code))

    def add_if(self, holds: bool, code: str, path: _Path) -> None:
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


def is_host_path(value: str) -> bool:
    """Whether `value` is an absolute clean path outside the store."""
    if not value.startswith("/") or "\0" in value:
        return False
    if value == "/":
        return True
    components = value[1:].split("/")
    if any(component in ("", ".", "..") for component in components):
        return False
    return components[:2] != ["nix", "store"]


# ---- messages


def _check_unknown_fields(message: Message, path: _Path, findings: _Findings) -> None:
    unknown = UnknownFieldSet(message)
    findings.add_if(len(unknown) > 0, "unknown_field", path)


def _check_order(keyed_paths: Sequence[tuple[bytes, _Path]], findings: _Findings) -> None:
    for i in range(1, len(keyed_paths)):
        if keyed_paths[i][0] < keyed_paths[i - 1][0]:
            findings.add("not_sorted", keyed_paths[i][1])
            return


def _check_duplicates(keyed_paths: Sequence[tuple[bytes, _Path]], findings: _Findings) -> None:
    seen = set()
    for key, path in keyed_paths:
        findings.add_if(key in seen, "duplicate", path)
        seen.add(key)


def _check_list(
    message: Message, name: str, keys: Sequence[bytes], path: _Path, findings: _Findings
) -> None:
    """Order and duplicates of the list `name` of `message` (at `path`), which has `keys`."""
    keyed_paths = [(key, path.field(message, name, i)) for i, key in enumerate(keys)]
    _check_order(keyed_paths, findings)
    _check_duplicates(keyed_paths, findings)


def _check_node_with_digest(
    node: DirectoryNode | FileNode, path: _Path, findings: _Findings
) -> None:
    _check_unknown_fields(node, path, findings)
    findings.add_if(not is_name(node.name), "invalid_name", path.field(node, "name"))
    findings.add_if(len(node.digest) != 32, "invalid_digest", path.field(node, "digest"))


def _check_symlink_node(node: SymlinkNode, path: _Path, findings: _Findings) -> None:
    _check_unknown_fields(node, path, findings)
    findings.add_if(not is_name(node.name), "invalid_name", path.field(node, "name"))
    target_path = path.field(node, "target")
    findings.add_if(not is_symlink_target(node.target), "invalid_symlink_target", target_path)


def _check_node(node: Node, path: _Path, findings: _Findings) -> None:
    _check_unknown_fields(node, path, findings)
    member = node.WhichOneof("node")
    if member is None:
        findings.add("required", path)
    elif member == "directory":
        _check_node_with_digest(node.directory, path.field(node, member), findings)
    elif member == "file":
        _check_node_with_digest(node.file, path.field(node, member), findings)
    else:
        _check_symlink_node(node.symlink, path.field(node, member), findings)


def _node_name(node: Node) -> bytes:
    member = node.WhichOneof("node")
    if member == "directory":
        return node.directory.name
    if member == "file":
        return node.file.name
    if member == "symlink":
        return node.symlink.name
    return b""


def _check_env_var(variable: BuildRequest.EnvVar, path: _Path, findings: _Findings) -> None:
    _check_unknown_fields(variable, path, findings)
    key_path = path.field(variable, "key")
    findings.add_if(not is_env_key(variable.key), "invalid_env_key", key_path)
    value_path = path.field(variable, "value")
    findings.add_if(b"\0" in variable.value, "invalid_env_value", value_path)


def _check_constraints(
    constraints: BuildRequest.BuildConstraints, path: _Path, findings: _Findings
) -> None:
    _check_unknown_fields(constraints, path, findings)
    findings.add_if(constraints.system == "", "required", path.field(constraints, "system"))
    for i, host_path in enumerate(constraints.available_ro_paths):
        place = path.field(constraints, "available_ro_paths", i)
        findings.add_if(not is_host_path(host_path), "invalid_path", place)
    keys = [host_path.encode() for host_path in constraints.available_ro_paths]
    _check_list(constraints, "available_ro_paths", keys, path, findings)


def _check_build_request(request: BuildRequest, path: _Path, findings: _Findings) -> None:
    _check_unknown_fields(request, path, findings)
    if not request.command_args:
        findings.add("required", path.field(request, "command_args"))
    for i, arg in enumerate(request.command_args):
        findings.add_if("\0" in arg, "invalid_arg", path.field(request, "command_args", i))

    inputs = [_node_name(node) for node in request.inputs]
    input_names = set(inputs)
    outputs = [output.encode() for output in request.outputs]
    for i, output in enumerate(outputs):
        place = path.field(request, "outputs", i)
        findings.add_if(not is_name(output), "invalid_name", place)
        findings.add_if(output in input_names, "output_is_input", place)
    _check_list(request, "outputs", outputs, path, findings)

    for i, variable in enumerate(request.environment_vars):
        _check_env_var(variable, path.field(request, "environment_vars", i), findings)
    env_keys = [variable.key.encode() for variable in request.environment_vars]
    _check_list(request, "environment_vars", env_keys, path, findings)

    for i, node in enumerate(request.inputs):
        _check_node(node, path.field(request, "inputs", i), findings)
    _check_list(request, "inputs", inputs, path, findings)

    if request.HasField("constraints"):
        _check_constraints(request.constraints, path.field(request, "constraints"), findings)


def _check_build(build: Build, findings: _Findings) -> None:
    _check_unknown_fields(build, _ROOT, findings)
    request_path = _ROOT.field(build, "build_request")
    if build.HasField("build_request"):
        _check_build_request(build.build_request, request_path, findings)
    else:
        findings.add("required", request_path)

    produced = [_node_name(node) for node in build.outputs]
    requested = [output.encode() for output in build.build_request.outputs]
    produced_names, requested_names = set(produced), set(requested)
    for i, name in enumerate(requested):
        place = request_path.field(build.build_request, "outputs", i)
        findings.add_if(name not in produced_names, "missing_output", place)
    for i, node in enumerate(build.outputs):
        place = _ROOT.field(build, "outputs", i)
        _check_node(node, place, findings)
        findings.add_if(produced[i] not in requested_names, "unexpected_output", place)
    _check_list(build, "outputs", produced, _ROOT, findings)


def directory_size(directory: Directory) -> int:
    """The number of elements below `directory`, at every depth; may exceed 64 bits."""
    below = sum(1 + node.size for node in directory.directories)
    return below + len(directory.files) + len(directory.symlinks)


def _check_directory(directory: Directory, findings: _Findings) -> None:
    _check_unknown_fields(directory, _ROOT, findings)
    findings.add_if(directory_size(directory) > 2**64 - 1, "size_overflow", _ROOT)

    directories = []
    for i, directory_node in enumerate(directory.directories):
        place = _ROOT.field(directory, "directories", i)
        _check_node_with_digest(directory_node, place, findings)
        directories.append((directory_node.name, place))
    files = []
    for i, file_node in enumerate(directory.files):
        place = _ROOT.field(directory, "files", i)
        _check_node_with_digest(file_node, place, findings)
        files.append((file_node.name, place))
    symlinks = []
    for i, symlink_node in enumerate(directory.symlinks):
        place = _ROOT.field(directory, "symlinks", i)
        _check_symlink_node(symlink_node, place, findings)
        symlinks.append((symlink_node.name, place))

    for keyed_paths in (directories, files, symlinks):
        _check_order(keyed_paths, findings)
    _check_duplicates(directories + files + symlinks, findings)


# ---- canonical encoding


def _encode(message: Message) -> bytes:
    """The canonical encoding of a decoded message without unknown fields; sorts its lists.

    upb's deterministic encoding is fields in ascending number, elements in order, shortest
    varints, no defaults, present messages even if empty: tests/test_reference.py holds it
    against bytes made by hand.
    """
    if isinstance(message, Build):
        if message.HasField("build_request"):
            _sort_build_request(message.build_request)
        message.outputs.sort(key=_node_name)
    elif isinstance(message, BuildRequest):
        _sort_build_request(message)
    elif isinstance(message, Directory):
        message.directories.sort(key=lambda node: node.name)
        message.files.sort(key=lambda node: node.name)
        message.symlinks.sort(key=lambda node: node.name)
    return message.SerializeToString(deterministic=True)


def _sort_build_request(request: BuildRequest) -> None:
    request.outputs.sort(key=lambda output: output.encode())
    request.environment_vars.sort(key=lambda variable: variable.key.encode())
    request.inputs.sort(key=_node_name)
    if request.HasField("constraints"):
        request.constraints.available_ro_paths.sort(key=lambda host_path: host_path.encode())
