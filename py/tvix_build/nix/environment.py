# SPDX-License-Identifier: MIT
"""What the command of a derivation is given: arguments, variables, and the files that Nix writes
before a build, for passAsFile and for structured attributes.

Placeholders become paths at the end, in files as in variables. Source: "Derivations" in the manual
of Nix, its derivation-env-desugar.cc and parsed-derivations.cc, and what Nix 2.8 gave to builds
(tests/derivations/builds.json). There is one difference: Nix's library prints about one of 2,000
fractions with more digits than it needs.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from ctypes import c_float, c_int32
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from tvix_build._core.convert import BUILD
from tvix_build.nix.aterm import to_bytes, to_str
from tvix_build.nix.options import JSON, consider

if TYPE_CHECKING:
    from tvix_build.nix.derivation import Derivation

_NO_OBJECT = f"variable {JSON}: expected a JSON object, found {{}}"
_TOO_DEEP = "values that nest too deep"
_SHELL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INTEGERS = range(-(1 << 63), 1 << 64)  # any other is a fraction for Nix
_DIGITS = 20  # of the longest of them, sign and all


class Given(NamedTuple):
    """What a command is given, besides its inputs."""

    arguments: Sequence[str]
    environment: Mapping[str, bytes]
    """The derivation's own variables, or what stands for them."""
    files: Mapping[str, bytes]
    """Contents by path, which is relative to the root of the build."""
    host_paths: Sequence[str]
    """Paths of the host that it may read."""
    left_out: Sequence[str]
    """Names of what the derivation asks of Nix and is not among these, but reported."""


def give(derivation: Derivation, with_files: bool, reasons: list[str]) -> Given:
    """What the command of a derivation is given.

    Args:
        with_files: whether there can be files.
        reasons: gets what the derivation asks of Nix and cannot have.
    """
    environment = derivation.environment
    files: dict[str, bytes] = {}
    attributes = _attributes(derivation, reasons) if JSON in environment else None
    asked = consider(environment, attributes, with_files)
    reasons += asked.reasons
    if attributes is not None and with_files:
        environment = _pass_attributes(derivation, attributes, files, reasons)
    elif with_files and JSON not in environment:
        environment = _pass_variables(environment, files)
    given = Given(derivation.arguments, environment, files, asked.host_paths, asked.left_out)
    return _with_known_paths(derivation, given, reasons)


def omitted_options(derivation: Derivation) -> tuple[str, ...]:
    """Return the names of the options of Nix that a derivation sets and its request omits, as they
    cannot change the outputs: checks of references, for one. The documentation has the table."""
    attributes = _attributes(derivation, []) if JSON in derivation.environment else None
    return tuple(consider(derivation.environment, attributes, True).left_out)


def _pass_variables(
    environment: Mapping[str, bytes], files: dict[str, bytes]
) -> Mapping[str, bytes]:
    """Variables, where a file has the value of each that passAsFile names."""
    listed = set(re.findall(rb"[^ \t\n\r]+", environment.get("passAsFile", b"")))
    if not listed:
        return environment
    variables = {}
    # In this order a variable NAMEPath of the derivation comes after NAME, and wins.
    for name in sorted(map(to_bytes, environment)):
        key = to_str(name)
        if name in listed:
            path = f"{BUILD}/.attr-{_nixbase32(sha256(name).digest())}"
            files[path] = environment[key]
            variables[f"{key}Path"] = f"/{path}".encode()
        else:
            variables[key] = environment[key]
    return variables


def _attributes(derivation: Derivation, reasons: list[str]) -> dict[str, Any] | None:
    """The structured attributes, if they can be read."""
    try:
        attributes = _parse(derivation.environment[JSON])
        if isinstance(attributes, dict):
            return attributes
        found = f"another value, a {type(attributes).__name__}"
    except ValueError as error:
        found = str(error)
    except RecursionError:
        found = _TOO_DEEP
    reasons.append(_NO_OBJECT.format(found))
    return None


def _pass_attributes(
    derivation: Derivation, read: Mapping[str, Any], files: dict[str, bytes], reasons: list[str]
) -> Mapping[str, bytes]:
    """Variables that name the files with the structured attributes; there are no others."""
    attributes = {**read, "outputs": {name: _placeholder(name) for name in derivation.outputs}}
    try:
        written = {"JSON": _to_json(attributes).encode(), "SH": _to_shell(attributes).encode()}
    except (ValueError, RecursionError) as error:
        found = error if isinstance(error, ValueError) else _TOO_DEEP
        reasons.append(_NO_OBJECT.format(found))
        return {}
    variables = {}
    for name, text in written.items():
        path = f"{BUILD}/.attrs.{name.lower()}"
        files[path] = text
        variables[f"NIX_ATTRS_{name}_FILE"] = f"/{path}".encode()
    return variables


