# SPDX-License-Identifier: MIT
"""Varints, tags, lengths and fixed widths: what protobuf decodes, and the results."""

from __future__ import annotations

from vector_sources.parts import (
    ARGS,
    DIGEST,
    SYSTEM,
    args,
    constraints,
    inputs,
    outputs,
    uint,
)
from vector_sources.topic import BUILD, BUILD_REQUEST, DIRECTORY, Topic
from wire import blob, fixed32, fixed64, number, tag, varint

TOPIC = Topic(
    "decoding",
    BUILD_REQUEST,
    "wire format: varints, tags, lengths and fixed widths, valid and malformed",
)

GREATEST = 2**64 - 1

NAME = blob(1, "a")
NAMED = NAME + blob(2, DIGEST)


def _file_bytes(*parts: bytes) -> bytes:
    """Return a request with one input, a file with name, digest and `parts`."""
    return ARGS + inputs(blob(2, NAMED, *parts))


# ---- varints as values

for _length in range(2, 11):
    TOPIC.other_bytes(
        f"size_in_{_length}_bytes",
        f"file size 5 as a varint of {_length} bytes",
        _file_bytes(number(3, 5, length=_length)),
        _file_bytes(number(3, 5)),
    )
TOPIC.other_bytes(
    "size_surplus_bits_3",
    "file size with tenth byte 03: bit 63 is kept, higher bits are dropped",
    _file_bytes(tag(3, 0) + b"\x80" * 9 + b"\x03"),
    _file_bytes(number(3, 2**63)),
)
for _width in range(1, 9):
    _most = f"largest file size in a varint of length {_width}"
    _more = f"smallest file size in a varint of length {_width + 1}"
    for _label, _limit, _about in (
        ("greatest", 2 ** (7 * _width) - 1, _most),
        ("more", 2 ** (7 * _width), _more),
    ):
        TOPIC.canonical(
            f"size_of_{_width}_bytes_{_label}",
            _about,
            _file_bytes(number(3, _limit)),
        )
        TOPIC.other_bytes(
            f"size_of_{_width}_bytes_{_label}_long",
            f"{_about}, written in 10 bytes",
            _file_bytes(number(3, _limit, length=10)),
            _file_bytes(number(3, _limit)),
        )
TOPIC.other_bytes(
    "size_0_written", "file size 0 written explicitly", _file_bytes(number(3, 0)), _file_bytes()
)
TOPIC.malformed(
    "size_in_11_bytes", "file size as a varint of 11 bytes", _file_bytes(number(3, 5, length=11))
)
TOPIC.malformed(
    "size_in_11_bytes_more_follows",
    "file size as a varint of 11 bytes, followed by another field",
    _file_bytes(number(3, 5, length=11), number(4, 1)),
)
TOPIC.malformed(
    "size_in_20_bytes", "file size as a varint of 20 bytes", _file_bytes(number(3, 5, length=20))
)
TOPIC.canonical(
    "size_greatest", "file size 2^64-1, the maximum, in 10 bytes", _file_bytes(number(3, GREATEST))
)
TOPIC.canonical(
    "size_2_63",
    "file size 2^63, the smallest value that needs 10 bytes",
    _file_bytes(number(3, 2**63)),
)
TOPIC.canonical(
    "size_2_63_less_1",
    "file size 2^63-1, the largest value that fits in 9 bytes",
    _file_bytes(number(3, 2**63 - 1)),
)
TOPIC.other_bytes(
    "size_surplus_bits",
    "file size with tenth byte 7f: bits above bit 63 are dropped",
    _file_bytes(tag(3, 0) + b"\xff" * 9 + b"\x7f"),
    _file_bytes(number(3, GREATEST)),
)
TOPIC.other_bytes(
    "size_surplus_bits_only",
    "file size with tenth byte 02: only bits above bit 63 are set, so the value is 0",
    _file_bytes(tag(3, 0) + b"\x80" * 9 + b"\x02"),
    _file_bytes(),
)
TOPIC.other_bytes(
    "size_surplus_bits_7e",
    "file size with tenth byte 7e: the tenth byte contributes no bits",
    _file_bytes(tag(3, 0) + b"\x85" + b"\x80" * 8 + b"\x7e"),
    _file_bytes(number(3, 5)),
)
TOPIC.malformed(
    "size_cut", "varint truncated by the end of its message", _file_bytes(tag(3, 0) + b"\x80")
)
TOPIC.malformed(
    "size_absent", "tag without a value at the end of its message", _file_bytes(tag(3, 0))
)
TOPIC.malformed(
    "size_cut_by_parent",
    "varint truncated by the end of its message; the byte of the next field would complete it",
    inputs(blob(2, NAMED, tag(3, 0), b"\x80")) + args("a"),
)
for _memory in (127, 128, 2**14 - 1, 2**14, 2**21, 2**28, 2**32, 2**35, 2**56):
    TOPIC.canonical(
        f"min_memory_{_memory}",
        f"min_memory {_memory} as the shortest varint",
        ARGS + constraints(SYSTEM, uint(2, _memory)),
    )

