# SPDX-License-Identifier: MIT
"""Makes the examples: runs Nix on packages.nix and turns its derivations into build requests.

usage: make_examples.py [--check] [--no-nix]

--check compares with the files that are there, writes nothing, and exits with 1 if they differ.
--no-nix starts from the derivations and sources that are there, so that Nix is not needed.

Needs protobuf, blake3, zstandard, and this project's generated protobuf modules on the path. It
does not use tvix_build, so that the examples can put it to the test.
"""

from __future__ import annotations

import ast
import io
import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import zstandard
from blake3 import blake3
from broken_examples import broken_examples, expectations, readme
from google.protobuf import json_format, text_format
from google.protobuf.message import Message
from google.protobuf.proto import serialize_length_prefixed

from tvix.build.protos.build_pb2 import Build, BuildRequest
from tvix.castore.protos.castore_pb2 import (
    Directory,
    DirectoryNode,
    FileNode,
    Node,
    SymlinkNode,
)

HERE = Path(__file__).absolute().parent
STORE = "/nix/store/"

# The directories whose files this script makes, all of them.
MADE = ("derivations", "directories", "requests", "builds", "not-canonical")

# The environment that Nix gives to every build, before the derivation's own.
NIX_ENVIRONMENT = {
    "HOME": "/homeless-shelter",
    "NIX_BUILD_CORES": "0",
    "NIX_BUILD_TOP": "/build",
    "NIX_LOG_FD": "2",
    "NIX_STORE": "/nix/store",
    "PATH": "/path-not-set",
    "PWD": "/build",
    "TEMP": "/build",
    "TEMPDIR": "/build",
    "TERM": "xterm-256color",
    "TMP": "/build",
    "TMPDIR": "/build",
}

# A file's path below this directory, and its contents.
Files = dict[str, bytes]


# --- Nix ---------------------------------------------------------------------------------------


def instantiate() -> Files:
    """Runs Nix on packages.nix: its derivations, and its sources as castore nodes."""
    with tempfile.TemporaryDirectory() as directory:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": directory,
            "NIX_CONF_DIR": directory,
            "NIX_USER_CONF_FILES": "",
            # As root Nix would give the store to a group that a sandbox may lack.
            "NIX_CONFIG": "build-users-group =",
        }
        # Resolved, or Nix would take a linked source file for a symlink.
        packages = (HERE / "packages.nix").resolve()
        # A store of its own: the paths in the derivations are those of /nix/store all the same.
        command = ["nix-instantiate", "--store", directory, str(packages)]
        run = subprocess.run(command, env=environment, capture_output=True, text=True)
        if run.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{run.stderr}")
        files: Files = {}
        sources: dict[str, object] = {}
        for path in sorted(Path(directory, "nix/store").iterdir()):
            if path.suffix == ".drv":
                files[f"derivations/{path.name}"] = path.read_bytes()
            elif not path.name.startswith("."):
                sources[path.name] = json_format.MessageToDict(node_of(path, files))
        files["sources.json"] = json_text(sources)
        return files


def node_of(path: Path, files: Files) -> Node:
    """The castore node of what lies at `path`; adds the Directory messages below it to `files`."""
    name = os.fsencode(path.name)
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return Node(symlink=SymlinkNode(name=name, target=os.fsencode(path.readlink())))
    if stat.S_ISREG(mode):
        data = path.read_bytes()
        digest = blake3(data).digest()
        executable = bool(mode & stat.S_IXUSR)
        file = FileNode(name=name, digest=digest, size=len(data), executable=executable)
        return Node(file=file)
    directory = Directory()
    for child in sorted(path.iterdir(), key=lambda child: os.fsencode(child.name)):
        node = node_of(child, files)
        directory.directories.extend([node.directory] if node.HasField("directory") else [])
        directory.files.extend([node.file] if node.HasField("file") else [])
        directory.symlinks.extend([node.symlink] if node.HasField("symlink") else [])
    encoding = directory.SerializeToString()
    digest = blake3(encoding).digest()
    files[f"directories/{digest.hex()}.binpb"] = encoding
    size = sum(1 + below.size for below in directory.directories)
    size += len(directory.files) + len(directory.symlinks)
    return Node(directory=DirectoryNode(name=name, digest=digest, size=size))


