# SPDX-License-Identifier: MIT
"""Parses and writes the text of derivations, the contents of `.drv` files."""

from __future__ import annotations

import sys
from functools import lru_cache
from types import MappingProxyType

from tvix_build.nix import aterm
from tvix_build.nix.aterm import to_bytes, to_str
from tvix_build.nix.derivation import Derivation, DerivationError, Output
from tvix_build.nix.validation import duplicates, violations


def parse(data: bytes, *, path: str = "") -> Derivation:
    """Parse and validate the text of a derivation, the contents of a `.drv` file.

    Args:
        data: the text.
        path: the path of the derivation, for errors.

    Raises:
        DerivationError: with all reasons, if Nix does not write this text (it is not the ATerm of a
            derivation, or has other escapes), or if the derivation violates a rule of Nix about
            store paths, hashes, kinds and names of outputs, the builder, or duplicate names.
            Outputs whose path is unknown before the build are valid.
    """
    try:
        term = aterm.parse(data)
    except aterm.ATermError as error:
        raise DerivationError(path or "derivation", [str(error)]) from None
    derivation = Derivation(
        outputs=MappingProxyType(
            {to_str(one[0]): Output(*map(to_str, one[1:])) for one in term.outputs}
        ),
        input_derivations=MappingProxyType(
            {_shared(one): tuple(map(_name, names)) for one, names in term.input_derivations}
        ),
        input_sources=tuple(map(_shared, term.input_sources)),
        system=_shared(term.system),
        builder=_shared(term.builder),
        arguments=tuple(map(to_str, term.arguments)),
        environment=MappingProxyType({_name(name): value for name, value in term.environment}),
        path=path,
    )
    reasons = violations(derivation)
    for what, read, kept in (
        ("output", term.outputs, derivation.outputs),
        ("input derivation", term.input_derivations, derivation.input_derivations),
        ("variable", term.environment, derivation.environment),
    ):
        if len(read) != len(kept):
            reasons += duplicates(what, [to_str(one[0]) for one in read])
    if reasons:
        raise DerivationError(derivation.name, reasons)
    return derivation


def unparse(derivation: Derivation) -> bytes:
    """Return the text of a derivation. For a parsed derivation, it is the original text."""
    outputs = derivation.outputs.items()
    return aterm.unparse(
        aterm.Term(
            outputs=[
                (
                    to_bytes(name),
                    to_bytes(one.path),
                    to_bytes(one.hash_algorithm),
                    to_bytes(one.hash),
                )
                for name, one in outputs
            ],
            input_derivations=[
                (to_bytes(path), [to_bytes(name) for name in names])
                for path, names in derivation.input_derivations.items()
            ],
            input_sources=[to_bytes(path) for path in derivation.input_sources],
            system=to_bytes(derivation.system),
            builder=to_bytes(derivation.builder),
            arguments=[to_bytes(argument) for argument in derivation.arguments],
            environment=[(to_bytes(name), value) for name, value in derivation.environment.items()],
        )
    )


def _shared(string: bytes) -> str:
    """Decode a string that many derivations have, as the same object for all of them."""
    return sys.intern(to_str(string))


# There are few distinct names, and sharing their objects makes mappings small and fast.
_name = lru_cache(1 << 12)(to_str)
