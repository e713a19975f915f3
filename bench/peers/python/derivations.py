# SPDX-License-Identifier: MIT
"""The derivations of a corpus, each NAME, NUL, text, as files: a whole process that makes a request
of each and hashes it.

usage: python -m bench.peers.python.derivations CORPUS from-drv|plain

`plain` is Python's protobuf and `ast`, as such a file happens to be a Python literal but for its
name. It checks nothing. Both skip derivations whose builder is part of Nix, of which `from-drv`
makes no request.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tempfile
from pathlib import Path

from blake3 import blake3
from google.protobuf.proto import parse_length_prefixed, serialize_length_prefixed

from bench.peers.python.serve import Corpus, Findings, serve, timed
from tvix.build.protos.build_pb2 import BuildRequest
from tvix.castore.protos.castore_pb2 import Node

PROGRAM = [sys.executable, "-m", "tvix_build"]
STORE = "/nix/store/"
BUILD_DIRECTORIES = dict.fromkeys(
    ["NIX_BUILD_TOP", "PWD", "TEMP", "TEMPDIR", "TMP", "TMPDIR"], "/build"
)
ENVIRONMENT = {
    "HOME": "/homeless-shelter",
    "NIX_BUILD_CORES": "0",
    "NIX_LOG_FD": "2",
    "NIX_STORE": "/nix/store",
    "PATH": "/path-not-set",
    "TERM": "xterm-256color",
    **BUILD_DIRECTORIES,
}


def read(text: bytes) -> tuple:  # type: ignore[type-arg]
    """The fields of a derivation; strings hold one character for each byte."""
    return ast.literal_eval(text.decode("latin-1").removeprefix("Derive"))  # type: ignore[no-any-return]


def write_nodes(derivations: list[bytes], file: Path) -> None:
    """A node for each source and each output, with a digest that stands in."""
    paths: set[str] = set()
    for text in derivations:
        outputs, _, sources, *_ = read(text)
        paths.update(sources, (output[1] for output in outputs))
    with file.open("wb") as stream:
        for path in sorted(paths):
            node = Node()
            node.file.name = path.removeprefix(STORE).encode()
            node.file.digest = blake3(path.encode()).digest()
            serialize_length_prefixed(node, stream)  # type: ignore[arg-type]


def plain(directory: Path, nodes_file: Path) -> list[bytes]:
    """The digests of the requests of all derivations in a directory, in the order of names."""
    nodes = {}
    stream = io.BytesIO(nodes_file.read_bytes())
    while (node := parse_length_prefixed(Node, stream)) is not None:
        nodes[STORE + node.file.name.decode()] = node
    files = sorted(directory.iterdir())
    derivations = {STORE + file.name: read(file.read_bytes()) for file in files}
    paths = {
        derivation: {name: path for name, path, *_ in fields[0]}
        for derivation, fields in derivations.items()
    }
    digests = []
    for outputs, inputs, sources, system, builder, arguments, variables in derivations.values():
        if builder.startswith("builtin:"):
            continue
        used = {paths[path][name] for path, names in inputs for name in names}
        environment = sorted((ENVIRONMENT | dict(variables)).items())
        request = BuildRequest(
            command_args=[one.encode("latin-1").decode() for one in (builder, *arguments)],
            outputs=sorted(output[1].removeprefix(STORE) for output in outputs),
            environment_vars=[
                BuildRequest.EnvVar(
                    key=key.encode("latin-1").decode(), value=value.encode("latin-1")
                )
                for key, value in environment
            ],
            inputs=[nodes[path] for path in sorted({*sources, *used})],
            constraints=BuildRequest.BuildConstraints(system=system),
        )
        digests.append(blake3(request.SerializeToString()).digest())
    return digests


def main() -> None:
    """Serves the corpus that the command line names."""
    corpus = Corpus.read(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as temporary:
        directory, nodes = Path(temporary, "store"), Path(temporary, "nodes.binpbs")
        directory.mkdir()
        texts = []
        for message in corpus.messages():
            name, _, text = message.partition(b"\0")
            Path(directory, name.decode()).write_bytes(text)
            texts.append(text)
        write_nodes(texts, nodes)
        module = [sys.executable, "-m", "bench.peers.python.derivations"]
        commands = {
            "from-drv": [*PROGRAM, "from-drv", str(directory), "--nodes", str(nodes)],
            "plain": [*module, str(directory), "digests", str(nodes)],
        }

        def repeat() -> Findings:
            command = commands[sys.argv[2]]
            # `from-drv` exits with 1 because it rejects some derivations.
            pipe = subprocess.PIPE
            run = subprocess.run(command, stdout=pipe, stderr=subprocess.DEVNULL, check=False)
            lines = run.stdout.splitlines()
            return Findings(
                len(lines), b"".join(bytes.fromhex(line[:64].decode()) for line in lines)
            )

        serve(corpus, timed(repeat))


if __name__ == "__main__":
    if sys.argv[2] == "digests":
        for digest in plain(Path(sys.argv[1]), Path(sys.argv[3])):
            print(digest.hex())
    else:
        main()
