# SPDX-License-Identifier: MIT
"""Messages of the protobuf package for the command line: text in, text out, fields to show.

Nothing is judged here; what a text says is serialized and goes to the engine as bytes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from google.protobuf import json_format, text_format

from tvix.build.protos import build_pb2
from tvix.castore.protos import castore_pb2
from tvix_build import Kind

if TYPE_CHECKING:
    from google.protobuf.message import Message

REASON_LIMIT = 400
_CLASSES: dict[Kind, type[Message]] = {
    Kind.BUILD_REQUEST: build_pb2.BuildRequest,
    Kind.BUILD: build_pb2.Build,
    Kind.DIRECTORY: castore_pb2.Directory,
}


class TextError(ValueError):
    """A text that is no message: `expected …, found …`, with line and column where known."""


def decode(data: bytes, kind: Kind) -> Message:
    """The message in `data`, which must decode."""
    return _CLASSES[kind].FromString(data)


def parse_text(text: bytes, format_name: str, kind: Kind) -> bytes:
    """The message that a text says, serialized.

    Args:
        text: one message.
        format_name: `json`, `ndjson` (as json, but on one line) or `txtpb`.
        kind: what message it is.

    Raises:
        TextError: if it says none.
    """
    message = _CLASSES[kind]()
    what = f"a {message.DESCRIPTOR.name} in "
    what += "protobuf's text format" if format_name == "txtpb" else "proto3 JSON"
    if format_name != "txtpb" and text.lstrip()[:1] not in (b"{", b""):
        raise TextError(f"expected {what}, found a text that does not begin with '{{'")
    try:
        if format_name == "txtpb":
            text_format.Parse(text.decode(), message)
        else:
            json_format.Parse(text.decode(), message)
        return message.SerializeToString(deterministic=True)
    except UnicodeDecodeError as error:
        found = f"the byte 0x{text[error.start]:02x}, not UTF-8, at byte {error.start} of it"
    except (text_format.ParseError, json_format.ParseError, RecursionError, ValueError) as error:
        found = _reason(error, one_line=format_name == "ndjson")
    raise TextError(f"expected {what}, found: {found}")


def write_text(message: Message, format_name: str) -> bytes:
    """A message as text that ends with a newline: `json`, `ndjson` (on one line) or `txtpb`."""
    if format_name == "txtpb":
        return text_format.MessageToString(message, as_utf8=True).encode()
    indent = None if format_name == "ndjson" else 2
    text: str = json_format.MessageToJson(message, indent=indent, ensure_ascii=False)
    return text.encode() + b"\n"


def _reason(error: Exception, one_line: bool) -> str:
    """What protobuf says of a text, on one line and not longer than REASON_LIMIT."""
    reason = " ".join(str(error).split()).rstrip(".")
    if one_line:  # The text is a line of a larger file: its own number would mislead.
        reason = re.sub(r"\bline 1 column (\d+) \(char \d+\)", r"column \1", reason)
    return reason if len(reason) <= REASON_LIMIT else reason[: REASON_LIMIT - 1] + "…"
