# SPDX-License-Identifier: MIT
"""Which derivations are refused: what violates a rule of Nix never becomes a request, nor has the
network. The derivations of nix, nix-compat and go-nix violate none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import tvix_build
from tvix.castore.protos.castore_pb2 import Node
from tvix_build._nix_validation import find_violations
from tvix_build.nix import Derivation, DerivationError, Output

HASH = "5vyvcwah9l9kf07d52rcgdk70g2f4y13"
STORE = "/nix/store/"
PATH = f"{STORE}{HASH}-foo"
DIGITS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
FIXTURES = Path(__file__).absolute().parents[2] / "shared" / "data" / "derivation-fixtures"


def node(path: str) -> Node:
    return tvix_build.file_node(path.removeprefix(STORE), bytes(32), 1)


def derivation(**changes: object) -> Derivation:
    plain = {
        "outputs": {"out": Output(PATH)},
        "input_derivations": {},
        "input_sources": (),
        "system": "x86_64-linux",
        "builder": "/bin/sh",
        "arguments": (),
        "environment": {},
    }
    return Derivation(**{**plain, **changes})  # type: ignore[arg-type]


def text(outputs: str, inputs: str = "", sources: str = "", builder: str = "/b") -> bytes:
    return f'Derive([{outputs}],[{inputs}],[{sources}],"x","{builder}",[],[])'.encode()


def output(name: str = "out", path: str = PATH, algorithm: str = "", digits: str = "") -> str:
    return f'("{name}","{path}","{algorithm}","{digits}")'


GOOD = output()
SHA256 = "a5" * 32
OTHER = f"{STORE}{HASH}-other"

BAD_PATHS = [
    "/nix/store/foo",
    f"/nix/store/{HASH}",
    f"/nix/store/{HASH}-",
    f"/nix/store/{HASH}-.foo",
    f"/nix/store/{HASH}-a/b",
    f"/nix/store/{HASH}-a b",
    f"/nix/store/{HASH}-ä",
    f"/nix/store/{HASH}-{'a' * 212}",
    f"/nix/store/{HASH[:-1]}-foo",
    f"/nix/store/{HASH[:-1]}e-foo",
    f"/nix/store/{HASH[:-1]}O-foo",
    f"/nix/store//{HASH}-foo",
    f"/gnu/store/{HASH}-foo",
    f"nix/store/{HASH}-foo",
    f"{PATH}\\n",
]
BAD_NAMES = ["", "drv", ".out", "a/b", "a b", "out!", "a" * 212]

BAD = [
    ("", "outputs: expected at least one, found none"),
    *((output(path=path), "output 'out': expected /nix/store/, 32 ") for path in BAD_PATHS),
    *((output(name=name), f"output {name!r}: expected a name ") for name in BAD_NAMES),
    (output(digits=SHA256), "output 'out': expected a hash algorithm for the hash"),
    (output(digits="zz"), "output 'out': expected a hash algorithm for the hash"),
    (output(algorithm="sha257", digits=SHA256), "output 'out': expected a hash algorithm (md5,"),
    (output(algorithm="SHA256", digits=SHA256), "output 'out': expected a hash algorithm (md5,"),
    (output(algorithm="r:", digits=SHA256), "output 'out': expected a hash algorithm (md5,"),
    (output(algorithm="text:sha1", digits="00" * 20), "output 'out': expected a hash algorithm"),
    (output(algorithm="sha256", digits="zz"), "output 'out': expected 64 lowercase hexadecimal"),
    (output(algorithm="sha256", digits=SHA256.upper()), "output 'out': expected 64 lowercase"),
    (output(algorithm="sha256", digits=SHA256[:-1]), "output 'out': expected 64 lowercase"),
    (output(algorithm="r:sha1", digits=SHA256), "output 'out': expected 40 lowercase"),
    (output(algorithm="sha256"), "output 'out': expected no path where the content decides it"),
    (output("dev", algorithm="sha256", digits=SHA256), "outputs: expected only 'out'"),
    (f"{GOOD},{output('x', OTHER, 'sha256', SHA256)}", "outputs: expected only 'out'"),
    (
        f"{output(algorithm='sha256', digits=SHA256)},{output('x', OTHER, 'sha256', SHA256)}",
        "outputs: expected only 'out'",
    ),
]


@pytest.mark.parametrize(("outputs", "reason"), BAD)
def test_bad_outputs_never_have_the_network(outputs: str, reason: str) -> None:
    bad = Derivation.parse(text(outputs))
    for schema in tvix_build.Schema:
        with pytest.raises(DerivationError) as found:
            bad.to_build_request(node, schema=schema)
        assert any(one.startswith(reason) for one in found.value.reasons), found.value.reasons


@pytest.mark.parametrize("path", BAD_PATHS)
def test_bad_paths_of_inputs(path: str) -> None:
    bad = Derivation.parse(text(GOOD, f'("{path}.drv",["out"])', f'"{path}"'))
    places = [one.partition(" '")[0] for one in find_violations(bad)]
    assert places == ["input derivation", "input source"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (text(GOOD, f'("{OTHER}",["out"])'), "input derivation '" + OTHER + "': expected a name "),
        (text(GOOD, f'("{OTHER}.drv",["drv"])'), f"input derivation '{OTHER}.drv': output 'drv'"),
        (
            text(GOOD, f'("{OTHER}.drv",["out","dev","out"])'),
            f"input derivation '{OTHER}.drv': output 'out': expected once, found 2 times",
        ),
        (
            text(GOOD, sources=f'"{OTHER}","{OTHER}"'),
            f"input source '{OTHER}': expected once, found 2 times",
        ),
        (text(GOOD, builder=""), "builder: expected a program, found nothing"),
        (
            text(GOOD, builder="builtin:fetchurl"),
            "builder: expected a program, found 'builtin:fetchurl', which is code inside Nix",
        ),
        (
            text(GOOD, builder="builtin:buildenv"),
            "builder: expected a program, found 'builtin:buildenv', which is code inside Nix",
        ),
    ],
)
def test_other_violations_are_reasons(bad: bytes, reason: str) -> None:
    with pytest.raises(DerivationError) as found:
        Derivation.parse(bad).to_build_request(node)
    assert any(one.startswith(reason) for one in found.value.reasons), found.value.reasons


def test_all_violations_are_said_at_once() -> None:
    bad = Derivation.parse(text(output("drv", "x", "a", "b"), sources='"y"', builder=""))
    assert len(find_violations(bad)) == 6


ALGORITHMS = [
    *DIGITS,
    *(f"r:{name}" for name in DIGITS),
    "text:sha256",
]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_fixed_output_has_the_network(algorithm: str) -> None:
    digits = "0f" * (DIGITS[algorithm.rpartition(":")[2]] // 2)
    fixed = derivation(outputs={"out": Output(PATH, algorithm, digits)})
    request = fixed.to_build_request(node, schema="snix.build.v1")
    assert request.constraints.network_access


def test_an_ordinary_output_has_no_network() -> None:
    request = derivation().to_build_request(node, schema="snix.build.v1")
    assert not request.constraints.network_access


def test_inputs_are_sorted_as_bytes() -> None:
    # As str, the surrogate that stands for the byte 0xff comes before U+E000.
    paths = (f"{STORE}{HASH}-\udcff", f"{STORE}{HASH}-\ue000")
    nodes = {path: tvix_build.file_node(os.fsencode(path[11:]), bytes(32), 1) for path in paths}
    used = derivation(outputs={"a": Output(paths[0]), "b": Output(paths[1])})
    one = derivation(input_derivations={f"{OTHER}.drv": ("a", "b")})
    request = one.to_build_request(nodes, {f"{OTHER}.drv": used})
    assert [entry.file.name[33:] for entry in request.inputs] == [b"\xee\x80\x80", b"\xff"]


def test_placeholders_in_names_of_variables_become_paths() -> None:
    placeholder = "/1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9"
    environment = {f"A{placeholder}B": placeholder.encode()}
    request = derivation(environment=environment).to_build_request(node)
    assert {one.key: one.value for one in request.environment_vars}[f"A{PATH}B"] == PATH.encode()


@pytest.mark.skipif(not FIXTURES.is_dir(), reason="needs the shared data")
def test_derivations_of_other_projects_violate_nothing() -> None:
    found = {}
    for file in sorted(FIXTURES.rglob("*.drv")):
        data = file.read_bytes()
        try:
            one = Derivation.parse(data)
        except DerivationError:
            continue
        assert one.unparse() == data
        if reasons := find_violations(one):
            found[file.name] = reasons
    # Texts that are hashed and never written to a store, a text without outputs, code inside Nix.
    assert {name for name in found if not name.endswith("-modulo.drv")} == {
        "m5j1yp47lw1psd9n6bzina1167abbprr-bash44-023.drv",
        "simple-derivation.drv",
    }
