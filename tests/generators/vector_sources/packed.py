# SPDX-License-Identifier: MIT
"""Lists of numbers on the wire: packed or not, in pieces, padded, truncated."""

from __future__ import annotations

from vector_sources.parts import file
from vector_sources.parts_later import (
    ARGS,
    build_request,
    found,
    output,
    outputs,
    packed,
    produced,
    refscan,
)
from vector_sources.topic import BUILD, SNIX, TVIX_2024, Topic
from wire import blob, fixed32, fixed64, group, number, tag, varint

TOPIC = Topic(
    "packed", BUILD, "lists of needles: repeated uint64 fields, packed and unpacked", schema=SNIX
)
TOPIC_2024 = Topic("packed_2024", BUILD, TOPIC.about, schema=TVIX_2024, source="packed")

ENTRY = blob(1, file(""))
MESSAGE = build_request(ARGS, outputs("o"), refscan(*"abcdefgh")) + produced(file("o"))
NUMBERS = (1, 3, 7)


def _forms(field: int) -> dict[str, tuple[str, bytes]]:
    """Add encodings of 1, 3 and 7 as a list, none of them canonical."""

    def single(value: int, length: int = 0) -> bytes:
        return number(field, value, length)

    long_tag = tag(field, 2, 3)
    return {
        "single": ("all numbers unpacked", single(1) + single(3) + single(7)),
        "single_padded": (
            "all numbers unpacked, as overlong varints",
            single(1, 10) + single(3, 2) + single(7, 9),
        ),
        "single_first": ("one number unpacked, then two packed", single(1) + packed(field, 3, 7)),
        "single_last": ("two numbers packed, then one unpacked", packed(field, 1, 3) + single(7)),
        "single_between": (
            "a number unpacked between two packed fields",
            packed(field, 1) + single(3) + packed(field, 7),
        ),
        "two_packed": ("two packed fields", packed(field, 1) + packed(field, 3, 7)),
        "three_packed": (
            "three packed fields of one number each",
            b"".join(packed(field, value) for value in NUMBERS),
        ),
        "packed_empty_first": (
            "an empty packed field, then a packed field",
            blob(field) + packed(field, *NUMBERS),
        ),
        "packed_empty_last": (
            "a packed field, then an empty one",
            packed(field, *NUMBERS) + blob(field),
        ),
        "packed_empty_between": (
            "two empty packed fields between two packed fields",
            packed(field, 1) + blob(field) * 2 + packed(field, 3, 7),
        ),
        "padded": (
            "one packed field with overlong varints",
            blob(field, varint(1, 2), varint(3, 10), varint(7, 5)),
        ),
        "padded_last": (
            "one packed field whose last varint is overlong",
            blob(field, varint(1), varint(3), varint(7, 2)),
        ),
        "surplus_bits": (
            "a varint with bits above bit 63",
            blob(field, varint(1 | 63 << 64), varint(3), varint(7)),
        ),
        "tag_padded": ("an overlong tag", long_tag + packed(field, *NUMBERS)[1:]),
        "length_padded": ("an overlong length", tag(field, 2) + varint(3, 5) + bytes(NUMBERS)),
    }


def _bad_pieces(field: int) -> dict[str, tuple[str, bytes]]:
    """Add lists that do not decode."""
    return {
        "cut": ("a packed varint truncated by the end of the list", blob(field, b"\x01\x80")),
        "cut_padded": ("nine bytes of a varint without its last byte", blob(field, b"\x80" * 9)),
        "cut_before_byte": (
            "a packed varint truncated by the end of the list; the byte after it would complete it",
            blob(field, b"\xff") + b"\x01",
        ),
        "too_long": ("a packed varint of 11 bytes", blob(field, b"\x80" * 10 + b"\x00")),
        "single_too_long": ("an unpacked varint of 11 bytes", number(field, 1, 11)),
        "length_beyond": (
            "a packed field that extends beyond the end of the message",
            tag(field, 2) + b"\x7f\x01",
        ),
        "cut_in_second_packed": (
            "a truncated varint in the second packed field",
            packed(field, 1) + blob(field, b"\x80"),
        ),
    }


def _forms_vectors() -> None:
    for label, (about, list_bytes) in _forms(2).items():
        canonical = output(file(""), *NUMBERS)
        TOPIC.other_bytes(label, about, blob(1, ENTRY, list_bytes), canonical)
    for label, (about, list_bytes) in _forms(1).items():
        canonical = MESSAGE + found(*NUMBERS)
        TOPIC_2024.other_bytes(label, about, MESSAGE + blob(3, list_bytes), canonical)
    for label, (about, list_bytes) in _bad_pieces(2).items():
        TOPIC.malformed(label, about, blob(1, ENTRY, list_bytes))
    for label, (about, list_bytes) in _bad_pieces(1).items():
        TOPIC_2024.malformed(label, about, MESSAGE + blob(3, list_bytes))


