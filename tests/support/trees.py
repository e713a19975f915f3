# SPDX-License-Identifier: MIT
"""Messages as trees of wire fields, and the fields of the schemas with values for each.

A tree can represent all well-formed encodings: fields in any order and number, padded varints,
unknown fields, groups.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from wire import END_GROUP, FIXED32, FIXED64, GROUP, LEN, VARINT, tag, varint


@dataclass(slots=True)
class Field:
    """A field on the wire. A list as value is an embedded message or a group."""

    number: int
    wire_type: int
    value: int | bytes | list[Field]
    tag_length: int = 0  # size of the tag in bytes; 0: the shortest
    length: int = 0  # size of the varint or of the length in bytes; 0: the shortest


Fields = list[Field]


def encode(fields: Fields) -> bytes:
    """Return the wire bytes of a message."""
    return b"".join(_encode_field(field) for field in fields)


def _encode_field(field: Field) -> bytes:
    head = tag(field.number, field.wire_type, field.tag_length)
    value = field.value
    if isinstance(value, int):
        return head + varint(value, field.length)
    content = encode(value) if isinstance(value, list) else value
    if field.wire_type == LEN:
        return head + varint(len(content), field.length) + content
    if field.wire_type == GROUP:
        return head + content + tag(field.number, END_GROUP, field.tag_length)
    return head + content


def copy(fields: Fields) -> Fields:
    """Return a deep copy."""
    return [
        Field(
            field.number,
            field.wire_type,
            copy(field.value) if isinstance(field.value, list) else field.value,
            field.tag_length,
            field.length,
        )
        for field in fields
    ]


# ---- schema

#: The fields of each message: number -> a message of this table or a type of VALUES.
SCHEMA: dict[str, dict[int, str]] = {
    "BuildRequest": {1: "arg", 2: "output", 3: "EnvVar", 4: "Node", 5: "BuildConstraints"},
    "EnvVar": {1: "env_key", 2: "env_value"},
    "BuildConstraints": {1: "system", 2: "uint", 3: "ro_path"},
    "Build": {1: "BuildRequest", 2: "Node"},
    "Node": {1: "DirectoryNode", 2: "FileNode", 3: "SymlinkNode"},
    "DirectoryNode": {1: "name", 2: "digest", 3: "uint"},
    "FileNode": {1: "name", 2: "digest", 3: "uint", 4: "bool"},
    "SymlinkNode": {1: "name", 2: "target"},
    "Directory": {1: "DirectoryNode", 2: "FileNode", 3: "SymlinkNode"},
    # Messages of the later schemas.
    "LaterRequest": {
        **{1: "Node", 2: "arg", 3: "directory", 4: "path", 5: "directory", 6: "path", 7: "EnvVar"},
        **{8: "LaterConstraints", 9: "AdditionalFile", 10: "needle"},
    },
    "LaterConstraints": {1: "system", 2: "uint", 3: "ro_path", 4: "bool", 5: "bool"},
    "AdditionalFile": {1: "path", 2: "contents"},
    "Build2024": {1: "LaterRequest", 2: "Node", 3: "OutputNeedles"},
    "OutputNeedles": {1: "needles"},
    "BuildResponse": {1: "Output"},
    "Output": {1: "Node", 2: "needles"},
    # Plans. The request may also be a LaterRequest.
    "Step": {1: "BuildRequest", 2: "InputRef", 3: "schema"},
    "InputRef": {1: "digest", 2: "output"},
    "Plan": {1: "Step", 2: "digest"},
}

#: The message of each kind and schema.
ROOTS = {
    ("build-request", "tvix.build.v1"): "BuildRequest",
    ("build", "tvix.build.v1"): "Build",
    ("directory", "tvix.build.v1"): "Directory",
    ("build-request", "tvix.build.v1@2024"): "LaterRequest",
    ("build", "tvix.build.v1@2024"): "Build2024",
    ("build-request", "snix.build.v1"): "LaterRequest",
    ("build", "snix.build.v1"): "BuildResponse",
    ("directory", "snix.build.v1"): "Directory",
    ("step", "tvix.build.v1"): "Step",
    ("plan", "tvix.build.v1"): "Plan",
}

#: The fields that are not lists: a second occurrence overwrites, merges or switches.
SINGULAR = {
    "EnvVar": (1, 2),
    "BuildConstraints": (1, 2),
    "BuildRequest": (5,),
    "Build": (1,),
    "Node": (1, 2, 3),
    "DirectoryNode": (1, 2, 3),
    "FileNode": (1, 2, 3, 4),
    "SymlinkNode": (1, 2),
    "LaterRequest": (3, 5, 8),
    "LaterConstraints": (1, 2, 4, 5),
    "AdditionalFile": (1, 2),
    "Build2024": (1,),
    "Output": (1,),
    "Step": (1, 3),
    "InputRef": (1, 2),
}

_NAMES: tuple[bytes, ...] = (
    *(b"a", b"b", b"c", b"ab", b"A", b"...", b".a", b"a.b", "é".encode(), "\U00010000".encode()),
    *(b"", b".", b"..", b"/", b"a/b", b"\0", b"a\0", b"n" * 255, b"n" * 256, b"\x7f", b"\xc2\x80"),
)
NUMBERS = (0, 1, 2, 127, 128, 2**32, 2**63, 2**64 - 3, 2**64 - 2, 2**64 - 1)

#: Valid and invalid values of each type, on both sides of the limits.
VALUES: dict[str, tuple[bytes | int, ...]] = {
    "arg": (b"", b"-c", b"a\0b", "€".encode(), b"\xff", b"x" * 1024),
    "output": (*_NAMES, b"\x80", b"\xed\xa0\x80"),
    "env_key": (b"", b"A", b"B", b"AB", b"=", b"A=", b"A\0", b"\xff", b"PATH"),
    "env_value": (b"", b"v", b"\0", b"v\0", b"\xff\xfe", b"x" * 3000),
    "system": (b"", b"x86_64-linux", b"\xc0\x80", b"i686-linux"),
    "ro_path": (
        *(b"/", b"/a", b"/b", b"/a/b", b"/dev/kvm", b"/nix", b"/nix/storefoo", b"/nix/stor"),
        *(b"", b"//", b"/a/", b"/a//b", b"/a/./b", b"/..", b"/a/..", b"a", b"/a\0", b"/\xff"),
        *(b"/nix/store", b"/nix/store/", b"/nix/store/x"),
    ),
    "name": (*_NAMES, b"\x80", b"\xff", b"\xff\0"),
    "digest": (bytes(32), bytes(31), bytes(33), b"", b"\xff" * 32, bytes(64)),
    "target": (b"t", b"../x", b"", b"t\0", b"\xff", b"t" * 4095, b"t" * 4096),
    "directory": (b"", b"build", b"nix/store", b"a", b"/", b"a/", b"..", b"a\0", b"\xff", b"a/b"),
    "path": (
        *(b"a", b"b", b"a/b", b"a-", b"build", b"nix/store", b"nix/store/a", b"nix/stor", b".a"),
        *(b"", b"/", b"/a", b"a/", b"a//b", b".", b"./a", b"a/..", b"a/./b", b"a\0b", b"\xff"),
    ),
    "schema": (b"tvix.build.v1", b"tvix.build.v1@2024", b"snix.build.v1", b"", b"snix", b"\xff"),
    "contents": (b"", b"v", b"\0", b"\xff", b"x" * 3000),
    "needle": (b"", b"", b"a" * 32, b"b" * 32, b"\0", b"\x80"),
    # Lists of numbers: an unpacked number, or a packed list.
    "needles": (
        *(0, 1, 2, 3, 128, 2**64 - 1),
        *(b"", b"\0", b"\0\1", b"\2\1", b"\1\1", b"\x81\0\2", b"\x80\1", bytes(range(9))),
        *(b"\x80", b"\1\xff", b"\xff" * 10, b"\xff" * 9 + b"\1"),
    ),
    "uint": NUMBERS,
    "bool": (0, 1, 2, 256, 2**32, 2**64 - 1),
}


def random_field(rng: random.Random, message: str, number: int) -> Field:
    """Return a field of the schema with a value from VALUES, often an invalid one."""
    kind = SCHEMA[message][number]
    if kind not in SCHEMA:
        value = rng.choice(VALUES[kind])
        return Field(number, VARINT if isinstance(value, int) else LEN, value)
    numbers = [below for below in SCHEMA[kind] if rng.random() < 0.7]
    if kind == "Node":
        numbers = numbers[:1]
    return Field(number, LEN, [random_field(rng, kind, below) for below in numbers])


def random_unknown(rng: random.Random, number: int) -> Field:
    """Return a field of any wire type; it is unknown if its message has no such field."""
    wire_type = rng.choice((VARINT, FIXED64, LEN, GROUP, FIXED32))
    if wire_type == VARINT:
        return Field(number, wire_type, rng.choice(NUMBERS), length=rng.choice((0, 0, 5, 10)))
    if wire_type == FIXED64:
        return Field(number, wire_type, rng.randbytes(8))
    if wire_type == FIXED32:
        return Field(number, wire_type, rng.randbytes(4))
    if wire_type == LEN:
        return Field(number, wire_type, rng.randbytes(rng.randrange(4)))
    below = [random_unknown(rng, rng.choice((0, 1, 2, 16, number)))] if rng.random() < 0.5 else []
    return Field(number, wire_type, below)
