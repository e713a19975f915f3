# SPDX-License-Identifier: MIT
"""Runs the command line, in this process or another, and makes its inputs only with protobuf."""

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
from waiting import LIMIT

COMMAND = (sys.executable, "-m", "tvix_build")
SUFFIXES = ("", ".zst", ".gz", ".xz")


@dataclass(frozen=True)
class Result:
    """The exit status and output of a command."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Return the JSON objects on stdout."""
        return [json.loads(line) for line in self.stdout.splitlines()]


def environment() -> dict[str, str]:
    """Return an environment for a process, with the module path of this one."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    dropped = ("PYTHONSAFEPATH", "PYTHONUNBUFFERED")  # Bazel 7 sets the first one.
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, "PYTHONPATH": path, "COLUMNS": "80"}


def run(*arguments: str | Path, stdin: bytes | None = b"", cwd: Path | None = None) -> Result:
    """Run `tvix-build` in this process, with stdin closed if `stdin` is None."""
    before = sys.stdin, sys.stdout, sys.stderr
    directory = os.getcwd()
    columns = os.environ.get("COLUMNS")
    with (
        _memory("rb", stdin or b"") as standard_input,
        _memory("wb") as output,
        _memory("wb") as errors,
    ):
        try:
            os.environ["COLUMNS"] = "80"
            os.chdir(cwd or directory)
            sys.stdin = standard_input if stdin is not None else None
            # As `tvix_build.__main__` sets them.
            sys.stdout, sys.stderr = output, errors
            status = cli.main([str(argument) for argument in arguments])
        finally:
            sys.stdin, sys.stdout, sys.stderr = before
            os.chdir(directory)
            os.environ.pop("COLUMNS")
            if columns is not None:
                os.environ["COLUMNS"] = columns
        return Result(status, _content(output), _content(errors).decode())


def _memory(mode: str, data: bytes = b"") -> io.TextIOWrapper:
    """Return a stream for a file in memory that contains `data`."""
    descriptor = os.memfd_create("stream")
    os.pwrite(descriptor, data, 0)
    return io.TextIOWrapper(open(descriptor, mode), errors="backslashreplace")


def _content(stream: io.TextIOWrapper) -> bytes:
    stream.flush()
    return os.pread(stream.fileno(), os.fstat(stream.fileno()).st_size, 0)


def run_process(
    *arguments: str | Path, stdin: bytes | None = b"", cwd: Path | None = None
) -> Result:
    """Run `tvix-build` in another process; otherwise like `run`."""
    closing = () if stdin is not None else ("sh", "-c", 'exec "$@" <&-', "sh")
    done = subprocess.run(
        [*closing, *COMMAND, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        env=environment(),
        cwd=cwd,
        timeout=LIMIT,
        check=False,
    )
    result = Result(done.returncode, done.stdout, done.stderr.decode())
    assert "Traceback" not in result.stderr, result.stderr
    return result


def run_python(code: str, *arguments: object) -> Result:
    """Run Python code in another process."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        env=environment(),
        timeout=LIMIT,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr.decode())


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
    """Return a canonical request, a different one for each number."""
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
    """Return a request that is valid except for the order of its outputs."""
    return request(1, outputs=["b", "a"])


def invalid_request() -> BuildRequest:
    """Return a request without a canonical encoding: no command, and an invalid output name."""
    return request(2, command_args=[], outputs=["a/b"])


def encoded(message: BuildRequest) -> bytes:
    """Return the encoding of a message by protobuf."""
    return message.SerializeToString(deterministic=True)


def digest(message: BuildRequest) -> str:
    """Return the digest of a canonical message in hex."""
    return blake3(encoded(message)).hexdigest()


def varint(value: int) -> bytes:
    """Return a value as the shortest varint."""
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def delimited(messages: Iterable[bytes]) -> bytes:
    """Return messages as a size-delimited stream."""
    return b"".join(varint(len(message)) + message for message in messages)


def written(messages: Sequence[BuildRequest], suffix: str) -> bytes:
    """Return messages in the format of a suffix: any number for a stream, else exactly one."""
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
    """Return data in the compression of a suffix."""
    if suffix == ".zst":
        return zstandard.ZstdCompressor(write_checksum=True).compress(data)
    if suffix == ".gz":
        return gzip.compress(data)
    return lzma.compress(data) if suffix == ".xz" else data


def decompressed(data: bytes, suffix: str) -> bytes:
    """Return decompressed data: the inverse of `compressed`."""
    if suffix == ".zst":
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    if suffix == ".gz":
        return gzip.decompress(data)
    return lzma.decompress(data) if suffix == ".xz" else data


def make(directory: Path, name: str, messages: Sequence[BuildRequest]) -> Path:
    """Write messages to a file in the format and compression of its suffixes. Return its path."""
    parts = name.split(".")
    suffix = "." + parts[-1] if "." + parts[-1] in SUFFIXES else ""
    kind = "." + parts[-2 if suffix else -1]
    path = directory / name
    path.write_bytes(compressed(written(messages, kind), suffix))
    return path
