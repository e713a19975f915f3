# SPDX-License-Identifier: MIT
"""The command `ingest`: makes castore nodes of files on disk, and copies their contents."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, TypeAlias

import click
from google.protobuf import json_format
from google.protobuf.proto import serialize_length_prefixed

from tvix_build._core import file_hashing
from tvix_build._core.text import json_line
from tvix_build.castore import ChangedError, IngestError, node_from_path
from tvix_build.cli.terminal import Monitor, printable, stdout_console
from tvix_build.nix.derivation import STORE
from tvix_build.records import temporary
from tvix_build.records.errors import OutputError
from tvix_build.records.output import Output, output_errors
from tvix_build.records.source import split_name

if TYPE_CHECKING:
    from tvix.castore.protos import castore_pb2

FORMATS = ("ndjson", "binpbs")
Ingest: TypeAlias = "Callable[[str, Monitor], tuple[str, castore_pb2.Node]]"
"""Returns the path to write and the node of a path."""


def run(
    paths: tuple[str, ...],
    output: str | None,
    blobs: str | None,
    store: str | None,
    directory_sizes: str,
) -> int:
    """Run the command, and return its exit status."""
    blob_store = None if blobs is None else Blobs(blobs)

    def ingest(path: str, monitor: Monitor) -> tuple[str, castore_pb2.Node]:
        key = os.path.abspath(path) if store is None else _store_path(path, store)
        return key, _ingest(path, blob_store, directory_sizes, monitor)

    return write_nodes(paths, output, ingest)


def write_nodes(paths: tuple[str, ...], output: str | None, ingest: Ingest) -> int:
    """Make the nodes of all paths, print and write them, and return the exit status."""
    output_format, compression = _format_of(output)
    failed = False
    with (
        Output(output, compression) if output is not None else nullcontext() as target,
        Monitor(results=True) as monitor,
    ):
        for path in paths:
            try:
                key, node = ingest(path, monitor)
            except OutputError:
                raise
            except (IngestError, OSError, ValueError) as error:
                failed = True
                monitor.error(_reason(error))
                continue
            if target:
                target.write(_encode(key, node, output_format))
            if output != "-":
                with output_errors("standard output"):
                    stdout_console().say(node_line(node))
    return 2 if failed else 0


def _format_of(output: str | None) -> tuple[str, str | None]:
    """Return the format and the compression of the output."""
    if output is None or output == "-":
        return "ndjson", None
    name, compression = split_name(output)
    if name not in FORMATS:
        raise click.UsageError(f"expected a name such as x.ndjson or x.binpbs, found {output!r}")
    return name, compression


def _store_path(path: str, store: str) -> str:
    """Return the store path of a file in a directory that stands for the store.

    Raises:
        ValueError: if the file is not directly in the directory.
        OSError: if its parent directory cannot be read.
    """
    directory, name = os.path.split(os.path.abspath(path))
    if not os.path.samefile(directory, store):
        raise ValueError(f"expected a path directly in {store}, found {path}")
    return STORE + name


def _ingest(
    path: str, store: Blobs | None, directory_sizes: str, monitor: Monitor
) -> castore_pb2.Node:
    files = size = directories = 0

    def on_file(digest: bytes, file: bytes, file_size: int) -> None:
        nonlocal files, size
        files += 1
        size += file_size
        if store:
            store.put(digest, lambda made: _copy(file, digest, made))

    def on_directory(digest: bytes, encoding: bytes) -> None:
        nonlocal directories
        directories += 1
        if store:
            store.put(digest, lambda made: _write(encoding, made))
        monitor.show_status(f"{files:,} files  {directories:,} directories  {size / 1e6:,.0f} MB")

    return node_from_path(
        path, on_directory=on_directory, on_file=on_file, directory_sizes=directory_sizes
    )


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{os.fsdecode(error.filename)}: {error.strerror or error}"
    return str(error)


def node_line(node: castore_pb2.Node, directory: bytes = b"") -> str:
    """Return a node as a readable line. Its name is shown as a name in `directory`."""
    kind = node.WhichOneof("node")
    if kind == "symlink":
        digest, size, name = "-", "-", node.symlink.name
        rest = f" -> {printable(os.fsdecode(node.symlink.target))}"
    else:
        member = node.file if kind == "file" else node.directory
        digest, size, name, rest = member.digest.hex(), str(member.size), member.name, ""
        if kind == "file" and node.file.executable:
            kind = "executable"
    shown = printable(os.fsdecode(os.path.join(directory, name)))
    return f"{kind:<10}  {digest:<64}  {size:>10}  {shown}{rest}"


def _encode(path: str, node: castore_pb2.Node, format_name: str) -> bytes:
    if format_name == "binpbs":
        stream = io.BytesIO()
        serialize_length_prefixed(node, stream)
        return stream.getvalue()
    line = {"path": path, "node": json_format.MessageToDict(node)}
    return json_line(line).encode() + b"\n"


class Blobs:
    """A directory of contents by digest. Each file is written atomically."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        with output_errors(directory):
            os.makedirs(directory, exist_ok=True)

    def put(self, digest: bytes, write: Callable[[str], None]) -> None:
        """Call `write` with the name of a file to create, unless the digest is stored already.

        Raises:
            OutputError: if the file cannot be written.
        """
        name = digest.hex()
        target = os.path.join(self._directory, name[:2], name)
        if os.path.exists(target):
            return
        made = temporary.new(self._directory, name)
        try:
            write(made)
            with output_errors(target):
                os.makedirs(os.path.dirname(target), exist_ok=True)
                temporary.put(made, target)
        except BaseException:
            temporary.remove(made)
            raise


def _write(data: bytes, target: str) -> None:
    with output_errors(target), open(target, "xb") as file:
        file.write(data)


def _copy(source: bytes, digest: bytes, target: str) -> None:
    """Copy a file, and check that it still has the digest.

    Raises:
        ChangedError: if the file has another digest now.
        OSError, OutputError: if the file cannot be read, or the target cannot be written.
    """
    with (
        open(os.open(source, file_hashing.OPEN), "rb", buffering=0) as file,
        output_errors(target),
        open(target, "xb", buffering=0) as copy,
    ):
        shutil.copyfileobj(file, copy, 1 << 20)
    if _digest(os.fsencode(target)) != digest:
        raise ChangedError(source)


def _digest(path: bytes) -> bytes:
    found = file_hashing.hash_files(file_hashing.HERE, [path])
    if found.statuses[0] == file_hashing.LARGE:
        return node_from_path(path).file.digest
    file_hashing.raise_status(found.statuses[0], path)
    return found.digests
