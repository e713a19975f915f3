# SPDX-License-Identifier: MIT
"""Converts file names, which may not be UTF-8, to well-formed text."""

from __future__ import annotations

import json
import re
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")


def well_formed(text: str) -> str:
    """Return text without lone surrogates. A byte that Python could not decode is written as
    `\\xff`, another surrogate as `\\ud800`."""
    return _SURROGATE.sub(_escape, text)


def json_line(value: Any) -> str:
    """Return JSON on one line with `well_formed` strings, which every parser accepts."""
    text = json.dumps(value)
    return json.dumps(_well_formed(value)) if "\\ud" in text else text


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def _well_formed(value: Any) -> Any:
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, dict):
        return {well_formed(key): _well_formed(item) for key, item in value.items()}
    return [_well_formed(item) for item in value] if isinstance(value, (list, tuple)) else value