def committed() -> Files:
    """What `instantiate` made the last time."""
    paths = [*HERE.glob("derivations/*.drv"), *HERE.glob("directories/*.binpb")]
    paths.append(HERE / "sources.json")
    return {path.relative_to(HERE).as_posix(): path.read_bytes() for path in paths}


# --- Derivations to requests -------------------------------------------------------------------


class Derivation(NamedTuple):
    """A .drv file, in the order of its fields. Strings hold one character for each byte."""

    outputs: list[tuple[str, str, str, str]]  # name, path, hash algorithm, hash
    input_derivations: list[tuple[str, list[str]]]  # path, names of the outputs that are used
    input_sources: list[str]
    system: str
    builder: str
    args: list[str]
    env: list[tuple[str, str]]


def parse_derivation(data: bytes) -> Derivation:
    """Reads a .drv that Nix wrote: such a file happens to be a Python literal, but for its name."""
    return Derivation(*ast.literal_eval(data.decode("latin-1").removeprefix("Derive")))


def base_name(store_path: str) -> str:
    return store_path.removeprefix(STORE)


def stand_in(name: str) -> Node:
    """A node in place of an output that is not built, always the same for a name.

    Its digest is BLAKE3 of the store path, its size a number from that digest. Its kind is what
    the build would make.
    """
    digest = blake3((STORE + name).encode()).digest()
    size = int.from_bytes(digest[:2], "little")
    suffix = PurePosixPath(name).suffix
    if suffix in (".sh", ".txt"):
        executable = suffix == ".sh"
        file = FileNode(name=name.encode(), digest=digest, size=size, executable=executable)
        return Node(file=file)
    return Node(directory=DirectoryNode(name=name.encode(), digest=digest, size=size))


def node_name(node: Node) -> bytes:
    return node.directory.name or node.file.name or node.symlink.name


def raw(text: str) -> bytes:
    """The bytes of a string of a Derivation."""
    return text.encode("latin-1")


def request_of(
    derivation: Derivation, derivations: Mapping[str, Derivation], sources: Mapping[str, Node]
) -> BuildRequest:
    """The request for `derivation`, canonical; the mappings go by base name."""
    environment = NIX_ENVIRONMENT | dict(derivation.env)
    inputs = [sources[base_name(path)] for path in derivation.input_sources]
    for path, used in derivation.input_derivations:
        outputs = {output[0]: output[1] for output in derivations[base_name(path)].outputs}
        inputs += [stand_in(base_name(outputs[name])) for name in used]
    inputs.sort(key=node_name)
    return BuildRequest(
        command_args=[raw(arg).decode() for arg in [derivation.builder, *derivation.args]],
        outputs=sorted(base_name(output[1]) for output in derivation.outputs),
        environment_vars=[
            BuildRequest.EnvVar(key=raw(key).decode(), value=raw(value))
            for key, value in sorted(environment.items())
        ],
        inputs=inputs,
        constraints=BuildRequest.BuildConstraints(system=derivation.system),
    )


def sources_of(base: Files) -> dict[str, Node]:
    """The nodes of the sources in `base`, by base name."""
    nodes = json.loads(base["sources.json"])
    return {name: json_format.ParseDict(node, Node()) for name, node in nodes.items()}


def derivations_of(base: Files) -> dict[str, Derivation]:
    """The derivations in `base`, by base name, in its order."""
    return {
        PurePosixPath(path).name: parse_derivation(data)
        for path, data in sorted(base.items())
        if path.startswith("derivations/")
    }


def requests_of(base: Files) -> dict[str, BuildRequest]:
    """A request for each derivation in `base`, by the derivation's base name without .drv."""
    sources, derivations = sources_of(base), derivations_of(base)
    return {
        name.removesuffix(".drv"): request_of(derivation, derivations, sources)
        for name, derivation in derivations.items()
    }


def nodes_of(base: Files) -> bytes:
    """A line of JSON for each source and each output, by store path."""
    nodes = sources_of(base)
    for derivation in derivations_of(base).values():
        for output in derivation.outputs:
            nodes[base_name(output[1])] = stand_in(base_name(output[1]))
    lines = (
        json.dumps({"path": STORE + name, "node": json_format.MessageToDict(node)})
        for name, node in sorted(nodes.items())
    )
    return "".join(f"{line}\n" for line in lines).encode()


