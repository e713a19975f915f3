# SPDX-License-Identifier: MIT
"""Hypothesis strategies for canonical messages and for batches of their mutants.

An example of hypothesis takes about a millisecond, so each example is a batch: from a drawn message
and a drawn seed, a mutator (mutations.py) makes many messages. Each of them counts as a case.
"""

from __future__ import annotations

import random

from blake3 import blake3
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

import mutations
import random_messages
import trees
from trees import Field, Fields
from wire import LEN, VARINT, varint


def _absent_if_default(number: int, value: int | bytes) -> Fields:
    return [Field(number, VARINT if isinstance(value, int) else LEN, value)] if value else []


def _elements(number: int, values: list[bytes]) -> Fields:
    return [Field(number, LEN, value) for value in values]


# ---- values

_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8).map(str.encode)
_BYTES = st.binary(max_size=8).map(lambda value: value.replace(b"\0", b"\1"))
_SIZES = st.sampled_from((0, 1, 127, 128, 4096, 2**32)) | st.integers(0, 2**64 - 1)


def _as_name(value: bytes) -> bytes:
    """Return a path component made from any bytes without NUL."""
    value = value.replace(b"/", b"_")
    return value + b"a" if value in (b"", b".", b"..") else value


_FEW_NAMES = st.sampled_from((b"a", b"b", b"ab", b"A", b"...", b"n" * 255, b"\x7f", b"\xc2\x80"))
_TEXT_NAMES = _FEW_NAMES | _TEXT.map(_as_name)
_NAMES = _TEXT_NAMES | _BYTES.map(_as_name)
_ENV_KEYS = _TEXT.map(lambda key: key.replace(b"=", b"_") or b"K")
_DIGESTS = st.integers(0, 255).map(lambda byte: bytes([byte]) * 32)
_TARGETS = _BYTES.map(lambda target: target or b"t") | st.just(b"t" * 4095)


def _as_host_path(components: list[bytes]) -> bytes:
    path = b"/" + b"/".join(components)
    return b"/x" + path if (path + b"/").startswith(b"/nix/store/") else path


_HOST_PATHS = st.lists(_TEXT_NAMES | st.sampled_from((b"nix", b"store")), max_size=3).map(
    _as_host_path
)


def _sorted(values: SearchStrategy[bytes], max_size: int = 6) -> SearchStrategy[list[bytes]]:
    return st.lists(values, unique=True, max_size=max_size).map(sorted)


# ---- messages, as canonical trees of fields


@st.composite
def _nodes(draw: DrawFn, name: bytes) -> Field:
    """Draw a member of a Node, which is also an element of a Directory."""
    member = draw(st.integers(1, 3))
    named = Field(1, LEN, name)
    if member == 3:
        return Field(3, LEN, [named, Field(2, LEN, draw(_TARGETS))])
    parts = [named, Field(2, LEN, draw(_DIGESTS)), *_absent_if_default(3, draw(_SIZES))]
    if member == 2:
        parts += _absent_if_default(4, int(draw(st.booleans())))
    return Field(member, LEN, parts)


@st.composite
def _constraints(draw: DrawFn) -> Fields:
    system = draw(_TEXT.map(lambda text: text or b"x86_64-linux"))
    return [
        Field(1, LEN, system),
        *_absent_if_default(2, draw(_SIZES)),
        *_elements(3, draw(_sorted(_HOST_PATHS, 4))),
    ]


@st.composite
def build_requests(draw: DrawFn) -> Fields:
    """Draw a canonical BuildRequest."""
    outputs = draw(_sorted(_TEXT_NAMES, 4))
    inputs = [name for name in draw(_sorted(_NAMES)) if name not in outputs]
    fields = _elements(1, draw(st.lists(_TEXT, min_size=1, max_size=4)))
    fields += _elements(2, outputs)
    for key in draw(_sorted(_ENV_KEYS)):
        fields.append(Field(3, LEN, [Field(1, LEN, key), *_absent_if_default(2, draw(_BYTES))]))
    fields += [Field(4, LEN, [draw(_nodes(name))]) for name in inputs]
    if draw(st.booleans()):
        fields.append(Field(5, LEN, draw(_constraints())))
    return fields


@st.composite
def builds(draw: DrawFn) -> Fields:
    """Draw a canonical Build."""
    request = draw(build_requests())
    requested = [field.value for field in request if field.number == 2]
    nodes = [draw(_nodes(name)) for name in requested if isinstance(name, bytes)]
    return [Field(1, LEN, request), *(Field(2, LEN, [node]) for node in nodes)]


