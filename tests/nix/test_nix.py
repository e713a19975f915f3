# SPDX-License-Identifier: MIT
"""Derivations: real Nix wrote them, Python's own parser reads them as well, and the requests that
the examples carry were made without this package."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import pickle
import random
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

import tvix_build
from derivations_support import EXAMPLES, ODD, check_rules, fields, literal, odd, read, text_of
from tvix.build.protos.build_pb2 import BuildRequest
from tvix.castore.protos.castore_pb2 import Node
from tvix_build import nix
from tvix_build._core.report import SchemaLike
from tvix_build.nix import Derivation, DerivationDirectory, DerivationError, Output, aterm
from tvix_build.nix.requests import find_cycles

REQUESTS = EXAMPLES[0].parents[1] / "requests"
DIGEST = bytes(range(32))
STORE_HASH = f"/nix/store/{'0' * 32}-"


def node(path: str) -> Node:
    """A node for any path."""
    return tvix_build.file_node(path.removeprefix("/nix/store/"), digest=DIGEST, size=1)


def derivation(**changes: object) -> Derivation:
    """A small derivation."""
    plain = {
        "outputs": {"out": Output(f"{STORE_HASH}a-out")},
        "input_derivations": {},
        "input_sources": (),
        "system": "x86_64-linux",
        "builder": "/bin/sh",
        "arguments": ("-c", "true"),
        "environment": {"name": b"small"},
        "path": f"{STORE_HASH}a.drv",
    }
    return Derivation(**{**plain, **changes})  # type: ignore[arg-type]


def environment(request: BuildRequest) -> dict[str, bytes]:
    return {one.key: one.value for one in request.environment_vars}


def reasons(found: pytest.ExceptionInfo[DerivationError]) -> list[str]:
    return list(found.value.reasons)


# --- Text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [*EXAMPLES, *ODD], ids=lambda file: file.name[33:])
def test_a_text_of_nix_is_read_and_written_again(file: Path) -> None:
    data = file.read_bytes()
    assert fields(read(file)) == literal(data)
    assert nix.unparse(read(file)) == data


def test_all_that_is_odd_is_there() -> None:
    assert odd("content-addressed").outputs["out"] == Output("", "r:sha256", "")
    assert odd("deferred").outputs["out"] == Output("")
    assert odd("impure").outputs["out"] == Output("", "r:sha256", "impure")
    assert odd("fixed-flat").outputs["out"].hash_algorithm == "sha256"
    assert odd("fixed-recursive").outputs["out"].hash_algorithm == "r:sha1"
    assert list(odd("many-outputs").outputs) == ["bin", "dev", "lib", "man", "out"]
    assert json.loads(odd("structured-attributes").environment["__json"])["list"][1] == "two"
    assert odd("latin-1-value").environment["latin1"] == b"gr\xfc\xdfe"
    assert odd("latin-1-argument").arguments == ("gr\udcfc\udcdfe",)
    assert "ключ" in odd("unicode").environment
    assert odd("escapes").environment["lines"] == b"\n\r\n\t\\n\\r\\t"


def test_a_derivation_cannot_be_changed_but_copied() -> None:
    one = read(EXAMPLES[0])
    with pytest.raises(AttributeError):
        one.system = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        one.environment["key"] = b""  # type: ignore[index]
    for again in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert again == one
        assert hash(again) == hash(one)
        assert nix.unparse(again) == nix.unparse(one)
        assert type(again.outputs) is type(one.outputs)


STRINGS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0")
) | st.sampled_from(['"', "\\", '\\"', '"),("', "\n", "\\n", "]", "\udcff"])
BYTES = st.binary().map(lambda data: data.replace(b"\0", b""))
DERIVATIONS = st.builds(
    Derivation,
    outputs=st.dictionaries(STRINGS, st.builds(Output, STRINGS, STRINGS, STRINGS), max_size=3),
    input_derivations=st.dictionaries(
        STRINGS, st.lists(STRINGS, max_size=3).map(tuple), max_size=3
    ),
    input_sources=st.lists(STRINGS, max_size=3).map(tuple),
    system=STRINGS,
    builder=STRINGS,
    arguments=st.lists(STRINGS, max_size=3).map(tuple),
    environment=st.dictionaries(STRINGS, BYTES, max_size=3),
)


@pytest.mark.slow
@given(DERIVATIONS)
def test_any_strings_are_written_and_read_again(one: Derivation) -> None:
    data = nix.unparse(one)
    assert fields(one) == literal(data)
    term = aterm.parse(data)
    inputs = [(path, list(names)) for path, names in term.input_derivations]
    assert (list(term.outputs), inputs, *term[2:]) == literal(data)


DIGESTS = st.text("0123456789abcdfghijklmnpqrsvwxyz", min_size=32, max_size=32)
NAMES = st.from_regex(r"[0-9a-zA-Z+_?=-][0-9a-zA-Z+._?=-]{0,20}", fullmatch=True)
OUTPUT_NAMES = NAMES.filter(lambda name: name != "drv")
PATHS = st.builds("/nix/store/{}-{}".format, DIGESTS, NAMES)
FIXED_OUTPUTS = st.builds(
    Output,
    PATHS,
    st.sampled_from(["sha256", "r:sha256", "text:sha256"]),
    st.text("0123456789abcdef", min_size=64, max_size=64),
)
VALID = st.builds(
    Derivation,
    outputs=st.dictionaries(OUTPUT_NAMES, PATHS.map(Output), min_size=1, max_size=3)
    | st.dictionaries(OUTPUT_NAMES, st.just(Output("")), min_size=1, max_size=3)
    | st.dictionaries(OUTPUT_NAMES, st.just(Output("", "r:sha1")), min_size=1, max_size=3)
    | st.dictionaries(st.just("out"), FIXED_OUTPUTS, min_size=1),
    input_derivations=st.dictionaries(
        PATHS.map("{}.drv".format),
        st.lists(OUTPUT_NAMES, min_size=1, max_size=3, unique=True).map(tuple),
        max_size=3,
    ),
    input_sources=st.lists(PATHS, max_size=3, unique=True).map(tuple),
    system=STRINGS.filter(bool),
    builder=STRINGS.filter(bool),
    arguments=st.lists(STRINGS, max_size=3).map(tuple),
    environment=st.dictionaries(STRINGS.filter(bool), BYTES, max_size=3),
)


@pytest.mark.slow
@given(VALID)
def test_what_is_valid_is_read_again(one: Derivation) -> None:
    data = nix.unparse(one)
    check_rules(literal(data))
    again = nix.parse(data)
    assert again == one
    assert list(again.environment) == list(one.environment)


@given(st.data())
def test_damage_is_an_error_or_another_derivation(data: st.DataObject) -> None:
    text = bytearray(data.draw(st.sampled_from([*EXAMPLES, *ODD])).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        text[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=2) | st.sampled_from([b'"', b"\\", b'",', b"[", b"]", b"(", b")"])
        )
    damaged = bytes(text)
    try:
        read_again = nix.parse(damaged, path="x.drv")
    except DerivationError as error:
        said = re.match(r"x\.drv: (.*: )?expected .*found ", str(error), re.DOTALL)
        assert said, error  # noqa: PT017
        with pytest.raises((SyntaxError, ValueError, TypeError, AssertionError)):
            _read_strictly(damaged)
    else:
        assert nix.unparse(read_again) == damaged
        assert fields(read_again) == _read_strictly(damaged)


def _read_strictly(data: bytes) -> object:
    """Python's own reading, for what Nix could have written."""
    read = literal(data)
    assert text_of(read) == data
    outputs, inputs, sources, system, builder, arguments, variables = read
    for items, size in ((outputs, 4), (inputs, 2), (variables, 2)):
        assert all(isinstance(one, tuple) and len(one) == size for one in items)
    for items in (*outputs, *variables, *(names for _, names in inputs)):
        assert all(isinstance(one, bytes) for one in items)
    assert all(
        isinstance(one, list) for one in (outputs, arguments, *(names for _, names in inputs))
    )
    assert all(isinstance(one, bytes) for one in [*sources, system, builder, *arguments])
    assert all(isinstance(path, bytes) for path, _ in inputs)
    assert b"\0" not in data
    check_rules(read)
    return read


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "expected a derivation, found an empty text"),
        (
            b"\x7fELF\x02\0",
            "expected a derivation, which begins with Derive(, found a text that begins with "
            "'\\x7fELF\\x02\\x00'",
        ),
        (
            b'{\n"name": "x"}',
            "expected a derivation, which begins with Derive(, found a text that begins with "
            """'{\\n"name": "x"}'""",
        ),
        (
            b'DrvWithVersion("xp-dyn-drv",[])',
            "expected a derivation that begins with Derive(, "
            'found a derivation of another version: DrvWithVersion("xp-d…',
        ),
        (
            b'Derive([("out","a","b")],[],[],"","",[],[])',
            'expected a list of outputs, ("name","path","hash algorithm","hash"), '
            'found [("out","a","b")],[]… at byte 7',
        ),
        (
            b'Derive([],[],[],"a\\"b","c",["d",],[])',
            'expected a list of arguments, found ,["d",],[]) at byte 26',
        ),
        (b'Derive([],[],[],"","",[],[]', "expected ) and the end, found the end at byte 27"),
        (
            b'Derive([],[],[],"","",[],[])\n',
            "expected the end of the text after the derivation, found a line feed at byte 28",
        ),
        (
            rb'Derive([],[],[],"\"","",[],[])Derive("\q',
            r'expected the end of the text after the derivation, found Derive("\q at byte 30',
        ),
        (b'Derive([],[],[],"","', "expected the end of a string, found the end of the text"),
        (
            rb'Derive([],[],[],"\\\q","",[],[])',
            r"expected \\, \", \n, \r or \t, found \q at byte 19",
        ),
        (
            b'Derive([],[],[],"\n","",[],[])',
            r"expected the escape \n, found a line feed at byte 17",
        ),
        (
            b'Derive([],[],[],"\r","",[],[])',
            r"expected the escape \r, found a carriage return at byte 17",
        ),
        (b'Derive([],[],[],"\t","",[],[])', r"expected the escape \t, found a tab at byte 17"),
        (b'Derive([],[],[],"\0","",[],[])', "expected text, found NUL at byte 17"),
    ],
)
def test_errors_say_what_and_where(text: bytes, reason: str) -> None:
    with pytest.raises(DerivationError) as found:
        nix.parse(text, path="x.drv")
    assert found.value.derivation == "x.drv"
    assert reasons(found) == [reason]


