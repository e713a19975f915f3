# SPDX-License-Identifier: MIT
"""Parses and writes the text of `.drv` files, which has the ATerm format of Nix.

The parser accepts only the text that Nix writes for a derivation, without spaces, so parsing and
writing a text returns the same bytes. Source: "Derivations" in the manual of Nix, and its
derivations.cc.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple


class Term(NamedTuple):
    """The fields of a derivation, in the order of the text. Strings are unescaped bytes."""

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
    """The text is not a derivation. The message has what was expected, what was found and where."""


def _list(item: bytes) -> bytes:
    return rb"\[(?:%s(?:,%s)*)?\]" % (item, item)


# The text of a derivation where each string is replaced by one quotation mark.
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
    """Parse the text of a derivation.

    Raises:
        ATermError: if Nix does not write this text.
    """
    for byte, name in _NAMES.items():
        if byte in data:
            _refuse_other_text(data)
            at = data.index(byte)
            wanted = f"the escape {_ESCAPES[byte].decode()}" if byte in _ESCAPES else "text"
            raise ATermError(f"expected {wanted}, found {name} at byte {at}")
    # The text has no NUL, so NUL marks an escape whose character would end the string.
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
        strings = _without_marks(strings)

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
    """Decode a string of Nix. Lone surrogates represent bytes that are not UTF-8."""
    return string.decode("utf-8", "surrogateescape")


def to_bytes(text: str) -> bytes:
    """Encode a string of Nix that `to_str` decoded."""
    return text.encode("utf-8", "surrogateescape")


def _quoted(string: bytes) -> bytes:
    for plain, escaped in _ESCAPES.items():
        string = string.replace(plain, escaped)
    return b'"%s"' % string


def _texts(strings: Iterable[bytes]) -> bytes:
    return b"[%s]" % b",".join(map(_quoted, strings))


def _texts_of_tuples(tuples: Iterable[Sequence[bytes]]) -> bytes:
    return b"[%s]" % b",".join(b"(%s)" % b",".join(map(_quoted, one)) for one in tuples)


def _without_marks(strings: list[bytes]) -> list[bytes]:
    """Replace the marks in strings, all at once. A third mark separates the strings."""
    joined = b"\0,".join(strings).replace(b"\0q", b'"').replace(b"\0b", b"\\")
    return joined.split(b"\0,")


def _unknown_escape(data: bytes) -> ATermError:
    escapes = (match for match in re.finditer(rb"\\(.?)", data, re.DOTALL))
    unknown = next(match for match in escapes if match[0] not in _ESCAPES.values())
    found = f"found {_shown(unknown[0])} at byte {unknown.start()}"
    return ATermError(rf"expected \\, \", \n, \r or \t, {found}")


def _refuse_other_text(data: bytes) -> None:
    """Check that a text begins like a derivation, and that nothing follows the end of one.

    Raises:
        ATermError: if one of them is not true.
    """
    if not data:
        raise ATermError("expected a derivation, found an empty text")
    if data.startswith(b"DrvWithVersion("):
        found = f"a derivation of another version: {_shown(data)}"
        raise ATermError(f"expected a derivation that begins with Derive(, found {found}")
    if not data.startswith(b"Derive("):
        found = f"a text that begins with {_shown(data)}"
        raise ATermError(f"expected a derivation, which begins with Derive(, found {found}")
    strings = list(re.finditer(rb'"(?:[^"\\]|\\.)*"', data, re.DOTALL))
    end = _COMPLETE.match(re.sub(rb'"(?:[^"\\]|\\.)*"', b'"', data, flags=re.DOTALL))
    if end:
        used = strings[: end[0].count(b'"')]
        at = end.end() + sum(len(one[0]) - 1 for one in used)
        if at < len(data):
            found = _NAMES.get(data[at : at + 1]) or _shown(data[at:])
            reason = f"found {found} at byte {at}"
            raise ATermError(f"expected the end of the text after the derivation, {reason}")


def _unexpected(data: bytes, shape: bytes, complete: bool) -> ATermError:
    """Return the error for the first missing piece of a derivation."""
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
    """Yield the positions where strings begin and end."""
    marks = re.finditer(rb'\\.|"', data, re.DOTALL)
    return (mark.start() for mark in marks if mark[0] == b'"')


def _shown(text: bytes) -> str:
    if not text:
        return "the end"
    shown = text[:_SHOWN].decode(errors="backslashreplace")
    shown = shown if shown.isprintable() else repr(shown)
    return shown + ("…" if len(text) > _SHOWN else "")
