# SPDX-License-Identifier: MIT
"""Lowers build requests to actions of the Remote Execution API."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from reapi.protos import remote_execution_pb2 as reapi
from snix.castore.protos.castore_pb2 import Entry
from tvix_build._core.nodes import name_of
from tvix_build.builders.interface import RefusedError
from tvix_build.builders.layout import RESERVED, SHELL, input_name, is_below
from tvix_build.builders.reapi.digests import Castore, DigestFunction, Digests, DigestTable, text

if TYPE_CHECKING:
    from snix.build.protos.build_pb2 import BuildRequest
    from tvix.castore.protos import castore_pb2

_OS_FAMILIES = {"darwin": "macos"}
_ISAS = {
    "aarch64": "arm-a64",
    "armv7l": "arm-a32",
    "i686": "x86-32",
    "powerpc64le": "power-isa-le",
    "riscv64": "rv64g",
    "x86_64": "x86-64",
}
_NETWORK = "network_access"
_MEMORY = "min_memory"


class Property(NamedTuple):
    """A platform property that an action gets.

    Attributes:
        name: the name of the property. Properties called OSFamily or ISA replace the one that
            follows from the system.
        value: the value; empty with `min_memory` for the number of bytes.
        constraint: the constraint that the property represents: `network_access`, `min_memory` or
            a path of `available_ro_paths`. None for a property of all actions.
    """

    name: str
    value: str
    constraint: str | None = None


@dataclass(frozen=True)
class Lowered:
    """An action, and what it consists of.

    Attributes:
        action: the action.
        command: its command.
        directories: the Directories of the input root that contain the inputs and everything else
            of the request, parents before children. They do not include those within inputs.
        digest: the digest of the action.
        messages: the encodings of all these messages and the additional files, by hash.
        nodes: the castore nodes to which the Directories refer.
    """

    action: reapi.Action
    command: reapi.Command
    directories: tuple[reapi.Directory, ...]
    digest: reapi.Digest
    messages: dict[str, bytes]
    nodes: tuple[Entry, ...]


@dataclass
class _Tree:
    """A directory of the input root that is being made.

    Attributes:
        directories: the directories in it.
        leaves: castore nodes, and contents of files.
    """

    directories: dict[str, _Tree] = field(default_factory=dict)
    leaves: dict[str, Entry | bytes] = field(default_factory=dict)

    def enter(self, path: str) -> _Tree:
        """Return the directory at a path, which is made if it is missing."""
        tree = self
        for name in filter(None, path.split("/")):
            tree = tree.directories.setdefault(name, _Tree())
        return tree


def lower(
    request: BuildRequest,
    castore: Castore,
    table: DigestTable,
    *,
    shell: castore_pb2.FileNode | None = None,
    properties: Sequence[Property] = (),
    timeout: int | None = None,
) -> Lowered:
    """Return the action of a request. Equal arguments give equal bytes.

    Args:
        request: a valid request of snix.build.v1 in canonical order.
        castore: the castore that has the inputs.
        table: the table of digests, with the digest function.
        shell: the file that is /bin/sh, if the request asks for one.
        properties: platform properties for constraints and for all actions.
        timeout: the time limit of the command in seconds.

    Raises:
        RefusedError: if no action has the meaning of the request.
    """
    reasons = [*_path_conflicts(request), *_output_conflicts(request)]
    platform = _platform(request, properties, reasons)
    command = _command(request, platform, reasons)
    if request.constraints.provide_bin_sh and shell is None:
        reasons.append("constraints.provide_bin_sh: expected a shell, found none")
    if reasons:
        raise RefusedError(reasons)
    lowering = _Lowering(table.function)
    with Digests(castore, table) as digests:
        root = lowering.add_directory(_input_root(request, shell), digests)
    action = reapi.Action(
        command_digest=lowering.add(command),
        input_root_digest=root,
        platform=platform,
    )
    if timeout is not None:
        action.timeout.seconds = timeout
    return Lowered(
        action=action,
        command=command,
        directories=tuple(reversed(lowering.directories)),
        digest=lowering.add(action),
        messages=lowering.messages,
        nodes=tuple(lowering.nodes),
    )


def output_path(request: BuildRequest, output: str) -> str:
    """Return the path of an output relative to the working directory, as in a command."""
    return posixpath.relpath(f"/{output}", f"/{request.working_dir}")


def blobs(
    lowered: Lowered, castore: Castore, table: DigestTable, *, absolute_symlinks: bool = True
) -> Iterator[tuple[reapi.Digest, bytes | castore_pb2.FileNode]]:
    """Yield the digests of all blobs that an action needs, each once: with the bytes of messages
    and additional files, and with the castore node of other files.

    Raises:
        RefusedError: if a symbolic link is absolute and `absolute_symlinks` is not set.
    """
    for hash_, data in lowered.messages.items():
        yield reapi.Digest(hash=hash_, size_bytes=len(data)), data
    seen = set(lowered.messages)
    nodes = _Nodes(absolute_symlinks)
    for entry in lowered.nodes:
        nodes.add(entry)
    with Digests(castore, table) as digests:
        done: set[bytes] = set()
        while nodes.files or nodes.directories:
            while nodes.files:
                file = nodes.files.pop()
                digest = digests.of_file(file)
                if digest.hash not in seen:
                    seen.add(digest.hash)
                    yield digest, file
            if nodes.directories:
                node = nodes.directories.pop()
                if node in done:
                    continue
                done.add(node)
                directory = castore.directory(node)
                nodes.add_children(directory)
                digest = digests.of_directory(node)
                if digest.hash not in seen:
                    seen.add(digest.hash)
                    yield digest, digests.encode(directory)


class _Nodes:
    """Castore nodes that are not visited yet."""

    def __init__(self, absolute_symlinks: bool) -> None:
        self.files: list[castore_pb2.FileNode] = []
        self.directories: list[bytes] = []
        self._absolute_symlinks = absolute_symlinks

    def add(self, entry: Any) -> None:
        """Add an input."""
        kind = entry.WhichOneof("entry")
        if kind == "file":
            self.files.append(entry.file)
        elif kind == "directory":
            self.directories.append(entry.directory.digest)
        else:
            self._check(entry.symlink)

    def add_children(self, directory: castore_pb2.Directory) -> None:
        """Add the nodes of a Directory."""
        self.files += directory.files
        self.directories += (child.digest for child in directory.directories)
        for link in directory.symlinks:
            self._check(link)

    def _check(self, link: castore_pb2.SymlinkNode) -> None:
        if link.target.startswith(b"/") and not self._absolute_symlinks:
            raise RefusedError(
                [
                    "inputs: this Remote Execution engine has no absolute symbolic links, found "
                    f"{os.fsdecode(link.name)} -> {os.fsdecode(link.target)}"
                ]
            )


class _Lowering:
    """The messages of an action that is being made."""

    def __init__(self, function: DigestFunction) -> None:
        self.messages: dict[str, bytes] = {}
        self.directories: list[reapi.Directory] = []
        self.nodes: list[Entry] = []
        self._function = function

    def add(self, message: reapi.Action | reapi.Command | reapi.Directory | bytes) -> reapi.Digest:
        """Add a message or a file, and return its digest."""
        data = (
            message if isinstance(message, bytes) else message.SerializeToString(deterministic=True)
        )
        digest = self._function.digest(data)
        self.messages[digest.hash] = data
        return digest

    def add_directory(self, tree: _Tree, digests: Digests) -> reapi.Digest:
        """Add a directory of the input root and those below it. Paths of requests are short."""
        directory = reapi.Directory()
        for name, child in sorted(tree.directories.items(), key=_by_utf8):
            directory.directories.add(name=name, digest=self.add_directory(child, digests))
        for name, leaf in sorted(tree.leaves.items(), key=_by_utf8):
            self._add_leaf(directory, name, leaf, digests)
        directory.directories.sort(key=lambda node: node.name.encode())
        self.directories.append(directory)
        return self.add(directory)

    def _add_leaf(
        self, directory: reapi.Directory, name: str, leaf: Entry | bytes, digests: Digests
    ) -> None:
        if isinstance(leaf, bytes):
            directory.files.add(name=name, digest=self.add(leaf))
            return
        self.nodes.append(leaf)
        if leaf.HasField("file"):
            directory.files.append(digests.file(name, leaf.file))
        elif leaf.HasField("directory"):
            digest = digests.of_directory(leaf.directory.digest)
            directory.directories.add(name=name, digest=digest)
        else:
            directory.symlinks.add(name=name, target=text(leaf.symlink.target, "target"))


def _by_utf8(item: tuple[str, object]) -> bytes:
    return item[0].encode()


def _input_root(request: BuildRequest, shell: castore_pb2.FileNode | None) -> _Tree:
    """Return the input root of a request without conflicts."""
    root = _Tree()
    for path in (*request.scratch_paths, request.inputs_dir, request.working_dir):
        root.enter(path)
    inputs = root.enter(request.inputs_dir)
    for entry in request.inputs:
        inputs.leaves[text(name_of(entry), "name")] = entry
    for one in request.additional_files:
        parent, _, name = one.path.rpartition("/")
        root.enter(parent).leaves[name] = one.contents
    if request.constraints.provide_bin_sh and shell is not None:
        parent, _, name = SHELL.rpartition("/")
        node = Entry()
        node.file.MergeFromString(shell.SerializeToString())
        root.enter(parent).leaves[name] = node
    return root


def _command(request: BuildRequest, platform: reapi.Platform, reasons: list[str]) -> reapi.Command:
    command = reapi.Command(
        arguments=request.command_args,
        working_directory=request.working_dir,
        output_paths=sorted({output_path(request, one) for one in request.outputs}, key=str.encode),
        platform=platform,
    )
    for i, variable in enumerate(request.environment_vars):
        try:
            value = text(variable.value, "value", f"environment_vars[{i}].value")
            command.environment_variables.add(name=variable.key, value=value)
        except RefusedError as error:
            reasons += error.reasons
    return command


def _platform(
    request: BuildRequest, properties: Sequence[Property], reasons: list[str]
) -> reapi.Platform:
    constraints = request.constraints
    pairs = _system_properties(constraints.system, reasons) if constraints.system else []
    mapped = [one for one in properties if one.constraint is None]
    if constraints.network_access:
        mapped += _mapped(properties, _NETWORK, "constraints.network_access", reasons)
    if constraints.min_memory:
        found = _mapped(properties, _MEMORY, "constraints.min_memory", reasons)
        size = str(constraints.min_memory)
        mapped += [one._replace(value=one.value or size) for one in found]
    for i, path in enumerate(constraints.available_ro_paths):
        mapped += _mapped(properties, path, f"constraints.available_ro_paths[{i}]", reasons)
    replaced = {one.name for one in mapped}
    pairs = [pair for pair in pairs if pair[0] not in replaced]
    pairs += [(one.name, one.value) for one in mapped]
    platform = reapi.Platform()
    for name, value in sorted(set(pairs)):
        platform.properties.add(name=name, value=value)
    return platform


def _mapped(
    properties: Sequence[Property], constraint: str, path: str, reasons: list[str]
) -> list[Property]:
    found = [one for one in properties if one.constraint == constraint]
    if not found:
        reasons.append(
            f"{path}: Remote Execution has no property for {constraint} that all engines know; "
            "map the constraint to a platform property of your engine"
        )
    return found


def _system_properties(system: str, reasons: list[str]) -> list[tuple[str, str]]:
    architecture, _, name = system.rpartition("-")
    isa = _ISAS.get(architecture)
    if isa is None:
        known = ", ".join(_ISAS)
        reasons.append(
            f"constraints.system: expected ARCHITECTURE-OS with one of {known}, found {system!r}"
        )
        return []
    return [("ISA", isa), ("OSFamily", _OS_FAMILIES.get(name, name))]


def _places(request: BuildRequest) -> Iterator[tuple[str, str, bool]]:
    """Yield each path of a request: with its field, and whether nothing can be at or below it."""
    directory = request.inputs_dir
    for i, entry in enumerate(request.inputs):
        yield f"inputs[{i}]", posixpath.join(directory, input_name(entry)), True
    for i, one in enumerate(request.additional_files):
        yield f"additional_files[{i}].path", one.path, True
    if request.constraints.provide_bin_sh:
        yield "constraints.provide_bin_sh", SHELL, True
    for i, path in enumerate(request.scratch_paths):
        yield f"scratch_paths[{i}]", path, False
    yield "inputs_dir", directory, False
    yield "working_dir", request.working_dir, False


def _path_conflicts(request: BuildRequest) -> Iterator[str]:
    """Yield a reason for each path at or below the path of a file or an input."""
    solid: dict[str, str] = {}
    places = [place for place in _places(request) if place[1]]
    for name, path, is_solid in places:
        if any(is_below(path, top) for top in RESERVED):
            yield f"{name}: expected a path outside of /dev and /proc, found /{path}"
        if path in solid:
            yield f"{name}: /{path} is also the path of {solid[path]}"
        elif is_solid:
            solid[path] = name
    for name, path, _ in places:
        for parent in _parents(path):
            if parent in solid:
                yield f"{name}: /{path} is below /{parent}, the path of {solid[parent]}"


def _output_conflicts(request: BuildRequest) -> Iterator[str]:
    """Yield a reason for each output that is within an input or contains one: engines let a build
    change its copy of an input."""
    inputs = {posixpath.join(request.inputs_dir, input_name(one)) for one in request.inputs}
    above = {parent for path in inputs for parent in _parents(path)}
    for i, output in enumerate(request.outputs):
        if output in above:
            yield f"outputs[{i}]: /{output} contains inputs"
        for parent in _parents(output):
            if parent in inputs:
                yield f"outputs[{i}]: /{output} is below /{parent}, an input"


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path
