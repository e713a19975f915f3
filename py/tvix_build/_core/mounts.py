# SPDX-License-Identifier: MIT
"""Mounts the inputs of a build in a running sandbox."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from tvix_build._native import ffi, lib


class MountKind(IntEnum):
    """The kinds of inputs."""

    DIRECTORY = lib.TVIXB_MOUNT_DIRECTORY
    FILE = lib.TVIXB_MOUNT_FILE
    SYMLINK = lib.TVIXB_MOUNT_SYMLINK


class Mount(NamedTuple):
    """An input.

    Attributes:
        kind: the kind.
        path: the absolute path in the sandbox, which does not exist.
        source: the path of the file or directory relative to the stage, or the target of the
            symbolic link.
    """

    kind: MountKind
    path: bytes
    source: bytes


def make_mounts(
    user: int, mounts: int, stage: str, inputs: Sequence[Mount], *, overlay: str = ""
) -> None:
    """Mount inputs in a sandbox, unmount all in `stage`, and make the root read-only.

    Args:
        user: a descriptor of the user namespace that owns the mounts.
        mounts: a descriptor of the mount namespace.
        stage: a directory in the sandbox with two mounts: `castore`, which has the sources, and
            `build`, which has the directories `root` and `work`. The inputs are read-only if
            `castore` is.
        inputs: the inputs.
        overlay: the directory of all inputs, if its files are those below `build/root`. If the
            kernel can mount an overlay file system, the mount points are not among these files.

    Raises:
        OSError: if something cannot be mounted.
    """
    kinds = bytes(one.kind for one in inputs)
    names = b"".join(b"%b\0%b\0" % (one.path, one.source) for one in inputs)
    failed = ffi.new("size_t *")
    strings = [os.fsencode(stage), os.fsencode(overlay)]
    status = lib.tvixb_mounts_make(user, mounts, *strings, kinds, names, len(inputs), failed)
    if status:
        path = inputs[failed[0]].path if failed[0] < len(inputs) else stage
        raise OSError(status, os.strerror(status), os.fsdecode(path))
