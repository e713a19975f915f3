# SPDX-License-Identifier: MIT
"""Derivations for tests, and an independent parser: after its name, a derivation is also a Python
literal."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from tvix_build import nix
from tvix_build.nix import Derivation
from tvix_build.nix.derivation import STORE

ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"})
HERE = Path(__file__).absolute().parents[1]
EXAMPLES = sorted((HERE.parent / "examples" / "derivations").glob("*.drv"))
ODD = sorted((HERE / "derivations").glob("*.drv"))
BUILDS = sorted((HERE / "derivations" / "builds").glob("*.drv"))


def read(file: Path) -> Derivation:
    """Return the derivation in a file of a store."""
    return nix.parse(file.read_bytes(), path=STORE + file.name)


def odd(name: str) -> Derivation:
    """Return the derivation with this name from derivations/odd.nix."""
    return next(read(file) for file in ODD if file.name[33:] == f"{name}.drv")


def literal(data: bytes) -> Any:
    """Return the fields of a derivation as Python literals, with strings as bytes."""
    return _bytes(ast.literal_eval(data.decode("latin-1").removeprefix("Derive")))


def text_of(value: Any) -> bytes:
    """Return the text that Nix writes for a result of `literal` or a part of one."""
    if isinstance(value, bytes):
        text = value.decode("latin-1").translate(ESCAPES)
        return f'"{text}"'.encode("latin-1")
    inner = b",".join(map(text_of, value))
    if isinstance(value, list):
        return b"[%s]" % inner
    return (b"Derive(%s)" if len(value) == 7 else b"(%s)") % inner


def check_rules(read: Any) -> None:
    """Fail unless the fields of a derivation, as `literal` returns them, satisfy the rules of Nix,
    which this function implements independently."""
    outputs, inputs, sources, system, builder, _, variables = read
    assert outputs
    assert system
    assert builder
    for names in ([one[0] for one in items] for items in (outputs, inputs, variables)):
        assert len(set(names)) == len(names)
    assert len(set(sources)) == len(sources)
    assert all(name for name, _ in variables)
    for path in sources:
        check_path(path)
    for path, names in inputs:
        check_path(path)
        assert path.endswith(b".drv")
        assert names
        assert len(set(names)) == len(names)
        assert b"drv" not in names
        for name in names:
            check_name(name)
    kinds = set()
    for name, path, algorithm, digest in outputs:
        check_name(name)
        assert name != b"drv"
        assert algorithm or not digest
        known = bool(algorithm) and digest not in (b"", b"impure")
        kinds.add((bool(path), algorithm, digest and (b"impure", b"known")[known]))
        assert bool(path) == known or not algorithm
        if path:
            check_path(path)
        if algorithm:
            method, _, kind = algorithm.rpartition(b":")
            assert method in (b"", b"r") or algorithm == b"text:sha256"
            digits = {b"md5": 32, b"sha1": 40, b"sha256": 64, b"sha512": 128}[kind]
            assert algorithm[0:1] != b":"
        if known:
            assert len(digest) == digits
            assert set(digest) <= set(b"0123456789abcdef")
            assert [one[0] for one in outputs] == [b"out"]
    assert len(kinds) == 1


def check_path(path: bytes) -> None:
    """Fail unless `path` is a store path."""
    assert path[:11] == b"/nix/store/"
    assert path[43:44] == b"-"
    assert set(path[11:43]) <= set(b"0123456789abcdefghijklmnopqrstuvwxyz") - set(b"eotu")
    check_name(path[44:])


def check_name(name: bytes) -> None:
    """Fail unless `name` is the name of a store path."""
    assert 1 <= len(name) <= 211
    assert all(chr(one).isalnum() or chr(one) in "+._?=-" for one in name)
    assert name.isascii()
    assert not name.startswith(b".")


def fields(derivation: Derivation) -> Any:
    """Return the fields of a derivation in the form of `literal`."""

    def encode(value: Any) -> Any:
        if isinstance(value, str):
            return value.encode("utf-8", "surrogateescape")
        if isinstance(value, (tuple, list)):
            return type(value)(map(encode, value))
        return value

    outputs = [(name, o.path, o.hash_algorithm, o.hash) for name, o in derivation.outputs.items()]
    inputs = [(path, list(names)) for path, names in derivation.input_derivations.items()]
    return encode(
        (
            outputs,
            inputs,
            list(derivation.input_sources),
            derivation.system,
            derivation.builder,
            list(derivation.arguments),
            list(derivation.environment.items()),
        )
    )


def _bytes(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("latin-1")
    return type(value)(map(_bytes, value))
