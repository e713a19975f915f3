# SPDX-License-Identifier: MIT
"""Canonical bytes of the messages and fields of tvix.build.v1, made by hand.

The members of Node have the field numbers of the lists of Directory, so directory(), file() and
symlink() return bytes for both.
"""

from __future__ import annotations

from wire import blob, number

#: Field numbers of the members of Node and of the lists of Directory.
DIRECTORY, FILE, SYMLINK = 1, 2, 3

#: Any digest.
DIGEST = bytes(range(32))


def text(field: int, value: bytes | str) -> bytes:
    """Return a string or bytes field; nothing if it is empty."""
    return blob(field, value) if value else b""


def uint(field: int, value: int) -> bytes:
    """Return a uint64 or bool field; nothing if it is 0."""
    return number(field, value) if value else b""


# ---- castore


def directory(name: bytes | str, digest: bytes = DIGEST, size: int = 0) -> bytes:
    return blob(DIRECTORY, text(1, name), text(2, digest), uint(3, size))


def file(
    name: bytes | str, digest: bytes = DIGEST, size: int = 0, executable: bool = False
) -> bytes:
    return blob(FILE, text(1, name), text(2, digest), uint(3, size), uint(4, executable))


def symlink(name: bytes | str, target: bytes | str = "to") -> bytes:
    return blob(SYMLINK, text(1, name), text(2, target))


# ---- BuildRequest


def args(*values: bytes | str) -> bytes:
    return b"".join(blob(1, value) for value in values)


def outputs(*values: bytes | str) -> bytes:
    return b"".join(blob(2, value) for value in values)


def env(key: bytes | str, value: bytes | str = "v") -> bytes:
    return blob(3, text(1, key), text(2, value))


def inputs(*nodes: bytes) -> bytes:
    return b"".join(blob(4, node) for node in nodes)


def ro_paths(*values: bytes | str) -> bytes:
    """Return the available_ro_paths of constraints."""
    return b"".join(blob(3, value) for value in values)


def constraints(*parts: bytes) -> bytes:
    return blob(5, *parts)


#: The smallest command, which is also the smallest valid request.
ARGS = args("sh")

#: The smallest valid constraints.
SYSTEM = blob(1, "x86_64-linux")


# ---- Build


def build_request(*parts: bytes) -> bytes:
    return blob(1, *parts)


def produced(*nodes: bytes) -> bytes:
    """Return the output nodes of a Build."""
    return b"".join(blob(2, node) for node in nodes)
