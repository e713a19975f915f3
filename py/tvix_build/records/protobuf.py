# SPDX-License-Identifier: MIT
"""Messages of the protobuf package: their classes, text in and text out.

Nothing is judged here; what a text says is serialized and goes to the engine as bytes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from google.protobuf import json_format, text_format

from snix.build.protos import build_pb2 as snix_build_pb2
from snix.castore.protos import castore_pb2 as snix_castore_pb2
from tvix.build.protos import build_pb2 as tvix_build_pb2
from tvix.castore.protos import castore_pb2 as tvix_castore_pb2
from tvix_build._core.report import MessageType
from tvix_build._core.text import well_formed
from tvix_build.records import strict_json, strict_text
from tvix_build.records.errors import FormatError

if TYPE_CHECKING:
    from google.protobuf.message import Message

REASON_LIMIT = 400
_CLASSES: dict[str, type[Message]] = {
    found.DESCRIPTOR.full_name: found
    for found in (
        *(tvix_build_pb2.BuildRequest, tvix_build_pb2.Build, tvix_castore_pb2.Directory),
        *(snix_build_pb2.BuildRequest, snix_build_pb2.BuildResponse, snix_castore_pb2.Directory),
    )
}
# The last tvix has no module, but snix kept its request.
_CLASSES["tvix.build.v1@2024.BuildRequest"] = snix_build_pb2.BuildRequest


class TextError(ValueError):
    """A text that is no message: `expected …, found …`, with line and column where known."""


def decode(data: bytes, kind: MessageType) -> Message:
    """The message in `data`, which must decode."""
    return class_of(kind).FromString(data)


def class_of(kind: MessageType) -> type[Message]:
    """The class of messages.

    Raises:
        FormatError: if there is none.
    """
    found = _CLASSES.get(kind.full_name)
    if found is None:
        reason = "expected a message with a Python class, to show it or to read or write text"
        raise FormatError(f"{reason}; found {kind}, of which only bytes are known")
    return found


def parse_text(text: bytes, format_name: str, kind: MessageType) -> bytes:
    """The message that a text says, serialized.

    Args:
        text: one message.
        format_name: `json`, `ndjson` (as json, but on one line) or `txtpb`.
        kind: what message it is.

    Raises:
        TextError: if it says none.
    """
    message = class_of(kind)()
    what = f"a {message.DESCRIPTOR.name} in "
    what += "protobuf's text format" if format_name == "txtpb" else "proto3 JSON"
    if format_name != "txtpb" and text.lstrip()[:1] not in (b"{", b""):
        raise TextError(f"expected {what}, found a text that does not begin with '{{'")
    try:
        if format_name == "txtpb":
            strict_text.refuse_loss(text.decode())
            text_format.Parse(text.decode(), message)
        else:
            strict_json.parse(strict_json.load(text.decode()), message)
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
    reason = well_formed(" ".join(str(error).split()).rstrip("."))
    if one_line:  # The text is a line of a larger file: its own number would mislead.
        reason = re.sub(r"\bline 1 column (\d+) \(char \d+\)", r"column \1", reason)
    return reason if len(reason) <= REASON_LIMIT else reason[: REASON_LIMIT - 1] + "…"
