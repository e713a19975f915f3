# SPDX-License-Identifier: MIT
"""Makes castore nodes of files on disk, and computes their sizes."""

from tvix_build._core.names import set_public_module
from tvix_build.castore.ingestion import (
    ChangedError,
    IngestError,
    directory_size,
    node_from_path,
)

__all__ = ["ChangedError", "IngestError", "directory_size", "node_from_path"]

set_public_module(globals())
