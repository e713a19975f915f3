# SPDX-License-Identifier: MIT
"""Messages that protobuf 4 to 6 decode differently from 7. docs/canonical-form.md describes 7."""

from __future__ import annotations

from importlib import import_module

from google.protobuf.descriptor import Descriptor

from wire import END_GROUP, FIXED32, FIXED64, GROUP, LEN, VARINT

#: Whether the installed protobuf decodes differently from what docs/canonical-form.md describes.
IS_OLD = int(import_module("google.protobuf").__version__.partition(".")[0]) < 7
REASON = "protobuf 4 to 6 decode lengths of six bytes, and reject field number 0 within groups"


def may_differ(data: bytes, message: Descriptor) -> bool:
    """Return whether a message has a length of six bytes or field number 0 within a group.

    Messages that no version decodes may have either result.
    """
    try:
        return _may_differ(data, message)
    except IndexError:  # The data ends within a varint.
        return False


def _may_differ(data: bytes, message: Descriptor) -> bool:
    at = depth = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            return depth > 0 and wire_type != END_GROUP
        if wire_type == VARINT:
            _, at = _varint(data, at)
        elif wire_type == FIXED64:
            at += 8
        elif wire_type == FIXED32:
            at += 4
        elif wire_type == GROUP:
            depth += 1
        elif wire_type == END_GROUP:
            depth -= 1
        elif wire_type == LEN:
            length, begin = _varint(data, at)
            if begin - at > 5:
                return length % 2**64 <= len(data) - begin
            at = begin + length
            field = None if depth else message.fields_by_number.get(number)
            if field and field.message_type and may_differ(data[begin:at], field.message_type):
                return True
        else:
            return False
    return False


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the value of a varint and the offset of its end."""
    value = shift = 0
    while data[at] > 0x7F:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
    return value | data[at] << shift, at + 1
