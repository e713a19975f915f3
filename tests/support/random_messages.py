# SPDX-License-Identifier: MIT
"""Random messages that are not mutants: messages with long lists, and random bytes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from blake3 import blake3

from trees import NUMBERS, ROOTS, Field, Fields, copy, encode
from wire import FIXED32, FIXED64, LEN, VARINT, tag, varint

# ---- long lists


def _keys(rng: random.Random, count: int) -> list[bytes]:
    """Return about `count` names in random order, at most one of them twice, some with a prefix."""
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


def _names(rng: random.Random) -> list[bytes]:
    return _keys(rng, rng.choice((1, 30, 60, 255, 256, 257, 500, 2000)))


def large_message(rng: random.Random, kind: str, schema: str = "tvix.build.v1") -> bytes:
    """Return a message with lists of up to 2,000 elements, valid except for order and keys."""
    return encode(_LARGE[ROOTS[kind, schema]](rng))


def _large_directory(rng: random.Random) -> Fields:
    return [_node(rng, name) for name in _names(rng)]


def _large_request(rng: random.Random) -> Fields:
    outputs = _names(rng)[: rng.choice((1, 300, 2000))]
    request = [Field(1, LEN, b"sh"), *(Field(2, LEN, name) for name in outputs)]
    request += [Field(3, LEN, [Field(1, LEN, key), Field(2, LEN, b"v")]) for key in _names(rng)]
    request += [Field(4, LEN, [_node(rng, b"in-" + name)]) for name in _names(rng)]
    if rng.random() < 0.1:
        request.append(Field(4, LEN, [_node(rng, rng.choice(outputs))]))
    paths = [Field(3, LEN, b"/" + name) for name in _names(rng)]
    request.append(Field(5, LEN, [Field(1, LEN, b"x86_64-linux"), *paths]))
    return request


def _produced(rng: random.Random, names: Iterable[bytes]) -> Fields:
    """Return the nodes of a Build's outputs: as requested, in random order, or without one."""
    produced = [_node(rng, name) for name in names]
    if rng.random() < 0.5:
        rng.shuffle(produced)
    if rng.random() < 0.2:
        produced.pop()
    return [Field(2, LEN, [node]) for node in produced]


def _values_of(fields: Fields, number: int) -> list[bytes]:
    return [f.value for f in fields if f.number == number and isinstance(f.value, bytes)]


def _large_build(rng: random.Random) -> Fields:
    request = _large_request(rng)
    return [Field(1, LEN, request), *_produced(rng, _values_of(request, 2))]


def _large_later_request(rng: random.Random) -> Fields:
    directory = rng.choice((b"", b"d", b"nix/store"))
    inputs = _names(rng)
    outputs = [rng.choice((b"o/", b"x/y/")) + name for name in _names(rng)[:500]]
    if rng.random() < 0.1:
        outputs.append(directory + b"/" + rng.choice(inputs))
    request = [Field(1, LEN, [_node(rng, name)]) for name in inputs]
    request.append(Field(2, LEN, b"sh"))
    request += [Field(4, LEN, name + b"/s") for name in _names(rng)]
    request += [Field(5, LEN, directory)] if directory else []
    request += [Field(6, LEN, path) for path in outputs]
    request += [Field(7, LEN, [Field(1, LEN, key), Field(2, LEN, b"v")]) for key in _names(rng)]
    paths = [Field(3, LEN, b"/host/" + name) for name in _names(rng)]
    request.append(Field(8, LEN, [Field(1, LEN, b"x86_64-linux"), *paths]))
    request += [Field(9, LEN, [Field(1, LEN, b"f/" + name)]) for name in _names(rng)]
    return request + [Field(10, LEN, name) for name in _names(rng)]


def _needles(rng: random.Random, number: int, count: int) -> Fields:
    """Return a packed list of needles below `count`, mostly sorted, rarely with one too large."""
    found = sorted(rng.sample(range(count), rng.choice((0, 0, 1, min(count, 20), count))))
    if rng.random() < 0.02:
        rng.shuffle(found)
    if rng.random() < 0.0005:
        found.append(count)
    return [Field(number, LEN, b"".join(map(varint, found)))] if found else []


