# SPDX-License-Identifier: MIT
"""Computes what the command of a derivation receives: arguments, variables, and the files that Nix
writes before a build for passAsFile and for structured attributes.

Placeholders are replaced by paths last, in files and in variables. Source: "Derivations" in the
manual of Nix, its derivation-env-desugar.cc and parsed-derivations.cc, and real builds with Nix 2.8
(tests/derivations/builds). There is one difference: the JSON library of Nix prints about one of
2,000 fractions with more digits than necessary.
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
from tvix_build.nix.options import JSON, evaluate

if TYPE_CHECKING:
    from tvix_build.nix.derivation import Derivation

_NO_OBJECT = f"variable {JSON}: expected a JSON object, found {{}}"
_TOO_DEEP = "values that are nested too deeply"
_SHELL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INTEGERS = range(-(1 << 63), 1 << 64)  # Nix reads any other number as a fraction
_DIGITS = 20  # of the longest integer, with the sign


class Command(NamedTuple):
    """The command of a derivation, without the inputs."""

    arguments: Sequence[str]
    environment: Mapping[str, bytes]
    """The variables of the derivation, or the variables that replace them."""
    files: Mapping[str, bytes]
    """Contents by path, relative to the root of the build."""
    host_paths: Sequence[str]
    """Paths of the host that the command may read."""
    omitted: Sequence[str]
    """Names of the options of Nix that are omitted and reported."""


def make_command(derivation: Derivation, with_files: bool, reasons: list[str]) -> Command:
    """Return the command of a derivation.

    Args:
        with_files: whether the schema supports files.
        reasons: the list to which unsupported options of Nix are added.
    """
    environment = derivation.environment
    files: dict[str, bytes] = {}
    attributes = _attributes(derivation, reasons) if JSON in environment else None
    effects = evaluate(environment, attributes, with_files)
    reasons += effects.reasons
    if attributes is not None and with_files:
        environment = _pass_attributes(derivation, attributes, files, reasons)
    elif with_files and JSON not in environment:
        environment = _pass_variables(environment, files)
    command = Command(derivation.arguments, environment, files, effects.host_paths, effects.omitted)
    return _with_known_paths(derivation, command, reasons)


def omitted_options(derivation: Derivation) -> tuple[str, ...]:
    """Return the names of the options of Nix that a derivation sets and its request omits, because
    they do not change the outputs, such as checks of references. The documentation lists them."""
    attributes = _attributes(derivation, []) if JSON in derivation.environment else None
    return tuple(evaluate(derivation.environment, attributes, True).omitted)


def _pass_variables(
    environment: Mapping[str, bytes], files: dict[str, bytes]
) -> Mapping[str, bytes]:
    """Return the variables, after moving the values that passAsFile names to files."""
    listed = set(re.findall(rb"[^ \t\n\r]+", environment.get("passAsFile", b"")))
    if not listed:
        return environment
    variables = {}
    # In this order, a variable NAMEPath of the derivation comes after NAME, and takes precedence.
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
    """Return the structured attributes, or None if they are malformed."""
    try:
        attributes = _parse(derivation.environment[JSON])
        if isinstance(attributes, dict):
            return attributes
        found = f"a value of type {type(attributes).__name__}"
    except ValueError as error:
        found = str(error)
    except RecursionError:
        found = _TOO_DEEP
    reasons.append(_NO_OBJECT.format(found))
    return None


def _pass_attributes(
    derivation: Derivation, read: Mapping[str, Any], files: dict[str, bytes], reasons: list[str]
) -> Mapping[str, bytes]:
    """Return the only variables: the names of the files with the structured attributes."""
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


def _with_known_paths(derivation: Derivation, command: Command, reasons: list[str]) -> Command:
    """Replace the placeholders of outputs by their paths: in arguments, in files, and in the names
    and values of variables, because Nix rewrites NAME=VALUE."""
    arguments, environment, files, *rest = command
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
        reasons.append("duplicate variable: a name that contains a placeholder")
    return Command(arguments, environment, files, *rest)


@lru_cache
def _placeholder(output: str) -> str:
    """Return the placeholder for the path of an output, as `placeholder` in Nix."""
    return "/" + _nixbase32(sha256(b"nix-output:" + to_bytes(output)).digest())


def _nixbase32(digest: bytes) -> str:
    """Return a SHA-256 digest in the base 32 of Nix."""
    number = int.from_bytes(digest, "little")
    digits = "0123456789abcdfghijklmnpqrsvwxyz"
    return "".join(digits[number >> shift & 31] for shift in range(255, -1, -5))


# ---- structured attributes


def _parse(text: bytes) -> Any:
    """Parse a JSON text as Nix does.

    Raises:
        ValueError: if Nix rejects the text.
        RecursionError: if the text is nested too deeply.
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
    """Return JSON as Nix writes it: sorted keys, no spaces, characters outside of ASCII."""
    if isinstance(value, dict):
        members = (f"{_to_json(key)}:{_to_json(value[key])}" for key in sorted(value))
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_to_json, value)) + "]"
    text = json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and 1e15 <= abs(value) < 1e16:
        # The library of Nix uses an exponent for these numbers, Python only for larger ones.
        sign, digits = text[: value < 0], text.lstrip("-").removesuffix(".0").rstrip("0")
        text = f"{sign}{digits[0]}{'.' * (len(digits) > 1)}{digits[1:]}e+15"
    return text


def _to_shell(attributes: Mapping[str, Any]) -> str:
    """Return a bash script that declares each attribute that bash can represent."""
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
    """Return a word of bash; None for lists, objects and fractions."""
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
    """Return whether Nix reads a number as an integer: as a C float, it has no fraction."""
    as_float = c_float(value).value
    return math.isinf(as_float) or as_float.is_integer()


def _as_int(value: float) -> int:
    """Return a number as the C int that Nix converts it to: the low 32 bits of an integer. For a
    fraction out of range, it is the result on x86-64."""
    if isinstance(value, float) and not -(1 << 31) <= int(value) < 1 << 31:
        return -(1 << 31)
    return c_int32(int(value)).value