# --- Requests ------------------------------------------------------------------------------------


def example_nodes() -> Mapping[str, Node]:
    """What the examples' requests have as inputs."""
    return {
        "/nix/store/" + getattr(one, str(one.WhichOneof("node"))).name.decode(): one
        for file in REQUESTS.glob("*.binpb")
        for one in BuildRequest.FromString(file.read_bytes()).inputs
    }


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name[33:])
def test_requests_are_those_of_the_examples(file: Path) -> None:
    directory = DerivationDirectory(file.parent)
    request = nix.to_build_request(read(file), nodes=example_nodes(), derivations=directory)
    wanted = REQUESTS / file.with_suffix(".binpb").name
    assert request.SerializeToString() == wanted.read_bytes()


def test_nodes_and_derivations_may_be_functions() -> None:
    directory = DerivationDirectory(EXAMPLES[0].parent)
    bundle = next(read(file) for file in EXAMPLES if "bundle" in file.name)
    request = nix.to_build_request(bundle, nodes=example_nodes().get, derivations=directory.get)
    assert request == nix.to_build_request(bundle, nodes=example_nodes(), derivations=directory)


def test_a_closure_has_the_inputs_of_inputs() -> None:
    directory = DerivationDirectory(EXAMPLES[0].parent)
    bundle = next(read(file) for file in EXAMPLES if "bundle" in file.name)
    wanted: set[str] = set()

    def add(one: Derivation) -> None:
        wanted.update(one.input_sources)
        for path, names in one.input_derivations.items():
            wanted.update(directory[path].outputs[name].path for name in names)
            add(directory[path])

    add(bundle)
    request = nix.to_build_request(bundle, nodes=node, derivations=directory, closure=True)
    assert [f"/nix/store/{one.file.name.decode()}" for one in request.inputs] == sorted(wanted)
    assert len(wanted) > len(nix.to_build_request(bundle, nodes=node, derivations=directory).inputs)


