# SPDX-License-Identifier: MIT
"""Random messages that are no mutants: such with long lists, and bytes of no origin."""

from __future__ import annotations

import random

from trees import NUMBERS, Field, encode
from wire import FIXED32, FIXED64, LEN, VARINT, tag, varint

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
            out += varint(rng.choice(NUMBERS))
        elif wire_type in (FIXED64, FIXED32):
            out += bytes(8 if wire_type == FIXED64 else 4)
    return bytes(out)
