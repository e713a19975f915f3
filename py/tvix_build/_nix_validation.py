# SPDX-License-Identifier: MIT
"""Which rules of Nix a derivation violates: paths, names, hashes, duplicates.

A derivation is untrusted input, and whether its build may use the network depends on it. Sources:
"Derivations" in the manual of Nix, its path.cc, derivations.cc and content-address.cc.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tvix_build.nix import Derivation

IMPURE = "impure"
"""Stands for a hash in an output whose content differs from build to build."""

_NAME = r"(?!\.)[0-9a-zA-Z+._?=-]{1,211}"
_MATCH_NAME = re.compile(_NAME).fullmatch
_MATCH_PATH = re.compile(r"/nix/store/[0-9a-df-np-sv-z]{32}-" + _NAME).fullmatch
_EXPECTED_PATH = (
    "expected /nix/store/, 32 characters of Nix's base 32, a dash and a name of 1 to 211 "
    "characters of 0-9a-zA-Z+._?=- that does not begin with a dot"
)
_HEX_DIGITS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
_ALGORITHMS = {
    **_HEX_DIGITS,
    **{f"r:{name}": digits for name, digits in _HEX_DIGITS.items()},
    "text:sha256": 64,
}
"""How many hexadecimal digits a hash has."""


class Output(Protocol):
    """An output of a derivation, as `tvix_build.nix.Output` has it."""

    @property
    def path(self) -> str: ...
    @property
    def hash_algorithm(self) -> str: ...
    @property
    def hash(self) -> str: ...


def is_fixed(output: Output) -> bool:
    """Whether the content of an output is fixed by a hash."""
    return output.hash not in ("", IMPURE)


def find_violations(derivation: Derivation) -> list[str]:
    """Every rule that a derivation violates, with what was expected and what was found.

    An output without a path is no violation: its path is known once it is built.
    """
    return [
        *_check_outputs(derivation.outputs),
        *_check_inputs(derivation.input_derivations),
        *_check_sources(derivation.input_sources),
        *_check_builder(derivation.builder),
    ]


def _check_outputs(outputs: Mapping[str, Output]) -> Iterator[str]:
    if not outputs:
        yield "outputs: expected at least one, found none"
    for name, output in outputs.items():
        yield from _check_output_name(name, f"output {name!r}")
        if output.path and not _is_store_path(output.path):
            yield f"output {name!r}: {_EXPECTED_PATH}; found {output.path!r}"
        yield from _check_hash(output, f"output {name!r}")
    fixed = [name for name, output in outputs.items() if is_fixed(output)]
    if fixed and list(outputs) != ["out"]:
        found = ", ".join(map(repr, outputs))
        yield f"outputs: expected only 'out' where the content of one is fixed, found {found}"


def _check_hash(output: Output, place: str) -> Iterator[str]:
    algorithm, digits = output.hash_algorithm, output.hash
    if not algorithm:
        if digits:
            yield f"{place}: expected a hash algorithm for the hash {digits[:40]!r}, found none"
        return
    length = _ALGORITHMS.get(algorithm)
    if length is None:
        known = ", ".join(_ALGORITHMS)
        yield f"{place}: expected a hash algorithm ({known}), found {algorithm!r}"
    elif is_fixed(output) and not re.fullmatch(f"[0-9a-f]{{{length}}}", digits):
        yield (
            f"{place}: expected {length} lowercase hexadecimal digits of {algorithm}, found "
            f"{len(digits)} characters: {digits[:40]!r}"
        )
    elif not is_fixed(output) and output.path:
        yield (f"{place}: expected no path where the content decides it, found {output.path!r}")


def _check_inputs(inputs: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    for path, names in inputs.items():
        place = f"input derivation {path!r}"
        if not _is_store_path(path):
            yield f"{place}: {_EXPECTED_PATH}"
        elif not path.endswith(".drv"):
            yield f"{place}: expected a name that ends with .drv"
        for name in names:
            yield from _check_output_name(name, f"{place}: output {name!r}")
        yield from _check_duplicates(names, f"{place}: output")


def _check_sources(sources: tuple[str, ...]) -> Iterator[str]:
    for path in sources:
        if not _is_store_path(path):
            yield f"input source {path!r}: {_EXPECTED_PATH}"
    yield from _check_duplicates(sources, "input source")


def _check_builder(builder: str) -> Iterator[str]:
    if not builder:
        yield "builder: expected a program, found nothing"
    elif builder.startswith("builtin:"):
        yield f"builder: expected a program, found {builder!r}, which is code inside Nix"


def _check_output_name(name: str, place: str) -> Iterator[str]:
    if name == "drv" or not _MATCH_NAME(name):
        yield (
            f"{place}: expected a name of 1 to 211 characters of 0-9a-zA-Z+._?=- that does not "
            "begin with a dot and is not 'drv'"
        )


def _check_duplicates(values: Iterable[str], what: str) -> Iterator[str]:
    for value, count in Counter(values).items():
        if count > 1:
            yield f"{what} {value!r}: expected once, found {count} times"


@lru_cache(1 << 14)  # Most inputs are inputs of many.
def _is_store_path(path: str) -> bool:
    return _MATCH_PATH(path) is not None