# ---- bool

for _label, _about, _varint, _set in (
    ("2", "2", b"\x02", True),
    ("127", "127", b"\x7f", True),
    ("256", "256, whose low byte is 0", varint(256), True),
    ("2_32", "2^32, whose low 32 bits are 0", varint(2**32), True),
    ("2_63", "2^63", varint(2**63), True),
    ("greatest", "2^64-1", varint(GREATEST), True),
    ("1_in_10_bytes", "1 in 10 bytes", varint(1, 10), True),
    ("0_in_10_bytes", "0 in 10 bytes", varint(0, 10), False),
    ("0_in_2_bytes", "0 in 2 bytes", varint(0, 2), False),
    ("surplus_bits", "2^64: bits above bit 63 are dropped, so false", b"\x80" * 9 + b"\x02", False),
    ("0", "false, written explicitly", b"\0", False),
):
    TOPIC.other_bytes(
        f"bool_{_label}",
        f"executable: {_about}",
        _file_bytes(tag(4, 0) + _varint),
        _file_bytes(number(4, 1) if _set else b""),
    )
TOPIC.canonical("bool_1", "executable: true", _file_bytes(number(4, 1)))
TOPIC.malformed(
    "bool_11_bytes", "executable: varint of 11 bytes", _file_bytes(number(4, 1, length=11))
)

# ---- tags

for _length in range(2, 6):
    TOPIC.other_bytes(
        f"tag_in_{_length}_bytes",
        f"the tag of command_args in {_length} bytes",
        tag(1, 2, length=_length) + b"\x02sh",
        ARGS,
    )
    TOPIC.other_bytes(
        f"tag_in_{_length}_bytes_below",
        f"the tag of a file's size in {_length} bytes",
        _file_bytes(tag(3, 0, length=_length) + b"\x05"),
        _file_bytes(number(3, 5)),
    )
TOPIC.malformed("tag_in_6_bytes", "tag of 6 bytes", tag(1, 2, length=6) + b"\x02sh")
TOPIC.malformed("tag_in_10_bytes", "tag of 10 bytes", tag(1, 2, length=10) + b"\x02sh")
TOPIC.malformed(
    "tag_above_32_bits", "tag of a known field plus 2^32", ARGS + varint(1 << 32 | 10) + b"\x02sh"
)
TOPIC.malformed(
    "tag_fifth_byte_7f",
    "tag with bits above bit 31 in its fifth byte",
    ARGS + b"\x8a\x80\x80\x80\x7f\x02sh",
)
TOPIC.refused(
    "tag_of_32_bits",
    "largest tag: field number 2^29-1, wire type 5",
    ARGS + fixed32(2**29 - 1),
    ("unknown_field", ""),
)
TOPIC.malformed("tag_cut", "tag truncated by the end of the message", ARGS + b"\x8a")
TOPIC.malformed(
    "tag_cut_below",
    "tag truncated by the end of the constraints",
    ARGS + constraints(SYSTEM, b"\x92"),
)
for _label, _bytes in (
    ("varint", number(0, 0)),
    ("fixed64", fixed64(0)),
    ("bytes", blob(0, "a")),
    ("fixed32", fixed32(0)),
):
    TOPIC.malformed(f"field_0_{_label}", f"field number 0 as {_label}", ARGS + _bytes)
    TOPIC.malformed(
        f"field_0_{_label}_below",
        f"field number 0 as {_label}, in a file",
        _file_bytes(_bytes),
    )
TOPIC.malformed("field_0_long_tag", "field number 0 in a tag of 2 bytes", ARGS + b"\x80\0\0")
TOPIC.malformed("zero_after", "valid request followed by a zero byte", ARGS + b"\0")
for _wire_type in (6, 7):
    TOPIC.malformed(
        f"wire_type_{_wire_type}",
        f"wire type {_wire_type}, which does not exist, for an unknown field number",
        ARGS + tag(9, _wire_type),
    )
    TOPIC.malformed(
        f"wire_type_{_wire_type}_known",
        f"wire type {_wire_type}, which does not exist, for a known field number",
        ARGS + tag(1, _wire_type) + b"\x01a",
    )

# ---- lengths