def chain(names: str) -> dict[str, Derivation]:
    """Derivations by path, each but the last with the next one as an input, and with a source."""
    return {
        f"{STORE_HASH}{name}.drv": derivation(
            outputs={"out": Output(f"{STORE_HASH}{name}-out")},
            input_derivations={f"{STORE_HASH}{other}.drv": ("out",) for other in after},
            input_sources=(f"{STORE_HASH}{name}-source",),
            path=f"{STORE_HASH}{name}.drv",
        )
        for name, after in zip(names, [*names[1:], ""], strict=True)
    }


def test_a_closure_ends_where_there_are_no_more_inputs() -> None:
    known = chain("abcd")
    first = known[f"{STORE_HASH}a.drv"]
    request = nix.to_build_request(first, nodes=node, derivations=known, closure=True)
    assert [one.file.name.decode() for one in request.inputs] == [
        "0" * 32 + f"-{name}"
        for name in ("a-source", "b-out", "b-source", "c-out", "c-source", "d-out", "d-source")
    ]
    del known[f"{STORE_HASH}d.drv"]
    with pytest.raises(DerivationError) as found:
        nix.to_build_request(first, nodes=node, derivations=known, closure=True)
    assert reasons(found) == [f"{STORE_HASH}c.drv: missing input derivation {STORE_HASH}d.drv"]


