# SPDX-License-Identifier: MIT
"""Writes tests/remote_execution/*.json: requests as actions of the Remote Execution API, and
results of actions as castore nodes. With --check, only reports stale files.

    PYTHONPATH=py python tests/generators/make_remote_execution.py [--check]

This is a second implementation. It lists all files of a sandbox by path, and makes the Directories
of the list; hashes are those of hashlib and of the blake3 package. Messages are in hex, in their
canonical encoding; `function` is the name of a digest function.

lowering.json: request, blobs and directories (of the castore, by BLAKE3 digest), shell (a FileNode
or null) and properties (name, value and constraint); the expected action, command, digest of the
action, and all Directories of the input root, sorted by hash. Refused requests have `reasons`
instead: the fields that the reasons begin with.

raising.json: request, result, trees and files (BLAKE3 digests by hash); the expected nodes,
Directories, sorted by digest, and missing outputs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from blake3 import blake3

from reapi.protos import remote_execution_pb2 as reapi
from snix.build.protos.build_pb2 import BuildRequest
from tvix.castore.protos import castore_pb2 as castore

FILES = Path(__file__).parents[1] / "remote_execution"
HASHES: dict[str, Callable[[bytes], str]] = {
    "SHA256": lambda data: hashlib.sha256(data).hexdigest(),
    "BLAKE3": lambda data: blake3(data).hexdigest(),
}


@dataclass(frozen=True)
class File:
    """A file."""

    data: bytes
    executable: bool = False


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


Entry: TypeAlias = "File | Link | dict[str, Any]"
SHELL = File(b"#!the shell\n", executable=True)


@dataclass
class Castore:
    """The blobs and Directories of a castore, by digest in hex."""

    blobs: dict[str, str] = field(default_factory=dict)
    directories: dict[str, str] = field(default_factory=dict)

    def add(self, entry: Entry, name: str = "") -> castore.Node:
        """Add an entry and return its node."""
        node = castore.Node()
        if isinstance(entry, File):
            digest = blake3(entry.data)
            self.blobs[digest.hexdigest()] = entry.data.hex()
            node.file.digest = digest.digest()
            node.file.size = len(entry.data)
            node.file.executable = entry.executable
            node.file.name = name.encode()
        elif isinstance(entry, Link):
            node.symlink.target = entry.target.encode()
            node.symlink.name = name.encode()
        else:
            message = castore.Directory()
            size = 0
            for child, value in sorted(entry.items(), key=lambda item: item[0].encode()):
                below = self.add(value, child)
                size += 1
                if below.HasField("file"):
                    message.files.append(below.file)
                elif below.HasField("symlink"):
                    message.symlinks.append(below.symlink)
                else:
                    message.directories.append(below.directory)
                    size += below.directory.size
            digest = blake3(message.SerializeToString())
            self.directories[digest.hexdigest()] = message.SerializeToString().hex()
            node.directory.digest = digest.digest()
            node.directory.size = size
            node.directory.name = name.encode()
        return node


def encode(entry: dict[str, Any], function: str, found: dict[str, bytes]) -> reapi.Digest:
    """Add the Directories of a directory to `found`, and return the digest of the root."""
    message = reapi.Directory()
    for name in sorted(entry, key=str.encode):
        value = entry[name]
        if isinstance(value, File):
            digest = digest_of(value.data, function)
            message.files.add(name=name, digest=digest, is_executable=value.executable)
        elif isinstance(value, Link):
            message.symlinks.add(name=name, target=value.target)
        else:
            message.directories.add(name=name, digest=encode(value, function, found))
    data = message.SerializeToString()
    found[HASHES[function](data)] = data
    return digest_of(data, function)


def digest_of(data: bytes, function: str) -> reapi.Digest:
    """Return the digest of a blob."""
    return reapi.Digest(hash=HASHES[function](data), size_bytes=len(data))


INPUTS: dict[str, Entry] = {
    "1-bash": {
        "bin": {"bash": File(b"bash", executable=True), "sh": Link("bash")},
        "empty": {},
        "share": {"é.txt": File(b""), "z.txt": File(b"z"), "a": {"z.txt": File(b"z")}},
    },
    "2-source.c": File(b"int main(void) { return 0; }\n"),
    "3-link": Link("/nix/store/1-bash/bin/bash"),
}
NIX: dict[str, Any] = {
    "command_args": ["/nix/store/1-bash/bin/bash", "-c", "echo >$out"],
    "working_dir": "build",
    "scratch_paths": ["build", "nix/store"],
    "inputs_dir": "nix/store",
    "outputs": ["nix/store/8-out", "nix/store/9-dev"],
    "environment_vars": {"A": b"", "PATH": b"/nix/store/1-bash/bin", "out": b"/nix/store/8-out"},
    "constraints": {"system": "x86_64-linux"},
}


def make_request(inputs: dict[str, Entry], store: Castore, **values: Any) -> BuildRequest:
    """Return a request; environment variables and additional files are dictionaries."""
    values = dict(values)
    variables = values.pop("environment_vars", {})
    files = values.pop("additional_files", {})
    request = BuildRequest(**values)
    for name in sorted(inputs, key=str.encode):
        request.inputs.add().ParseFromString(store.add(inputs[name], name).SerializeToString())
    for key in sorted(variables):
        request.environment_vars.add(key=key, value=variables[key])
    for path in sorted(files):
        request.additional_files.add(path=path, contents=files[path])
    return request


def put(root: dict[str, Any], path: str, entry: Entry | None = None) -> None:
    """Put an entry at a path; None for a directory."""
    *parents, name = path.split("/") if path else [""]
    for parent in parents:
        root = root.setdefault(parent, {})
    if entry is not None:
        assert name not in root
        root[name] = entry
    elif name:
        root.setdefault(name, {})


def lowered(
    about: str,
    function: str,
    platform: list[tuple[str, str]],
    output_paths: list[str],
    *,
    inputs: dict[str, Entry] = INPUTS,
    properties: tuple[tuple[str, str, str | None], ...] = (),
    **values: Any,
) -> dict[str, Any]:
    """Return a vector of a request and its action."""
    store = Castore()
    request = make_request(inputs, store, **values)
    shell = store.add(SHELL).file if request.constraints.provide_bin_sh else None
    root: dict[str, Any] = {}
    for path in (*request.scratch_paths, request.inputs_dir, request.working_dir):
        put(root, path)
    for name, entry in inputs.items():
        put(root, f"{request.inputs_dir}/{name}" if request.inputs_dir else name, entry)
    for one in request.additional_files:
        put(root, one.path, File(one.contents))
    if shell is not None:
        put(root, "bin/sh", SHELL)
    found: dict[str, bytes] = {}
    root_digest = encode(root, function, found)
    pairs = [reapi.Platform.Property(name=name, value=value) for name, value in platform]
    command = reapi.Command(
        arguments=request.command_args,
        working_directory=request.working_dir,
        output_paths=output_paths,
        platform=reapi.Platform(properties=pairs),
    )
    for variable in request.environment_vars:
        command.environment_variables.add(name=variable.key, value=variable.value.decode())
    action = reapi.Action(
        command_digest=digest_of(command.SerializeToString(), function),
        input_root_digest=root_digest,
        platform=command.platform,
    )
    data = action.SerializeToString()
    return {
        "about": about,
        "function": function,
        "request": request.SerializeToString().hex(),
        "blobs": store.blobs,
        "directories": store.directories,
        "shell": shell and shell.SerializeToString().hex(),
        "properties": properties,
        "action": data.hex(),
        "command": command.SerializeToString().hex(),
        "digest": f"{HASHES[function](data)}/{len(data)}",
        "input_root": [found[one].hex() for one in sorted(found)],
    }


def refused(
    about: str,
    *reasons: str,
    inputs: dict[str, Entry] = INPUTS,
    properties: tuple[tuple[str, str, str | None], ...] = (),
    **values: Any,
) -> dict[str, Any]:
    """Return a vector of a request that has no action."""
    store = Castore()
    request = make_request(inputs, store, **{**NIX, **values})
    return {
        "about": about,
        "function": "SHA256",
        "request": request.SerializeToString().hex(),
        "blobs": store.blobs,
        "directories": store.directories,
        "shell": None,
        "properties": properties,
        "reasons": reasons,
    }


def lowering() -> list[dict[str, Any]]:
    """Return the vectors of lowering.json."""
    linux = [("ISA", "x86-64"), ("OSFamily", "linux")]
    outputs = ["../nix/store/8-out", "../nix/store/9-dev"]
    found = []
    for function in HASHES:
        found += [
            lowered("a build of Nix", function, linux, outputs, **NIX),
            lowered(
                "the smallest request: everything is in the root",
                *(function, [], []),
                inputs={},
                command_args=["/a"],
            ),
            lowered(
                "inputs and outputs in the root, and a shell",
                *(function, linux, ["b/c", "é"]),
                command_args=["sh"],
                outputs=["b/c", "é"],
                constraints={"system": "x86_64-linux", "provide_bin_sh": True},
            ),
            lowered(
                "additional files beside scratch paths and inputs, names sorted by bytes",
                *(function, linux, outputs),
                **NIX,
                additional_files={
                    "build/.attrs.json": b"{}",
                    "build/a": b"2",
                    "etc/passwd": b"root",
                    "etc/é": b"1",
                },
            ),
        ]
    constraints = {
        "system": "aarch64-darwin",
        "min_memory": 1 << 30,
        "available_ro_paths": ["/dev/kvm"],
        "network_access": True,
    }
    found.append(
        lowered(
            "properties for constraints, and for all actions",
            "SHA256",
            [
                ("ISA", "arm-a64"),
                ("OSFamily", "darwin"),
                ("container-image", "docker://a"),
                ("kvm", "yes"),
                ("memory", "1073741824"),
                ("network", "on"),
            ],
            outputs,
            properties=(
                ("OSFamily", "darwin", None),
                ("container-image", "docker://a", None),
                ("kvm", "yes", "/dev/kvm"),
                ("memory", "", "min_memory"),
                ("network", "on", "network_access"),
                ("unused", "", "/dev/other"),
            ),
            **{**NIX, "constraints": constraints},
        )
    )
    found += [
        refused(
            "constraints without properties",
            "constraints.network_access",
            "constraints.min_memory",
            "constraints.available_ro_paths[0]",
            constraints=constraints,
        ),
        refused("an unknown system", "constraints.system", constraints={"system": "a-linux"}),
        refused(
            "no shell",
            "constraints.provide_bin_sh",
            constraints={**NIX["constraints"], "provide_bin_sh": True},
        ),
        refused(
            "values and targets that are not UTF-8",
            "environment_vars[0].value",
            environment_vars={"A": b"\xff"},
        ),
        refused(
            "a scratch path below an input",
            "scratch_paths[0]",
            scratch_paths=["nix/store/1-bash/tmp"],
        ),
        refused(
            "a file below another one",
            "additional_files[1].path",
            additional_files={"a": b"", "a/b": b""},
        ),
        refused(
            "a file at a scratch path",
            "scratch_paths[0]",
            additional_files={"build": b""},
            working_dir="",
        ),
        refused("a path in /dev", "scratch_paths[0]", scratch_paths=["dev/shm"]),
        refused("an output below an input", "outputs[0]", outputs=["nix/store/1-bash/new"]),
        refused("an output that contains inputs", "outputs[0]", outputs=["nix"]),
    ]
    return found


OUTPUTS: dict[str, Entry] = {
    "nix/store/8-out": {
        "bin": {"a": File(b"a", executable=True), "b": Link("a")},
        "copy": {"a": File(b"a", executable=True), "b": Link("a")},
        "empty": {},
        "lib": {"deep": {"é": File(b"")}},
    },
    "nix/store/9-dev": File(b"dev", executable=True),
    "nix/store/9-doc": Link("../8-out"),
}


def raised(about: str, function: str, outputs: dict[str, Entry], legacy: str) -> dict[str, Any]:
    """Return a vector of a result with these outputs, and one that is missing. `legacy` is the
    field for symbolic links."""
    names = [*outputs, "nix/store/7-missing"]
    request = make_request({}, Castore(), **{**NIX, "outputs": sorted(names)})
    result = reapi.ActionResult()
    trees = []
    files: dict[str, str] = {}
    store = Castore()
    nodes = []
    for path in sorted(outputs):
        entry, relative = outputs[path], f"../{path}"
        nodes.append(store.add(entry, path.rpartition("/")[2]).SerializeToString().hex())
        if isinstance(entry, File):
            digest = digest_of(entry.data, function)
            result.output_files.add(path=relative, digest=digest, is_executable=entry.executable)
        elif isinstance(entry, Link):
            getattr(result, legacy).add(path=relative, target=entry.target)
        else:
            found: dict[str, bytes] = {}
            root = encode(entry, function, found)
            tree = reapi.Tree(
                root=reapi.Directory.FromString(found.pop(root.hash)),
                children=[reapi.Directory.FromString(found[one]) for one in sorted(found)],
            )
            data = tree.SerializeToString()
            trees.append(data.hex())
            result.output_directories.add(path=relative, tree_digest=digest_of(data, function))
    for blob, contents in store.blobs.items():
        files[HASHES[function](bytes.fromhex(contents))] = blob
    return {
        "about": about,
        "function": function,
        "request": request.SerializeToString().hex(),
        "result": result.SerializeToString().hex(),
        "trees": trees,
        "files": files,
        "nodes": nodes,
        "directories": [store.directories[one] for one in sorted(store.directories)],
        "missing": ["nix/store/7-missing"],
    }


def raising() -> list[dict[str, Any]]:
    """Return the vectors of raising.json."""
    return [
        vector
        for function in HASHES
        for vector in (
            raised("outputs of each kind", function, OUTPUTS, "output_symlinks"),
            raised("a symbolic link of an old engine", function, OUTPUTS, "output_file_symlinks"),
            raised(
                "a symbolic link of an old engine to a directory",
                *(function, OUTPUTS, "output_directory_symlinks"),
            ),
            raised("no outputs", function, {}, ""),
        )
    ]


def texts() -> dict[str, str]:
    """Return the texts of the files by name."""
    return {
        "lowering.json": json.dumps(lowering(), indent=1) + "\n",
        "raising.json": json.dumps(raising(), indent=1) + "\n",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Write tests/remote_execution/*.json.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail if one is stale")
    only_check = parser.parse_args().check
    stale = False
    FILES.mkdir(exist_ok=True)
    for name, text in texts().items():
        path = FILES / name
        if not only_check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            print(f"{name} is stale")
            stale = True
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
