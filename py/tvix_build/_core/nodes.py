# SPDX-License-Identifier: MIT
"""The members of castore nodes, and their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snix.castore.protos.castore_pb2 import Entry
    from tvix.castore.protos.castore_pb2 import Node


def name_of(node: Node | Entry) -> bytes:
    """Return the name of a node."""
    _, member = member_of(node)
    name: bytes = member.name
    return name


def renamed(node: Node, name: bytes) -> Node:
    """Return a copy of a node with another name."""
    copy = type(node)()
    copy.CopyFrom(node)
    _, member = member_of(copy)
    member.name = name
    return copy


def member_of(node: Node | Entry) -> tuple[str, Any]:
    """Return the name and the value of the member of a node."""
    for field, member in node.ListFields():
        return field.name, member
    raise ValueError("expected a directory, file or symlink in the node, found none")