@st.composite
def directories(draw: DrawFn) -> Fields:
    """Draw a canonical Directory."""
    elements = [draw(_nodes(name)) for name in draw(_sorted(_NAMES, 8))]
    elements.sort(key=lambda element: element.number)
    total = len(elements)
    for element in elements:
        if element.number == 1 and isinstance(element.value, list):
            size = element.value[-1].value if len(element.value) == 3 else 0
            assert isinstance(size, int)
            total += size
            if total > 2**64 - 1:
                total -= size
                del element.value[2]
    return elements


# ---- messages of the later schemas

_PATHS = st.lists(_TEXT_NAMES | st.sampled_from((b"nix", b"store")), min_size=1, max_size=3).map(
    b"/".join
)
_FEW_NEEDLES = st.lists(st.integers(0, 5), unique=True, max_size=4)
_NEEDLES = _FEW_NEEDLES | st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=4)


def _is_below(path: bytes, directory: bytes) -> bool:
    return directory != b"" and (path + b"/").startswith(directory + b"/")


@st.composite
def _later_constraints(draw: DrawFn, inputs_dir: bytes) -> Fields:
    paths = [b"/" + path for path in draw(_sorted(_PATHS, 4)) if not _is_below(path, inputs_dir)]
    return [
        Field(1, LEN, draw(_TEXT.map(lambda text: text or b"x86_64-linux"))),
        *_absent_if_default(2, draw(_SIZES)),
        *_elements(3, paths),
        *_absent_if_default(4, int(draw(st.booleans()))),
        *_absent_if_default(5, int(draw(st.booleans()))),
    ]


@st.composite
def later_build_requests(draw: DrawFn) -> Fields:
    """Draw a canonical BuildRequest of the later schemas."""
    names = draw(_sorted(_NAMES, 4))
    directory = draw(st.just(b"") | st.just(b"nix/store") | _PATHS)
    inputs = {directory + b"/" + name if directory else name for name in names}
    fields = [Field(1, LEN, [draw(_nodes(name))]) for name in names]
    fields += _elements(2, draw(st.lists(_TEXT, min_size=1, max_size=3)))
    fields += _absent_if_default(3, draw(st.just(b"") | _PATHS))
    fields += _elements(4, draw(_sorted(_PATHS, 3)))
    fields += _absent_if_default(5, directory)
    fields += _elements(6, [path for path in draw(_sorted(_PATHS, 3)) if path not in inputs])
    for key in draw(_sorted(_ENV_KEYS, 4)):
        fields.append(Field(7, LEN, [Field(1, LEN, key), *_absent_if_default(2, draw(_BYTES))]))
    if draw(st.booleans()):
        fields.append(Field(8, LEN, draw(_later_constraints(directory))))
    for path in draw(_sorted(_PATHS, 3)):
        if not _is_below(path, directory):
            contents = _absent_if_default(2, draw(st.binary(max_size=8)))
            fields.append(Field(9, LEN, [Field(1, LEN, path), *contents]))
    return fields + _elements(10, draw(st.lists(_TEXT.filter(bool), max_size=3)))


def _packed(number: int, values: list[int]) -> Fields:
    content = b"".join(varint(value) for value in sorted(values))
    return [Field(number, LEN, content)] if content else []


@st.composite
def builds_2024(draw: DrawFn) -> Fields:
    """Draw a canonical Build of tvix.build.v1@2024."""
    request = draw(later_build_requests())
    paths = [field.value for field in request if field.number == 6]
    names = sorted({path.rpartition(b"/")[2] for path in paths if isinstance(path, bytes)})
    requested = sum(field.number == 10 for field in request)
    build = [Field(1, LEN, request), *(Field(2, LEN, [draw(_nodes(name))]) for name in names)]
    if draw(st.booleans()):
        for _ in names:
            found = [i for i in range(requested) if draw(st.booleans())]
            build.append(Field(3, LEN, _packed(1, found)))
    return build


@st.composite
def build_responses(draw: DrawFn) -> Fields:
    """Draw a canonical BuildResponse."""
    response: Fields = []
    for _ in range(draw(st.integers(0, 4))):
        entry = draw(_nodes(b""))
        assert isinstance(entry.value, list)
        del entry.value[0]  # the name, which is empty
        needles = _packed(2, draw(_NEEDLES))
        response.append(Field(1, LEN, [Field(1, LEN, [entry]), *needles]))
    return response


# ---- steps of plans


