# SPDX-License-Identifier: MIT
"""A store of blobs and Directories by digest."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from google.protobuf.message import Message

from tvix_build._core.blake3 import blake3_many
from tvix_build._core.check import canonicalize, check
from tvix_build._core.nodes import member_of
from tvix_build._core.ranges import BytesLike, bytes_view
from tvix_build._core.report import Kind
from tvix_build.castore.checking import Damage, find_damage
from tvix_build.castore.garbage import Garbage, GarbageCollection
from tvix_build.castore.ingestion import ingest_path
from tvix_build.castore.layout import (
    DigestMismatchError,
    Layout,
    LinkMethod,
    SizeMismatchError,
    check_digest,
)
from tvix_build.castore.materializing import Materializer
from tvix_build.castore.sizes import DirectorySizes, size_below
from tvix_build.castore.tree_checks import TreeCheck
from tvix_build.castore.trees import in_use, make_trees, tree_path
from tvix_build.castore.writing import SavingIngestion, writer

if TYPE_CHECKING:
    from snix.castore.protos import castore_pb2 as snix_castore_pb2
    from tvix.castore.protos import castore_pb2


class Closure(NamedTuple):
    """The objects that a node consists of, with the size of each.

    Attributes:
        directories: the sizes of the Directories by digest, as in nodes, children before parents.
        blobs: the sizes of the blobs by digest, in bytes.
    """

    directories: dict[bytes, int]
    blobs: dict[bytes, int]


class CastoreStore:
    """A store of blobs and canonical Directories by BLAKE3 digest, in one directory.

        >>> from tvix_build.castore import CastoreStore
        >>> with CastoreStore("castore") as store:
        ...     node = store.ingest("source")
        ...     store.materialize(node, "copy")

    When a method that adds objects returns, they are on disk, and survive a crash of the process or
    of the machine. Until then none of them is visible; a killed writer leaves only files that
    `collect_garbage` removes. Objects are added under the digest that the store computes. Adding a
    stored object changes nothing.

    Many processes and threads may use a store at the same time, also one CastoreStore. While
    garbage is collected, methods other than `open_blob`, `directory` and `closure` wait.

    Args:
        path: the directory.
        create: whether to create the store if the directory does not exist or is empty.
        directory_sizes: how the sizes of Directories are counted, in those that are made and in
            those that are checked.

    Raises:
        CastoreError: if the directory is not a store, or has a newer version.
        ValueError: if `directory_sizes` is unknown.
    """

    def __init__(
        self,
        path: str | bytes | os.PathLike[str],
        *,
        create: bool = True,
        directory_sizes: DirectorySizes | str = DirectorySizes.SPECIFIED,
    ) -> None:
        self._sizes = DirectorySizes(directory_sizes)
        self._layout = Layout(os.fsdecode(path), create=create)

    @property
    def path(self) -> str:
        """The directory of the store."""
        return self._layout.path

    @property
    def directory_sizes(self) -> DirectorySizes:
        """How the sizes of Directories are counted."""
        return self._sizes

    def has_blob(self, digest: bytes) -> bool:
        """Return whether a blob is stored. If it is, garbage collection does not remove it during
        the grace period that begins now."""
        with self._layout.locked():
            return self._layout.touch("blobs", check_digest(digest))

    def add_blob(self, data: BytesLike | BinaryIO, *, digest: bytes | None = None) -> bytes:
        """Store a blob, and return its digest.

        Args:
            data: the contents, or a binary file, which is read to its end.
            digest: the expected digest; None to accept any contents.

        Raises:
            DigestMismatchError: if the contents have another digest. Then nothing is stored.
        """
        with writer(self._layout) as adding:
            view = bytes_view(data)
            if view is None:
                found = adding.add_file(cast(BinaryIO, data))
            else:
                found = blake3_many([view]).tobytes()
                adding.add("blobs", found, view)
            if digest is not None and found != check_digest(digest):
                raise DigestMismatchError(f"expected the blob {digest.hex()}, found {found.hex()}")
        return found

    def open_blob(self, digest: bytes) -> BinaryIO:
        """Return an open file with the contents of a blob. They are not verified; see `verify`.

        Raises:
            MissingError: if the blob is not stored.
        """
        return open(self._layout.open("blobs", check_digest(digest)), "rb")

    def blob_size(self, digest: bytes) -> int:
        """Return the size of a blob in bytes.

        Raises:
            MissingError: if the blob is not stored.
        """
        return self._layout.size("blobs", check_digest(digest))

    def has_directory(self, digest: bytes) -> bool:
        """Return whether a Directory is stored. If it is, garbage collection does not remove it and
        what it refers to during the grace period that begins now."""
        with self._layout.locked():
            return self._layout.touch("directories", check_digest(digest))

    def add_directory(
        self, directory: BytesLike | Message, *, check_children: bool = True
    ) -> bytes:
        """Store the canonical encoding of a Directory, and return its digest.

        Args:
            directory: the Directory, as a message or as bytes.
            check_children: whether to check that the blobs and Directories to which it refers are
                stored, with the sizes in its nodes.

        Raises:
            ValidationError: if the Directory has no canonical encoding.
            MissingError: if it refers to a blob or a Directory that is not stored.
            SizeMismatchError: if a node has another size than the object to which it refers.
        """
        encoding = canonicalize(directory, kind=Kind.DIRECTORY)
        digest = blake3_many([encoding]).tobytes()
        with writer(self._layout) as adding:
            if check_children:
                self._check_children(_parse(encoding))
            adding.add("directories", digest, encoding)
        return digest

    def add_directories(self, directories: Iterable[BytesLike | Message]) -> bytes:
        """Store all Directories of a tree, and return the digest of the root. After an error,
        nothing is stored. Blobs need not be stored.

        Args:
            directories: the Directories, leaves first and the root last.

        Raises:
            TreeError: if a Directory is invalid, if it refers to a Directory that does not come
                before it or has another size, or if the root does not lead to it.
        """
        tree = TreeCheck(self._sizes)
        with writer(self._layout) as adding:
            for directory in directories:
                adding.add("directories", *tree.add(directory))
            return tree.finish()

    def directory(self, digest: bytes) -> castore_pb2.Directory:
        """Return a Directory, after checking its digest.

        Raises:
            MissingError: if the Directory is not stored.
            CastoreError: if it is damaged.
        """
        with open(self._layout.open("directories", check_digest(digest)), "rb") as file:
            encoding = file.read()
        report = check(encoding, kind=Kind.DIRECTORY)
        if report.digest != digest or not report.canonical:
            found = report.digest.hex() if report.digest else "no valid Directory"
            raise self._layout.damaged("directories", digest, f"found {found}")
        return _parse(encoding)

    def find(self, prefix: str) -> list[bytes]:
        """Return the digests of blobs and Directories that begin with some hexadecimal digits, in
        order.

        Raises:
            ValueError: if the prefix is not 1 to 64 hexadecimal digits.
        """
        return sorted(self._layout.find(prefix))

    def ingest(
        self,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        *,
        name: str | bytes | None = None,
        threads: int | None = None,
    ) -> castore_pb2.Node:
        """Store a file, a symbolic link, or a directory and everything below it, and return its
        node. Arguments and errors as for `node_from_path`. After an error, nothing is stored.

        The stored contents are the bytes that were hashed. Symbolic links are not followed.

        Raises:
            IngestError, ChangedError, OSError, ValueError: as `node_from_path`.
        """
        with writer(self._layout) as adding:
            return ingest_path(SavingIngestion(adding, threads, self._sizes), path, name)

    def materialize(
        self,
        node: castore_pb2.Node | snix_castore_pb2.Entry,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        *,
        method: LinkMethod | str = LinkMethod.AUTO,
    ) -> None:
        """Make the file, symbolic link or directory of a node. Its name is not used.

        Files have mode 0444, or 0555 if they are executable, and modification time 1. A hard link
        is the file of the store itself: nobody but its owner can make it writable. A process that
        runs as the owner of the store and is not trusted must see it through a read-only mount,
        or get a reflink or a copy.

        Args:
            node: the node, whose objects are stored.
            path: the path, which must not exist.
            method: how to make files of blobs: `auto`, `reflink`, `hard-link` or `copy`. `auto`
                uses the first of the others that the file system has.

        Raises:
            MissingError: if a blob or a Directory is not stored. What has been made is removed.
            FileExistsError: if the path exists.
            OSError: if a file cannot be made.
            ValueError: if the node is empty, or the method is unknown.
        """
        materializer = Materializer(self._layout, LinkMethod(method))
        kind, member = member_of(node)
        path = os.fsencode(path)
        with self._layout.locked():
            if kind == "symlink":
                os.symlink(member.target, path)
            elif kind == "file":
                check_digest(member.digest)
                materializer.make_file(member, path, None)
            else:
                self._make_tree(materializer, path, check_digest(member.digest))

    @contextmanager
    def shared(
        self, nodes: Iterable[castore_pb2.Node | snix_castore_pb2.Entry]
    ) -> Iterator[list[str]]:
        """Yield the paths of the files and directories of nodes, relative to the store's directory.

        All callers share them, and nobody may change them: show them to other programs through a
        read-only mount. A directory is materialized by the first call for it. Garbage collection
        keeps all that the nodes refer to until the context is left, and during the grace period
        that began when it was entered.

        Args:
            nodes: files and directories.

        Raises:
            MissingError: if a blob or a Directory is not stored.
            ValueError: if a node is empty or a symbolic link.
        """
        materializer = Materializer(self._layout, LinkMethod.AUTO)
        members = [_file_or_directory(node) for node in nodes]
        trees = {one.digest: tree_path(one.digest) for kind, one in members if kind == "directory"}
        with ExitStack() as uses:
            with self._layout.locked():
                digests = (check_digest(one.digest) for _, one in members)
                uses.enter_context(in_use(self._layout, digests))
                make_trees(
                    self._layout,
                    trees,
                    lambda path, digest: self._make_tree(materializer, path, digest),
                )
                paths = [
                    trees[one.digest] if kind == "directory" else materializer.stored_file(one)
                    for kind, one in members
                ]
            yield paths

    def closure(self, node: castore_pb2.Node | snix_castore_pb2.Entry) -> Closure:
        """Return all blobs and Directories of a node, after checking that they are stored.

        Raises:
            MissingError: if a blob or a Directory is not stored.
            SizeMismatchError: if a node has another size than the object to which it refers.
            CastoreError: if a Directory is damaged.
        """
        found = Closure({}, {})
        kind, member = member_of(node)
        if kind == "file":
            self._add_blob_to(found, member)
        elif kind == "directory":
            self._add_directories_to(found, member)
        return found

    def verify(self) -> Iterator[Damage]:
        """Read the whole store, and yield all damage: files with another digest, mode or name,
        Directories that are not canonical, and those that refer to what is missing. Garbage
        collection waits until the iterator is exhausted or closed."""
        with self._layout.locked():
            yield from find_damage(self._layout)

    def collect_garbage(
        self,
        roots: Iterable[castore_pb2.Node | snix_castore_pb2.Entry],
        *,
        grace_seconds: float = 3600.0,
    ) -> Garbage:
        """Remove all blobs and Directories that no root needs, and what killed writers left.

        An object that was added, found by `has_blob` or `has_directory`, or materialized less than
        `grace_seconds` ago is kept, with all that it refers to. Therefore a writer need not know
        the roots, if it makes its result a root within this time. No writer runs meanwhile. What
        `shared` yields is also kept while it is in use.

        Args:
            roots: nodes that are kept, with all that they refer to.
            grace_seconds: the grace period in seconds.

        Raises:
            MissingError, CastoreError: if a Directory of a root is missing or damaged. Then nothing
                is removed.
        """
        with self._layout.locked(exclusive=True):
            since = time.time() - grace_seconds
            return GarbageCollection(self._layout, self.directory, since).run(roots)

    def close(self) -> None:
        """Close the store, which cannot be used afterwards. Leaving the context also closes it."""
        self._layout.close()

    def __enter__(self) -> CastoreStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_children(self, directory: castore_pb2.Directory) -> None:
        for node in directory.files:
            self._check_size("blob", node, self.blob_size(node.digest))
        for child in directory.directories:
            found = size_below(self.directory(child.digest), self._sizes)
            self._check_size("Directory", child, found)

    def _check_size(self, what: str, node: Any, found: int) -> None:
        if node.size != found:
            raise SizeMismatchError(
                f"{os.fsdecode(node.name)}: expected size {found}, as the {what} with the digest "
                f"{node.digest.hex()} has, found {node.size}"
            )

    def _make_tree(self, materializer: Materializer, path: bytes, digest: bytes) -> None:
        os.mkdir(path)
        open_directories: list[int] = []
        # For each open directory, its subdirectories that are not made yet.
        waiting: list[list[castore_pb2.DirectoryNode]] = []

        def enter(name: bytes, digest: bytes) -> None:
            directory = self.directory(digest)
            parent = open_directories[-1] if open_directories else None
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            open_directories.append(os.open(name, flags, dir_fd=parent))
            waiting.append(list(directory.directories))
            here = open_directories[-1]
            for file in directory.files:
                materializer.make_file(file, file.name, here)
            for link in directory.symlinks:
                os.symlink(link.target, link.name, dir_fd=here)

        try:
            enter(path, digest)
            while waiting:
                if waiting[-1]:
                    child = waiting[-1].pop()
                    os.mkdir(child.name, dir_fd=open_directories[-1])
                    enter(child.name, child.digest)
                else:
                    waiting.pop()
                    os.close(open_directories.pop())
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        finally:
            for descriptor in open_directories:
                os.close(descriptor)

    def _add_blob_to(self, found: Closure, node: castore_pb2.FileNode) -> None:
        if found.blobs.get(node.digest) != node.size:
            size = self._layout.size("blobs", check_digest(node.digest))
            self._check_size("blob", node, size)
            found.blobs[node.digest] = size

    def _add_directories_to(self, found: Closure, root: castore_pb2.DirectoryNode) -> None:
        # Each node twice: the second time, its children are finished.
        stack = [(root, False)]
        while stack:
            node, finished = stack.pop()
            if finished:
                found.directories[node.digest] = node.size
            elif found.directories.get(node.digest) != node.size:
                directory = self.directory(node.digest)
                self._check_size("Directory", node, size_below(directory, self._sizes))
                stack.append((node, True))
                stack.extend((child, False) for child in directory.directories)
                for file in directory.files:
                    self._add_blob_to(found, file)


def _parse(encoding: bytes) -> castore_pb2.Directory:
    from tvix.castore.protos.castore_pb2 import Directory

    return Directory.FromString(encoding)


def _file_or_directory(node: castore_pb2.Node | snix_castore_pb2.Entry) -> tuple[str, Any]:
    kind, member = member_of(node)
    if kind == "symlink":
        raise ValueError("expected a directory or file in the node, found symlink")
    return kind, member
