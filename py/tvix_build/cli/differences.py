# SPDX-License-Identifier: MIT
"""Compares two messages of a kind, field by field. Lists whose order has no meaning are compared by
key.

The descriptors list the fields. Two messages that have canonical encodings have no differences if
and only if their encodings are equal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any

from google.protobuf.message import Message

ORDERED = frozenset(
    {
        "tvix.build.v1.BuildRequest.command_args",
        "snix.build.v1.BuildRequest.command_args",
        "snix.build.v1.BuildRequest.refscan_needles",
        "snix.build.v1.BuildResponse.outputs",
    }
)
"""The lists whose order has a meaning."""
KEYS = {
    "tvix.build.v1.BuildRequest.EnvVar": "key",
    "tvix.castore.v1.DirectoryNode": "name",
    "tvix.castore.v1.FileNode": "name",
    "tvix.castore.v1.SymlinkNode": "name",
    "snix.build.v1.BuildRequest.EnvVar": "key",
    "snix.build.v1.BuildRequest.AdditionalFile": "path",
    "snix.castore.v1.DirectoryEntry": "name",
    "snix.castore.v1.FileEntry": "name",
    "snix.castore.v1.SymlinkEntry": "name",
}
"""The key field of the elements of the other lists. The key of a Node is the key of its member."""
MOST_COMPARISONS = 1_000_000  # difflib takes too long for longer lists.


@dataclass(frozen=True)
class Difference:
    """A value, or an element of a list, that differs between two messages.

    Attributes:
        path: the field, such as `constraints.system`; for an element, the path of its list.
        old, new: the values in the messages; None if the value is absent.
    """

    path: str
    old: Any
    new: Any


def differences(old: Message, new: Message, prefix: str = "") -> Iterator[Difference]:
    """Yield the differences, in the order of the fields. Each path begins with `prefix`."""
    for field in old.DESCRIPTOR.fields:
        path = prefix + field.name
        a: Any = getattr(old, field.name)
        b: Any = getattr(new, field.name)
        if isinstance(a, Message):
            present = old.HasField(field.name), new.HasField(field.name)
            if present[0] != present[1]:
                yield Difference(path, a if present[0] else None, b if present[1] else None)
            yield from differences(a, b, path + ".")
        elif isinstance(a, (str, bytes, int)):
            if a != b:
                yield Difference(path, a or None, b or None)
        else:
            pairs = _in_order(a, b) if field.full_name in ORDERED else _by_key(a, b)
            yield from (Difference(path, *pair) for pair in pairs)


def _by_key(old: Iterable[Any], new: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    # An invalid message may have duplicate keys.
    found: defaultdict[str | bytes, tuple[list[Any], list[Any]]] = defaultdict(lambda: ([], []))
    for side, elements in enumerate((old, new)):
        for element in elements:
            found[_key(element)][side].append(element)
    for key in sorted(found, key=lambda key: key.encode() if isinstance(key, str) else key):
        for pair in zip_longest(*found[key]):
            if pair[0] != pair[1]:
                yield pair


def _key(element: Any) -> str | bytes:
    if isinstance(element, Message):
        for oneof in element.DESCRIPTOR.oneofs:
            member = element.WhichOneof(oneof.name)
            return _key(getattr(element, member)) if member else b""
        element = getattr(element, KEYS[element.DESCRIPTOR.full_name])
    key: str | bytes = element
    return key


def _in_order(old: Sequence[Any], new: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    a, b = list(old), list(new)
    if any(isinstance(element, Message) for element in (*a[:1], *b[:1])):
        yield from (pair for pair in zip_longest(a, b) if pair[0] != pair[1])
        return
    first = 0
    while first < min(len(a), len(b)) and a[first] == b[first]:
        first += 1
    a, b = a[first:], b[first:]
    while a and b and a[-1] == b[-1]:
        a.pop()
        b.pop()
    if len(a) * len(b) > MOST_COMPARISONS:
        yield from zip_longest(a, b)
        return
    for operation, i, i_end, j, j_end in SequenceMatcher(None, a, b, False).get_opcodes():
        if operation != "equal":
            yield from zip_longest(a[i:i_end], b[j:j_end])
