# SPDX-License-Identifier: MIT
"""Rejects text that protobuf's parser accepts against the definition of the text format."""

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
    \\(?:(?P<known>[abfnrtv\\'"]|[0-7]{1,3}|x[0-9a-fA-F]{1,2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})|.?)
    """,
    re.VERBOSE,
)


def refuse_loss(text: str) -> None:
    """Reject integers and escapes of Python that the text format does not define (`1_0`, `+5`,
    `0b1`, `\\N{…}`), and characters that are not ASCII outside of strings and comments.

    The messages have no float fields, so each number must be an integer.

    Raises:
        ValueError: with the line and the column.
    """
    for token in _TOKEN.finditer(text):
        found = token[0]
        if token["number"] and not _INTEGER.fullmatch(found):
            raise _error(text, token.start(), f"expected an integer, found {found!r:.100}")
        if token["odd"]:
            raise _error(text, token.start(), f"expected a field or its value, found {found!a}")
        if token["string"] and "\\" in found:
            for escape in _ESCAPE.finditer(found):
                if escape["known"] is None:
                    reason = f"expected an escape of the text format, found {escape[0]}"
                    raise _error(text, token.start() + escape.start(), reason)


def _error(text: str, offset: int, reason: str) -> ValueError:
    line = text.count("\n", 0, offset) + 1
    return ValueError(f"{line}:{offset - text.rfind(chr(10), 0, offset)}: {reason}")
