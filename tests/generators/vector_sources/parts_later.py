# SPDX-License-Identifier: MIT
"""Canonical bytes of the later schemas' messages and fields, made by hand.

Their BuildRequests are alike, and their castore is that of parts.py.
"""

from __future__ import annotations

from vector_sources.parts import text
from wire import blob, number, varint

# ---- BuildRequest


def inputs(*nodes: bytes) -> bytes:
    return b"".join(blob(1, node) for node in nodes)


def args(*values: bytes | str) -> bytes:
    return b"".join(blob(2, value) for value in values)


def working_dir(path: str) -> bytes:
    return blob(3, path)


def scratch_paths(*paths: str) -> bytes:
    return b"".join(blob(4, path) for path in paths)


def inputs_dir(path: str) -> bytes:
    return blob(5, path)


def outputs(*paths: bytes | str) -> bytes:
    return b"".join(blob(6, path) for path in paths)


def env(key: bytes | str, value: bytes | str = "v") -> bytes:
    return blob(7, text(1, key), text(2, value))


def constraints(*parts: bytes) -> bytes:
    return blob(8, *parts)


def ro_paths(*paths: bytes | str) -> bytes:
    """The available_ro_paths within constraints."""
    return b"".join(blob(3, path) for path in paths)


def file_at(path: bytes | str, contents: bytes | str = "") -> bytes:
    """One of the additional_files."""
    return blob(9, text(1, path), text(2, contents))


def refscan(*needles: bytes | str) -> bytes:
    """The refscan_needles."""
    return b"".join(blob(10, needle) for needle in needles)


#: The least command, and so the least valid request.
ARGS = args("sh")

#: Within constraints.
SYSTEM = blob(1, "x86_64-linux")
NETWORK_ACCESS = number(4, 1)
PROVIDE_BIN_SH = number(5, 1)

# ---- responses


def packed(field: int, *values: int) -> bytes:
    """A list of numbers, absent if empty."""
    return blob(field, *map(varint, values)) if values else b""


def build_request(*parts: bytes) -> bytes:
    """The request within a Build."""
    return blob(1, *parts)


def produced(*nodes: bytes) -> bytes:
    """The output nodes of a Build."""
    return b"".join(blob(2, node) for node in nodes)


def found(*needles: int) -> bytes:
    """The needles of one output of a Build, one of its outputs_needles."""
    return blob(3, packed(1, *needles))


def output(entry: bytes, *needles: int) -> bytes:
    """An output of a BuildResponse."""
    return blob(1, blob(1, entry), packed(2, *needles))
