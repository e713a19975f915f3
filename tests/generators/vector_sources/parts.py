# SPDX-License-Identifier: MIT
"""Canonical bytes of the schema's messages and fields, made by hand.

The numbers of Node's members are those of Directory's lists, so directory(), file() and
symlink() make both a Node and an element of a Directory.
"""

from __future__ import annotations

from wire import blob, number

#: Field numbers of Node's members and of Directory's lists.
DIRECTORY, FILE, SYMLINK = 1, 2, 3

#: A digest; which one is all the same.
DIGEST = bytes(range(32))


def text(field: int, value: bytes | str) -> bytes:
    """A string or bytes field, absent if empty."""
    return blob(field, value) if value else b""


def uint(field: int, value: int) -> bytes:
    """A uint64 or bool field, absent if 0."""
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
    """The available_ro_paths within constraints."""
    return b"".join(blob(3, value) for value in values)


def constraints(*parts: bytes) -> bytes:
    return blob(5, *parts)


#: The least command, and so the least valid request.
ARGS = args("sh")

#: The least that constraints must hold.
SYSTEM = blob(1, "x86_64-linux")


# ---- Build


def build_request(*parts: bytes) -> bytes:
    return blob(1, *parts)


def produced(*nodes: bytes) -> bytes:
    """The output nodes of a Build."""
    return b"".join(blob(2, node) for node in nodes)
