# SPDX-License-Identifier: MIT
"""A random mutator of messages. It uses the fields of the schemas, but not their rules."""

from __future__ import annotations

import random
from collections.abc import Callable

from trees import (
    ROOTS,
    SCHEMA,
    SINGULAR,
    VALUES,
    Field,
    Fields,
    copy,
    encode,
    random_field,
    random_unknown,
)
from wire import GROUP, LEN, VARINT, varint

Message = tuple[str, Fields]
Mutation = Callable[[random.Random, str, Fields], None]


def _messages(message: str, fields: Fields) -> list[Message]:
    """Return the message and all known messages in it, with their fields."""
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
    """Make a tag, length or varint longer than necessary, rarely longer than allowed."""
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
    """Interleave fields of different numbers. The fields of each number keep their order."""
    message = _any_message(rng, root, fields)[1]
    queues: dict[int, Fields] = {}
    for field in message:
        queues.setdefault(field.number, []).append(field)
    order = [field.number for field in message]
    rng.shuffle(order)
    message[:] = [queues[number].pop(0) for number in order]


def _split(rng: random.Random, root: str, fields: Fields) -> None:
    """Split an embedded message that is not a list element into two occurrences."""
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
    """Add another value before a singular field, which overwrites it or merges with it."""
    name, message = _any_message(rng, root, fields)
    numbers = SINGULAR.get(name, ())
    if not numbers or (name in ("Build", "Build2024") and rng.random() < 0.9):
        return
    message.insert(0, random_field(rng, name, rng.choice(numbers)))


def _explicit_default(rng: random.Random, root: str, fields: Fields) -> None:
    """Add the default value of a scalar, before its value if it is present."""
    name, message = _any_message(rng, root, fields)
    scalars = [n for n in SINGULAR.get(name, ()) if SCHEMA[name][n] not in SCHEMA]
    if scalars:
        number = rng.choice(scalars)
        is_number = SCHEMA[name][number] in ("uint", "bool")
        default = Field(number, VARINT, 0) if is_number else Field(number, LEN, b"")
        message.insert(0, default)


def _there_and_back(rng: random.Random, root: str, fields: Fields) -> None:
    """Set members of a oneof before the one that is set."""
    nodes = [message for name, message in _messages(root, fields) if name == "Node"]
    if nodes:
        node = rng.choice(nodes)
        for _ in range(rng.randrange(1, 4)):
            node.insert(0, random_field(rng, "Node", rng.randrange(1, 4)))


def _lengthen(rng: random.Random, root: str, fields: Fields) -> None:
    """Make an argument or the value of a variable long, around the block and chunk sizes."""
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
    """Add a field of the schema at any place."""
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
    """Change the value of a scalar, often to a limit."""
    leaves = _leaves(root, fields)
    if leaves:
        kind, field = rng.choice(leaves)
        if kind in VALUES:
            field.value = rng.choice(VALUES[kind])


def _copy_value(rng: random.Random, root: str, fields: Fields) -> None:
    """Copy the value of another scalar: makes equal names, and outputs that are inputs."""
    leaves = [(kind, field) for kind, field in _leaves(root, fields) if field.wire_type == LEN]
    if len(leaves) > 1:
        kind, field = rng.choice(leaves)
        alike = [other for other_kind, other in leaves if other_kind == kind]
        names = [other for other_kind, other in leaves if other_kind in ("name", "output")]
        field.value = rng.choice(names if kind in ("name", "output") else alike).value


def _cut_value(rng: random.Random, root: str, fields: Fields) -> None:
    """Shorten or lengthen a bytes value, or change one of its bytes."""
    blobs = [field for _, field in _leaves(root, fields) if isinstance(field.value, bytes)]
    if blobs:
        field = rng.choice(blobs)
        assert isinstance(field.value, bytes)
        at = rng.randrange(len(field.value) + 1)
        middle = rng.choice((b"", b"/", b"\0", b".", b"=", b"\x80", b"a"))
        field.value = field.value[:at] + middle + field.value[at + rng.randrange(2) :]


def _empty_value(rng: random.Random, root: str, fields: Fields) -> None:
    """Empty a bytes value."""
    blobs = [field for _, field in _leaves(root, fields) if isinstance(field.value, bytes)]
    if blobs:
        rng.choice(blobs).value = b""


def _unknown(rng: random.Random, root: str, fields: Fields) -> None:
    """Add a field, mostly one with an unknown number or another wire type."""
    message = _any_message(rng, root, fields)[1]
    number = rng.choice((1, 2, 3, 4, 5, 6, 10, 11, 15, 16, 19000, 2**29 - 1))
    message.insert(_any_index(rng, message), random_unknown(rng, number))


def _field_0(rng: random.Random, root: str, fields: Fields) -> None:
    message = _any_message(rng, root, fields)[1]
    message.insert(_any_index(rng, message), random_unknown(rng, 0))


def _deep_groups(rng: random.Random, root: str, fields: Fields) -> None:
    """Add nested groups, with depths around the limit."""
    message = _any_message(rng, root, fields)[1]
    inner: Fields = []
    for _ in range(rng.randrange(95, 103)):
        inner = [Field(9, GROUP, inner)]
    message.insert(_any_index(rng, message), inner[0])


