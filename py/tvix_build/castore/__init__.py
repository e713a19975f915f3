# SPDX-License-Identifier: MIT
"""Makes castore nodes of files on disk, computes their sizes, and stores their contents."""

from tvix_build._core.names import set_public_module
from tvix_build.castore.checking import Damage
from tvix_build.castore.comparing import Difference, compare_nodes
from tvix_build.castore.garbage import Garbage
from tvix_build.castore.ingestion import (
    ChangedError,
    IngestError,
    node_from_path,
)
from tvix_build.castore.layout import (
    CastoreError,
    DigestMismatchError,
    LinkMethod,
    MissingError,
    SizeMismatchError,
)
from tvix_build.castore.sizes import DirectorySizes, directory_size
from tvix_build.castore.store import CastoreStore, Closure
from tvix_build.castore.tree_checks import TreeError

__all__ = [
    "CastoreError",
    "CastoreStore",
    "ChangedError",
    "Closure",
    "Damage",
    "Difference",
    "DigestMismatchError",
    "DirectorySizes",
    "Garbage",
    "IngestError",
    "LinkMethod",
    "MissingError",
    "SizeMismatchError",
    "TreeError",
    "compare_nodes",
    "directory_size",
    "node_from_path",
]

set_public_module(globals())
