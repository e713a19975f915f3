# SPDX-License-Identifier: MIT
"""Derivations for tests, and another way to read them: such a file happens to be a Python literal,
but for its name."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from tvix_build.nix import STORE, Derivation

ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"})
HERE = Path(__file__).absolute().parent
EXAMPLES = sorted((HERE.parent / "examples" / "derivations").glob("*.drv"))
ODD = sorted((HERE / "derivations").glob("*.drv"))
BUILDS = sorted((HERE / "derivations" / "builds").glob("*.drv"))


def read(file: Path) -> Derivation:
    """The derivation in a file of a store."""
    return Derivation.parse(file.read_bytes(), STORE + file.name)


def odd(name: str) -> Derivation:
    """The derivation of that name that derivations/odd.nix defines."""
    return next(read(file) for file in ODD if file.name[33:] == f"{name}.drv")


def literal(data: bytes) -> Any:
    """The fields of a derivation as Python reads them, every string as bytes."""
    return _bytes(ast.literal_eval(data.decode("latin-1").removeprefix("Derive")))


def text_of(value: Any) -> bytes:
    """What Nix writes for what `literal` gives, or a part of it."""
    if isinstance(value, bytes):
        text = value.decode("latin-1").translate(ESCAPES)
        return f'"{text}"'.encode("latin-1")
    inner = b",".join(map(text_of, value))
    if isinstance(value, list):
        return b"[%s]" % inner
    return (b"Derive(%s)" if len(value) == 7 else b"(%s)") % inner


def fields(derivation: Derivation) -> Any:
    """The fields of a derivation as `literal` gives them."""

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
