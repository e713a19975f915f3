# SPDX-License-Identifier: MIT
"""The commands of `tvix-build castore`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from tvix_build.castore import CastoreStore, MissingError
from tvix_build.cli.ingest import node_line, write_nodes
from tvix_build.cli.refusals import RefusedError
from tvix_build.cli.terminal import Monitor, printable, stdout_console
from tvix_build.records.output import Output, output_errors

if TYPE_CHECKING:
    from tvix.castore.protos import castore_pb2

_PIECE = 1 << 20


def add(path: str, paths: tuple[str, ...], output: str | None, directory_sizes: str) -> int:
    """Run the command, and return its exit status."""
    with CastoreStore(path, directory_sizes=directory_sizes) as store:
        return write_nodes(paths, output, lambda one, _: (os.path.abspath(one), store.ingest(one)))


def get(path: str, digest: str, target: str, method: str, executable: bool) -> int:
    """Run the command, and return its exit status."""
    from tvix.castore.protos.castore_pb2 import FileNode, Node

    def run(store: CastoreStore) -> None:
        node = _nodes(store, digest)[0]
        if executable and node.HasField("file"):
            node = Node(file=FileNode(digest=node.file.digest, executable=True))
        with output_errors(target):
            store.materialize(node, target, method=method)

    return _with_store(path, run)


def list_directory(path: str, digest: str, recursive: bool) -> int:
    """Run the command, and return its exit status."""

    def run(store: CastoreStore) -> None:
        # Directories that are not listed yet, the next one last.
        waiting = [(b"", _digest(store, digest))]
        while waiting:
            place, found = waiting.pop()
            directory = store.directory(found)
            nodes = _entries(directory)
            for node in nodes:
                console.say(node_line(node, place))
            if recursive:
                waiting += [
                    (os.path.join(place, child.name), child.digest)
                    for child in reversed(directory.directories)
                ]

    console = stdout_console()
    with output_errors("standard output"):
        return _with_store(path, run)


def cat(path: str, digest: str) -> int:
    """Run the command, and return its exit status."""

    def run(store: CastoreStore) -> None:
        with store.open_blob(_digest(store, digest)) as file, Output("-") as output:
            while piece := file.read(_PIECE):
                output.write(piece)

    return _with_store(path, run)


def verify(path: str) -> int:
    """Run the command, and return its exit status."""
    console = stdout_console()
    count = 0
    with CastoreStore(path, create=False) as store, output_errors("standard output"):
        for damage in store.verify():
            count += 1
            console.say(f"{printable(damage.path)}: {printable(damage.message)}", style="red")
        if not count:
            console.say("no damage")
    return 1 if count else 0


def gc(path: str, digests: tuple[str, ...], builds: tuple[str, ...], grace: float) -> int:
    """Run the command, and return its exit status."""
    if not digests and not builds:
        raise click.UsageError("expected DIGEST or --builds")

    def run(store: CastoreStore) -> None:
        roots = [node for digest in digests for node in _nodes(store, digest)]
        for file in builds:
            roots += _stored_nodes(store, file)
        found = store.collect_garbage(roots, grace_seconds=grace)
        with output_errors("standard output"):
            stdout_console().say(
                f"removed {found.blobs:,} blobs and {found.directories:,} Directories, "
                f"{found.size / 1e6:,.1f} MB; {found.kept:,} objects are left"
            )

    return _with_store(path, run)


def _with_store(path: str, run: Callable[[CastoreStore], None]) -> int:
    """Run a function with a store, and return the exit status."""
    try:
        with CastoreStore(path, create=False) as store:
            run(store)
    except (MissingError, RefusedError) as error:
        Monitor(quiet=True).error(error)
        return 1
    return 0


def _digest(store: CastoreStore, prefix: str) -> bytes:
    """Return the digest that begins with a prefix.

    Raises:
        RefusedError: if there is none, or there are several.
        click.UsageError: if it is not a prefix.
    """
    try:
        found = store.find(prefix)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if not found:
        raise RefusedError(f"no blob or Directory with the digest {prefix}")
    if len(found) > 1:
        several = f"{found[0].hex()} and {found[1].hex()}"
        raise RefusedError(f"several digests begin with {prefix}, such as {several}")
    return found[0]


def _nodes(store: CastoreStore, prefix: str) -> list[castore_pb2.Node]:
    """Return the nodes of the Directory and of the blob with a digest."""
    from tvix.castore.protos.castore_pb2 import DirectoryNode, FileNode, Node

    digest = _digest(store, prefix)
    nodes = []
    if store.has_directory(digest):
        nodes.append(Node(directory=DirectoryNode(digest=digest)))
    if store.has_blob(digest):
        nodes.append(Node(file=FileNode(digest=digest)))
    return nodes


def _stored_nodes(store: CastoreStore, builds: str) -> Iterator[castore_pb2.Node]:
    """Yield the outputs and the log of each stored build, unless outputs are missing already."""
    from tvix.castore.protos.castore_pb2 import FileNode, Node
    from tvix_build.builders.caching import has_outputs
    from tvix_build.store import RequestStore

    with RequestStore(builds, create=False) as stored:
        for _, build in stored.builds():
            if has_outputs(store, build.outputs.values()):
                yield from build.outputs.values()
                yield Node(file=FileNode(digest=build.record.log_digest))


def _entries(directory: castore_pb2.Directory) -> list[castore_pb2.Node]:
    """Return the nodes in a Directory, by name."""
    from tvix.castore.protos.castore_pb2 import Node

    nodes = [(child.name, Node(directory=child)) for child in directory.directories]
    nodes += [(file.name, Node(file=file)) for file in directory.files]
    nodes += [(link.name, Node(symlink=link)) for link in directory.symlinks]
    return [node for _, node in sorted(nodes, key=lambda pair: pair[0])]