def test_a_cycle_is_without_what_waits_for_it() -> None:
    b, c = f"{STORE_HASH}b.drv", f"{STORE_HASH}c.drv"
    known = {**chain("abc"), c: chain("cb")[c]}
    assert find_cycles(known.values(), known.get) == dict.fromkeys(known, (b, c, b))


def random_graph(rng: random.Random) -> dict[str, Derivation]:
    """Derivations that need some of one another."""
    count = rng.randrange(1, 12)
    paths = [f"{STORE_HASH}{i}.drv" for i in range(count)]
    return {
        path: derivation(
            path=path,
            input_derivations={one: ("out",) for one in paths if rng.random() < 1.2 / count},
        )
        for path in paths
    }


def test_cycles_are_found_in_all_that_wait_for_one() -> None:
    rng = random.Random(7)
    for _ in range(2000):
        known = random_graph(rng)
        buildable: set[str] = set()
        for _ in known:
            buildable |= {
                p for p, one in known.items() if one.input_derivations.keys() <= buildable
            }
        found = find_cycles(known.values(), known.get)
        assert found.keys() == known.keys() - buildable
        for cycle in found.values():
            assert cycle[0] == cycle[-1]
            assert len(cycle) == 1 + len(set(cycle))
            for path, needed in pairwise(cycle):
                assert needed in known[path].input_derivations


def test_one_cycle_is_kept_for_all_in_it() -> None:
    """A ring in which each also needs the first: as many tuples would be quadratic."""
    paths = [f"{STORE_HASH}{i:06}.drv" for i in range(3000)]
    known = {
        path: derivation(path=path, input_derivations={paths[0]: ("out",), next_: ("out",)})
        for path, next_ in zip(paths, [*paths[1:], paths[0]], strict=True)
    }
    found = find_cycles(known.values(), known.get)
    assert found.keys() == known.keys()
    assert sum(map(len, {id(cycle): cycle for cycle in found.values()}.values())) < 4 * len(paths)


@pytest.mark.parametrize(
    "change", [{"system": "\udcff"}, {"available_ro_paths": ["/a", "/\udcff"]}]
)
def test_arguments_that_are_not_utf8(change: dict[str, Any]) -> None:
    with pytest.raises(DerivationError) as found:
        nix.to_build_request(derivation(), nodes=node, **change)
    (reason,) = reasons(found)
    assert "expected UTF-8, found b'" in reason


def test_what_nix_sets_is_overlaid_and_overridden() -> None:
    plain = derivation(environment={"HOME": b"/home", "text": b"\xff"})
    request = nix.to_build_request(
        plain,
        nodes=node,
        cores=4,
        system="aarch64-linux",
        min_memory=7,
        available_ro_paths=["/dev/kvm", "/dev/a"],
    )
    variables = environment(request)
    assert variables["HOME"] == b"/home"
    assert variables["text"] == b"\xff"
    assert variables["NIX_BUILD_CORES"] == b"4"
    assert variables["TERM"] == b"xterm-256color"
    assert request.constraints.system == "aarch64-linux"
    assert request.constraints.min_memory == 7
    assert list(request.constraints.available_ro_paths) == ["/dev/a", "/dev/kvm"]
    assert tvix_build.check(request).canonical


