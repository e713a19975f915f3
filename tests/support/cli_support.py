# SPDX-License-Identifier: MIT
"""Runs the command line, here or in a process, and makes its inputs with protobuf alone."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard
from blake3 import blake3
from google.protobuf import json_format, text_format

from tvix.build.protos.build_pb2 import BuildRequest
from tvix.castore.protos.castore_pb2 import FileNode, Node
from tvix_build import cli

COMMAND = (sys.executable, "-m", "tvix_build")
SUFFIXES = ("", ".zst", ".gz", ".xz")


@dataclass(frozen=True)
class Result:
    """What a command left."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The JSON objects on stdout."""
        return [json.loads(line) for line in self.stdout.splitlines()]


def environment() -> dict[str, str]:
    """The environment of the process, so that it finds what this one finds."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**kept, "PYTHONPATH": path, "COLUMNS": "80"}


def run(*arguments: str | Path, stdin: bytes | None = b"", cwd: Path | None = None) -> Result:
    """Run `tvix-build` in this process; with stdin closed if that is None."""
    before = sys.stdin, sys.stdout, sys.stderr
    folder = os.getcwd()
    columns = os.environ.get("COLUMNS")
    with (
        _memory("rb", stdin or b"") as standard_input,
        _memory("wb") as output,
        _memory("wb") as errors,
    ):
        try:
            os.environ["COLUMNS"] = "80"
            os.chdir(cwd or folder)
            sys.stdin = standard_input if stdin is not None else None
            # As `tvix_build.__main__` sets them.
            sys.stdout, sys.stderr = output, errors
            status = cli.main([str(argument) for argument in arguments])
        finally:
            sys.stdin, sys.stdout, sys.stderr = before
            os.chdir(folder)
            os.environ.pop("COLUMNS")
            if columns is not None:
                os.environ["COLUMNS"] = columns
        return Result(status, _content(output), _content(errors).decode())


def _memory(mode: str, data: bytes = b"") -> io.TextIOWrapper:
    """A standard stream of a process, redirected to a file that contains `data`."""
    descriptor = os.memfd_create("stream")
    os.pwrite(descriptor, data, 0)
    return io.TextIOWrapper(open(descriptor, mode), errors="backslashreplace")


def _content(stream: io.TextIOWrapper) -> bytes:
    stream.flush()
    return os.pread(stream.fileno(), os.fstat(stream.fileno()).st_size, 0)


def run_process(
    *arguments: str | Path, stdin: bytes | None = b"", cwd: Path | None = None
) -> Result:
    """Run `tvix-build` in a process of its own, as `run` does in this one."""
    closing = () if stdin is not None else ("sh", "-c", 'exec "$@" <&-', "sh")
    done = subprocess.run(
        [*closing, *COMMAND, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        env=environment(),
        cwd=cwd,
        timeout=120,
        check=False,
    )
    result = Result(done.returncode, done.stdout, done.stderr.decode())
    assert "Traceback" not in result.stderr, result.stderr
    return result


def start(
    *arguments: str | Path, terminal: str = "dumb", unbuffered: bool = False, **files: Any
) -> subprocess.Popen[bytes]:
    """Start `tvix-build`, with a pipe for each of stdin, stdout and stderr not in `files`."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    variables = {"TERM": terminal, **({"PYTHONUNBUFFERED": "1"} if unbuffered else {})}
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        env={**environment(), **variables},
        **{**pipes, **files},
    )


def request(number: int = 0, **changes: Any) -> BuildRequest:
    """A canonical request; each number gives another."""
    node = FileNode(name=b"%04d-builder" % number, digest=bytes(range(32)), size=number + 1)
    fields: dict[str, Any] = {
        "command_args": ["/bin/sh", "-c", f"build {number}"],
        "outputs": [f"{number:04}-out"],
        "environment_vars": [BuildRequest.EnvVar(key="HOME", value=b"/")],
        "inputs": [Node(file=node)],
        "constraints": BuildRequest.BuildConstraints(system="x86_64-linux"),
    }
    return BuildRequest(**{**fields, **changes})


def unsorted_request() -> BuildRequest:
    """A request whose only fault is the order of its outputs."""
    return request(1, outputs=["b", "a"])


def invalid_request() -> BuildRequest:
    """A request without a canonical encoding: it has no command and an output that is no name."""
    return request(2, command_args=[], outputs=["a/b"])


def encoded(message: BuildRequest) -> bytes:
    """The bytes of a message as protobuf writes them."""
    return message.SerializeToString(deterministic=True)


def digest(message: BuildRequest) -> str:
    """The digest of a canonical message in hex."""
    return blake3(encoded(message)).hexdigest()


def varint(value: int) -> bytes:
    """A value below 2^28 as protobuf writes it."""
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def delimited(messages: Iterable[bytes]) -> bytes:
    """Messages as a size-delimited stream."""
    return b"".join(varint(len(message)) + message for message in messages)


def written(messages: Sequence[BuildRequest], suffix: str) -> bytes:
    """Messages in the format of a suffix: one message, or any number where it is a stream."""
    if suffix == ".binpbs":
        return delimited(map(encoded, messages))
    if suffix == ".ndjson":
        texts = (json_format.MessageToJson(message, indent=None) for message in messages)
        return "".join(text + "\n" for text in texts).encode()
    (message,) = messages
    if suffix == ".binpb":
        return encoded(message)
    if suffix == ".json":
        return json_format.MessageToJson(message).encode()
    return text_format.MessageToString(message).encode()


def compressed(data: bytes, suffix: str) -> bytes:
    """Data compressed as a suffix says."""
    if suffix == ".zst":
        return zstandard.ZstdCompressor(write_checksum=True).compress(data)
    if suffix == ".gz":
        return gzip.compress(data)
    return lzma.compress(data) if suffix == ".xz" else data


def decompressed(data: bytes, suffix: str) -> bytes:
    """The inverse of `compressed`."""
    if suffix == ".zst":
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    if suffix == ".gz":
        return gzip.decompress(data)
    return lzma.decompress(data) if suffix == ".xz" else data


def make(folder: Path, name: str, messages: Sequence[BuildRequest]) -> Path:
    """Write messages to a file in the format and compression that its name tells."""
    parts = name.split(".")
    suffix = "." + parts[-1] if "." + parts[-1] in SUFFIXES else ""
    kind = "." + parts[-2 if suffix else -1]
    path = folder / name
    path.write_bytes(compressed(written(messages, kind), suffix))
    return path
