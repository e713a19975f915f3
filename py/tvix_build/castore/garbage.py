# SPDX-License-Identifier: MIT
"""Removes what no root of a castore store needs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tvix_build._core.nodes import member_of
from tvix_build.castore.layout import (
    CastoreError,
    KindName,
    Layout,
    MissingError,
    check_digest,
    place,
)
from tvix_build.castore.trees import find_used, remove_trees

if TYPE_CHECKING:
    from snix.castore.protos import castore_pb2 as snix_castore_pb2
    from tvix.castore.protos import castore_pb2


@dataclass(frozen=True)
class Garbage:
    """The results of a garbage collection."""

    blobs: int
    """The number of removed blobs."""
    directories: int
    """The number of removed Directories."""
    size: int
    """The size of the removed files in bytes."""
    kept: int
    """The number of blobs and Directories that the store still has."""


class GarbageCollection:
    """A garbage collection. No other process changes the store while it runs.

    Args:
        layout: the files of the store.
        directory: returns a Directory of the store.
        since: objects whose files have changed since this time are kept.
    """

    def __init__(
        self, layout: Layout, directory: Callable[[bytes], castore_pb2.Directory], since: float
    ) -> None:
        self._layout = layout
        self._directory = directory
        self._since = since
        self._blobs: set[bytes] = set()
        self._directories: set[bytes] = set()

    def run(self, roots: Iterable[castore_pb2.Node | snix_castore_pb2.Entry]) -> Garbage:
        """Remove all that no root needs.

        Raises:
            MissingError, CastoreError: as `CastoreStore.collect_garbage`.
        """
        self._mark_all(roots)
        remove_trees(self._layout, self._directories)
        self._layout.clear_incoming()
        return self._sweep()

    def _mark_all(self, roots: Iterable[castore_pb2.Node | snix_castore_pb2.Entry]) -> None:
        """Find the digests of the blobs and Directories that are kept."""
        for root in roots:
            kind, member = member_of(root)
            if kind == "file":
                self._blobs.add(check_digest(member.digest))
            elif kind == "directory":
                self._mark(check_digest(member.digest))
        used = find_used(self._layout)
        self._blobs |= used
        for digest, status in self._layout.objects("directories"):
            if status.st_ctime >= self._since or digest in used:
                # A writer may add what is missing within the grace period. verify finds damage.
                with suppress(MissingError, CastoreError):
                    self._mark(digest)

    def _mark(self, root: bytes) -> None:
        stack = [root]
        while stack:
            digest = stack.pop()
            if digest not in self._directories:
                directory = self._directory(digest)
                self._directories.add(digest)
                self._blobs.update(file.digest for file in directory.files)
                stack.extend(child.digest for child in directory.directories)

    def _sweep(self) -> Garbage:
        counts = {"blobs": 0, "directories": 0, "executables": 0}
        size = left = 0
        wanted: list[tuple[KindName, set[bytes]]]
        wanted = [
            ("directories", self._directories),
            ("blobs", self._blobs),
            ("executables", self._blobs),
        ]
        for kind, marked in wanted:
            garbage: dict[bytes, int] = {}
            for digest, status in self._layout.objects(kind):
                if digest in marked or status.st_ctime >= self._since:
                    left += kind != "executables"
                else:
                    garbage[digest] = status.st_size
            for digest in self._parents_first(garbage) if kind == "directories" else garbage:
                os.unlink(place(digest), dir_fd=self._layout.kinds[kind])
                counts[kind] += 1
                size += garbage[digest]
        return Garbage(counts["blobs"], counts["directories"], size, left)

    def _parents_first(self, digests: Collection[bytes]) -> Iterator[bytes]:
        """Yield the digests of Directories, each before those that it refers to: after a crash, no
        stored Directory lacks a part."""
        children: dict[bytes, set[bytes]] = {}
        for digest in digests:
            children[digest] = set()
            with suppress(CastoreError):
                children[digest] = {one.digest for one in self._directory(digest).directories}
        parents = Counter(child for found in children.values() for child in found)
        ready = [digest for digest in digests if not parents[digest]]
        while ready:
            digest = ready.pop()
            yield digest
            for child in children[digest] & children.keys():
                parents[child] -= 1
                if not parents[child]:
                    ready.append(child)
