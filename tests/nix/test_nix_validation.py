# SPDX-License-Identifier: MIT
"""Derivations that violate a rule of Nix: none becomes a request, and none gets the network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import real_data
import tvix_build
from derivations_support import check_rules, literal, text_of
from snix.build.protos.build_pb2 import BuildRequest
from tvix.castore.protos.castore_pb2 import Node
from tvix_build import nix
from tvix_build._core.report import SchemaLike
from tvix_build.nix import Derivation, DerivationError, Output

FIXTURES = real_data.DIRECTORY / "derivation-fixtures"
STORE = b"/nix/store/"
PART = b"5vyvcwah9l9kf07d52rcgdk70g2f4y13"
PATH = STORE + PART + b"-foo"
INPUT = STORE + PART + b"-foo.drv"
SHA256 = b"a5ce" * 16
HASHES = {b"md5": b"0" * 32, b"sha1": b"1" * 40, b"sha256": SHA256, b"sha512": b"f" * 128}


def text(**changes: Any) -> bytes:
    """A small derivation's text."""
    plain: dict[str, Any] = {
        "outputs": [(b"out", PATH, b"", b"")],
        "inputs": [(INPUT, [b"out"])],
        "sources": [STORE + PART + b"-source"],
        "system": b"x86_64-linux",
        "builder": b"/bin/sh",
        "arguments": [],
        "variables": [(b"name", b"foo")],
    }
    return text_of(tuple({**plain, **changes}.values()))


def fixed(algorithm: bytes, digest: bytes, name: bytes = b"out", path: bytes = PATH) -> bytes:
    return text(outputs=[(name, path, algorithm, digest)])


def source(path: bytes) -> bytes:
    return text(sources=[path])


