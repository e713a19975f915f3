# SPDX-License-Identifier: MIT
"""Messages as trees of wire fields, and a random mutator that knows the schema.

A tree can say everything that wire bytes can: fields in any order and number, padded varints,
unknown fields, groups. Knows nothing of the rules; whether a mutant is valid is for others to say.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from wire import END_GROUP, FIXED32, FIXED64, GROUP, LEN, VARINT, tag, varint


@dataclass(slots=True)
class Field:
    """A field on the wire; a list as value is an embedded message or a group."""

    number: int
    wire_type: int
    value: int | bytes | list[Field]
    tag_length: int = 0  # bytes of the tag, 0 for the fewest
    length: int = 0  # bytes of the varint or of the length, 0 for the fewest


Fields = list[Field]


def encode(fields: Fields) -> bytes:
    """The wire bytes of a message."""
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
    """A copy that shares nothing that changes."""
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

#: Each message's fields: number -> a message of this table or a type of VALUES.
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
}

ROOTS = {"build-request": "BuildRequest", "build": "Build", "directory": "Directory"}

#: The fields that are no lists: a second occurrence overwrites, merges or switches.
SINGULAR = {
    "EnvVar": (1, 2),
    "BuildConstraints": (1, 2),
    "BuildRequest": (5,),
    "Build": (1,),
    "Node": (1, 2, 3),
    "DirectoryNode": (1, 2, 3),
    "FileNode": (1, 2, 3, 4),
    "SymlinkNode": (1, 2),
}

_NAMES: tuple[bytes, ...] = (
    *(b"a", b"b", b"c", b"ab", b"A", b"...", b".a", b"a.b", "é".encode(), "\U00010000".encode()),
    *(b"", b".", b"..", b"/", b"a/b", b"\0", b"a\0", b"n" * 255, b"n" * 256, b"\x7f", b"\xc2\x80"),
)
_NUMBERS = (0, 1, 2, 127, 128, 2**32, 2**63, 2**64 - 3, 2**64 - 2, 2**64 - 1)

#: Values of each type, good and bad, on both sides of the bounds.
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
    "uint": _NUMBERS,
    "bool": (0, 1, 2, 256, 2**32, 2**64 - 1),
}


def random_field(rng: random.Random, message: str, number: int) -> Field:
    """A field that the schema has, with a value from VALUES, often not valid."""
    kind = SCHEMA[message][number]
    if kind not in SCHEMA:
        value = rng.choice(VALUES[kind])
        return Field(number, VARINT if isinstance(value, int) else LEN, value)
    numbers = [below for below in SCHEMA[kind] if rng.random() < 0.7]
    if kind == "Node":
        numbers = numbers[:1]
    return Field(number, LEN, [random_field(rng, kind, below) for below in numbers])


def random_unknown(rng: random.Random, number: int) -> Field:
    """A field of any wire type; whether it is unknown is for its number to say."""
    wire_type = rng.choice((VARINT, FIXED64, LEN, GROUP, FIXED32))
    if wire_type == VARINT:
        return Field(number, wire_type, rng.choice(_NUMBERS), length=rng.choice((0, 0, 5, 10)))
    if wire_type == FIXED64:
        return Field(number, wire_type, rng.randbytes(8))
    if wire_type == FIXED32:
        return Field(number, wire_type, rng.randbytes(4))
    if wire_type == LEN:
        return Field(number, wire_type, rng.randbytes(rng.randrange(4)))
    below = [random_unknown(rng, rng.choice((0, 1, 2, 16, number)))] if rng.random() < 0.5 else []
    return Field(number, wire_type, below)


# ---- mutations

Message = tuple[str, Fields]
Mutation = Callable[[random.Random, str, Fields], None]


def _messages(message: str, fields: Fields) -> list[Message]:
    """The message itself and every known message below it, with their fields."""
    found = [(message, fields)]
    for field in fields:
        below = SCHEMA[message].get(field.number)
        if below in SCHEMA and field.wire_type == LEN and isinstance(field.value, list):
            found += _messages(below, field.value)
    return found


def _any_message(rng: random.Random, root: str, fields: Fields) -> Message:
    return rng.choice(_messages(root, fields))


def _any_index(rng: random.Random, fields: Fields) -> int:
    return rng.randrange(len(fields) + 1)


def _pad(rng: random.Random, root: str, fields: Fields) -> None:
    """Makes a tag, length or varint longer than needed, seldom longer than can be."""
    message = _any_message(rng, root, fields)[1]
    if not message:
        return
    field = rng.choice(message)
    beyond = rng.random() < 0.05
    if rng.random() < 0.4:
        field.tag_length = 6 if beyond else rng.randrange(2, 6)
    elif field.wire_type == VARINT:
        field.length = 11 if beyond else rng.randrange(2, 11)
    else:
        field.length = 6 if beyond else rng.randrange(2, 6)


def _interleave(rng: random.Random, root: str, fields: Fields) -> None:
    """Moves fields among those of other numbers; each number's fields keep their order."""
    message = _any_message(rng, root, fields)[1]
    queues: dict[int, Fields] = {}
    for field in message:
        queues.setdefault(field.number, []).append(field)
    order = [field.number for field in message]
    rng.shuffle(order)
    message[:] = [queues[number].pop(0) for number in order]


