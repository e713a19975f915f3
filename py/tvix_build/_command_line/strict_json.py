# SPDX-License-Identifier: MIT
"""What protobuf's JSON parser would drop or repair without a word."""

from __future__ import annotations

import binascii
import json
from base64 import b64decode, b64encode
from typing import Any

from google.protobuf.descriptor import FieldDescriptor


def refuse_loss(text: str, descriptor: Any) -> None:
    """As `refuse_loss_of`, of a JSON text; nothing of what is no JSON.

    Raises:
        ValueError: if something would be lost; says what and where.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return
    refuse_loss_of(value, descriptor)


def refuse_loss_of(value: Any, descriptor: Any, place: str = "") -> None:
    """Refuse what the parser takes, but not as it is written: bytes that are no base64, a field
    under both of its names, and another value in the place of a message.

    Args:
        value: what the parser will be given, or a part of it.
        descriptor: of the message that it says.
        place: where in the whole it is.

    Raises:
        ValueError: if there is something of the kind; says what and where.
    """
    if not isinstance(value, dict):
        raise _error(place, f"expected an object, found {value!r:.100}")
    fields = {name: one for one in descriptor.fields for name in (one.name, one.json_name)}
    seen: dict[str, str] = {}
    for name, item in value.items():
        field = fields.get(name)
        if field is None:  # The parser refuses it.
            continue
        if field.name in seen:
            names = f"{seen[field.name]!r} and {name!r}"
            raise _error(place, f"expected a field under one name, found {names}")
        seen[field.name] = name
        below = f"{place}.{name}" if place else name
        if field.is_repeated and isinstance(item, list):
            for i, element in enumerate(item):
                _refuse_loss_of_element(element, field, f"{below}[{i}]")
        else:
            _refuse_loss_of_element(item, field, below)


def _refuse_loss_of_element(element: Any, field: Any, place: str) -> None:
    if element is None:
        return
    if field.message_type is not None:
        refuse_loss_of(element, field.message_type, place)
    elif (
        field.type == FieldDescriptor.TYPE_BYTES
        and isinstance(element, str)
        and not _is_base64(element)
    ):
        raise _error(place, f"expected base64, found {element!r:.100}")


def _error(place: str, reason: str) -> ValueError:
    return ValueError(f"{place}: {reason}" if place else reason)


def _is_base64(text: str) -> bool:
    """Whether it is base64 of either alphabet, padded or not, that says nothing but its bytes."""
    bare = text.rstrip("=").replace("-", "+").replace("_", "/")
    padded = bare + -len(bare) % 4 * "="
    try:
        same = b64encode(b64decode(padded, validate=True)).decode() == padded
    except (ValueError, binascii.Error):
        return False
    return same and len(text) in (len(bare), len(padded))
