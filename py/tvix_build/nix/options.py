# SPDX-License-Identifier: MIT
"""What a derivation asks of Nix itself, and what becomes of it in a request: one table.

Such an option is a variable or, of a derivation with structured attributes, an attribute. Source:
"Advanced attributes" in the manual of Nix, and its derivation-options.cc.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple

from tvix_build.nix.reasons import Kind, Reason

JSON = "__json"


class Action(Enum):
    """What becomes of an option."""

    TRANSLATED = auto()
    """The request has it in other words."""
    FILES = auto()
    """In the later schemas the request has it in additional_files; in tvix.build.v1 no request is
    made."""
    REFUSED = auto()
    """No request is made: the build would be another one, or fail."""
    REPORTED = auto()
    """The request leaves it out, as it cannot change the outputs; `Derivation.left_out` has it."""
    IGNORED = auto()
    """The request leaves it out, as it says only how a build fetches what is known beforehand,
    where it runs, or where outputs come from."""


class _Value(Enum):
    """What the value of an option is, as a structured attribute."""

    FLAG = "a boolean"
    TEXT = "a string"
    WORDS = "a list of strings"
    ANY = "a value"


class Option(NamedTuple):
    """A row of the table."""

    value: _Value
    action: Action
    what: str
    """What Nix does, in words that follow "a request cannot say"."""


OPTIONS: Mapping[str, Option] = {
    JSON: Option(_Value.TEXT, Action.FILES, "structured attributes"),
    "passAsFile": Option(_Value.WORDS, Action.FILES, "variables passed as files"),
    "exportReferencesGraph": Option(
        _Value.ANY, Action.REFUSED, "files with the references of store paths"
    ),
    # FEATURES says what becomes of each.
    "requiredSystemFeatures": Option(_Value.WORDS, Action.TRANSLATED, "features of the host"),
    "__noChroot": Option(_Value.FLAG, Action.REFUSED, "a build outside of the sandbox"),
    "__impureHostDeps": Option(_Value.WORDS, Action.REFUSED, "paths of the host"),
    "sandboxProfile": Option(_Value.TEXT, Action.REFUSED, "a profile of the sandbox of macOS"),
    "__sandboxProfile": Option(_Value.TEXT, Action.REFUSED, "a profile of the sandbox of macOS"),
    "__darwinAllowLocalNetworking": Option(
        _Value.FLAG, Action.REFUSED, "access to the network of the host itself"
    ),
    "__contentAddressed": Option(_Value.FLAG, Action.REFUSED, "outputs addressed by their content"),
    "__impure": Option(_Value.FLAG, Action.REFUSED, "outputs that differ from build to build"),
    # Nix passes them on, such as http_proxy, only to builds whose content is fixed by a hash.
    "impureEnvVars": Option(_Value.WORDS, Action.IGNORED, "variables of the host"),
    # Checked after the build.
    "allowedReferences": Option(_Value.WORDS, Action.REPORTED, "a check of references"),
    "allowedRequisites": Option(_Value.WORDS, Action.REPORTED, "a check of requisites"),
    "disallowedReferences": Option(_Value.WORDS, Action.REPORTED, "a check of references"),
    "disallowedRequisites": Option(_Value.WORDS, Action.REPORTED, "a check of requisites"),
    "outputChecks": Option(_Value.ANY, Action.REPORTED, "checks of outputs"),
    "unsafeDiscardReferences": Option(_Value.ANY, Action.REPORTED, "outputs without references"),
    "preferLocalBuild": Option(_Value.FLAG, Action.IGNORED, "a preference for the local machine"),
    "allowSubstitutes": Option(_Value.FLAG, Action.IGNORED, "outputs that are not downloaded"),
}
"""What becomes of each option. Every other variable is one of the command and nothing else."""

FEATURES: Mapping[str, Sequence[str]] = {
    "kvm": ["/dev/kvm"],
    # Every host has them by default: they say where builds are welcome.
    "benchmark": [],
    "big-parallel": [],
    "nixos-test": [],
}
"""Paths of the host for each of requiredSystemFeatures; any other feature is refused."""

_ONLY_VARIABLES = frozenset({JSON, "passAsFile"})
_ONLY_ATTRIBUTES = frozenset({"outputChecks", "unsafeDiscardReferences"})
# Without a value they still ask for something: that nothing is allowed.
_ASK_WITHOUT_A_VALUE = frozenset({"allowedReferences", "allowedRequisites"})
_CONSIDERED = {
    name: option for name, option in OPTIONS.items() if option.action is not Action.IGNORED
}
_WORDS = re.compile(r"[^ \t\n\r]+")
_SHOWN = 40  # characters of a value that a reason shows


class Asked(NamedTuple):
    """What the options of a derivation come to."""

    host_paths: Sequence[str]
    """Paths that the command may read."""
    reasons: Sequence[Reason]
    """Why there is no request."""
    left_out: Sequence[str]
    """Names of options that are reported."""


_NOTHING_ASKED = Asked((), (), ())


def consider(
    environment: Mapping[str, bytes], attributes: Mapping[str, Any] | None, with_files: bool
) -> Asked:
    """What becomes of the options of a derivation.

    Args:
        environment: its variables.
        attributes: its structured attributes; None where it has none, or none that can be read.
        with_files: whether a request can say files.
    """
    named = _CONSIDERED.keys() & environment.keys()
    if not named:
        return _NOTHING_ASKED
    host_paths: list[str] = []
    reasons: list[Reason] = []
    left_out: list[str] = []
    for place, name, value in _asked(environment, named, attributes):
        option = OPTIONS[name]
        if not _fits(value, option.value):
            words = f"{place}: expected {option.value.value}, found {_shown(value)}"
            reasons.append(Reason(Kind.INVALID, words))
        elif name == "requiredSystemFeatures":
            unknown = [feature for feature in value if feature not in FEATURES]
            if unknown:
                wanted = f"expected {', '.join(FEATURES)}, as a request cannot say other features"
                words = f"{place}: {wanted}, found {_shown(unknown)}"
                reasons.append(Reason(Kind.NOT_REPRESENTABLE, words))
            host_paths += (path for feature in value for path in FEATURES.get(feature, ()))
        elif option.action is Action.REPORTED:
            left_out.append(name)
        elif option.action is Action.REFUSED or (option.action is Action.FILES and not with_files):
            kind = Kind.LATER_SCHEMA if option.action is Action.FILES else Kind.NOT_REPRESENTABLE
            wanted = f"expected none, as a request cannot say {option.what}"
            reasons.append(Reason(kind, f"{place}: {wanted}, found {_shown(value)}"))
    return Asked(host_paths, reasons, left_out)


def _asked(
    environment: Mapping[str, bytes], named: Iterable[str], attributes: Mapping[str, Any] | None
) -> Iterator[tuple[str, str, Any]]:
    """Place, name and value of the options that a derivation has."""
    if JSON in named:
        yield f"variable {JSON}", JSON, _of_variable(environment[JSON], _Value.TEXT)
        for name in _CONSIDERED:
            value = (attributes or {}).get(name)
            # Nix writes null for an attribute that is not set.
            if _asks(name, value) and name not in _ONLY_VARIABLES:
                yield f"attribute {name}", name, value
    else:
        for name in _CONSIDERED:
            if name in named and name not in _ONLY_ATTRIBUTES:
                value = _of_variable(environment[name], OPTIONS[name].value)
                if _asks(name, value):
                    yield f"variable {name}", name, value


def _of_variable(value: bytes, kind: _Value) -> Any:
    if kind is _Value.FLAG:
        return value == b"1"
    text = value.decode(errors="backslashreplace")
    return _WORDS.findall(text) if kind is _Value.WORDS else text


def _asks(name: str, value: Any) -> bool:
    return value is not None and bool(value or name in _ASK_WITHOUT_A_VALUE)


def _fits(value: Any, kind: _Value) -> bool:
    if kind is _Value.WORDS:
        return isinstance(value, list) and all(isinstance(word, str) for word in value)
    if kind is _Value.ANY:
        return True
    return isinstance(value, bool if kind is _Value.FLAG else str)


def _shown(value: Any) -> str:
    text = " ".join(value) if isinstance(value, list) and _fits(value, _Value.WORDS) else value
    return repr(text[:_SHOWN]) if isinstance(text, str) else repr(text)[:_SHOWN]