def _with_known_paths(derivation: Derivation, given: Given, reasons: list[str]) -> Given:
    """The same, with paths in place of the outputs' placeholders: in arguments, files and, as Nix
    rewrites all of NAME=VALUE, in names and values of variables."""
    arguments, environment, files, *rest = given
    texts = "\0".join([*arguments, *environment])
    values = b"\0".join([*environment.values(), *files.values()])
    count = len(environment)
    for name, output in derivation.outputs.items():
        text = _placeholder(name)
        data = text.encode()
        if text in texts:
            arguments = [argument.replace(text, output.path) for argument in arguments]
            environment = {
                key.replace(text, output.path): value for key, value in environment.items()
            }
        if data in values:
            path = to_bytes(output.path)
            environment = {key: value.replace(data, path) for key, value in environment.items()}
            files = {key: value.replace(data, path) for key, value in files.items()}
    if len(environment) != count:
        reasons.append("expected each variable once, found one again whose name has a placeholder")
    return Given(arguments, environment, files, *rest)


@lru_cache
def _placeholder(output: str) -> str:
    """What stands for the path of an output as long as that is not known: Nix's `placeholder`."""
    return "/" + _nixbase32(sha256(b"nix-output:" + to_bytes(output)).digest())


def _nixbase32(digest: bytes) -> str:
    """A SHA-256 digest in Nix's base 32."""
    number = int.from_bytes(digest, "little")
    digits = "0123456789abcdfghijklmnpqrsvwxyz"
    return "".join(digits[number >> shift & 31] for shift in range(255, -1, -5))


# ---- structured attributes


def _parse(text: bytes) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: if it is none that Nix reads.
        RecursionError: if it nests too deep.
    """
    return json.loads(
        text.decode(),
        parse_int=_parse_integer,
        parse_float=_parse_fraction,
        parse_constant=_refuse_constant,
    )


def _parse_integer(text: str) -> float:
    if len(text) <= _DIGITS and int(text) in _INTEGERS:
        return int(text)
    return _parse_fraction(text)


def _parse_fraction(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"a number that is too large, {text[:_DIGITS]}")
    return number


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(text)


def _to_json(value: Any) -> str:
    """JSON as Nix writes it: keys sorted, without spaces and with more than ASCII."""
    if isinstance(value, dict):
        members = (f"{_to_json(key)}:{_to_json(value[key])}" for key in sorted(value))
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_to_json, value)) + "]"
    text = json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and 1e15 <= abs(value) < 1e16:
        # Nix's library has an exponent from here on, Python only later.
        sign, digits = text[: value < 0], text.lstrip("-").removesuffix(".0").rstrip("0")
        text = f"{sign}{digits[0]}{'.' * (len(digits) > 1)}{digits[1:]}e+15"
    return text


def _to_shell(attributes: Mapping[str, Any]) -> str:
    """A script for bash that declares each attribute that a variable of bash can be."""
    lines = []
    for name in filter(_SHELL_NAME.fullmatch, sorted(attributes)):
        value = attributes[name]
        if isinstance(value, list):
            flag, word = "-a ", _in_parentheses([_to_word(one) for one in value])
        elif isinstance(value, dict):
            words = [_to_word(value[key], f"[{_to_word(key)}]=") for key in sorted(value)]
            flag, word = "-A ", _in_parentheses(words)
        else:
            flag, word = "", _to_word(value)
        if word is not None:
            lines.append(f"declare {flag}{name}={word}\n")
    return "".join(lines)


def _in_parentheses(words: Sequence[str | None]) -> str | None:
    return None if None in words else "(" + "".join(f"{word} " for word in words) + ")"


def _to_word(value: Any, before: str = "") -> str | None:
    """A word of bash; None for what is none: lists, objects and fractions."""
    if isinstance(value, str):
        return before + "'" + value.replace("'", r"'\''") + "'"
    if isinstance(value, bool):
        return before + "1" * value
    if value is None:
        return before + "''"
    if isinstance(value, (int, float)) and _is_whole(value):
        return before + str(_as_int(value))
    return None


def _is_whole(value: float) -> bool:
    """Whether Nix takes a number for an integer: as a C float it has no fraction."""
    as_float = c_float(value).value
    return math.isinf(as_float) or as_float.is_integer()


def _as_int(value: float) -> int:
    """A number as the C int that Nix makes of it: the low 32 bits of an integer, and of a fraction
    that does not fit what x86-64 has for it."""
    if isinstance(value, float) and not -(1 << 31) <= int(value) < 1 << 31:
        return -(1 << 31)
    return c_int32(int(value)).value
