# SPDX-License-Identifier: MIT
"""The command `ingest`: castore nodes of what is on disk, and what they refer to into a folder."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

import click
from google.protobuf import json_format
from google.protobuf.proto import serialize_length_prefixed

from tvix_build._core import file_hashing
from tvix_build._core.text import json_line
from tvix_build.castore import ChangedError, IngestError, node_from_path
from tvix_build.cli.command import Command
from tvix_build.cli.terminal import Monitor, printable, stdout_console
from tvix_build.nix.derivation import STORE
from tvix_build.records import temporary
from tvix_build.records.errors import OutputError
from tvix_build.records.output import Output, output_errors
from tvix_build.records.source import split_name

if TYPE_CHECKING:
    from tvix.castore.protos import castore_pb2

FORMATS = ("ndjson", "binpbs")


@click.command(cls=Command, short_help="Print castore nodes of files and folders.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Write nodes to FILE (.ndjson or .binpbs); '-' prints them as ndjson and nothing else.",
)
@click.option(
    "--blobs",
    metavar="DIR",
    help="Also write every Directory and every file's contents to DIR/XX/DIGEST.",
)
@click.option(
    "--store",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    help="DIR stands for /nix/store, and each PATH in it for a store path.",
)
def ingest(paths: tuple[str, ...], output: str | None, blobs: str | None, store: str | None) -> int:
    """Print the castore node of each PATH: a file, a folder with all in it, or a symbolic link.

    \b
    Examples:
      tvix-build ingest src
      tvix-build ingest --output nodes.ndjson --blobs blobs /nix/store/*-source
      tvix-build ingest --output nodes.ndjson --store root/nix/store root/nix/store/*

    A line is the kind, the digest, the size and the name. An .ndjson has a line
    {"path", "node"} for each PATH, made absolute, the node as proto3 JSON; a .binpbs has Node
    messages, each behind its length as a varint. With --store, "path" is /nix/store/NAME, and a
    PATH that is not directly in DIR is an error. In the DIR of --blobs, XX are the first two
    digits of the digest; what is there already is not written again. What changes while it is
    read is an error.
    """
    output_format, compression = _format_of(output)
    blob_store = None if blobs is None else Blobs(blobs)
    failed = False
    with (
        Output(output, compression) if output is not None else nullcontext() as target,
        Monitor(quiet=output == "-") as monitor,
    ):
        for path in paths:
            try:
                key = os.path.abspath(path) if store is None else _store_path(path, store)
                node = _ingest(path, blob_store, monitor)
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
                    stdout_console().say(_line(node))
    return 2 if failed else 0


def _format_of(output: str | None) -> tuple[str, str | None]:
    """Format and compression of the file for the nodes."""
    if output is None or output == "-":
        return "ndjson", None
    name, compression = split_name(output)
    if name not in FORMATS:
        raise click.UsageError(f"expected a name such as x.ndjson or x.binpbs, found {output!r}")
    return name, compression


def _store_path(path: str, store: str) -> str:
    """The store path of what lies in a directory that stands for the store.

    Raises:
        ValueError: if it does not lie directly in it.
        OSError: if the directory that it lies in cannot be looked at.
    """
    folder, name = os.path.split(os.path.abspath(path))
    if not os.path.samefile(folder, store):
        raise ValueError(f"expected a path directly in {store}, found {path}")
    return STORE + name


def _ingest(path: str, store: Blobs | None, monitor: Monitor) -> castore_pb2.Node:
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
        monitor.show_status(f"{files:,} files  {directories:,} folders  {size / 1e6:,.0f} MB")

    return node_from_path(path, on_directory=on_directory, on_file=on_file)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{os.fsdecode(error.filename)}: {error.strerror or error}"
    return str(error)


def _line(node: castore_pb2.Node) -> str:
    """A node for people to read."""
    kind = node.WhichOneof("node")
    if kind == "symlink":
        digest, size, name = "-", "-", node.symlink.name
        rest = f" -> {printable(os.fsdecode(node.symlink.target))}"
    else:
        member = node.file if kind == "file" else node.directory
        digest, size, name, rest = member.digest.hex(), str(member.size), member.name, ""
        if kind == "file" and node.file.executable:
            kind = "executable"
    return f"{kind:<10}  {digest:<64}  {size:>10}  {printable(os.fsdecode(name))}{rest}"


def _encode(path: str, node: castore_pb2.Node, format_name: str) -> bytes:
    if format_name == "binpbs":
        stream = io.BytesIO()
        serialize_length_prefixed(node, stream)
        return stream.getvalue()
    line = {"path": path, "node": json_format.MessageToDict(node)}
    return json_line(line).encode() + b"\n"


class Blobs:
    """A folder of contents by their digest. Each is there whole or not at all."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        with output_errors(folder):
            os.makedirs(folder, exist_ok=True)

    def put(self, digest: bytes, write: Callable[[str], None]) -> None:
        """Have `write` make a file, given its name, unless there is one of that digest.

        Raises:
            OutputError: if it cannot be written.
        """
        name = digest.hex()
        target = os.path.join(self._folder, name[:2], name)
        if os.path.exists(target):
            return
        made = temporary.new(self._folder, name)
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
    """Copy a file that had that digest a moment ago.

    Raises:
        ChangedError: if it has another one now.
        OSError, OutputError: if it cannot be read or the target not written.
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