def _wire_type(rng: random.Random, root: str, fields: Fields) -> None:
    """Change a wire type, but not the bytes after it."""
    message = _any_message(rng, root, fields)[1]
    if message:
        field = rng.choice(message)
        value = encode(field.value) if isinstance(field.value, list) else field.value
        content = varint(value) if isinstance(value, int) else value
        message[message.index(field)] = Field(field.number, rng.choice((1, 2, 3, 5, 6, 7)), content)


def _surplus_bits(rng: random.Random, root: str, fields: Fields) -> None:
    """Set bits of a varint above the 64th."""
    numbers = [field for _, field in _leaves(root, fields) if isinstance(field.value, int)]
    if numbers:
        field = rng.choice(numbers)
        assert isinstance(field.value, int)
        field.value |= rng.randrange(1, 64) << 64


def _many(rng: random.Random, root: str, fields: Fields) -> None:
    """Repeat a field until there are more violations than a report lists."""
    message = _any_message(rng, root, fields)[1]
    if message and rng.random() < 0.02:
        field = rng.choice(message)
        message += [copy([field])[0] for _ in range(rng.randrange(99, 140))]


def _numbers(content: bytes) -> list[int] | None:
    """Return the numbers of a packed list; None if `content` is not one."""
    numbers, number, shift = [], 0, 0
    for byte in content:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(number)
            number = shift = 0
    return None if shift else numbers


def _pieces(rng: random.Random, number: int, values: list[int]) -> Fields:
    """Return a list of numbers in pieces, packed or not, some padded, some empty."""
    pieces: Fields = []
    while values:
        if rng.random() < 0.4:
            padding = rng.choice((0, 0, 0, 2, 10))
            pieces.append(Field(number, VARINT, values.pop(0), length=padding))
            continue
        count = rng.choice((0, 1, 2, len(values), len(values)))
        packed = b"".join(varint(value, rng.choice((0, 0, 0, 3, 10))) for value in values[:count])
        pieces.append(Field(number, LEN, packed))
        del values[:count]
    return pieces


def _repack(rng: random.Random, root: str, fields: Fields) -> None:
    """Change the encoding of a list of numbers, and sometimes its order."""
    packed = [
        (message, field)
        for name, message in _messages(root, fields)
        for field in message
        if SCHEMA[name].get(field.number) == "needles" and isinstance(field.value, bytes)
    ]
    if not packed:
        return
    message, field = rng.choice(packed)
    assert isinstance(field.value, bytes)
    values = _numbers(field.value) if field.wire_type == LEN else None
    if values is None:
        return
    if rng.random() < 0.2:
        rng.shuffle(values)
    # This very field, not an equal one.
    at = next(i for i, other in enumerate(message) if other is field)
    message[at : at + 1] = _pieces(rng, field.number, values)


def _at_inputs_dir(rng: random.Random, root: str, fields: Fields) -> None:
    """Set a path of a later request to that of an input, to inputs_dir, or to a path near it."""
    requests = [message for name, message in _messages(root, fields) if name == "LaterRequest"]
    if not requests:
        return
    request = rng.choice(requests)
    leaves = _leaves("LaterRequest", request)
    names = [f.value for kind, f in leaves if kind == "name" and isinstance(f.value, bytes)]
    directory = next(
        (f.value for f in request if f.number == 5 and isinstance(f.value, bytes)), b""
    )
    name = rng.choice(names or [b"a"])
    below = directory + b"/" + name if directory else name
    if rng.random() < 0.5:
        request.append(Field(6, LEN, below))
        return
    paths = [f for kind, f in leaves if kind in ("path", "ro_path") and f.wire_type == LEN]
    if paths:
        field = rng.choice(paths)
        path = rng.choice((below, directory, directory + b"x"))
        field.value = b"/" + path if ("ro_path", field) in leaves else path


#: Mutations that mostly change the encoding of a message, but not its content.
REWRITINGS: tuple[Mutation, ...] = (
    *(_pad, _interleave, _split, _overwrite, _explicit_default, _there_and_back, _lengthen),
    *(_pad, _interleave, _split, _overwrite, _explicit_default, _there_and_back, _repack, _repack),
)
REORDERINGS: tuple[Mutation, ...] = (_shuffle, _swap)
#: Mutations that mostly break a rule or the encoding.
BREAKAGES: tuple[Mutation, ...] = (
    *(_duplicate, _delete, _add, _set_value, _copy_value, _cut_value, _unknown, _surplus_bits),
    *(_duplicate, _delete, _add, _set_value, _copy_value, _cut_value, _set_value, _copy_value),
    *(_field_0, _deep_groups, _wire_type, _many, _at_inputs_dir, _repack),
    *(_empty_value, _empty_value),
)


def _damage(rng: random.Random, data: bytes) -> bytes:
    """Change bytes regardless of their meaning."""
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


def mutant(rng: random.Random, kind: str, base: Fields, schema: str = "tvix.build.v1") -> bytes:
    """Return the wire bytes of `base`, a message of `kind`, after some mutations."""
    root = ROOTS[kind, schema]
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