def _split(rng: random.Random, root: str, fields: Fields) -> None:
    """Makes two occurrences of an embedded message, to be merged if it is no element."""
    name, message = _any_message(rng, root, fields)
    singular = SINGULAR.get(name, ())
    indices = [
        i
        for i, field in enumerate(message)
        if isinstance(field.value, list) and field.number in singular and field.wire_type == LEN
    ]
    if not indices:
        return
    i = rng.choice(indices)
    field = message[i]
    assert isinstance(field.value, list)
    cut = _any_index(rng, field.value)
    rest = Field(field.number, LEN, field.value[cut:])
    field.value = field.value[:cut]
    after = i + 1 if name == "Node" else rng.randrange(i + 1, len(message) + 1)
    message.insert(after, rest)


def _overwrite(rng: random.Random, root: str, fields: Fields) -> None:
    """Puts another value before a singular field: overwritten, merged into or switched from."""
    name, message = _any_message(rng, root, fields)
    numbers = SINGULAR.get(name, ())
    if not numbers or (name == "Build" and rng.random() < 0.9):
        return
    message.insert(0, random_field(rng, name, rng.choice(numbers)))


def _explicit_default(rng: random.Random, root: str, fields: Fields) -> None:
    """Writes the default of a scalar that is absent, or before it where it is present."""
    name, message = _any_message(rng, root, fields)
    scalars = [n for n in SINGULAR.get(name, ()) if SCHEMA[name][n] not in SCHEMA]
    if scalars:
        number = rng.choice(scalars)
        is_number = SCHEMA[name][number] in ("uint", "bool")
        default = Field(number, VARINT, 0) if is_number else Field(number, LEN, b"")
        message.insert(0, default)


def _there_and_back(rng: random.Random, root: str, fields: Fields) -> None:
    """Sets members of a oneof before the one that is set."""
    nodes = [message for name, message in _messages(root, fields) if name == "Node"]
    if nodes:
        node = rng.choice(nodes)
        for _ in range(rng.randrange(1, 4)):
            node.insert(0, random_field(rng, "Node", rng.randrange(1, 4)))


def _lengthen(rng: random.Random, root: str, fields: Fields) -> None:
    """Makes an argument or a variable's value long: several chunks and blocks of the digest."""
    size = rng.choice((63, 64, 65, 1023, 1024, 1025, 2048, 3000, 8192, 20000))
    for name, message in _messages(root, fields):
        for field in message:
            kind = SCHEMA[name].get(field.number)
            if kind in ("arg", "env_value") and isinstance(field.value, bytes):
                field.value = b"x" * size
                return


def _shuffle(rng: random.Random, root: str, fields: Fields) -> None:
    rng.shuffle(_any_message(rng, root, fields)[1])


def _swap(rng: random.Random, root: str, fields: Fields) -> None:
    message = _any_message(rng, root, fields)[1]
    if len(message) > 1:
        i, j = rng.sample(range(len(message)), 2)
        message[i], message[j] = message[j], message[i]


def _duplicate(rng: random.Random, root: str, fields: Fields) -> None:
    message = _any_message(rng, root, fields)[1]
    if message:
        message.insert(_any_index(rng, message), copy([rng.choice(message)])[0])


def _delete(rng: random.Random, root: str, fields: Fields) -> None:
    message = _any_message(rng, root, fields)[1]
    if message:
        del message[rng.randrange(len(message))]


def _add(rng: random.Random, root: str, fields: Fields) -> None:
    """Adds a field that the schema has, anywhere."""
    name, message = _any_message(rng, root, fields)
    number = rng.choice(list(SCHEMA[name]))
    message.insert(_any_index(rng, message), random_field(rng, name, number))


def _leaves(root: str, fields: Fields) -> list[tuple[str, Field]]:
    return [
        (SCHEMA[name][field.number], field)
        for name, message in _messages(root, fields)
        for field in message
        if field.number in SCHEMA[name] and not isinstance(field.value, list)
    ]


def _set_value(rng: random.Random, root: str, fields: Fields) -> None:
    """Gives a scalar another value, often one at a bound."""
    leaves = _leaves(root, fields)
    if leaves:
        kind, field = rng.choice(leaves)
        if kind in VALUES:
            field.value = rng.choice(VALUES[kind])