A_PATH = "expected /nix/store/, 32 characters of Nix's base 32, a dash and a name"
AN_OUTPUT = "expected a name of 1 to 211 characters of 0-9a-zA-Z+._?=- that does not begin with a"
INVALID: dict[str, tuple[bytes, str]] = {
    # Hashes.
    "hash without an algorithm": (fixed(b"", SHA256), "output out: expected a hash algorithm"),
    "impure without an algorithm": (fixed(b"", b"impure", path=b""), "expected a hash algorithm"),
    "hash zz": (
        fixed(b"sha256", b"zz"),
        "output out: expected a hash of 64 characters of lowercase base 16, found 'zz'",
    ),
    "hash of other characters": (fixed(b"sha256", b"g" * 64), "expected a hash of 64 characters"),
    "hash in capitals": (fixed(b"sha256", SHA256.upper()), "expected a hash of 64 characters"),
    "hash in base 32": (fixed(b"sha256", b"0" * 52), "expected a hash of 64 characters"),
    "hash in base 64": (fixed(b"sha256", b"A" * 43 + b"="), "expected a hash of 64 characters"),
    "hash as SRI": (
        fixed(b"sha256", b"sha256-" + b"A" * 43 + b"="),
        "expected a hash of 64 characters",
    ),
    "hash with a line feed": (fixed(b"sha256", SHA256 + b"\n"), "expected a hash of 64 characters"),
    "short hash": (fixed(b"sha256", SHA256[1:]), "expected a hash of 64 characters"),
    "long hash": (fixed(b"sha1", SHA256), "expected a hash of 40 characters of lowercase base 16"),
    "hash of another algorithm": (fixed(b"r:sha512", SHA256), "expected a hash of 128 characters"),
    "hash of Arabic digits": (
        fixed(b"sha256", "\u0660".encode() * 64),
        "expected a hash of 64 characters",
    ),
    "unknown algorithm": (fixed(b"sha3", SHA256), "expected a hash algorithm, one of md5, sha1"),
    "algorithm in capitals": (fixed(b"SHA256", SHA256), "expected a hash algorithm"),
    "algorithm with a space": (fixed(b"sha256 ", SHA256), "expected a hash algorithm"),
    "unknown method": (fixed(b"x:sha256", SHA256), "expected a hash algorithm"),
    "no algorithm behind the method": (fixed(b"r:", SHA256), "expected a hash algorithm"),
    "method twice": (fixed(b"r:r:sha256", SHA256), "expected a hash algorithm"),
    "text of sha1": (fixed(b"text:sha1", HASHES[b"sha1"]), "expected a hash algorithm"),
    "unknown algorithm of a content": (fixed(b"zz", b"", path=b""), "expected a hash algorithm"),
    "fixed without a path": (fixed(b"sha256", SHA256, path=b""), "expected a path"),
    "addressed by content with a path": (fixed(b"r:sha256", b""), "expected no path"),
    "impure with a path": (fixed(b"r:sha256", b"impure"), "expected no path"),
    # Outputs.
    "no output": (text(outputs=[]), "expected at least one output, found none"),
    "fixed output of another name": (
        fixed(b"sha256", SHA256, b"dev"),
        "expected out as the only output of a fixed derivation, found dev",
    ),
    "two fixed outputs": (
        text(outputs=[(one, PATH, b"sha256", SHA256) for one in (b"out", b"dev")]),
        "expected out as the only output of a fixed derivation, found out, dev",
    ),
    "fixed and not fixed": (
        text(outputs=[(b"dev", PATH, b"", b""), (b"out", PATH, b"sha256", SHA256)]),
        "expected outputs of one kind, found dev input-addressed, out fixed",
    ),
    "fixed and impure": (
        text(outputs=[(b"dev", b"", b"sha256", b"impure"), (b"out", PATH, b"sha256", SHA256)]),
        "expected outputs of one kind",
    ),
    "known and unknown path": (
        text(outputs=[(b"dev", b"", b"", b""), (b"out", PATH, b"", b"")]),
        "expected outputs of one kind",
    ),
    "two algorithms": (
        text(outputs=[(b"dev", b"", b"sha1", b""), (b"out", b"", b"sha256", b"")]),
        "expected outputs of one hash algorithm, found sha1 of dev, sha256 of out",
    ),
    "output twice": (
        text(outputs=[(b"out", PATH, b"", b"")] * 2),
        "duplicate output: 'out'",
    ),
    "output drv": (text(outputs=[(b"drv", PATH, b"", b"")]), AN_OUTPUT),
    "output without a name": (text(outputs=[(b"", PATH, b"", b"")]), "found ''"),
    "output with a slash": (text(outputs=[(b"a/b", PATH, b"", b"")]), "found 'a/b'"),
    "output with a bang": (text(outputs=[(b"out!", PATH, b"", b"")]), "found 'out!'"),
    "output elsewhere": (text(outputs=[(b"out", b"/tmp/x", b"", b"")]), f"output out: {A_PATH}"),
    # Store paths.
    "another store": (source(b"/gnu/store/" + PART + b"-foo"), f"input source: {A_PATH}"),
    "no store": (source(b"/etc/passwd"), A_PATH),
    "a base name": (source(PART + b"-foo"), A_PATH),
    "the store": (source(b"/nix/store"), A_PATH),
    "a path below a path": (source(PATH + b"/bin/sh"), A_PATH),
    "a path that leads away": (source(STORE + b"../" + PART + b"-foo"), A_PATH),
    "a slash too many": (source(b"/nix//store/" + PART + b"-foo"), A_PATH),
    "31 characters": (source(STORE + PART[1:] + b"-foo"), A_PATH),
    "33 characters": (source(STORE + PART + b"0-foo"), A_PATH),
    "e of base 16": (source(STORE + b"e" + PART[1:] + b"-foo"), A_PATH),
    "capital letters": (source(STORE + PART.upper() + b"-foo"), A_PATH),
    "no dash": (source(STORE + PART + b"foo"), A_PATH),
    "no name": (source(STORE + PART + b"-"), A_PATH),
    "no dash and no name": (source(STORE + PART), A_PATH),
    "a long name": (source(STORE + PART + b"-" + b"a" * 212), A_PATH),
    "a leading dot": (source(STORE + PART + b"-.foo"), A_PATH),
    "a name of a dot": (source(STORE + PART + b"-."), A_PATH),
    "a name of two dots": (source(STORE + PART + b"-.."), A_PATH),
    "a component of a dot": (source(STORE + PART + b"-.-a"), A_PATH),
    "a component of two dots": (source(STORE + PART + b"-..-a"), A_PATH),
    "a space": (source(PATH + b" "), A_PATH),
    "a line feed": (source(PATH + b"\n"), A_PATH),
    "more than ASCII": (source(PATH + "ü".encode()), A_PATH),
    "bytes that are not UTF-8": (source(PATH + b"\xff"), A_PATH),
    "an empty path": (source(b""), A_PATH),
    "a valid path before another": (text(sources=[PATH, b"/etc", INPUT]), "found '/etc'"),
    "source twice": (
        text(sources=[PATH, INPUT, PATH]),
        f"duplicate input source: '{PATH.decode()}'",
    ),
    # Input derivations.
    "input elsewhere": (text(inputs=[(b"/tmp/x.drv", [b"out"])]), f"input derivation: {A_PATH}"),
    "input that is none": (text(inputs=[(PATH, [b"out"])]), "expected a path that ends in .drv"),
    "input derivation twice": (
        text(inputs=[(INPUT, [b"out"]), (INPUT, [b"dev"])]),
        f"duplicate input derivation: '{INPUT.decode()}'",
    ),
    "output of an input twice": (
        text(inputs=[(INPUT, [b"out", b"dev", b"out"])]),
        f"input derivation {INPUT.decode()}: duplicate output: 'out'",
    ),
    "output drv of an input": (text(inputs=[(INPUT, [b"drv"])]), AN_OUTPUT),
    "nameless output of an input": (text(inputs=[(INPUT, [b""])]), AN_OUTPUT),
    "no output of an input": (text(inputs=[(INPUT, [])]), "expected names of outputs, found none"),
    # The rest.
    "no builder": (text(builder=b""), "expected a builder, found an empty string"),
    "no system": (text(system=b""), "expected a system, found an empty string"),
    "variable twice": (
        text(variables=[(b"b", b""), (b"a", b"1"), (b"a", b"2")]),
        "duplicate variable: 'a'",
    ),
    "variable without a name": (text(variables=[(b"", b"")]), "expected a variable with a name"),
}


