# SPDX-License-Identifier: MIT
"""The Python peer: protobuf's upb, the rules in plain Python, PyPI's blake3; one request after the
other.

usage: python -m bench.peers.python.upb CORPUS
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

from blake3 import blake3
from google.protobuf.internal import api_implementation
from google.protobuf.message import DecodeError

from bench.peers.python.serve import Corpus, Findings, serve, timed
from tvix.build.protos.build_pb2 import BuildRequest
from tvix.castore.protos.castore_pb2 import Node

if api_implementation.Type() != "upb":
    raise RuntimeError(f"expected protobuf's upb, found {api_implementation.Type()}")

_NO_DIGEST = bytes(32)


class Verdict(Enum):
    """What there is to say of a request."""

    VALID = 0
    UNSORTED = 1
    INVALID = 2


def check(data: bytes) -> tuple[Verdict, bytes]:
    """The verdict on a request, and its digest: of the sorted one, or zeros if it is invalid."""
    try:
        request = BuildRequest.FromString(data)
    except DecodeError:
        return Verdict.INVALID, _NO_DIGEST
    in_order = _check_and_sort(request)
    if in_order is None:
        return Verdict.INVALID, _NO_DIGEST
    request.DiscardUnknownFields()
    encoded = request.SerializeToString(deterministic=True)
    # A canonical encoding is the shortest there is: nothing unknown is in bytes that are no longer.
    if len(encoded) != len(data) and _has_unknown_fields(data, len(encoded)):
        return Verdict.INVALID, _NO_DIGEST
    return Verdict.VALID if in_order else Verdict.UNSORTED, blake3(encoded).digest()


def _has_unknown_fields(data: bytes, size_without: int) -> bool:
    return len(BuildRequest.FromString(data).SerializeToString()) != size_without


def _check_and_sort(request: BuildRequest) -> bool | None:
    """Sorts the lists; whether they had been sorted, or None if another rule is violated."""
    args = request.command_args
    if not args or any("\0" in arg for arg in args):
        return None
    names = []
    for node in request.inputs:
        name = _check_node(node)
        if name is None:
            return None
        names.append(name)
    outputs = [output.encode() for output in request.outputs]
    if not all(map(_is_name, outputs)) or not set(names).isdisjoint(outputs):
        return None
    variables = []
    for variable in request.environment_vars:
        key = variable.key
        if not key or "=" in key or "\0" in key or b"\0" in variable.value:
            return None
        variables.append(key.encode())
    paths = []
    if request.HasField("constraints"):
        if not request.constraints.system:
            return None
        for path in request.constraints.available_ro_paths:
            if not _is_host_path(path):
                return None
            paths.append(path.encode())

    lists = (names, outputs, variables, paths)
    if any(len(set(keys)) != len(keys) for keys in lists):
        return None
    if all(keys == sorted(keys) for keys in lists):
        return True
    request.outputs.sort(key=str.encode)
    request.environment_vars.sort(key=_key_of)
    request.inputs.sort(key=_name_of)
    if paths:
        request.constraints.available_ro_paths.sort(key=str.encode)
    return False


def _is_name(name: bytes) -> bool:
    return (
        0 < len(name) <= 255
        and b"/" not in name
        and b"\0" not in name
        and name != b"."
        and name != b".."
    )


def _check_node(node: Node) -> bytes | None:
    """The node's name, or None if a rule is violated."""
    member = node.WhichOneof("node")
    if member == "directory" or member == "file":
        entry = node.directory if member == "directory" else node.file
        name = entry.name
        return name if len(entry.digest) == 32 and _is_name(name) else None
    if member == "symlink":
        name, target = node.symlink.name, node.symlink.target
        good = 0 < len(target) <= 4095 and b"\0" not in target and _is_name(name)
        return name if good else None
    return None


def _is_host_path(path: str) -> bool:
    if path == "/":
        return True
    parts = path.split("/")
    if parts[0] or len(parts) < 2 or "\0" in path or parts[1:3] == ["nix", "store"]:
        return False
    return not any(part in ("", ".", "..") for part in parts[1:])


def _key_of(variable: BuildRequest.EnvVar) -> bytes:
    return variable.key.encode()


def _name_of(node: Node) -> bytes:
    member = node.WhichOneof("node")
    if member == "directory":
        return node.directory.name
    return node.file.name if member == "file" else node.symlink.name


def check_all(messages: Sequence[bytes]) -> Findings:
    """What there is to say of many requests."""
    valid = 0
    digests = []
    for message in messages:
        verdict, digest = check(message)
        valid += verdict is Verdict.VALID
        digests.append(digest)
    return Findings(valid, b"".join(digests))


def main() -> None:
    """Serves the corpus that the command line names."""
    corpus = Corpus.read(Path(sys.argv[1]))
    messages = corpus.messages()
    serve(corpus, timed(lambda: check_all(messages)))


if __name__ == "__main__":
    main()
