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

TOPIC = Topic("packed", BUILD, "lists of numbers, packed or not", schema=SNIX)
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
        "single": ("one by one", single(1) + single(3) + single(7)),
        "single_padded": ("one by one, padded", single(1, 10) + single(3, 2) + single(7, 9)),
        "single_first": ("one alone, then packed", single(1) + packed(field, 3, 7)),
        "single_last": ("packed, then one alone", packed(field, 1, 3) + single(7)),
        "single_between": ("one alone between", packed(field, 1) + single(3) + packed(field, 7)),
        "pieces": ("packed in two pieces", packed(field, 1) + packed(field, 3, 7)),
        "pieces_of_one": ("pieces of one", b"".join(packed(field, value) for value in NUMBERS)),
        "piece_empty": ("an empty piece first", blob(field) + packed(field, *NUMBERS)),
        "piece_empty_last": ("an empty piece last", packed(field, *NUMBERS) + blob(field)),
        "piece_empty_between": (
            "between",
            packed(field, 1) + blob(field) * 2 + packed(field, 3, 7),
        ),
        "padded": ("padded", blob(field, varint(1, 2), varint(3, 10), varint(7, 5))),
        "padded_last": ("the last padded", blob(field, varint(1), varint(3), varint(7, 2))),
        "surplus_bits": (
            "bits above the 64th",
            blob(field, varint(1 | 63 << 64), varint(3), varint(7)),
        ),
        "tag_padded": ("a longer tag", long_tag + packed(field, *NUMBERS)[1:]),
        "length_padded": ("a longer length", tag(field, 2) + varint(3, 5) + bytes(NUMBERS)),
    }


def _bad_pieces(field: int) -> dict[str, tuple[str, bytes]]:
    """Add lists that do not decode."""
    return {
        "cut": ("a number that is cut off", blob(field, b"\x01\x80")),
        "cut_padded": ("nine bytes of a number", blob(field, b"\x80" * 9)),
        "cut_alone": ("a number without end before the next field", blob(field, b"\xff") + b"\x01"),
        "too_long": ("a number of 11 bytes", blob(field, b"\x80" * 10 + b"\x00")),
        "single_too_long": ("a number of 11 bytes, not packed", number(field, 1, 11)),
        "length_beyond": ("a piece longer than the message", tag(field, 2) + b"\x7f\x01"),
        "later_piece": ("the second piece", packed(field, 1) + blob(field, b"\x80")),
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

TOPIC.other_bytes(
    "empty_written", "no number, but a field", blob(1, ENTRY, blob(2)), blob(1, ENTRY)
)
TOPIC_2024.other_bytes(
    "empty_written", "no number, but a field", MESSAGE + blob(3, blob(1)), MESSAGE + found()
)
TOPIC.other_bytes(
    "single_alone",
    "one alone: its canonical encoding is longer",
    blob(1, ENTRY, number(2, 5)),
    output(file(""), 5),
)
TOPIC.other_bytes(
    "single_many_outputs",
    "100 outputs with one alone: each grows",
    blob(1, ENTRY, number(2, 5)) * 100,
    output(file(""), 5) * 100,
)
TOPIC_2024.other_bytes(
    "single_alone",
    "one alone: its canonical encoding is longer",
    MESSAGE + blob(3, number(1, 5)),
    MESSAGE + found(5),
)
TOPIC.other_bytes(
    "length_grows",
    "the length of the output, and of the list, needs another byte",
    blob(1, blob(1, file("", size=2**63)), number(2, 1), packed(2, *range(2, 128)), packed(2, 128)),
    output(file("", size=2**63), *range(1, 129)),
)
TOPIC.other_bytes(
    "before_entry",
    "numbers before the entry, and after it",
    blob(1, packed(2, 1), ENTRY, number(2, 3), packed(2, 7)),
    output(file(""), *NUMBERS),
)
TOPIC.canonical("zero", "the number 0 is written in a list", output(file(""), 0))
TOPIC.canonical("greatest", "2^64-1", output(file(""), 2**64 - 2, 2**64 - 1))
TOPIC.canonical("127_bytes", "a list of 127 bytes", output(file(""), *range(127)))
TOPIC.canonical("128_bytes", "a list of 128 bytes", output(file(""), *range(128)))
TOPIC.canonical(
    "every_length",
    "numbers of one to ten bytes",
    output(file(""), *(1 << bits for bits in range(0, 64, 7))),
)

# ---- order over pieces

TOPIC.unsorted(
    "unsorted_pieces",
    "the indices go on over pieces and single ones",
    blob(1, ENTRY, packed(2, 5, 6), number(2, 7), packed(2, 4, 3)),
    output(file(""), 3, 4, 5, 6, 7),
    "outputs[0].needles[3]",
)
TOPIC.unsorted(
    "unsorted_padded",
    "by number, however long",
    blob(1, ENTRY, blob(2, varint(1, 10), varint(300), varint(2, 9))),
    output(file(""), 1, 2, 300),
    "outputs[0].needles[2]",
)
TOPIC.refused(
    "duplicate_padded",
    "equal numbers, one padded, one in another piece, one with bits above the 64th",
    blob(1, ENTRY, blob(2, varint(1), varint(1, 3)), number(2, 1), blob(2, varint(1 | 1 << 64))),
    ("duplicate", "outputs[0].needles[1]"),
    ("duplicate", "outputs[0].needles[2]"),
    ("duplicate", "outputs[0].needles[3]"),
)
TOPIC_2024.refused(
    "range_over_pieces",
    "indices of what is out of range",
    MESSAGE + blob(3, packed(1, 0, 8), number(1, 9), blob(1, varint(2), varint(10, 4))),
    ("invalid_needle", "outputs_needles[0].needles[1]"),
    ("invalid_needle", "outputs_needles[0].needles[2]"),
    ("not_sorted", "outputs_needles[0].needles[3]"),
    ("invalid_needle", "outputs_needles[0].needles[4]"),
)

# ---- other wire types

for _label, _about, _field in (
    ("fixed64", "64 bits", fixed64(2, 1)),
    ("fixed32", "32 bits", fixed32(2, 1)),
    ("group", "a group", group(2, number(1, 1))),
):
    TOPIC.refused(
        f"unknown_{_label}",
        f"{_about}: neither packed nor a varint",
        blob(1, ENTRY, packed(2, 1), _field),
        ("unknown_field", "outputs[0]"),
    )
TOPIC.refused(
    "scalar_packed",
    "a number that is no list cannot be packed",
    blob(1, blob(1, blob(2, blob(2, bytes(32)), packed(3, 1)))),
    ("unknown_field", "outputs[0].output.file"),
)