def test_placeholders_of_its_outputs_become_paths() -> None:
    one = odd("placeholders")
    request = nix.to_build_request(one, nodes=node)
    out, lib = one.outputs["out"].path, one.outputs["lib"].path
    assert request.command_args[2] == f"echo {lib}/lib >$out"
    assert environment(request)["flags"] == f"--prefix={out} --libdir={lib}/lib".encode()
    # Nix leaves that of an output which is not there as it is.
    assert environment(request)["doc"] == one.environment["doc"]


@pytest.mark.parametrize("schema", ["tvix.build.v1", "snix.build.v1"])
def test_placeholders_in_names_of_variables(schema: SchemaLike) -> None:
    """Nix rewrites NAME=VALUE as one string."""
    out = "/nix/store/5qx5i5v9z2y0bqhs4p0d6wcgqm2vz5zq-out"
    # What Nix 2.8 says that `builtins.placeholder "out"` is.
    placeholder = "/1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9"
    variables = {f"A{placeholder}/{placeholder}": placeholder.encode(), "B": b""}
    one = derivation(outputs={"out": Output(out)}, environment=variables)
    made: Any = nix.to_build_request(one, nodes=node, schema=schema)
    found = environment(made)
    assert found[f"A{out}/{out}"] == out.encode()
    assert not any(placeholder in name for name in found)
    again = derivation(
        outputs={"out": Output(out)}, environment={f"A{placeholder}": b"1", f"A{out}": b"2"}
    )
    with pytest.raises(DerivationError, match="duplicate variable"):
        nix.to_build_request(again, nodes=node, schema=schema)


def test_inputs_are_in_the_order_of_their_bytes() -> None:
    """Of which a str with lone surrogates has another one."""
    names = ("\udcff", "\ue000", "\U0001f389", "a")
    paths = [STORE_HASH + name for name in names]
    used = derivation(outputs={str(i): Output(path) for i, path in enumerate(paths)})
    nodes = {
        path: tvix_build.file_node(os.fsencode(path[11:]), digest=DIGEST, size=1) for path in paths
    }
    one = derivation(input_derivations={f"{STORE_HASH}used.drv": ("0", "1", "2", "3")})
    request = nix.to_build_request(one, nodes=nodes, derivations={f"{STORE_HASH}used.drv": used})
    found = [one.file.name[33:] for one in request.inputs]
    assert found == [b"a", "\ue000".encode(), "\U0001f389".encode(), b"\xff"]
    assert tvix_build.check(request).canonical


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("content-addressed", "output dev: the path is unknown before the build"),
        ("deferred", "output out: the path is unknown before the build"),
        ("deferred", "output dev of /nix/store/l9dm0lm2n7c6ylssmvlayvbp6n3p6hl7-content-addressed"),
        ("impure", "output out: the path is unknown before the build"),
        ("structured-attributes", "variable __json: requests of tvix.build.v1 do not support"),
        ("pass-as-file", "variable passAsFile: requests of tvix.build.v1 do not support"),
        ("references-graph", "variable exportReferencesGraph: requests do not support files"),
        ("latin-1-argument", "argument 0: expected UTF-8, found b'gr\\xfc\\xdfe'"),
        ("latin-1-key", "variable b'gr\\xfc\\xdfe': expected UTF-8"),
    ],
)
def test_what_a_request_cannot_say_is_an_error(name: str, reason: str) -> None:
    one = odd(name)
    with pytest.raises(DerivationError) as found:
        nix.to_build_request(one, nodes=node, derivations=DerivationDirectory(ODD[0].parent))
    assert found.value.derivation == one.path
    assert any(one.startswith(reason) for one in reasons(found)), reasons(found)


@pytest.mark.parametrize(
    "name", ["fixed-flat", "fixed-recursive", "many-outputs", "escapes", "unicode"]
)
def test_what_is_odd_but_can_be_said(name: str) -> None:
    one = odd(name)
    request = nix.to_build_request(one, nodes=node, derivations=DerivationDirectory(ODD[0].parent))
    assert list(request.outputs) == sorted(each.path[11:] for each in one.outputs.values())
    assert one.environment.items() <= environment(request).items()