def _copy_value(rng: random.Random, root: str, fields: Fields) -> None:
    """Gives a scalar the value of another: equal names, outputs that are inputs."""
    leaves = [(kind, field) for kind, field in _leaves(root, fields) if field.wire_type == LEN]
    if len(leaves) > 1:
        kind, field = rng.choice(leaves)
        alike = [other for other_kind, other in leaves if other_kind == kind]
        names = [other for other_kind, other in leaves if other_kind in ("name", "output")]
        field.value = rng.choice(names if kind in ("name", "output") else alike).value


def _cut_value(rng: random.Random, root: str, fields: Fields) -> None:
    """Makes a value of bytes shorter, longer, or changes one of its bytes."""
    blobs = [field for _, field in _leaves(root, fields) if isinstance(field.value, bytes)]
    if blobs:
        field = rng.choice(blobs)
        assert isinstance(field.value, bytes)
        at = rng.randrange(len(field.value) + 1)
        middle = rng.choice((b"", b"/", b"\0", b".", b"=", b"\x80", b"a"))
        field.value = field.value[:at] + middle + field.value[at + rng.randrange(2) :]


def _unknown(rng: random.Random, root: str, fields: Fields) -> None:
    """Adds a field of another number or, more often than not, of another wire type."""
    message = _any_message(rng, root, fields)[1]
    number = rng.choice((1, 2, 3, 4, 5, 6, 15, 16, 19000, 2**29 - 1))
    message.insert(_any_index(rng, message), random_unknown(rng, number))


def _field_0(rng: random.Random, root: str, fields: Fields) -> None:
    message = _any_message(rng, root, fields)[1]
    message.insert(_any_index(rng, message), random_unknown(rng, 0))


def _deep_groups(rng: random.Random, root: str, fields: Fields) -> None:
    """Adds groups in groups, about as deep as can be."""
    message = _any_message(rng, root, fields)[1]
    inner: Fields = []
    for _ in range(rng.randrange(95, 103)):
        inner = [Field(9, GROUP, inner)]
    message.insert(_any_index(rng, message), inner[0])


def _wire_type(rng: random.Random, root: str, fields: Fields) -> None:
    """Changes a wire type and not the bytes that follow it."""
    message = _any_message(rng, root, fields)[1]
    if message:
        field = rng.choice(message)
        value = encode(field.value) if isinstance(field.value, list) else field.value
        content = varint(value) if isinstance(value, int) else value
        message[message.index(field)] = Field(field.number, rng.choice((1, 2, 3, 5, 6, 7)), content)


def _surplus_bits(rng: random.Random, root: str, fields: Fields) -> None:
    """Sets bits of a varint that do not fit 64."""
    numbers = [field for _, field in _leaves(root, fields) if isinstance(field.value, int)]
    if numbers:
        field = rng.choice(numbers)
        assert isinstance(field.value, int)
        field.value |= rng.randrange(1, 64) << 64


def _many(rng: random.Random, root: str, fields: Fields) -> None:
    """Repeats a field until there are more violations than an engine may list."""
    message = _any_message(rng, root, fields)[1]
    if message and rng.random() < 0.02:
        field = rng.choice(message)
        message += [copy([field])[0] for _ in range(rng.randrange(99, 140))]


#: Mutations that mostly change how a message is written, not what it says.
REWRITINGS: tuple[Mutation, ...] = (
    *(_pad, _interleave, _split, _overwrite, _explicit_default, _there_and_back, _lengthen),
    *(_pad, _interleave, _split, _overwrite, _explicit_default, _there_and_back),
)
REORDERINGS: tuple[Mutation, ...] = (_shuffle, _swap)
#: Mutations that mostly break a rule or the encoding.
BREAKAGES: tuple[Mutation, ...] = (
    *(_duplicate, _delete, _add, _set_value, _copy_value, _cut_value, _unknown, _surplus_bits),
    *(_duplicate, _delete, _add, _set_value, _copy_value, _cut_value, _set_value, _copy_value),
    *(_field_0, _deep_groups, _wire_type, _many),
)


