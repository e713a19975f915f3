# SPDX-License-Identifier: MIT
"""The rules of Nix and snix for derivations.

A derivation is untrusted input, and its outputs decide whether the build has network access. Each
rule is a function in `_RULES` that yields one reason per violation. Sources: "Store paths" and
"Derivations" in the manual of Nix, its path.cc and derivations.cc, and validate.rs of nix-compat.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tvix_build.nix.derivation import Derivation, Output

_NAME_PATTERN = r"(?!\.)[0-9a-zA-Z+._?=-]{1,211}"
_PATH_PATTERN = r"/nix/store/[0-9a-df-np-sv-z]{32}-" + _NAME_PATTERN
_NAME = re.compile(_NAME_PATTERN)
_PATH = re.compile(_PATH_PATTERN)
_PATHS = re.compile(rf"{_PATH_PATTERN}(?:\0{_PATH_PATTERN})*")
_DERIVATION_PATHS = re.compile(rf"{_PATH_PATTERN}(?<=\.drv)(?:\0{_PATH_PATTERN}(?<=\.drv))*")
_A_NAME = "1 to 211 characters of 0-9a-zA-Z+._?=- that does not begin with a dot"
_A_PATH = f"/nix/store/, 32 characters of Nix's base 32, a dash and a name of {_A_NAME}"

_AN_OUTPUT_NAME = f"expected a name of {_A_NAME} and is not drv"

_BASE16 = set("0123456789abcdef")
_DIGITS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
_ALGORITHMS = {
    **_DIGITS,
    **{f"r:{name}": digits for name, digits in _DIGITS.items()},
    "text:sha256": _DIGITS["sha256"],  # Nix allows no other algorithm for text.
}
"""The hash algorithms of outputs, and the lengths of their hashes in base 16."""

_ONLY_OUT = {("out",)}
_IMPURE = "impure"
_FIXED = "fixed"
_ADDRESSED_BY_INPUT = "input-addressed"
_DEFERRED = "deferred"
_FLOATING = "content-addressed"

_SHOWN = 80  # characters of a value that a reason shows


def violations(derivation: Derivation) -> list[str]:
    """Return all reasons why a derivation is invalid. Outputs whose paths are unknown before the
    build, and builders that are part of Nix, are valid."""
    return [reason for rule in _RULES for reason in rule(derivation)]


def is_fixed(derivation: Derivation) -> bool:
    """Return whether the output of a valid derivation is fixed by a hash, so that its build may use
    the network. Such a derivation has one output, `out`."""
    return any(_kind(output) == _FIXED for output in derivation.outputs.values())


def _outputs(derivation: Derivation) -> list[str]:
    outputs = derivation.outputs
    if not outputs:
        return ["expected at least one output, found none"]
    reasons = []
    for name, output in outputs.items():
        if not _is_output_name(name):
            reasons.append(f"output: {_AN_OUTPUT_NAME}, found {_shown(name)}")
        if output.hash_algorithm or output.hash:
            reasons += [f"output {name}: {fault}" for fault in _faults(output)]
    kinds = {name: _kind(output) for name, output in outputs.items()}
    if len(outputs) > 1:
        reasons += _differences(outputs, kinds)
    if _FIXED in kinds.values() and outputs.keys() != {"out"}:
        found = ", ".join(outputs)
        reasons.append(f"expected out as the only output of a fixed derivation, found {found}")
    return reasons


def _differences(outputs: Mapping[str, Output], kinds: Mapping[str, str]) -> Iterator[str]:
    if len(set(kinds.values())) > 1:
        found = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
        yield f"expected outputs of one kind, found {found}"
    elif len({output.hash_algorithm for output in outputs.values()}) > 1:
        found = ", ".join(f"{one.hash_algorithm} of {name}" for name, one in outputs.items())
        yield f"expected outputs of one hash algorithm, found {found}"


def duplicates(what: str, names: Sequence[str]) -> list[str]:
    """Return a reason for each name that occurs more than once."""
    if len(set(names)) == len(names):
        return []
    repeated = (name for name, count in Counter(names).items() if count > 1)
    return [f"duplicate {what}: {_shown(name)}" for name in repeated]


def _kind(output: Output) -> str:
    if not output.hash:
        if output.hash_algorithm:
            return _FLOATING
        return _ADDRESSED_BY_INPUT if output.path else _DEFERRED
    return _IMPURE if output.hash == _IMPURE else _FIXED


def _faults(output: Output) -> Iterator[str]:
    """Yield the violations in the hash of an output, or in its hash and its path."""
    kind, algorithm, path = _kind(output), output.hash_algorithm, output.path
    digits = _ALGORITHMS.get(algorithm)
    if digits is None:
        found = _shown(algorithm) if algorithm else "none"
        yield f"expected a hash algorithm, one of {', '.join(_ALGORITHMS)}, found {found}"
    if kind == _FIXED:
        if not (set(output.hash) <= _BASE16 and len(output.hash) == (digits or len(output.hash))):
            expected = (
                f"{digits} characters of lowercase base 16" if digits else "lowercase base 16"
            )
            yield f"expected a hash of {expected}, found {_shown(output.hash)}"
        if not path:
            yield "expected a path, because the output is fixed by a hash, found none"
    elif path:
        yield f"expected no path, because it is unknown before the build, found {_shown(path)}"


def _output_paths(derivation: Derivation) -> Iterator[str]:
    for name, output in derivation.outputs.items():
        if output.path and not _PATH.fullmatch(output.path):
            yield f"output {name}: expected {_A_PATH}, found {_shown(output.path)}"


def _input_derivations(derivation: Derivation) -> Iterator[str]:
    inputs = derivation.input_derivations
    if not _are_valid(inputs, _DERIVATION_PATHS):
        for path in inputs:
            if not _PATH.fullmatch(path):
                yield f"input derivation: expected {_A_PATH}, found {_shown(path)}"
            if not path.endswith(".drv"):
                yield f"input derivation: expected a path that ends in .drv, found {_shown(path)}"
    if set(inputs.values()) - _ONLY_OUT:
        for path, names in inputs.items():
            yield from _names_of_outputs(path, names)


def _names_of_outputs(path: str, names: Sequence[str]) -> Iterator[str]:
    place = f"input derivation {path}"
    if not names:
        yield f"{place}: expected names of outputs, found none"
    for name in names:
        if not _is_output_name(name):
            yield f"{place}: output: {_AN_OUTPUT_NAME}, found {_shown(name)}"
    for reason in duplicates("output", names):
        yield f"{place}: {reason}"


def _input_sources(derivation: Derivation) -> Iterator[str]:
    sources = derivation.input_sources
    if not _are_valid(sources, _PATHS):
        for path in sources:
            if not _PATH.fullmatch(path):
                yield f"input source: expected {_A_PATH}, found {_shown(path)}"
    yield from duplicates("input source", sources)


def _command(derivation: Derivation) -> Iterator[str]:
    if not derivation.system:
        yield "expected a system, found an empty string"
    if not derivation.builder:
        yield "expected a builder, found an empty string"


def _variables(derivation: Derivation) -> Iterator[str]:
    if "" in derivation.environment:
        yield "expected a variable with a name, found an empty name"


_RULES: tuple[Callable[[Derivation], Iterable[str]], ...] = (
    _outputs,
    _output_paths,
    _input_derivations,
    _input_sources,
    _command,
    _variables,
)


def _are_valid(paths: Collection[str], pattern: re.Pattern[str]) -> bool:
    """Return whether all paths are valid. One search for all is fast, as most are valid."""
    joined = "\0".join(paths)
    return not paths or (
        pattern.fullmatch(joined) is not None and joined.count("\0") == len(paths) - 1
    )


def _is_output_name(name: str) -> bool:
    return name == "out" or (name != "drv" and _NAME.fullmatch(name) is not None)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