def test_all_that_is_missing_is_said_at_once() -> None:
    one = derivation(
        input_sources=(f"{STORE_HASH}b-source", f"{STORE_HASH}c-source"),
        input_derivations={
            f"{STORE_HASH}d.drv": ("out",),
            f"{STORE_HASH}a.drv": ("doc",),
        },
    )
    with pytest.raises(DerivationError) as found:
        nix.to_build_request(
            one,
            nodes={f"{STORE_HASH}c-source": node("/nix/store/source")},
            derivations={one.path: one},
        )
    assert reasons(found) == [
        f"missing input derivation {STORE_HASH}d.drv",
        f"{STORE_HASH}a.drv has no output doc",
        f"missing node for the input {STORE_HASH}b-source",
        f"expected a node with the name of the input {STORE_HASH}c-source, found the name 'source'",
    ]


def test_violations_are_reasons() -> None:
    one = derivation(environment={"a=b": b"1", "c": b"\0"})
    with pytest.raises(DerivationError, match="invalid_env_key") as found:
        nix.to_build_request(one, nodes=node)
    assert len(reasons(found)) == 2
    assert isinstance(found.value.__cause__, tvix_build.ValidationError)


def test_paths_elsewhere_are_refused() -> None:
    one = derivation(outputs={"out": Output("/gnu/store/x")}, input_sources=("/etc/passwd",))
    with pytest.raises(DerivationError) as found:
        nix.to_build_request(one, nodes=node)
    assert any(reason.startswith("output out: expected /nix/store/") for reason in reasons(found))
    assert any("/etc/passwd" in reason for reason in reasons(found))


@dataclasses.dataclass(frozen=True)
class Tagged(Derivation):
    """A subclass with a field and attributes of its own."""

    tag: str = ""


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_subclasses_are_copied_as_what_they_are(protocol: int) -> None:
    read = Tagged(**vars(nix.parse(EXAMPLES[0].read_bytes(), path="x.drv")))
    by_hand = Tagged(
        outputs={"out": Output("")},  # not valid, and yet it can be copied
        input_derivations={},
        input_sources=("b", "a"),
        system="x",
        builder="",
        arguments=(),
        environment={"b": b"", "a": b"\xff"},
        tag="red",
    )
    for one in (read, by_hand):
        vars(one)["note"] = ["more"]
        pickled = pickle.loads(pickle.dumps(one, protocol))
        for again in (copy.copy(one), copy.deepcopy(one), pickled):
            assert type(again) is Tagged
            assert again == one
            assert hash(again) == hash(one)
            assert vars(again) == vars(one)
            assert type(again.environment) is type(one.environment)
            assert list(again.environment) == list(one.environment)
    assert copy.deepcopy(by_hand).tag == "red"


def test_derivations_are_members_of_sets() -> None:
    one = nix.parse(EXAMPLES[0].read_bytes())
    for name in ("outputs", "input_derivations", "environment"):
        changes: dict[str, Any] = {name: dict(reversed(getattr(one, name).items()))}
        same = dataclasses.replace(one, **changes)
        assert same == one
        assert {same, one} == {one}
    others = {nix.parse(file.read_bytes()) for file in EXAMPLES}
    assert len(others) == len(EXAMPLES)
    assert one in others


# --- Directories ----------------------------------------------------------------------------------


def test_a_directory_reads_each_derivation_once(tmp_path: Path) -> None:
    for file in EXAMPLES:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    directory = DerivationDirectory(tmp_path)
    first = directory["/nix/store/" + EXAMPLES[0].name]
    (tmp_path / EXAMPLES[0].name).write_bytes(b"")
    assert directory["/nix/store/" + EXAMPLES[0].name] is first
    assert list(directory) == ["/nix/store/" + file.name for file in EXAMPLES]
    assert len(directory) == len(EXAMPLES)


def test_one_name_is_one_derivation(tmp_path: Path) -> None:
    directory = DerivationDirectory()
    files = [tmp_path / name / "x.drv" for name in "abcd"]
    for file, text in zip(files, [EXAMPLES[0], EXAMPLES[0], EXAMPLES[1], ODD[0]], strict=True):
        file.parent.mkdir()
        file.write_bytes(text.read_bytes())
    first = directory.read(files[0])
    assert directory.read(files[1]) == first
    for file in files[2:]:
        with pytest.raises(DerivationError, match="another derivation with this name"):
            directory.read(file)
    files[1].unlink()
    with pytest.raises(DerivationError, match="No such file"):
        directory.read(files[1])
    assert directory["/nix/store/x.drv"] is first