for _length in range(2, 6):
    TOPIC.other_bytes(
        f"length_in_{_length}_bytes",
        f"length of an argument as a varint of {_length} bytes",
        tag(1, 2) + varint(2, _length) + b"sh",
        ARGS,
    )
    TOPIC.other_bytes(
        f"length_in_{_length}_bytes_message",
        f"length of the constraints as a varint of {_length} bytes",
        ARGS + tag(5, 2) + varint(len(SYSTEM), _length) + SYSTEM,
        ARGS + constraints(SYSTEM),
    )
TOPIC.malformed(
    "length_in_6_bytes",
    "length of an argument as a varint of 6 bytes",
    tag(1, 2) + varint(2, 6) + b"sh",
)
TOPIC.malformed(
    "length_in_6_bytes_message",
    "length of the constraints as a varint of 6 bytes",
    ARGS + tag(5, 2) + varint(len(SYSTEM), 6) + SYSTEM,
)
TOPIC.malformed(
    "length_0_in_6_bytes", "length 0 as a varint of 6 bytes", ARGS + tag(2, 2) + varint(0, 6)
)
TOPIC.malformed(
    "length_surplus_bits",
    "length 2^35 + 2, a varint of 6 bytes",
    tag(1, 2) + varint(1 << 35 | 2) + b"sh",
)
TOPIC.malformed(
    "length_2_32", "length 2^32 + 2 where 2 bytes follow", tag(1, 2) + varint(1 << 32 | 2) + b"sh"
)
TOPIC.malformed(
    "length_fifth_byte_70",
    "length 2 with bits above bit 31 in its fifth byte",
    tag(1, 2) + b"\x82\x80\x80\x80\x70sh",
)
for _label, _length in (
    ("2_31_less_1", 2**31 - 1),
    ("2_31", 2**31),
    ("2_32_less_1", 2**32 - 1),
    ("one_more", 3),
):
    TOPIC.malformed(
        f"length_{_label}",
        f"length {_length} where 2 bytes follow",
        ARGS + tag(1, 2) + varint(_length) + b"sh",
    )
TOPIC.malformed(
    "length_absent", "tag of a length-delimited field at the end of the message", ARGS + tag(1, 2)
)
TOPIC.malformed(
    "length_cut", "length truncated by the end of the message", ARGS + tag(1, 2) + b"\x82"
)
TOPIC.malformed(
    "length_over_parent",
    "name that extends beyond the end of its file, into the next field",
    ARGS + inputs(blob(2, tag(1, 2), b"\x05a")) + outputs("bcdef"),
)
TOPIC.malformed(
    "length_over_parent_message",
    "file that extends beyond the end of its node",
    ARGS + tag(4, 2) + b"\x02" + tag(2, 2) + b"\x05" + b"\x0a\x03abc",
)
TOPIC.malformed(
    "length_over_unknown", "truncated unknown length-delimited field", ARGS + tag(9, 2) + b"\x03ab"
)
TOPIC.other_bytes(
    "length_0",
    "empty system, followed by a non-empty one",
    ARGS + constraints(blob(1), SYSTEM),
    ARGS + constraints(SYSTEM),
)

# ---- fixed widths of unknown fields

TOPIC.malformed(
    "fixed32_cut", "unknown fixed32 field truncated after 3 bytes", ARGS + fixed32(9)[:-1]
)
TOPIC.malformed(
    "fixed64_cut", "unknown fixed64 field truncated after 7 bytes", ARGS + fixed64(9)[:-1]
)
TOPIC.malformed(
    "fixed32_over_parent",
    "unknown fixed32 field that extends beyond the end of its file",
    inputs(blob(2, NAMED, fixed32(9)[:-1])) + ARGS,
)
TOPIC.malformed(
    "unknown_varint_11", "unknown field with a varint of 11 bytes", ARGS + number(9, 0, length=11)
)
TOPIC.refused(
    "unknown_varint_10",
    "unknown field with a varint of 10 bytes that has bits above bit 63",
    ARGS + tag(9, 0) + b"\xff" * 9 + b"\x7f",
    ("unknown_field", ""),
)

# ---- damaged bytes

TOPIC.malformed(
    "malformed_is_alone",
    "malformed bytes after invalid outputs: only malformed is reported",
    outputs("/", "/") + args(b"\xff"),
)
TOPIC.malformed("truncated", "request without its last byte", _file_bytes(number(3, 5))[:-1])
TOPIC.malformed("text", "text that is not protobuf: the start of a derivation", b"Derive([(")
for _kind in (BUILD, DIRECTORY):
    TOPIC.malformed(f"zero_byte_{_kind}", "only a zero byte", b"\0", kind=_kind)
    TOPIC.malformed(f"cut_{_kind}", "only a tag", tag(1, 2), kind=_kind)
