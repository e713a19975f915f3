# SPDX-License-Identifier: MIT
"""Parses proto3 JSON strictly: rejects input that protobuf's parser accepts but changes."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from binascii import a2b_base64
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_UINT64_MAX = (1 << 64) - 1
_BASE64 = re.compile(r"([A-Za-z0-9+/]*|[A-Za-z0-9_-]*)(=*)")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Number:
    """A JSON number.

    Attributes:
        text: the number as it is written.
    """

    text: str

    def __repr__(self) -> str:
        return self.text


def load(text: str) -> Any:
    """Parse a JSON text, with a `Number` for each number.

    Raises:
        ValueError: if `text` is not JSON, or an object has two members with the same name.
        RecursionError: if the text is nested too deeply.
    """
    return json.loads(
        text,
        object_pairs_hook=_object,
        parse_int=Number,
        parse_float=Number,
        parse_constant=_refuse_constant,
    )


def parse(value: Any, message: Message) -> None:
    """Set the fields of a message to a value of `load`.

    Raises:
        ValueError: with the name of the field, if an integer is expected and the value is not one,
            if a value is not base64 or has another type, if a field is unknown, or if it occurs
            under both of its names.
        json_format.ParseError: if protobuf rejects the value for another reason.
    """
    from google.protobuf import json_format

    json_format.ParseDict(_message(value, message.DESCRIPTOR, ""), message)


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(members)
    if len(value) < len(members):
        seen: set[str] = set()
        for name, _ in members:
            if name in seen:
                raise ValueError(f"duplicate name in an object: {name!r:.100}")
            seen.add(name)
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"expected a JSON value, found {name}")


def _message(value: Any, descriptor: Any, place: str) -> Any:
    """Return the value of a message in a form that protobuf's parser does not change."""
    if not isinstance(value, dict):
        raise _error(place, "an object", value)
    fields = {name: one for one in descriptor.fields for name in (one.name, one.json_name)}
    seen: dict[str, str] = {}
    checked = {}
    for name, item in value.items():
        field = fields.get(name)
        if field is None:
            known = ", ".join(one.json_name for one in descriptor.fields)
            raise _error(place, f"a field of {descriptor.name} ({known})", name)
        if field.name in seen:
            names = f"{seen[field.name]!r} and {name!r}"
            reason = f"the field occurs under both names, {names}"
            raise ValueError(f"{place}: {reason}" if place else reason)
        seen[field.name] = name
        below = f"{place}.{name}" if place else name
        if isinstance(item, list) and _is_repeated(field):
            checked[name] = [
                _element(element, field, f"{below}[{i}]") for i, element in enumerate(item)
            ]
        else:
            checked[name] = _element(item, field, below)
    return checked


def _is_repeated(field: Any) -> bool:
    # Newer versions of protobuf warn of `label`, older ones lack `is_repeated`.
    if hasattr(field, "is_repeated"):
        return bool(field.is_repeated)
    return bool(field.label == FieldDescriptor.LABEL_REPEATED)


def _element(item: Any, field: Any, place: str) -> Any:
    if item is None:
        return None
    if field.message_type is not None:
        return _message(item, field.message_type, place)
    if field.type == FieldDescriptor.TYPE_UINT64:
        return _integer(item, place)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _bytes(item, place)
    if field.type == FieldDescriptor.TYPE_STRING:
        if not isinstance(item, str):
            raise _error(place, "a string", item)
        if _SURROGATE.search(item):
            raise _error(place, "Unicode text without lone surrogates", item)
    return item


def _integer(item: Any, place: str) -> int:
    """Return the integer of a JSON number, or of a string that contains only a JSON number.

    It is not converted to float, which has 53 bits only.
    """
    text = item.text if isinstance(item, Number) else item
    if not isinstance(text, str) or not _NUMBER.fullmatch(text):
        raise _error(place, "an integer", item)
    try:
        number = Decimal(text)
    except InvalidOperation:  # The exponent has too many digits.
        raise _error(place, "an integer", item) from None
    # A number in this range has few digits before the point, with any exponent.
    if not 0 <= number <= _UINT64_MAX:
        raise _error(place, f"an integer from 0 to {_UINT64_MAX}", item)
    if number != number.to_integral_value():
        raise _error(place, "an integer", item)
    return int(number)


def _bytes(item: Any, place: str) -> str:
    """Return bytes in padded base64 of the standard alphabet.

    Both alphabets are accepted, but not mixed, with and without padding. Unused bits of the last
    character must be zero, except in unpadded text of the URL-safe alphabet, because protobuf's
    conformance test `BytesFieldBase64Url` requires that `-_` is accepted.
    """
    match = _BASE64.fullmatch(item) if isinstance(item, str) else None
    if match is None:
        raise _error(place, "base64", item)
    bare, padding = match.groups()
    missing = -len(bare) % 4
    if missing == 3 or len(padding) not in (0, missing):
        raise _error(place, "base64", item)
    standard = bare.replace("-", "+").replace("_", "/") + missing * "="
    encoded = b64encode(a2b_base64(standard)).decode()
    if encoded != standard and (padding or "+" in bare or "/" in bare):
        raise _error(place, "base64", item)
    return encoded


def _error(place: str, expected: str, found: Any) -> ValueError:
    reason = f"expected {expected}, found {found!r:.100}"
    return ValueError(f"{place}: {reason}" if place else reason)
