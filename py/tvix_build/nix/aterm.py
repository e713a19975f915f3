# SPDX-License-Identifier: MIT
"""The text of `.drv` files, which is Nix's ATerm: read into plain tuples, and written again.

Nix writes one text for a derivation, without spaces, and nothing else is read: so what was read is
written again byte for byte. Source: "Derivations" in the manual of Nix, and its derivations.cc.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple


class Term(NamedTuple):
    """A derivation, field by field as Nix writes it; strings are bytes, without escapes."""

    outputs: Sequence[tuple[bytes, bytes, bytes, bytes]]
    """Name, path, hash algorithm, hash."""
    input_derivations: Sequence[tuple[bytes, Sequence[bytes]]]
    """Path, names of outputs."""
    input_sources: Sequence[bytes]
    system: bytes
    builder: bytes
    arguments: Sequence[bytes]
    environment: Sequence[tuple[bytes, bytes]]


class ATermError(ValueError):
    """Bytes that are no derivation: what was expected, what was found and where."""


def _list(item: bytes) -> bytes:
    return rb"\[(?:%s(?:,%s)*)?\]" % (item, item)


# What is between the strings of a derivation, each string being one quotation mark.
_STRINGS = _list(b'"')
_INPUT = rb'\(",%s\)' % _STRINGS
_PIECES = {
    "Derive(": rb"Derive\(",
    'a list of outputs, ("name","path","hash algorithm","hash")': _list(rb'\(",",","\)'),
    'a list of input derivations, ("path",["output"])': b"," + _list(_INPUT),
    "a list of input sources": b"," + _STRINGS,
    "a system": b',"',
    "a builder": b',"',
    "a list of arguments": b"," + _STRINGS,
    'a list of variables, ("name","value")': b"," + _list(rb'\(","\)'),
    ") and the end": rb"\)\Z",
}
_SHAPE = re.compile(b"".join(b"(%s)" % piece for piece in _PIECES.values()))
_COMPLETE = re.compile(_SHAPE.pattern.removesuffix(rb"\Z)") + b")")
_EACH_INPUT = re.compile(_INPUT)

_ESCAPES = {b"\\": b"\\\\", b'"': b'\\"', b"\n": b"\\n", b"\r": b"\\r", b"\t": b"\\t"}
_NAMES = {b"\n": "a line feed", b"\r": "a carriage return", b"\t": "a tab", b"\0": "NUL"}
_SHOWN = 20  # bytes of a text that an error shows


def parse(data: bytes) -> Term:
    """Read the text of a derivation.

    Raises:
        ATermError: if it is not what Nix writes.
    """
    for byte, name in _NAMES.items():
        if byte in data:
            _refuse_other_text(data)
            at = data.index(byte)
            wanted = f"{_ESCAPES[byte].decode()} in its place" if byte in _ESCAPES else "text"
            raise ATermError(f"expected {wanted}, found {name} at byte {at}")
    # NUL, of which there is none, stands before what an escape hides from the search for the end of
    # a string.
    text = data
    if b"\\" in data:
        text = data.replace(b"\\\\", b"\0b").replace(b'\\"', b"\0q")
        text = text.replace(b"\\n", b"\n").replace(b"\\r", b"\r").replace(b"\\t", b"\t")
        if b"\\" in text:
            _refuse_other_text(data)
            raise _unknown_escape(data)
    parts = text.split(b'"')
    shape = b'"'.join(parts[0::2])
    match = _SHAPE.match(shape)
    if match is None or len(parts) % 2 == 0:
        _refuse_other_text(data)
        raise _unexpected(data, shape, complete=len(parts) % 2 == 1)
    strings = parts[1::2]
    if b"\0" in text:
        strings = [_without_marks(one) if b"\0" in one else one for one in strings]

    _, outputs, inputs, sources, _, _, arguments, _, _ = match.groups()
    first = 4 * outputs.count(b"(")
    derivations: list[tuple[bytes, Sequence[bytes]]] = []
    for one in _EACH_INPUT.findall(inputs):
        after = first + one.count(b'"')
        derivations.append((strings[first], strings[first + 1 : after]))
        first = after
    system = first + sources.count(b'"')
    last = system + 2 + arguments.count(b'"')
    four = [iter(strings[: 4 * outputs.count(b"(")])] * 4
    return Term(
        outputs=list(zip(*four, strict=True)),
        input_derivations=derivations,
        input_sources=strings[first:system],
        system=strings[system],
        builder=strings[system + 1],
        arguments=strings[system + 2 : last],
        environment=list(zip(strings[last::2], strings[last + 1 :: 2], strict=True)),
    )


def unparse(term: Term) -> bytes:
    """Write the text of a derivation."""
    inputs = (b"(%s,%s)" % (_quoted(path), _texts(names)) for path, names in term.input_derivations)
    fields = [
        _texts_of_tuples(term.outputs),
        b"[%s]" % b",".join(inputs),
        _texts(term.input_sources),
        _quoted(term.system),
        _quoted(term.builder),
        _texts(term.arguments),
        _texts_of_tuples(term.environment),
    ]
    return b"Derive(%s)" % b",".join(fields)


def to_str(string: bytes) -> str:
    """A string of Nix as text, with bytes that are not UTF-8 as lone surrogates."""
    return string.decode("utf-8", "surrogateescape")


def to_bytes(text: str) -> bytes:
    """The string of Nix that `to_str` made a text of."""
    return text.encode("utf-8", "surrogateescape")


def _quoted(string: bytes) -> bytes:
    for plain, escaped in _ESCAPES.items():
        string = string.replace(plain, escaped)
    return b'"%s"' % string


def _texts(strings: Iterable[bytes]) -> bytes:
    return b"[%s]" % b",".join(map(_quoted, strings))


def _texts_of_tuples(tuples: Iterable[Sequence[bytes]]) -> bytes:
    return b"[%s]" % b",".join(b"(%s)" % b",".join(map(_quoted, one)) for one in tuples)


def _without_marks(string: bytes) -> bytes:
    return string.replace(b"\0q", b'"').replace(b"\0b", b"\\")


def _unknown_escape(data: bytes) -> ATermError:
    escapes = (match for match in re.finditer(rb"\\(.?)", data, re.DOTALL))
    unknown = next(match for match in escapes if match[0] not in _ESCAPES.values())
    found = f"found {_shown(unknown[0])} at byte {unknown.start()}"
    return ATermError(rf"expected \\, \", \n, \r or \t, {found}")


def _refuse_other_text(data: bytes) -> None:
    """Raise if a text does not begin as a derivation does, or if something follows the end of one.

    Raises:
        ATermError: with what was found.
    """
    if not data:
        raise ATermError("expected a derivation, found text that is not a derivation: it is empty")
    if data.startswith(b"DrvWithVersion("):
        found = f"one of another version, {_shown(data)}"
        raise ATermError(f"expected a derivation that begins with Derive(, found {found}")
    if not data.startswith(b"Derive("):
        reason = f"it begins with {_shown(data)}, not with Derive("
        raise ATermError(f"expected a derivation, found text that is not a derivation: {reason}")
    strings = list(re.finditer(rb'"(?:[^"\\]|\\.)*"', data, re.DOTALL))
    end = _COMPLETE.match(re.sub(rb'"(?:[^"\\]|\\.)*"', b'"', data, flags=re.DOTALL))
    if end:
        used = strings[: end[0].count(b'"')]
        at = end.end() + sum(len(one[0]) - 1 for one in used)
        if at < len(data):
            found = _NAMES.get(data[at : at + 1]) or _shown(data[at:])
            reason = f"found {found} behind it at byte {at}"
            raise ATermError(f"expected nothing behind the derivation, {reason}")


def _unexpected(data: bytes, shape: bytes, complete: bool) -> ATermError:
    """Which piece of a derivation is not there, and where."""
    at = 0
    expected = ""
    for name, piece in _PIECES.items():
        expected = name
        match = re.compile(piece).match(shape, at)
        if match is None:
            break
        at = match.end()
    quotes = _quotes(data)
    if not complete and shape.count(b'"', at) == 0:
        return ATermError("expected the end of a string, found the end of the text")
    offset = at
    for _ in range(shape.count(b'"', 0, at)):
        begin, end = next(quotes), next(quotes)
        offset += end - begin
    return ATermError(f"expected {expected}, found {_shown(data[offset:])} at byte {offset}")


def _quotes(data: bytes) -> Iterator[int]:
    """Where strings begin and end."""
    marks = re.finditer(rb'\\.|"', data, re.DOTALL)
    return (mark.start() for mark in marks if mark[0] == b'"')


def _shown(text: bytes) -> str:
    if not text:
        return "the end"
    shown = text[:_SHOWN].decode(errors="backslashreplace")
    shown = shown if shown.isprintable() else repr(shown)
    return shown + ("…" if len(text) > _SHOWN else "")
