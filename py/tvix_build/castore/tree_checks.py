# SPDX-License-Identifier: MIT
"""Checks that Directories are one complete tree."""

from __future__ import annotations

from google.protobuf.message import Message

from tvix_build._core.blake3 import blake3_many
from tvix_build._core.check import canonicalize, validate
from tvix_build._core.ranges import BytesLike
from tvix_build._core.report import Error, Kind, ValidationError
from tvix_build.castore.sizes import DirectorySizes, size_below


class TreeError(Error):
    """Directories are not those of one tree, leaves first and the root last."""


class TreeCheck:
    """Checks the Directories of one tree, added leaves first and the root last. Memory holds the
    digest and the size of each.

    Args:
        sizes: how the sizes of Directories are counted.
    """

    def __init__(self, sizes: DirectorySizes) -> None:
        self._counting = sizes
        self._count = 0
        self._root = b""
        self._sizes: dict[bytes, int] = {}
        self._parentless: dict[bytes, int] = {}  # The values are positions.

    def add(self, directory: BytesLike | Message) -> tuple[bytes, bytes]:
        """Check the next Directory, and return its digest and its canonical encoding.

        Raises:
            TreeError: if it is invalid, or if it refers to a Directory that was not added before or
                has another size.
        """
        from tvix.castore.protos.castore_pb2 import Directory

        place = f"Directory {self._count}"
        try:
            validate(directory, kind=Kind.DIRECTORY)
        except ValidationError as error:
            raise TreeError(f"{place}: expected a valid Directory, found {error}") from None
        encoding = canonicalize(directory, kind=Kind.DIRECTORY)
        digest = blake3_many([encoding]).tobytes()
        message = Directory.FromString(encoding)
        for node in message.directories:
            found = self._sizes.get(node.digest)
            if found is None or found != node.size:
                name = node.name.decode(errors="backslashreplace")
                raise TreeError(
                    f"{place}: {name}: "
                    + (
                        f"refers to {node.digest.hex()}, which is no earlier Directory; expected "
                        "leaves first, the root last"
                        if found is None
                        else f"expected size {found}, as the Directory with the digest "
                        f"{node.digest.hex()} has, found {node.size}"
                    )
                )
        for node in message.directories:
            self._parentless.pop(node.digest, None)
        if digest not in self._sizes:
            self._sizes[digest] = size_below(message, self._counting)
            self._parentless[digest] = self._count
        self._root = digest
        self._count += 1
        return digest, encoding

    def finish(self) -> bytes:
        """Return the digest of the root, which is the last Directory.

        Raises:
            TreeError: if there is no Directory, or the root does not lead to one of them.
        """
        if not self._count:
            raise TreeError("expected at least one Directory, found none")
        for digest, position in self._parentless.items():
            if digest != self._root:
                raise TreeError(
                    f"Directory {position}: expected a tree, found that the last Directory does "
                    f"not lead to this one, {digest.hex()}"
                )
        return self._root
