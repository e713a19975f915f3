# SPDX-License-Identifier: MIT
"""Writes outputs of builds to a new directory, for `--out-link`."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tvix_build.castore import CastoreStore
from tvix_build.cli.targets import check_parent

if TYPE_CHECKING:
    from tvix.castore.protos.castore_pb2 import Node


def check_target(target: str) -> None:
    """Raise click.UsageError if the directory exists, or cannot be made because of its parent."""
    if os.path.lexists(target):
        raise click.UsageError(f"--out-link: {target!r} exists; expected a new directory")
    check_parent("--out-link", target)


def materialize(castore: CastoreStore, outputs: Mapping[str, Node], target: str) -> None:
    """Write all outputs to a new directory by their base names, atomically."""
    path = Path(target).absolute()
    temporary = tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        os.chmod(temporary, 0o755)
        for output, node in outputs.items():
            castore.materialize(node, os.path.join(temporary, os.path.basename(output)))
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
