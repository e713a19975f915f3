# SPDX-License-Identifier: MIT
"""Reads files of castore nodes by store path."""

from __future__ import annotations

import os

from google.protobuf import json_format
from google.protobuf.message import DecodeError

from tvix.castore.protos.castore_pb2 import Node
from tvix_build._core.report import message_type
from tvix_build.nix.aterm import to_str
from tvix_build.nix.derivation import STORE
from tvix_build.records import strict_json
from tvix_build.records.errors import FormatError, InputError
from tvix_build.records.reading import read_lines, read_messages
from tvix_build.records.source import Source, find_input


def read_nodes(path: str) -> dict[str, Node]:
    """Return the nodes in a file, by store path. A path may be repeated with the same node.

    A `.binpbs` file holds nodes, and the store path of each is /nix/store/ and its name. An
    `.ndjson` file holds one JSON object per line, with `path` and `node`, a node in proto3 JSON. A
    `path` outside of the store stands for the store path with the same base name, because `ingest`
    may have read it from a store elsewhere.

    Raises:
        InputError: if the file cannot be read, holds other data, or holds different nodes for a
            path.
        FormatError: if the name has neither suffix.
    """
    source = find_input(path, None, option=None)
    if source.format == "binpbs":
        return _read_messages(source)
    if source.format == "ndjson":
        return _read_lines(source)
    raise FormatError(f"expected nodes as .binpbs or .ndjson, found {path!r}")


def _read_messages(source: Source) -> dict[str, Node]:
    nodes: dict[str, Node] = {}
    for batch in read_messages(source, message_type()):
        for i, message in enumerate(batch):
            try:
                node = Node.FromString(message)
                member = node.WhichOneof("node")
                if member is None:
                    raise ValueError("found a node without directory, file and symlink")
                _add(nodes, STORE + to_str(getattr(node, member).name), node)
            except (DecodeError, ValueError) as error:
                raise _error(source, batch.first + i, batch.offset(i), error) from error
    return nodes


def _read_lines(source: Source) -> dict[str, Node]:
    nodes: dict[str, Node] = {}
    for index, (offset, line) in enumerate(read_lines(source)):
        try:
            match strict_json.load(str(line, "utf-8")):
                case {"path": str(path), "node": dict(members)}:
                    node = Node()
                    strict_json.parse(members, node)
                    store_path = path if path.startswith(STORE) else _in_store(path)
                    _add(nodes, store_path, node)
                case _:
                    raise ValueError('found no object with "path" and "node"')
        except (ValueError, RecursionError, json_format.ParseError) as error:
            raise _error(source, index, offset, error) from error
    return nodes


def _in_store(path: str) -> str:
    return STORE + os.path.basename(path.rstrip("/"))


def _add(nodes: dict[str, Node], path: str, node: Node) -> None:
    if nodes.setdefault(path, node) != node:
        raise ValueError(f"found a different node for {path!r} before")


def _error(source: Source, index: int, offset: int | None, error: Exception) -> InputError:
    damage = InputError(f"expected a tvix.castore.v1.Node: {error}", source.path)
    damage.index, damage.offset = index, offset
    return damage