def test_a_forgotten_command(tmp_path: Path) -> None:
    """The mapping forgets it, but still tells another derivation of the same name apart."""
    files = [tmp_path / name / "x.drv" for name in "abc"]
    for file, text in zip(files, [EXAMPLES[0], EXAMPLES[0], EXAMPLES[1]], strict=True):
        file.parent.mkdir()
        file.write_bytes(text.read_bytes())
    directory = DerivationDirectory()
    first = directory.read(files[0])
    directory.forget_command("/nix/store/x.drv")
    short = directory["/nix/store/x.drv"]
    assert (short.arguments, dict(short.environment)) == ((), {})
    assert (short.outputs, short.input_derivations) == (first.outputs, first.input_derivations)
    assert directory.read(files[0]) is short
    assert directory.read(files[1]) is short
    with pytest.raises(DerivationError, match="another derivation with this name"):
        directory.read(files[2])


def test_a_file_that_was_bad_may_become_good(tmp_path: Path) -> None:
    directory, file = DerivationDirectory(tmp_path), tmp_path / "x.drv"
    file.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(DerivationError):
            directory.read(file)
    file.write_bytes(EXAMPLES[0].read_bytes())
    assert directory.read(file) is directory["/nix/store/x.drv"]


def test_a_directory_has_nothing_but_derivations_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "store" / "a").mkdir(parents=True)
    for name in ("x.drv", "store/bad.drv", "store/a/b.drv"):
        (tmp_path / name).write_bytes(b"Derive")
    directory = DerivationDirectory(tmp_path / "store")
    for path in ("/nix/store/none.drv", "bad.drv", "/nix/store/../x.drv", "/nix/store/a/b.drv"):
        assert directory.get(path) is None
    for _ in range(2):
        with pytest.raises(DerivationError, match=r"^/nix/store/bad\.drv: expected a derivation"):
            directory["/nix/store/bad.drv"]
        with pytest.raises(DerivationError, match=r"^/nix/store/a: Is a directory$"):
            directory["/nix/store/a"]


def test_a_damaged_file_is_a_key_without_a_value(tmp_path: Path) -> None:
    (tmp_path / "bad.drv").write_bytes(b"Derive")
    good = tmp_path / EXAMPLES[0].name
    good.write_bytes(EXAMPLES[0].read_bytes())
    directory = DerivationDirectory(tmp_path)
    bad, missing = "/nix/store/bad.drv", "/nix/store/none.drv"
    for _ in range(2):
        assert bad in directory
        assert set(directory) == {bad, "/nix/store/" + good.name}
        assert all(path in directory for path in directory)
        assert missing not in directory
        assert cast("Any", 5) not in directory
        assert directory.get(bad) is directory.get(missing) is None
        assert directory.get(bad, 1) == directory.get(missing, 1) == 1
        with pytest.raises(DerivationError):
            directory[bad]
        with pytest.raises(DerivationError):
            directory.find(bad)
        assert directory.find(missing) is None
    assert directory.get("/nix/store/" + good.name) is directory["/nix/store/" + good.name]


def test_a_damaged_input_is_a_reason(tmp_path: Path) -> None:
    path = "/nix/store/5qx5i5v9z2y0bqhs4p0d6wcgqm2vz5zq-bad.drv"
    (tmp_path / path.removeprefix("/nix/store/")).write_bytes(b"Derive")
    one = dataclasses.replace(
        nix.parse(EXAMPLES[0].read_bytes()), input_derivations={path: ("out",)}
    )
    with pytest.raises(DerivationError, match=rf"{path}: expected a derivation"):
        nix.to_build_request(one, nodes=node, derivations=DerivationDirectory(tmp_path))


def test_nodes_of_the_examples_are_a_file_of_their_own() -> None:
    lines = (REQUESTS.parent / "nodes.ndjson").read_text().splitlines()
    nodes = {
        one["path"]: json_format.ParseDict(one["node"], Node()) for one in map(json.loads, lines)
    }
    assert example_nodes().items() <= nodes.items()