def _damage(rng: random.Random, data: bytes) -> bytes:
    """Changes bytes without regard to what they mean."""
    damaged = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(damaged) + 1)
        choice = rng.randrange(6)
        if choice == 0:
            del damaged[at:]
        elif choice == 1:
            damaged[at:at] = rng.randbytes(rng.randrange(1, 4))
        elif choice == 2:
            del damaged[at : at + rng.randrange(1, 4)]
        elif at == len(damaged):
            continue
        elif choice == 3:
            damaged[at] ^= 1 << rng.randrange(8)
        elif choice == 4:
            damaged[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        else:
            damaged[at] = (damaged[at] + rng.choice((-1, 1))) & 0xFF
    return bytes(damaged)


def mutant(rng: random.Random, kind: str, base: Fields) -> bytes:
    """The wire bytes of `base`, a message of `kind`, after one to six mutations."""
    root = ROOTS[kind]
    fields = copy(base)
    for _ in range(rng.randrange(4)):
        rng.choice(REWRITINGS)(rng, root, fields)
    fate = rng.random()
    if fate < 0.2:
        rng.choice(REORDERINGS)(rng, root, fields)
    elif fate < 0.7:
        for _ in range(rng.randrange(1, 4)):
            rng.choice(BREAKAGES)(rng, root, fields)
    data = encode(fields)
    return _damage(rng, data) if fate > 0.85 else data


# ---- long lists


def _keys(rng: random.Random, count: int) -> list[bytes]:
    """About `count` names in some disorder, few or none of them repeated, often alike at first."""
    prefix = b"n" * rng.choice((0, 0, 3, 7, 8, 9, 16, 33))
    alphabet = rng.choice((b"ab", b"0123456789", bytes(range(0x30, 0x7F))))
    keys = {
        prefix + bytes(rng.choices(alphabet, k=rng.choice((1, 4, 8, 9, 12, 20))))
        for _ in range(count)
    }
    ordered = sorted(keys)
    disorder = rng.randrange(5)
    if disorder == 0:
        ordered.reverse()
    elif disorder == 1:
        rng.shuffle(ordered)
    elif disorder == 2:
        ordered.append(ordered.pop(rng.randrange(len(ordered))))
    if rng.random() < 0.3:
        ordered.insert(rng.randrange(len(ordered)), rng.choice(ordered))
    return ordered


def _node(rng: random.Random, name: bytes) -> Field:
    member = rng.choice((1, 2, 3))
    content = b"t" if member == 3 else rng.randbytes(32)
    return Field(member, LEN, [Field(1, LEN, name), Field(2, LEN, content)])


def large_message(rng: random.Random, kind: str) -> bytes:
    """A message of `kind` whose lists have up to 2,000 elements, valid but for order and keys."""

    def names() -> list[bytes]:
        return _keys(rng, rng.choice((1, 30, 60, 255, 256, 257, 500, 2000)))

    if kind == "directory":
        nodes = [_node(rng, name) for name in names()]
        return encode(nodes)
    outputs = names()[: rng.choice((1, 300, 2000))]
    request = [Field(1, LEN, b"sh"), *(Field(2, LEN, name) for name in outputs)]
    request += [Field(3, LEN, [Field(1, LEN, key), Field(2, LEN, b"v")]) for key in names()]
    request += [Field(4, LEN, [_node(rng, b"in-" + name)]) for name in names()]
    if rng.random() < 0.1:
        request.append(Field(4, LEN, [_node(rng, rng.choice(outputs))]))
    paths = [Field(3, LEN, b"/" + name) for name in names()]
    request.append(Field(5, LEN, [Field(1, LEN, b"x86_64-linux"), *paths]))
    if kind == "build-request":
        return encode(request)
    produced = [_node(rng, name) for name in outputs]
    if rng.random() < 0.5:
        rng.shuffle(produced)
    if rng.random() < 0.2:
        produced.pop()
    return encode([Field(1, LEN, request), *(Field(2, LEN, [node]) for node in produced)])


# ---- bytes of no origin


def random_bytes(rng: random.Random) -> bytes:
    """Bytes of no origin: a third of the time any, else tags and lengths that mostly fit."""
    if rng.random() < 0.33:
        return rng.randbytes(rng.randrange(64))
    return _random_fields(rng, 0)


def _random_fields(rng: random.Random, depth: int) -> bytes:
    out = bytearray()
    for _ in range(rng.randrange(6)):
        odd = rng.random() < 0.03
        number = 0 if odd else rng.choice((1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 6))
        wire_type = rng.randrange(8) if rng.random() < 0.05 else rng.choice((VARINT, LEN, LEN, LEN))
        out += tag(number, wire_type, rng.choice((0, 0, 0, 2, 5)))
        if wire_type == LEN:
            content = rng.choice((b"a", b"/", b"", bytes(32), rng.randbytes(3)))
            if depth < 4 and rng.random() < 0.5:
                content = _random_fields(rng, depth + 1)
            out += varint(len(content) + (rng.random() < 0.02)) + content
        elif wire_type == VARINT:
            out += varint(rng.choice(_NUMBERS))
        elif wire_type in (FIXED64, FIXED32):
            out += bytes(8 if wire_type == FIXED64 else 4)
    return bytes(out)