@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_derivation_is_refused(case: str) -> None:
    data, reason = INVALID[case]
    with pytest.raises(AssertionError):
        check_rules_of(data)
    with pytest.raises(DerivationError) as found:
        nix.parse(data, path="x.drv")
    assert any(reason in one for one in found.value.reasons), found.value.reasons


def check_rules_of(data: bytes) -> None:
    """The same rules, said a second time."""
    try:
        check_rules(literal(data))
    except KeyError as error:  # an algorithm that is not known
        raise AssertionError from error


def test_all_reasons_at_once() -> None:
    data = text(outputs=[(b"drv", b"/a", b"", b"00")], sources=[b"/b", b"/b"], inputs=[(b"/c", [])])
    with pytest.raises(DerivationError) as found:
        nix.parse(data, path="x.drv")
    *others, last = found.value.reasons
    assert [one.partition("found ")[2] for one in others] == [
        *("'drv'", "none", "drv", "'/a'", "'/c'", "'/c'", "none", "'/b'", "'/b'")
    ]
    assert last == "duplicate input source: '/b'"


VALID = {
    "small": text(),
    "a long name": source(STORE + PART + b"-" + b"a" * 211),
    "all characters": source(STORE + PART + b"-09azAZ+._?=-"),
    "dots": source(STORE + PART + b"-a..."),
    "impure": fixed(b"r:sha256", b"impure", path=b""),
    "addressed by content": fixed(b"r:sha256", b"", path=b""),
    "text addressed by content": fixed(b"text:sha256", b"", path=b""),
    "deferred": fixed(b"", b"", path=b""),
    "text": fixed(b"text:sha256", SHA256),
    "a builder of any kind": text(builder=b":"),
    **{
        f"{method}{kind}": fixed(f"{method}{kind}".encode(), digest)
        for method in ("", "r:")
        for kind, digest in ((key.decode(), value) for key, value in HASHES.items())
    },
}


@pytest.mark.parametrize("case", VALID)
def test_a_valid_derivation_is_read(case: str) -> None:
    data = VALID[case]
    check_rules_of(data)
    assert nix.unparse(nix.parse(data)) == data


def node(path: str) -> Node:
    """A node for any path."""
    return tvix_build.file_node(path.removeprefix("/nix/store/"), digest=bytes(32), size=1)


def derivation(outputs: dict[str, Output], builder: str = "/bin/sh") -> Derivation:
    """A derivation that was not parsed."""
    return Derivation(outputs, {}, (), "x86_64-linux", builder, (), {"name": b"foo"})


