# SPDX-License-Identifier: MIT
"""The names of castore nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tvix.castore.protos.castore_pb2 import Node


def name_of(node: Node) -> bytes:
    """Return the name of a node."""
    kind = node.WhichOneof("node")
    assert kind is not None
    name: bytes = getattr(node, kind).name
    return name


def renamed(node: Node, name: bytes) -> Node:
    """Return a copy of a node with another name."""
    copy = type(node)()
    copy.CopyFrom(node)
    kind = copy.WhichOneof("node")
    assert kind is not None
    getattr(copy, kind).name = name
    return copy
