# SPDX-License-Identifier: MIT
"""Plans the root directory of a sandbox, and the arguments of bubblewrap that show it to a build.

The root is in memory, and read-only when the command starts. Scratch paths are directories of the
host, which lie in one directory under the same paths, and are mounted writable.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tvix_build._core.nodes import name_of
from tvix_build.builders.interface import RefusedError

if TYPE_CHECKING:
    from snix.build.protos.build_pb2 import BuildRequest
    from snix.castore.protos.castore_pb2 import Entry

BUILDER_ID, BUILDER_GROUP = 1000, 100
SHELL = "bin/sh"
TEMPORARY = "tmp"
RESERVED = ("dev", "proc")
ETC = {
    "etc/group": "root:x:0:\nbuilder:x:100:\nnobody:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/passwd": (
        "root:x:0:0:Root:/:/noshell\n"
        "builder:x:1000:100:Builder:/build:/noshell\n"
        "nobody:x:65534:65534:Nobody:/:/noshell\n"
    ),
}
NETWORK_FILES = ("/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt")
"""Files of the host that a build with network access gets copies of."""
SHM_SIZE = 64 << 20
STAGE = "/dev/shm"
"""The directory in which the castore is mounted until the inputs are."""
_HOST_PATHS = "constraints.available_ro_paths"


@dataclass
class Layout:
    """What a sandbox contains. Paths are relative to its root, except those of the host.

    Attributes:
        directories: directories to create, parents first.
        files: files to create, with their contents.
        writable: outermost writable directories.
        pinned: directories between a writable one and the inputs, which must not be renamed.
        inputs: the paths of the inputs, in the order of the request.
        inputs_directory: their directory.
        host_paths: absolute paths of the host to mount read-only.
    """

    directories: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    writable: list[str] = field(default_factory=list)
    pinned: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    inputs_directory: str = ""
    host_paths: list[str] = field(default_factory=list)
    network: bool = False
    shell: bool = False
    working_dir: str = ""

    def is_writable(self, path: str) -> bool:
        """Return whether a path is in a writable directory, and therefore on the host."""
        return any(is_below(path, one) for one in self.writable)

    def host_directories(self) -> list[str]:
        """Return the directories to create on the host: the writable ones, those that contain
        them, and those in them."""
        return [
            path
            for path in self.directories
            if self.is_writable(path) or any(is_below(one, path) for one in self.writable)
        ]


def is_below(path: str, parent: str) -> bool:
    """Return whether a relative path is a directory or below it. The root is `""`."""
    return not parent or path == parent or path.startswith(f"{parent}/")


def _parents(path: str) -> Iterator[str]:
    """Yield the directories above a path, the outermost one first, without the root."""
    for index, character in enumerate(path):
        if character == "/":
            yield path[:index]


def _directory(path: str) -> str:
    return path.rpartition("/")[0]


def input_name(entry: Entry) -> str:
    """Return the name of an input."""
    return os.fsdecode(name_of(entry))


def plan(request: BuildRequest, *, host_files: Mapping[str, bytes]) -> Layout:
    """Return the layout for a valid request.

    Args:
        request: the request.
        host_files: contents of NETWORK_FILES that the host has, by absolute path.

    Raises:
        RefusedError: if a path is in the way of another one.
    """
    constraints = request.constraints
    layout = Layout(
        network=constraints.network_access,
        shell=constraints.provide_bin_sh,
        working_dir=request.working_dir,
        inputs_directory=request.inputs_dir,
        host_paths=list(constraints.available_ro_paths),
    )
    own = {path: text.encode() for path, text in ETC.items()}
    if layout.network:
        own |= {path[1:]: contents for path, contents in host_files.items()}
    directory = request.inputs_dir
    for entry in request.inputs:
        name = input_name(entry)
        layout.inputs.append(f"{directory}/{name}" if directory else name)
    layout.files = {**own, **{one.path: one.contents for one in request.additional_files}}
    _refuse_conflicts(request, layout, own)
    scratch = sorted({TEMPORARY, *request.scratch_paths})
    layout.writable = _outermost(scratch)
    outer = next((one for one in layout.writable if is_below(directory, one)), None)
    if outer is not None and directory:
        layout.pinned = [one for one in (*_parents(directory), directory) if one > outer]
    wanted = {*scratch, *RESERVED, directory, request.working_dir} - {""}
    leaves = [*layout.files, *(path[1:] for path in layout.host_paths), SHELL]
    wanted |= {parent for path in (*wanted, *leaves) for parent in _parents(path)}
    layout.directories = sorted(wanted)
    return layout


def _outermost(paths: list[str]) -> list[str]:
    """Return the sorted paths that are below no other one."""
    found: list[str] = []
    for path in paths:
        if not any(is_below(path, one) for one in found):
            found.append(path)
    return found


class _Place(NamedTuple):
    """A path that something needs. Nothing else can be at or below a path that is `solid`."""

    field: str
    path: str
    solid: bool


def _places(request: BuildRequest, layout: Layout, own: Mapping[str, bytes]) -> Iterator[_Place]:
    replaced = {one.path for one in request.additional_files}
    for path in own.keys() - replaced:
        yield _Place("the files of the sandbox", path, True)
    if layout.shell:
        yield _Place("constraints.provide_bin_sh", SHELL, True)
    for index, path in enumerate(layout.inputs):
        yield _Place(f"inputs[{index}]", path, True)
    for index, one in enumerate(request.additional_files):
        yield _Place(f"additional_files[{index}].path", one.path, True)
    for index, host in enumerate(layout.host_paths):
        yield _Place(f"{_HOST_PATHS}[{index}]", host[1:], True)
    for index, path in enumerate(request.scratch_paths):
        yield _Place(f"scratch_paths[{index}]", path, False)
    yield _Place("inputs_dir", request.inputs_dir, False)
    yield _Place("working_dir", request.working_dir, False)
    yield _Place("the files of the sandbox", TEMPORARY, False)


def _refuse_conflicts(request: BuildRequest, layout: Layout, own: Mapping[str, bytes]) -> None:
    """Raise RefusedError if two things have one path, or a thing is below a file or an input."""
    places = list(_places(request, layout, own))
    reasons = [
        f"{one.field}: expected a path outside of /dev and /proc, found /{one.path}"
        for one in places
        if one.path.partition("/")[0] in RESERVED
        and not (one.field.startswith(_HOST_PATHS) and one.path.startswith("dev/"))
    ]
    solid: dict[str, str] = {}
    for one in places:
        other = solid.get(one.path)
        if other is not None:
            reasons.append(f"{one.field}: /{one.path} is also the path of {other}")
        elif one.solid:
            solid[one.path] = one.field
    directories = {_directory(one.path) for one in places}
    above = {
        path: [parent for parent in (*_parents(path), path) if parent in solid]
        for path in directories
    }
    reasons += [
        f"{one.field}: /{one.path} is below /{parent}, the path of {solid[parent]}"
        for one in places
        for parent in above[_directory(one.path)]
    ]
    if "=" in request.command_args[0]:
        reasons.append(
            f"command_args[0]: expected a command without '=', found {request.command_args[0]!r}"
        )
    if reasons:
        raise RefusedError(reasons)


def bubblewrap_arguments(layout: Layout, *, root: str, shell: str) -> list[str]:
    """Return the options of bubblewrap, without the program and the command, and without what makes
    files outside of writable directories and inputs. Afterwards, the root must become read-only.

    Args:
        layout: the layout.
        root: the directory of the host with the writable directories.
        shell: the static shell of the host.
    """
    options = [
        *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"),
        *("--unshare-cgroup-try", "--disable-userns", "--cap-drop", "ALL"),
        *(() if layout.network else ("--unshare-net",)),
        *("--uid", str(BUILDER_ID), "--gid", str(BUILDER_GROUP), "--hostname", "localhost"),
        *("--die-with-parent", "--new-session", "--as-pid-1", "--clearenv"),
        *("--proc", "/proc", "--dev", "/dev"),
        *("--size", str(SHM_SIZE), "--tmpfs", "/dev/shm"),
    ]
    for path in layout.host_paths:
        if path.startswith("/dev/"):
            options += ["--dev-bind", path, path, "--remount-ro", path]
    # The owner of /proc/sys outside may be the user who runs the build.
    options += ["--remount-ro", "/dev", "--remount-ro", "/proc"]
    for path in layout.directories:
        if path not in RESERVED and not layout.is_writable(path):
            options += ["--dir", f"/{path}"]
    for path in [*layout.writable, *layout.pinned]:
        options += ["--bind", f"{root}/{path}", f"/{path}"]
    for path in layout.host_paths:
        if not path.startswith("/dev/"):
            options += ["--ro-bind", path, path]
    if layout.shell:
        options += ["--ro-bind", shell, f"/{SHELL}"]
    return [*options, "--chdir", f"/{layout.working_dir}"]