def request(one: Derivation) -> BuildRequest:
    return nix.to_build_request(one, nodes=node, schema="snix.build.v1")


FIXED = [("sha256", SHA256.decode()), ("r:sha256", SHA256.decode())]


@pytest.mark.parametrize(("algorithm", "digest"), FIXED)
def test_a_fixed_output_may_use_the_network(algorithm: str, digest: str) -> None:
    made = request(derivation({"out": Output(PATH.decode(), algorithm, digest)}))
    assert made.constraints.network_access
    made = request(derivation({"out": Output(PATH.decode())}))
    assert not made.constraints.network_access


@pytest.mark.parametrize(
    "outputs",
    [
        {"out": ("", SHA256.decode())},
        {"out": ("sha256", "zz")},
        {"out": ("sha256", "00")},
        {"out": ("sha3", SHA256.decode())},
        {"dev": FIXED[0]},
        {"out": FIXED[0], "dev": FIXED[0]},
        {"out": FIXED[0], "dev": ("", "")},
        {"out": ("r:sha256", "impure")},
        {"out": ("r:sha256", "")},
        {"out/": FIXED[0]},
        {},
    ],
    ids=str,
)
def test_no_other_output_becomes_a_request(outputs: dict[str, tuple[str, str]]) -> None:
    """Nor where a program made the derivation, so that no text was validated."""
    made = {
        name: Output(f"{PATH.decode()}-{name}", algorithm, digest)
        for name, (algorithm, digest) in outputs.items()
    }
    with pytest.raises(DerivationError):
        request(derivation(made))


@pytest.mark.parametrize("schema", ["tvix.build.v1", "snix.build.v1"])
@pytest.mark.parametrize(
    ("builder", "reason"),
    [
        (
            "builtin:fetchurl",
            "builder: expected a program, found 'builtin:fetchurl', which is part of Nix",
        ),
        (
            "builtin:buildenv",
            "builder: expected a program, found 'builtin:buildenv', which is part of Nix",
        ),
        ("", "expected a builder, found an empty string"),
    ],
)
def test_builders_that_no_builder_can_run(schema: SchemaLike, builder: str, reason: str) -> None:
    with pytest.raises(DerivationError) as found:
        nix.to_build_request(
            derivation({"out": Output(PATH.decode())}, builder), nodes=node, schema=schema
        )
    (said,) = found.value.reasons
    assert said.startswith(reason)


@pytest.mark.parametrize("path", ["/etc/passwd", f"{PATH.decode()}\0{PATH.decode()}"])
def test_paths_that_were_not_parsed(path: str) -> None:
    one = replace(derivation({"out": Output(PATH.decode())}), input_sources=(path,))
    with pytest.raises(DerivationError, match="input source: expected /nix/store/"):
        nix.to_build_request(one, nodes=node)


def fixtures() -> list[Path]:
    """Files of Nix, snix and go-nix, which are no part of the project."""
    return sorted(FIXTURES.rglob("*.drv"))


REFUSED = {
    "bad-old-version-dyn-deps": "expected a list of input derivations",
    "bad-version": "found a derivation of another version: DrvWithVersion",
    "duplicate": "duplicate variable: 'name'",
    "dyn-dep-derivation": "found a derivation of another version: DrvWithVersion",
    "intermediate-first-modulo": "input derivation: expected /nix/store/",
    "intermediate-second-modulo": "input derivation: expected /nix/store/",
    "parent-joined-modulo": "input derivation: expected /nix/store/",
    "parent-split-modulo": "input derivation: expected /nix/store/",
    "simple-derivation": "expected at least one output",
    "unterminated-string": "expected a list of outputs",
}
"""Of the files. Those that end in -modulo are what Nix hashes, no derivations of a store."""


def test_files_of_other_projects() -> None:
    if not FIXTURES.exists():
        pytest.skip("no real data: derivation-fixtures is not in TVIX_BUILD_SHARED_DATA")
    files = fixtures()
    assert len(files) == 65
    for file in files:
        data = file.read_bytes()
        reason = REFUSED.get(file.stem)
        if reason is None:
            assert nix.unparse(nix.parse(data, path=file.name)) == data
        else:
            with pytest.raises(DerivationError, match=reason):
                nix.parse(data, path=file.name)