def _large_build_2024(rng: random.Random) -> Fields:
    request = _large_later_request(rng)
    names = dict.fromkeys(path.rpartition(b"/")[2] for path in _values_of(request, 6))
    outputs = _produced(rng, names)
    requested = min(len(_values_of(request, 10)), 40)
    needles = [Field(3, LEN, _needles(rng, 1, requested)) for _ in outputs]
    return [Field(1, LEN, request), *outputs, *needles]


def _large_response(rng: random.Random) -> Fields:
    """Return outputs without names and with many needles; sometimes an output has a list twice."""
    requested = rng.choice((1, 30, 300, 2000))
    response: Fields = []
    for _ in range(rng.choice((1, 10, 100))):
        content = [Field(2, LEN, rng.randbytes(32))]
        needles = _needles(rng, 2, requested)
        if needles and rng.random() < 0.03:
            needles.append(copy(needles)[0])
        entry = Field(1, LEN, [Field(rng.choice((1, 2)), LEN, content)])
        response.append(Field(1, LEN, [entry, *needles]))
    return response


def _large_step(rng: random.Random) -> Fields:
    is_first = rng.random() < 0.5
    request = _large_request(rng) if is_first else _large_later_request(rng)
    directory = b"" if is_first else b"x/y/"
    refs = [
        Field(2, LEN, [Field(1, LEN, rng.randbytes(32)), Field(2, LEN, directory + name)])
        for name in _names(rng)
    ]
    schema = b"tvix.build.v1" if is_first else rng.choice((b"tvix.build.v1@2024", b"snix.build.v1"))
    return [Field(1, LEN, request), *refs, Field(3, LEN, schema)]


def _large_plan(rng: random.Random) -> Fields:
    """Return steps that refer to earlier ones, in any order; rarely one is missing or is twice."""
    made: dict[bytes, Fields] = {}
    outputs: list[tuple[bytes, bytes]] = []
    for i in range(rng.choice((1, 30, 300))):
        own = b"out-%d" % i
        used = sorted(rng.sample(outputs, min(len(outputs), rng.randrange(5))))
        refs = [Field(2, LEN, [Field(1, LEN, one), Field(2, LEN, name)]) for name, one in used]
        request = [Field(1, LEN, b"sh"), Field(2, LEN, own)]
        step = [Field(1, LEN, request), *refs, Field(3, LEN, b"tvix.build.v1")]
        digest = blake3(encode(step)).digest()
        made[digest] = step
        outputs.append((own, digest))
    parts = [Field(1, LEN, made[digest]) for digest in sorted(made)]
    if rng.random() < 0.5:
        rng.shuffle(parts)
    if rng.random() < 0.2:
        parts.pop()
    if rng.random() < 0.2 and parts:
        parts.append(copy([rng.choice(parts)])[0])
    return parts + [Field(2, LEN, digest) for digest in sorted(made)]


_LARGE: dict[str, Callable[[random.Random], Fields]] = {
    "BuildRequest": _large_request,
    "Build": _large_build,
    "Directory": _large_directory,
    "LaterRequest": _large_later_request,
    "Build2024": _large_build_2024,
    "BuildResponse": _large_response,
    "Step": _large_step,
    "Plan": _large_plan,
}


# ---- random bytes


def random_bytes(rng: random.Random) -> bytes:
    """Return random bytes, or in two of three cases random fields with mostly correct lengths."""
    if rng.random() < 0.33:
        return rng.randbytes(rng.randrange(64))
    return _random_fields(rng, 0)


def _random_fields(rng: random.Random, depth: int) -> bytes:
    out = bytearray()
    for _ in range(rng.randrange(6)):
        odd = rng.random() < 0.03
        number = 0 if odd else rng.choice((1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10))
        wire_type = rng.randrange(8) if rng.random() < 0.05 else rng.choice((VARINT, LEN, LEN, LEN))
        out += tag(number, wire_type, rng.choice((0, 0, 0, 2, 5)))
        if wire_type == LEN:
            content = rng.choice((b"a", b"/", b"", bytes(32), rng.randbytes(3)))
            if depth < 4 and rng.random() < 0.5:
                content = _random_fields(rng, depth + 1)
            out += varint(len(content) + (rng.random() < 0.02)) + content
        elif wire_type == VARINT:
            out += varint(rng.choice(NUMBERS))
        elif wire_type in (FIXED64, FIXED32):
            out += bytes(8 if wire_type == FIXED64 else 4)
    return bytes(out)
