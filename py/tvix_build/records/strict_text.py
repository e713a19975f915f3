# SPDX-License-Identifier: MIT
"""Rejects text that protobuf's parser accepts against the definition of the text format, and
decodes what old versions of it decode wrongly."""

from __future__ import annotations

import re

# As in protobuf's tokenizer.
_TOKEN = re.compile(
    r"""
    (?P<string>"(?:[^"\\\n]|\\.)*"?|'(?:[^'\\\n]|\\.)*'?)
    |\#[^\n]*
    |[a-zA-Z_][0-9a-zA-Z_+-]*
    |(?P<number>(?:[0-9+-]|\.[0-9])[0-9a-zA-Z_.+-]*)
    |(?P<odd>[^\t-\r\x20-\x7e])
    """,
    re.VERBOSE,
)
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*|0[0-7]+|0[xX][0-9a-fA-F]+)")
_ESCAPE = re.compile(
    r"""
    \\(?:
        (?P<known>[abfnrtv\\'"]|[0-7]{1,3}|x[0-9a-fA-F]{1,2})
        |(?:u(?P<short>[0-9a-fA-F]{4})|U(?P<long>[0-9a-fA-F]{8}))
        |.?
    )
    """,
    re.VERBOSE,
)


def without_loss(text: str) -> str:
    """Return text in a form that every supported version of protobuf parses alike.

    Escapes of Unicode characters become escapes of bytes, because protobuf 4 and 5 decode
    `\\u00e9` to other bytes. The messages have no float fields, so each number must be an integer.

    Raises:
        ValueError: with the line and the column, for integers and escapes of Python that the text
            format does not define (`1_0`, `+5`, `0b1`, `\\N{…}`), for escapes of what is no
            Unicode character, and for characters that are not ASCII outside of strings and
            comments.
    """
    parts, end = [], 0
    for token in _TOKEN.finditer(text):
        found = token[0]
        if token["number"] and not _INTEGER.fullmatch(found):
            raise _error(text, token.start(), f"expected an integer, found {found!r:.100}")
        if token["odd"]:
            raise _error(text, token.start(), f"expected a field or its value, found {found!a}")
        if token["string"] and "\\" in found:
            for escape in _ESCAPE.finditer(text, token.start(), token.end()):
                if escape["known"] is None:
                    parts += [text[end : escape.start()], _octal(text, escape)]
                    end = escape.end()
    return "".join([*parts, text[end:]])


def _octal(text: str, escape: re.Match[str]) -> str:
    """Return the escape of a Unicode character as escapes of the bytes of its encoding."""
    digits = escape["short"] or escape["long"]
    if digits is None:
        reason = f"expected an escape of the text format, found {escape[0]}"
        raise _error(text, escape.start(), reason)
    try:
        encoded = chr(int(digits, 16)).encode()
    except (ValueError, OverflowError):  # a surrogate, or above U+10FFFF
        reason = f"expected an escape of a Unicode character, found {escape[0]}"
        raise _error(text, escape.start(), reason) from None
    return "".join(f"\\{byte:03o}" for byte in encoded)


def _error(text: str, offset: int, reason: str) -> ValueError:
    line = text.count("\n", 0, offset) + 1
    return ValueError(f"{line}:{offset - text.rfind(chr(10), 0, offset)}: {reason}")