# --- Examples made of requests -----------------------------------------------------------------


def valid_examples(requests: Mapping[str, BuildRequest]) -> Files:
    """Every request by itself, all in one stream, and some by themselves as text."""
    files = {
        f"requests/{name}.binpb": request.SerializeToString() for name, request in requests.items()
    }
    stream = io.BytesIO()
    for request in requests.values():
        serialize_length_prefixed(request, stream)
    files["requests/all.binpbs"] = stream.getvalue()
    files["requests/all.binpbs.zst"] = zstandard.compress(stream.getvalue(), 19)
    lines = [json_format.MessageToJson(request, indent=None) for request in requests.values()]
    files["requests/all.ndjson"] = "".join(f"{line}\n" for line in lines).encode()

    name, request = named("greet-0.3", requests)
    files[f"requests/{name}.json"] = json_text(json_format.MessageToDict(request))
    files[f"requests/{name}.txtpb"] = text_of(request)

    name, request = named("libgreet-1.2", requests)
    build = Build(build_request=request, outputs=map(stand_in, request.outputs))
    files[f"builds/{name}.binpb"] = build.SerializeToString()
    files[f"builds/{name}.txtpb"] = text_of(build)
    return files


def named(package: str, requests: Mapping[str, BuildRequest]) -> tuple[str, BuildRequest]:
    """The request for `package`, and its name with the hash."""
    return next(item for item in requests.items() if item[0].partition("-")[2] == package)


def not_canonical_examples(request: BuildRequest) -> Files:
    """Valid messages that say what `request` says, in other bytes."""
    data = request.SerializeToString()
    late = BuildRequest(command_args=request.command_args).SerializeToString()
    length = len(request.command_args[0])
    return {
        "not-canonical/field-order.binpb": data.removeprefix(late) + late,
        "not-canonical/long-varint.binpb": bytes([data[0], length | 0x80, 0]) + data[2:],
        # The constraints once more, with min_memory = 0: to be merged with the first.
        "not-canonical/default-value.binpb": data + b"\x2a\x02\x10\x00",
    }


# --- Files -------------------------------------------------------------------------------------


def json_text(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()


def text_of(message: Message) -> bytes:
    descriptor = message.DESCRIPTOR
    head = "# SPDX-License-Identifier: MIT\n"
    head += f"# proto-file: {descriptor.file.name}\n# proto-message: {descriptor.full_name}\n\n"
    return (head + text_format.MessageToString(message, as_utf8=True)).encode()


def make(base: Files) -> Files:
    """All that this script makes; `base` is what Nix made."""
    requests = requests_of(base)
    _, whole = named("words.txt", requests)
    broken = broken_examples(whole, HERE / "broken")
    files = base | valid_examples(requests) | not_canonical_examples(whole)
    files |= {f"broken/{path}": example.data for path, example in broken.items() if example.data}
    files["broken/expected.json"] = json_text(expectations(broken))
    files["broken/README.md"] = readme(broken).encode()
    files["nodes.ndjson"] = nodes_of(base)
    return files


def differences(wanted: Files) -> list[str]:
    """The files that are not there as they should be, and those that should not be there."""

    def contents(path: str, data: bytes) -> bytes:
        # What zstd makes of the same bytes depends on its version.
        return zstandard.decompress(data) if path.endswith(".zst") else data

    paths = [path for directory in MADE for path in HERE.glob(f"{directory}/*")]
    paths += HERE.glob("broken/*/*.binpb")
    surplus = {path.relative_to(HERE).as_posix() for path in paths} - wanted.keys()
    changed = [
        path
        for path, data in wanted.items()
        if not (HERE / path).exists()
        or contents(path, (HERE / path).read_bytes()) != contents(path, data)
    ]
    return sorted([*surplus, *changed])


def main(arguments: list[str]) -> int:
    unknown = set(arguments) - {"--check", "--no-nix"}
    if unknown:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    wanted = make(committed() if "--no-nix" in arguments else instantiate())
    different = differences(wanted)
    for path in different:
        print(path)
        if "--check" in arguments:
            continue
        if path in wanted:
            (HERE / path).parent.mkdir(parents=True, exist_ok=True)
            (HERE / path).write_bytes(wanted[path])
        else:
            (HERE / path).unlink()
    return 1 if different and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
