# SPDX-License-Identifier: MIT
"""`convert` says what vectors and a reference in plain Python on protobuf say, there and back."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

import make_vectors
import reference
import reference_translation
import strategies
import trees
import tvix_build
from derivations_support import EXAMPLES as DERIVATIONS
from derivations_support import ODD, odd, read
from engine import LISTED
from reference_parts import node_name
from reference_translation import NoTranslationError
from snix.build.protos.build_pb2 import BuildRequest as LaterRequest
from translation_files import PAIRS, REFUSALS, TRANSLATIONS, Pair, Refusal
from tvix.build.protos.build_pb2 import Build
from tvix.build.protos.build_pb2 import BuildRequest as FirstRequest
from tvix.castore.protos.castore_pb2 import Node
from tvix_build import NotRepresentableError, Schema, ValidationError, convert, nix
from tvix_build._core.report import SchemaLike
from tvix_build.nix import DerivationDirectory, DerivationError

FIRST, TVIX_2024, SNIX = Schema
LATER: Final = (TVIX_2024, SNIX)
#: Requests that hypothesis makes for a property, and how many others are made of each.
EXAMPLES = 100
CHANGED = 10
#: How many must show what they are made to show.
SHOWN = 5
_LEAST = b"\x12\x02sh"


def outcome(
    data: bytes, schema: SchemaLike, to: SchemaLike, network_access: bool = False
) -> bytes | list[str]:
    """What convert returns, or where its reasons lie."""
    try:
        return convert(data, to=to, schema=schema, network_access=network_access)
    except NotRepresentableError as error:
        return [one.path for one in error.reasons]


def expected(
    data: bytes, schema: SchemaLike, to: SchemaLike, network_access: bool = False
) -> bytes | list[str]:
    """The same by the reference."""
    try:
        translated = (
            reference_translation.to_first(LaterRequest.FromString(data), network_access)
            if to == FIRST
            else reference_translation.to_later(FirstRequest.FromString(data), network_access)
        )
    except NoTranslationError as refusal:
        return refusal.places
    encoding = translated.SerializeToString(deterministic=True)
    report = reference.check(encoding, "build-request", to)
    assert report.canonical, report.violations
    return encoding


# --- Vectors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pairs.json", "refusals.json"])
def test_vectors_are_up_to_date(name: str) -> None:
    text = (TRANSLATIONS / name).read_text("ascii")
    assert text == make_vectors.translation_files()[name], "run tests/generators/make_vectors.py"
    names = [row["name"] for row in json.loads(text)["vectors"]]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("later", LATER)
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_pairs(pair: Pair, later: SchemaLike) -> None:
    for say in (outcome, expected):
        assert say(pair.first, FIRST, later, pair.network_access) == pair.later
        assert say(pair.later, later, FIRST, pair.network_access) == pair.first
    for other in LATER:
        assert outcome(pair.later, later, other) == pair.later
    assert outcome(pair.first, FIRST, FIRST) == pair.first


@pytest.mark.parametrize("row", REFUSALS, ids=lambda row: row.name)
def test_refusals(row: Refusal) -> None:
    ways = [(FIRST, later) if row.schema == FIRST else (later, FIRST) for later in LATER]
    for schema, to in ways:
        if not row.violations:
            for say in (outcome, expected):
                assert say(row.data, schema, to, row.network_access) == row.reasons
            continue
        with pytest.raises(ValidationError) as found:
            convert(row.data, to=to, schema=schema, network_access=row.network_access)
        assert [(one.code.value, one.path) for one in found.value.violations] == row.violations


# --- Properties ----------------------------------------------------------------------------------

_DIGITS = "0123456789abcdfghijklmnpqrsvwxyz"
_HASHES = st.integers(0, 2**64).map(
    lambda seed: "".join(_DIGITS[seed >> i & 31] for i in range(32))
)
_NAMES = st.builds("{}-{}".format, _HASHES, st.sampled_from(("a", "b.drv", "ä", "n" * 222)))
_ODD_NAMES = st.builds(
    lambda name, change: change(name),
    _NAMES,
    st.sampled_from(
        [
            lambda name: name[1:],
            lambda name: name[:32],
            lambda name: name[:33],
            lambda name: "e" + name[1:],
            lambda name: name[:31] + "A" + name[32:],
            lambda name: "0" + name[:254],
            lambda name: name[:32] + "_" + name[33:],
            lambda name: "n",
        ]
    ),
)


_RNGS = st.integers(0, 2**64 - 1).map(Random)


@st.composite
def first_requests(draw: DrawFn, names: st.SearchStrategy[str] = _NAMES) -> FirstRequest:
    """A canonical request of tvix.build.v1 with names that mostly have a hash part."""
    request = FirstRequest.FromString(trees.encode(draw(strategies.build_requests())))
    count = len(request.outputs) + len(request.inputs)
    chosen = draw(st.lists(names, min_size=count, max_size=count, unique=True))
    outputs = chosen[: len(request.outputs)]
    request.outputs[:] = sorted(outputs, key=str.encode)
    for node, name in zip(request.inputs, chosen[len(outputs) :], strict=True):
        getattr(node, node.WhichOneof("node") or "").name = name.encode()
    request.inputs.sort(key=node_name)
    if not draw(st.integers(0, 9)):
        request.ClearField("constraints")
    elif not request.HasField("constraints"):
        request.constraints.system = "x86_64-linux"
    return request


Change = Callable[[LaterRequest, Random], None]


def _set(name: str, *values: Any) -> Change:
    def change(request: LaterRequest, rng: Random) -> None:
        setattr(request, name, rng.choice(values))

    return change


def _rename_input(request: LaterRequest, rng: Random) -> None:
    """An input gets the name of an output."""
    if request.inputs and request.outputs:
        entry = rng.choice(request.inputs)
        name = rng.choice(request.outputs).removeprefix("nix/store/")
        getattr(entry, entry.WhichOneof("entry") or "").name = name.encode()


def _change_output(request: LaterRequest, rng: Random) -> None:
    if request.outputs:
        directories = ("", "nix/", "nix/store/x/", "x/nix/store/", "nix/storex/")
        i = rng.randrange(len(request.outputs))
        request.outputs[i] = rng.choice(directories) + request.outputs[i].removeprefix("nix/store/")
        request.outputs[0] += "x" * rng.choice((0, 1, 256))


def _change_needles(request: LaterRequest, rng: Random) -> None:
    needles = list(request.refscan_needles)
    several = (needles[::-1], needles[:-1], [*needles, "x"], [one.upper() for one in needles])
    request.refscan_needles[:] = rng.choice(several)


def _add_file(request: LaterRequest, _rng: Random) -> None:
    request.additional_files.add(path="build/file")


def _change_scratch(request: LaterRequest, rng: Random) -> None:
    several: tuple[list[str], ...] = (["build"], [], ["build", "nix/store", "tmp"], ["nix/store"])
    request.scratch_paths[:] = rng.choice(several)


def _add_host_path(request: LaterRequest, rng: Random) -> None:
    request.inputs_dir = rng.choice((request.inputs_dir, "", "in"))
    paths = ("/nix/store", "/nix/store/x", "/nix/storex", "/nix", "/", "/x/nix/store")
    request.constraints.available_ro_paths.append(rng.choice(paths))


def _change_flags(request: LaterRequest, rng: Random) -> None:
    request.constraints.network_access = rng.random() < 0.5
    request.constraints.provide_bin_sh = rng.random() < 0.5


def _clear_constraints(request: LaterRequest, _rng: Random) -> None:
    request.ClearField("constraints")


_CHANGES: tuple[Change, ...] = (
    _set("working_dir", "", "nix/store"),
    _set("inputs_dir", "", "in"),
    *(_rename_input, _change_output, _change_needles, _add_file, _change_scratch),
    *(_add_host_path, _change_flags, _clear_constraints),
)


def changed(first: FirstRequest, rng: Random) -> bytes:
    """A canonical request of the later schemas: a translation after a few changes."""
    request = reference_translation.in_form(first, network_access=rng.random() < 0.5)
    request.constraints.system = request.constraints.system or "x86_64-linux"
    for change in rng.choices(_CHANGES, k=rng.choice((0, 1, 1, 2, 4))):
        change(request, rng)
    try:
        return reference.canonicalize(request.SerializeToString(), "build-request", SNIX)
    except reference.RefusedError:
        return _LEAST


def there_and_back(
    data: bytes, schema: SchemaLike, to: SchemaLike, network_access: bool
) -> bytes | list[str]:
    """What convert says of a canonical request, as the reference does; of a translation, that the
    way back leads to the same bytes."""
    found = outcome(data, schema, to, network_access)
    assert found == expected(data, schema, to, network_access)
    if isinstance(found, bytes):
        assert outcome(found, to, schema, network_access) == data
    return found


@pytest.mark.slow
def test_from_the_first_schema() -> None:
    shown: Counter[str] = Counter()

    @settings(max_examples=EXAMPLES)
    @given(first_requests(_NAMES | _ODD_NAMES), st.sampled_from(LATER), st.booleans())
    def run(request: FirstRequest, later: SchemaLike, network_access: bool) -> None:
        data = request.SerializeToString(deterministic=True)
        shown.update(kinds(there_and_back(data, FIRST, later, network_access)))

    run()
    assert_shown(shown, "translated", "outputs", "inputs", "constraints")


@pytest.mark.slow
def test_from_the_later_schemas() -> None:
    shown: Counter[str] = Counter()

    @settings(max_examples=EXAMPLES)
    @given(
        first_requests(_NAMES) | first_requests(_NAMES | _ODD_NAMES),
        st.integers(0, 2**64 - 1).map(Random),
    )
    def run(first: FirstRequest, rng: Random) -> None:
        for _ in range(CHANGED):
            data, later = changed(first, rng), rng.choice(LATER)
            shown.update(kinds(there_and_back(data, later, FIRST, rng.random() < 0.5)))
            assert all(outcome(data, later, other) == data for other in LATER)

    run()
    fields = [field.name for field in LaterRequest.DESCRIPTOR.fields]
    never = {"command_args", "environment_vars", "constraints"}
    assert_shown(shown, "translated", *(name for name in fields if name not in never))
    constraints = LaterRequest.BuildConstraints.DESCRIPTOR.fields
    assert_shown(shown, *(f"constraints.{field.name}" for field in constraints[2:]))


@pytest.mark.slow
@settings(max_examples=20)
@given(st.data(), st.sampled_from((FIRST, *LATER)))
def test_only_what_is_valid_is_translated(data: st.DataObject, schema: SchemaLike) -> None:
    """Mutants, valid or not, and most of them not canonical."""
    for mutant in data.draw(strategies.mutant_batches("build-request", 50, schema)):
        to = SNIX if schema == FIRST else FIRST
        report = reference.check(mutant, "build-request", schema)
        if report.valid:
            assert outcome(mutant, schema, to) == expected(mutant, schema, to)
            assert outcome(mutant, schema, schema) == reference.canonicalize(
                mutant, "build-request", schema
            )
            continue
        for other in (to, schema):
            with pytest.raises(ValidationError) as found:
                convert(mutant, to=other, schema=schema)
            violations = [(one.code.value, one.path) for one in found.value.violations]
            assert violations == report.violations[:LISTED]
            assert found.value.violation_count == len(report.violations)


def kinds(found: bytes | list[str]) -> set[str]:
    """Which fields a refusal names."""
    if isinstance(found, bytes):
        return {"translated"}
    return {re.sub(r"\[\d+\](\.\w+\.name)?", "", place) for place in found}


def assert_shown(shown: Counter[str], *wanted: str) -> None:
    """That there were some of each."""
    assert [name for name in wanted if shown[name] < SHOWN] == [], shown


# --- Arguments -----------------------------------------------------------------------------------


def test_a_message_becomes_a_message_and_bytes_bytes() -> None:
    first = FirstRequest.FromString(PAIRS[0].first)
    later = LaterRequest.FromString(PAIRS[0].later)
    assert convert(first, to=SNIX) == convert(later, to=SNIX) == later
    assert convert(later, to=FIRST) == convert(later, to=FIRST, schema=SNIX) == first
    assert convert(first, to=FIRST) == first
    for message in (first, later):
        with pytest.raises(
            TypeError,
            match=r"^expected bytes to convert to .*: pass request.SerializeToString\(\)$",
        ):
            convert(message, to=TVIX_2024)
    assert convert(PAIRS[0].first, to=TVIX_2024) == PAIRS[0].later
    assert convert(bytearray(PAIRS[0].first), to=SNIX) == PAIRS[0].later
    assert convert(memoryview(PAIRS[0].later), to=FIRST, schema=TVIX_2024) == PAIRS[0].first


@pytest.mark.parametrize(
    "arguments",
    [
        {"request": FirstRequest(), "schema": SNIX},
        {"request": LaterRequest(), "schema": TVIX_2024},
        {"request": Build()},
        {"request": "text"},
    ],
)
def test_what_is_no_request_of_the_schema(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        convert(**arguments, to=FIRST)


@pytest.mark.parametrize(("schema", "to"), [(FIRST, "snix"), ("tvix.build.v2", FIRST)])
def test_schemas_that_are_none(schema: SchemaLike, to: SchemaLike) -> None:
    with pytest.raises(ValueError, match=r"^expected a Schema: "):
        convert(PAIRS[0].first, to=to, schema=schema)


@pytest.mark.parametrize(("schema", "to"), [(FIRST, FIRST), (SNIX, TVIX_2024), (SNIX, SNIX)])
def test_network_access_where_it_says_nothing(schema: SchemaLike, to: SchemaLike) -> None:
    with pytest.raises(ValueError, match="network_access is for conversions from or to"):
        convert(b"", to=to, schema=schema, network_access=True)


def test_reasons_in_words() -> None:
    (row,) = (row for row in REFUSALS if row.name == "later_all_reasons")
    with pytest.raises(NotRepresentableError) as found:
        convert(row.data, to=FIRST, schema=SNIX)
    said = {one.path: one.message for one in found.value.reasons}
    hash_part = "a name as in a store path: a hash of 32 characters, '-' and more"
    assert said == {
        "inputs[0].file.name": f"expected {hash_part}, found 'in'",
        "working_dir": "expected 'build', found ''",
        "scratch_paths": "expected ['build', 'nix/store'], found []",
        "inputs_dir": "expected 'nix/store', found ''",
        "outputs[0]": "expected nix/store/ and a name of at most 255 bytes, found 'a'",
        "outputs[2]": f"expected {hash_part}, found 'b'",
        "constraints.available_ro_paths[0]": (
            "expected a path outside of /nix/store, found '/nix/store'"
        ),
        "constraints.network_access": "expected false, found true",
        "constraints.provide_bin_sh": "expected true, found false",
        "additional_files": "expected [], found ['build/a']",
    }
    assert str(found.value).startswith(f"inputs[0].file.name: expected {hash_part}, found 'in'; ")


# --- Derivations ---------------------------------------------------------------------------------


@pytest.mark.parametrize("later", LATER)
def test_derivations_are_translated_as_they_are_made(later: SchemaLike) -> None:
    compared = fixed = 0
    for file in [*DERIVATIONS, *ODD]:
        derivation = read(file)
        directory = DerivationDirectory(file.parent)
        try:
            first = nix.to_build_request(derivation, nodes=node, derivations=directory)
        except DerivationError:
            continue
        made = nix.to_build_request(derivation, nodes=node, derivations=directory, schema=later)
        data = made if isinstance(made, bytes) else made.SerializeToString()
        access = LaterRequest.FromString(data).constraints.network_access
        converted = convert(first.SerializeToString(), to=later, network_access=access)
        assert converted == data
        assert convert(data, to=FIRST, schema=later, network_access=access) == (
            first.SerializeToString()
        )
        compared += 1
        fixed += access
    assert compared >= 15
    assert fixed >= 3


def test_files_are_in_later_schemas_only() -> None:
    request = nix.to_build_request(odd("pass-as-file"), nodes=node, schema=SNIX)
    with pytest.raises(NotRepresentableError) as found:
        convert(request, to=FIRST)
    assert [one.path for one in found.value.reasons] == ["additional_files"]


def node(path: str) -> Node:
    """A node for any path."""
    return tvix_build.file_node(path.removeprefix("/nix/store/"), digest=bytes(32), size=1)
