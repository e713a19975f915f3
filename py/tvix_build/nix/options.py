# SPDX-License-Identifier: MIT
"""The options of Nix that a derivation can set, and their effects on a request: one table.

An option is a variable or, if the derivation has structured attributes, an attribute. Source:
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
    """The effect of an option on a request."""

    TRANSLATED = auto()
    """The request has a field for the option."""
    FILES = auto()
    """A request of a later schema represents the option in additional_files. For tvix.build.v1 the
    derivation is rejected."""
    REFUSED = auto()
    """The derivation is rejected, because the build would differ or fail without the option."""
    REPORTED = auto()
    """The request omits the option, which does not change the outputs. It is reported."""
    IGNORED = auto()
    """The request omits the option, which only affects how a fixed output is fetched, where a build
    runs, or whether outputs are downloaded."""


class _Value(Enum):
    """The type of an option, as a structured attribute."""

    FLAG = "a boolean"
    TEXT = "a string"
    WORDS = "a list of strings"
    ANY = "a value"


class Option(NamedTuple):
    """A row of the table."""

    value: _Value
    action: Action
    what: str
    """The behaviour of Nix, as an object of "requests do not support"."""


OPTIONS: Mapping[str, Option] = {
    JSON: Option(_Value.TEXT, Action.FILES, "structured attributes"),
    "passAsFile": Option(_Value.WORDS, Action.FILES, "variables passed as files"),
    "exportReferencesGraph": Option(
        _Value.ANY, Action.REFUSED, "files with the references of store paths"
    ),
    # See FEATURES.
    "requiredSystemFeatures": Option(_Value.WORDS, Action.TRANSLATED, "features of the host"),
    "__noChroot": Option(_Value.FLAG, Action.REFUSED, "builds outside of the sandbox"),
    "__impureHostDeps": Option(_Value.WORDS, Action.REFUSED, "paths of the host"),
    "sandboxProfile": Option(_Value.TEXT, Action.REFUSED, "sandbox profiles of macOS"),
    "__sandboxProfile": Option(_Value.TEXT, Action.REFUSED, "sandbox profiles of macOS"),
    "__darwinAllowLocalNetworking": Option(
        _Value.FLAG, Action.REFUSED, "access to the local network of the host"
    ),
    "__contentAddressed": Option(_Value.FLAG, Action.REFUSED, "content-addressed outputs"),
    "__impure": Option(_Value.FLAG, Action.REFUSED, "impure outputs"),
    # Nix passes these variables, such as http_proxy, only to builds with a fixed output.
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
"""All options. Any other variable is only an environment variable of the command."""

FEATURES: Mapping[str, Sequence[str]] = {
    "kvm": ["/dev/kvm"],
    # Every host has these features by default.
    "benchmark": [],
    "big-parallel": [],
    "nixos-test": [],
}
"""Paths of the host for each of requiredSystemFeatures; any other feature is refused."""

_ONLY_VARIABLES = frozenset({JSON, "passAsFile"})
_ONLY_ATTRIBUTES = frozenset({"outputChecks", "unsafeDiscardReferences"})
# An empty value of these options allows nothing.
_EFFECTIVE_WHEN_EMPTY = frozenset({"allowedReferences", "allowedRequisites"})
_EVALUATED = {
    name: option for name, option in OPTIONS.items() if option.action is not Action.IGNORED
}
_WORDS = re.compile(r"[^ \t\n\r]+")
_SHOWN = 40  # characters of a value that a reason shows


class Effects(NamedTuple):
    """The effects of the options of a derivation on its request."""

    host_paths: Sequence[str]
    """Paths of the host that the command may read."""
    reasons: Sequence[Reason]
    """The reasons to reject the derivation."""
    omitted: Sequence[str]
    """The names of omitted options that are reported."""


_NO_EFFECTS = Effects((), (), ())


def evaluate(
    environment: Mapping[str, bytes], attributes: Mapping[str, Any] | None, with_files: bool
) -> Effects:
    """Return the effects of the options of a derivation.

    Args:
        environment: the variables of the derivation.
        attributes: its structured attributes; None if it has none, or they are malformed.
        with_files: whether the schema supports files.
    """
    named = _EVALUATED.keys() & environment.keys()
    if not named:
        return _NO_EFFECTS
    host_paths: list[str] = []
    reasons: list[Reason] = []
    omitted: list[str] = []
    for place, name, value in _set_options(environment, named, attributes):
        option = OPTIONS[name]
        if not _fits(value, option.value):
            words = f"{place}: expected {option.value.value}, found {_shown(value)}"
            reasons.append(Reason(Kind.INVALID, words))
        elif name == "requiredSystemFeatures":
            unknown = [feature for feature in value if feature not in FEATURES]
            if unknown:
                wanted = f"requests do not support features except {', '.join(FEATURES)}"
                words = f"{place}: {wanted}, found {_shown(unknown)}"
                reasons.append(Reason(Kind.NOT_REPRESENTABLE, words))
            host_paths += (path for feature in value for path in FEATURES.get(feature, ()))
        elif option.action is Action.REPORTED:
            omitted.append(name)
        elif option.action is Action.REFUSED or (option.action is Action.FILES and not with_files):
            kind = Kind.LATER_SCHEMA if option.action is Action.FILES else Kind.NOT_REPRESENTABLE
            which = "requests of tvix.build.v1" if option.action is Action.FILES else "requests"
            words = f"{place}: {which} do not support {option.what}, found {_shown(value)}"
            reasons.append(Reason(kind, words))
    return Effects(host_paths, reasons, omitted)


def _set_options(
    environment: Mapping[str, bytes], named: Iterable[str], attributes: Mapping[str, Any] | None
) -> Iterator[tuple[str, str, Any]]:
    """Yield the place, the name and the value of the options that a derivation sets."""
    if JSON in named:
        yield f"variable {JSON}", JSON, _of_variable(environment[JSON], _Value.TEXT)
        for name in _EVALUATED:
            value = (attributes or {}).get(name)
            # Nix writes null for an attribute that is not set.
            if _has_effect(name, value) and name not in _ONLY_VARIABLES:
                yield f"attribute {name}", name, value
    else:
        for name in _EVALUATED:
            if name in named and name not in _ONLY_ATTRIBUTES:
                value = _of_variable(environment[name], OPTIONS[name].value)
                if _has_effect(name, value):
                    yield f"variable {name}", name, value


def _of_variable(value: bytes, kind: _Value) -> Any:
    if kind is _Value.FLAG:
        return value == b"1"
    text = value.decode(errors="backslashreplace")
    return _WORDS.findall(text) if kind is _Value.WORDS else text


def _has_effect(name: str, value: Any) -> bool:
    return value is not None and bool(value or name in _EFFECTIVE_WHEN_EMPTY)


def _fits(value: Any, kind: _Value) -> bool:
    if kind is _Value.WORDS:
        return isinstance(value, list) and all(isinstance(word, str) for word in value)
    if kind is _Value.ANY:
        return True
    return isinstance(value, bool if kind is _Value.FLAG else str)


def _shown(value: Any) -> str:
    text = " ".join(value) if isinstance(value, list) and _fits(value, _Value.WORDS) else value
    return repr(text[:_SHOWN]) if isinstance(text, str) else repr(text)[:_SHOWN]
