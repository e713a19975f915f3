# SPDX-License-Identifier: MIT
"""Converts between protobuf messages and text.

It does not validate messages: a parsed text is serialized for the engine. The modules of messages
and protobuf's modules for text are imported when they are needed: binary records need none.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING

from tvix_build._core.report import MessageType
from tvix_build._core.text import well_formed
from tvix_build.records.errors import FormatError

if TYPE_CHECKING:
    from google.protobuf.message import Message

REASON_LIMIT = 400
# The modules of messages by the part of the name before the message.
_MODULES = {
    "tvix.build.v1": "tvix.build.protos.build_pb2",
    # The last tvix has no module, but its request is that of snix.
    "tvix.build.v1@2024": "snix.build.protos.build_pb2",
    "tvix.castore.v1": "tvix.castore.protos.castore_pb2",
    "snix.build.v1": "snix.build.protos.build_pb2",
    "snix.castore.v1": "snix.castore.protos.castore_pb2",
    "tvix_build.plan.v1": "tvix_build.plan.v1.plan_pb2",
}


class TextError(ValueError):
    """A text cannot be parsed. The message has the line and the column if they are known."""


def decode(data: bytes, kind: MessageType) -> Message:
    """Parse the bytes of a message."""
    return class_of(kind).FromString(data)


def class_of(kind: MessageType) -> type[Message]:
    """Return the Python class of messages.

    Raises:
        FormatError: if there is none.
    """
    package, _, name = kind.full_name.rpartition(".")
    found: type[Message] | None = getattr(import_module(_MODULES[package]), name, None)
    if found is None:
        raise FormatError(
            f"{kind} has no Python class: it cannot be shown, or read or written as text"
        )
    return found


def parse_text(text: bytes, format_name: str, kind: MessageType) -> bytes:
    """Parse a text, and return the serialized message.

    Args:
        text: the text of one message.
        format_name: `json`, `ndjson` (as json, but on one line) or `txtpb`.
        kind: the type of the message.

    Raises:
        TextError: if the text cannot be parsed.
    """
    from google.protobuf import json_format, text_format

    from tvix_build.records import strict_json, strict_text

    message = class_of(kind)()
    what = f"a {message.DESCRIPTOR.name} in "
    what += "protobuf text format" if format_name == "txtpb" else "proto3 JSON"
    if format_name != "txtpb" and text.lstrip()[:1] not in (b"{", b""):
        raise TextError(f"expected {what}, found a text that does not begin with '{{'")
    try:
        if format_name == "txtpb":
            text_format.Parse(strict_text.without_loss(text.decode()), message)
        else:
            strict_json.parse(strict_json.load(text.decode()), message)
        return message.SerializeToString(deterministic=True)
    except UnicodeDecodeError as error:
        found = f"the byte 0x{text[error.start]:02x}, which is not UTF-8, at offset {error.start}"
    except (text_format.ParseError, json_format.ParseError, RecursionError, ValueError) as error:
        found = _reason(error, one_line=format_name == "ndjson")
    raise TextError(f"expected {what}, found: {found}")


def write_text(message: Message, format_name: str) -> bytes:
    """Return a message as text with a final newline: `json`, `ndjson` (one line) or `txtpb`."""
    from google.protobuf import json_format, text_format

    if format_name == "txtpb":
        return text_format.MessageToString(message, as_utf8=True).encode()
    indent = None if format_name == "ndjson" else 2
    text: str = json_format.MessageToJson(message, indent=indent, ensure_ascii=False)
    return text.encode() + b"\n"


def _reason(error: Exception, one_line: bool) -> str:
    """Return an error message of protobuf on one line, shortened to REASON_LIMIT."""
    reason = well_formed(" ".join(str(error).split()).rstrip("."))
    if one_line:  # The text is a line of a file, so its own line number 1 would mislead.
        reason = re.sub(r"\bline 1 column (\d+) \(char \d+\)", r"column \1", reason)
    return reason if len(reason) <= REASON_LIMIT else reason[: REASON_LIMIT - 1] + "…"
