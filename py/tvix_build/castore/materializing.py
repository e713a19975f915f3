# SPDX-License-Identifier: MIT
"""Makes files and directories of castore nodes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from tvix_build._core import file_hashing
from tvix_build.castore.layout import (
    CANNOT_LINK,
    MODES,
    TIMES,
    KindName,
    Layout,
    LinkMethod,
    MissingError,
    place,
)
from tvix_build.castore.writing import hash_file, writer

if TYPE_CHECKING:
    from tvix.castore.protos import castore_pb2

_OPEN = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Materializer:
    """Makes files of blobs with one method."""

    def __init__(self, layout: Layout, method: LinkMethod) -> None:
        self._layout = layout
        ways = {
            LinkMethod.REFLINK: self._reflink,
            LinkMethod.HARD_LINK: self._hard_link,
            LinkMethod.COPY: self._copy,
        }
        self._ways = [*ways.values()] if method is LinkMethod.AUTO else [ways[method]]

    def make_file(
        self, node: castore_pb2.FileNode, name: str | bytes, directory: int | None
    ) -> None:
        """Make the file of a node, under a name in an open directory.

        Raises:
            MissingError: if the store lacks the blob.
            OSError: if the file exists, or cannot be made.
        """
        kind: KindName = "executables" if node.executable else "blobs"
        while True:
            try:
                return self._ways[0](kind, node.digest, name, directory)
            except OSError as error:
                if error.errno not in CANNOT_LINK or len(self._ways) == 1:
                    raise
            if self._ways[0] == self._hard_link and self._linkable(name, directory):
                # The limit of links to this one file.
                return self._copy(kind, node.digest, name, directory)
            self._ways.pop(0)

    def stored_file(self, node: castore_pb2.FileNode) -> str:
        """Return the path of a file of the store with the contents and the mode of a node, relative
        to the directory of the store. Protect it from garbage collection for now.

        Raises:
            MissingError: if the store lacks the blob.
        """
        if not self._layout.touch("blobs", node.digest):
            raise self._layout.missing("blobs", node.digest)
        kind: KindName = "blobs"
        if node.executable:
            kind = "executables"
            try:
                self._layout.size(kind, node.digest)
            except MissingError:
                make_executable(self._layout, node.digest)
        return f"{kind}/{place(node.digest)}"

    def _linkable(self, name: str | bytes, directory: int | None) -> bool:
        """Return whether the store and the directory are on the same file system."""
        parent = os.path.dirname(name) or (b"." if isinstance(name, bytes) else ".")
        target = os.stat(parent, dir_fd=directory)
        return target.st_dev == os.fstat(self._layout.incoming).st_dev

    def _hard_link(
        self, kind: KindName, digest: bytes, name: str | bytes, directory: int | None
    ) -> None:
        source = self._layout.kinds[kind]
        try:
            os.link(place(digest), name, src_dir_fd=source, dst_dir_fd=directory)
        except FileNotFoundError:
            # Not stored, or not as an executable; or the directory is missing.
            self._layout.size("blobs", digest)
            if kind == "executables":
                make_executable(self._layout, digest)
            os.link(place(digest), name, src_dir_fd=source, dst_dir_fd=directory)

    def _reflink(
        self, kind: KindName, digest: bytes, name: str | bytes, directory: int | None
    ) -> None:
        self._fill(kind, digest, name, directory, file_hashing.clone)

    def _copy(
        self, kind: KindName, digest: bytes, name: str | bytes, directory: int | None
    ) -> None:
        self._fill(kind, digest, name, directory, _copy)

    def _fill(
        self,
        kind: KindName,
        digest: bytes,
        name: str | bytes,
        directory: int | None,
        fill: Callable[[int, int], None],
    ) -> None:
        source = self._layout.open("blobs", digest)
        try:
            target = os.open(name, _OPEN, 0o600, dir_fd=directory)
            try:
                fill(source, target)
                os.fchmod(target, MODES[kind])
                os.utime(target, TIMES)
            except BaseException:
                with suppress(OSError):
                    os.unlink(name, dir_fd=directory)
                raise
            finally:
                os.close(target)
        finally:
            os.close(source)


def _copy(source: int, target: int) -> None:
    with open(source, "rb", 0, closefd=False) as read, open(target, "wb", 0, closefd=False) as made:
        shutil.copyfileobj(read, made, 1 << 20)


def make_executable(layout: Layout, digest: bytes) -> None:
    """Store an executable copy of a blob.

    Raises:
        MissingError: if the store lacks the blob.
        CastoreError: if the blob is damaged.
    """
    with writer(layout) as adding, open(layout.open("blobs", digest), "rb") as source:
        name = adding.copy(source, "executables", clone=True)
        found = hash_file(adding.target.incoming, name).digest
        if found != digest:
            raise layout.damaged("blobs", digest, f"found the digest {found.hex()}")
        adding.take(name, "executables", digest)