def _values(fields: Fields, number: int) -> list[bytes]:
    """Return the strings with a field number, or the names of the nodes with it."""
    found = []
    for field in fields:
        value = field.value
        while isinstance(value, list):
            value = value[0].value
        if field.number == number and isinstance(value, bytes):
            found.append(value)
    return found


# Mutations know the fields of the first schema (trees.SCHEMA).
_LATER_SCHEMAS = st.sampled_from((b"tvix.build.v1@2024", b"snix.build.v1"))
_SCHEMAS = st.just(b"tvix.build.v1") | st.just(b"tvix.build.v1") | _LATER_SCHEMAS


def _base_name(path: bytes) -> bytes:
    return path.rpartition(b"/")[2]


def _step(draw: DrawFn, schema: bytes, sources: list[tuple[bytes, bytes]]) -> Fields:
    """Draw a canonical Step that refers to some of the outputs of other steps, each with its step's
    digest."""
    is_first = schema == b"tvix.build.v1"
    request = draw(build_requests() if is_first else later_build_requests())
    inputs, outputs = (4, 2) if is_first else (1, 6)
    directory = b"" if is_first else b"".join(_values(request, 5))
    prefix = directory + b"/" if directory else b""
    refs = [
        Field(2, LEN, [Field(1, LEN, digest), Field(2, LEN, path)])
        for name, (digest, path) in sorted({_base_name(one[1]): one for one in sources}.items())
        if name not in _values(request, inputs) and prefix + name not in _values(request, outputs)
    ]
    return [Field(1, LEN, request), *refs, Field(3, LEN, schema)]


@st.composite
def steps(draw: DrawFn) -> Fields:
    """Draw a canonical Step."""
    schema = draw(_SCHEMAS)
    paths = draw(_sorted(_TEXT_NAMES if schema == b"tvix.build.v1" else _PATHS))
    return _step(draw, schema, [(draw(_DIGESTS), path) for path in paths])


@st.composite
def plans(draw: DrawFn) -> Fields:
    """Draw a canonical Plan."""
    schema = draw(_SCHEMAS)
    made: dict[bytes, Fields] = {}
    sources: list[tuple[bytes, bytes]] = []
    for _ in range(draw(st.integers(1, 4))):
        step = _step(draw, schema, [one for one in sources if draw(st.booleans())])
        digest = blake3(trees.encode(step)).digest()
        made[digest] = step
        request = step[0].value
        assert isinstance(request, list)
        outputs = _values(request, 2 if schema == b"tvix.build.v1" else 6)
        sources += [(digest, output) for output in outputs if len(_base_name(output)) <= 255]
    needed = {digest for step in made.values() for digest in _values(step, 2)}
    roots = [one for one in made if one not in needed or draw(st.booleans())]
    parts = [Field(1, LEN, made[digest]) for digest in sorted(made)]
    return parts + _elements(2, sorted(roots))


#: Canonical messages, by their names in trees.ROOTS.
MESSAGES: dict[str, SearchStrategy[Fields]] = {
    "BuildRequest": build_requests(),
    "Build": builds(),
    "Directory": directories(),
    "LaterRequest": later_build_requests(),
    "Build2024": builds_2024(),
    "BuildResponse": build_responses(),
    "Step": steps(),
    "Plan": plans(),
}

_SEEDS = st.integers(0, 2**64 - 1)


# ---- batches of wire bytes


class Batch(list[bytes]):
    """Messages, with a short repr, because hypothesis prints batches that fail."""

    def __repr__(self) -> str:
        return f"<Batch of {len(self)}>"


def canonical_batches(kind: str, size: int, schema: str = "tvix.build.v1") -> SearchStrategy[Batch]:
    """Return a strategy for batches of `size` canonical messages."""
    messages = MESSAGES[trees.ROOTS[kind, schema]].map(trees.encode)
    return st.lists(messages, min_size=size, max_size=size).map(Batch)


@st.composite
def mutant_batches(draw: DrawFn, kind: str, size: int, schema: str = "tvix.build.v1") -> Batch:
    """Draw a batch of `size` mutants of one message."""
    base = draw(MESSAGES[trees.ROOTS[kind, schema]])
    rng = random.Random(draw(_SEEDS))
    return Batch(mutations.mutant(rng, kind, base, schema) for _ in range(size))


def random_batches(size: int) -> SearchStrategy[Batch]:
    """Return a strategy for batches of `size` random byte strings."""

    def batch(seed: int) -> Batch:
        rng = random.Random(seed)
        return Batch(random_messages.random_bytes(rng) for _ in range(size))

    return _SEEDS.map(batch)