_forms_vectors()

# ---- edges

TOPIC.other_bytes("empty_written", "an empty packed field", blob(1, ENTRY, blob(2)), blob(1, ENTRY))
TOPIC_2024.other_bytes(
    "empty_written", "an empty packed field", MESSAGE + blob(3, blob(1)), MESSAGE + found()
)
TOPIC.other_bytes(
    "single_only",
    "one unpacked number, whose canonical encoding is longer",
    blob(1, ENTRY, number(2, 5)),
    output(file(""), 5),
)
TOPIC.other_bytes(
    "single_in_100_outputs",
    "100 outputs with one unpacked number each; the canonical encoding of each is longer",
    blob(1, ENTRY, number(2, 5)) * 100,
    output(file(""), 5) * 100,
)
TOPIC_2024.other_bytes(
    "single_only",
    "one unpacked number, whose canonical encoding is longer",
    MESSAGE + blob(3, number(1, 5)),
    MESSAGE + found(5),
)
TOPIC.other_bytes(
    "length_grows",
    "in the canonical encoding, the lengths of the output and of the list need another byte",
    blob(1, blob(1, file("", size=2**63)), number(2, 1), packed(2, *range(2, 128)), packed(2, 128)),
    output(file("", size=2**63), *range(1, 129)),
)
TOPIC.other_bytes(
    "before_entry",
    "numbers before and after the entry",
    blob(1, packed(2, 1), ENTRY, number(2, 3), packed(2, 7)),
    output(file(""), *NUMBERS),
)
TOPIC.canonical("zero", "the number 0 in a list is written", output(file(""), 0))
TOPIC.canonical("greatest", "2^64-1", output(file(""), 2**64 - 2, 2**64 - 1))
TOPIC.canonical("127_bytes", "a packed list of 127 bytes", output(file(""), *range(127)))
TOPIC.canonical("128_bytes", "a packed list of 128 bytes", output(file(""), *range(128)))
TOPIC.canonical(
    "every_length",
    "varints of one to ten bytes",
    output(file(""), *(1 << bits for bits in range(0, 64, 7))),
)

# ---- order over pieces

TOPIC.unsorted(
    "unsorted_mixed",
    "out of order; the index continues across packed fields and unpacked numbers",
    blob(1, ENTRY, packed(2, 5, 6), number(2, 7), packed(2, 4, 3)),
    output(file(""), 3, 4, 5, 6, 7),
    "outputs[0].needles[3]",
)
TOPIC.unsorted(
    "unsorted_padded",
    "out of order: overlong varints are compared by value",
    blob(1, ENTRY, blob(2, varint(1, 10), varint(300), varint(2, 9))),
    output(file(""), 1, 2, 300),
    "outputs[0].needles[2]",
)
TOPIC.refused(
    "duplicate_padded",
    "duplicates: an overlong varint, an unpacked number, and a varint with bits above bit 63",
    blob(1, ENTRY, blob(2, varint(1), varint(1, 3)), number(2, 1), blob(2, varint(1 | 1 << 64))),
    ("duplicate", "outputs[0].needles[1]"),
    ("duplicate", "outputs[0].needles[2]"),
    ("duplicate", "outputs[0].needles[3]"),
)
TOPIC_2024.refused(
    "out_of_range_mixed",
    "numbers out of range in several packed fields and unpacked",
    MESSAGE + blob(3, packed(1, 0, 8), number(1, 9), blob(1, varint(2), varint(10, 4))),
    ("invalid_needle", "outputs_needles[0].needles[1]"),
    ("invalid_needle", "outputs_needles[0].needles[2]"),
    ("not_sorted", "outputs_needles[0].needles[3]"),
    ("invalid_needle", "outputs_needles[0].needles[4]"),
)

# ---- other wire types

for _label, _about, _field in (
    ("fixed64", "fixed64", fixed64(2, 1)),
    ("fixed32", "fixed32", fixed32(2, 1)),
    ("group", "a group", group(2, number(1, 1))),
):
    TOPIC.refused(
        f"unknown_{_label}",
        f"a needle as {_about}, which is an unknown field",
        blob(1, ENTRY, packed(2, 1), _field),
        ("unknown_field", "outputs[0]"),
    )
TOPIC.refused(
    "scalar_packed",
    "a packed field for a number that is not repeated",
    blob(1, blob(1, blob(2, blob(2, bytes(32)), packed(3, 1)))),
    ("unknown_field", "outputs[0].output.file"),
)
