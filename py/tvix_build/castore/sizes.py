# SPDX-License-Identifier: MIT
"""Computes the sizes of Directories, as in their nodes."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from tvix_build._core.check import validate

if TYPE_CHECKING:
    from tvix.castore.protos import castore_pb2


class DirectorySizes(str, Enum):
    """The ways to count the entries below a Directory."""

    SPECIFIED = "specified"
    """Each entry counts once, as the protocol specifies."""
    SNIX_2024 = "snix-2024"
    """Each entry counts twice, as in tvix and snix since August 2024."""


def directory_size(
    directory: castore_pb2.Directory, *, sizes: DirectorySizes | str = DirectorySizes.SPECIFIED
) -> int:
    """Return the size of a Directory, as in its node: the number of entries below it.

    Args:
        directory: the Directory. The sizes in its nodes must be counted in the same way.
        sizes: how the entries are counted.

    Raises:
        ValidationError: if the Directory is invalid, for example if its size exceeds 64 bits.
        ValueError: if `sizes` is unknown.
    """
    validate(directory)
    return size_below(directory, DirectorySizes(sizes))


def size_below(message: castore_pb2.Directory, sizes: DirectorySizes) -> int:
    """As `directory_size`, of a Directory that is known to be valid."""
    entries = len(message.directories) + len(message.files) + len(message.symlinks)
    below: int = sum(node.size for node in message.directories)
    return below + (2 * entries if sizes is DirectorySizes.SNIX_2024 else entries)
