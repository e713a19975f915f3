# SPDX-License-Identifier: MIT
"""All rules for a BuildResponse of snix.build.v1, alone and with its request."""

from __future__ import annotations

from vector_sources.parts import DIGEST, directory, file, symlink
from vector_sources.parts_later import ARGS, output, outputs, packed, refscan
from vector_sources.topic import BUILD, SNIX, Topic
from wire import blob, number

TOPIC = Topic(
    "rules_build_snix",
    BUILD,
    "rules of a BuildResponse of snix.build.v1, alone and with its request",
    schema=SNIX,
)

FILE = file("")

TOPIC.canonical("empty", "empty message: a response without outputs", b"")
TOPIC.canonical(
    "everything",
    "outputs of every kind",
    output(directory("", size=9), 0, 1, 300)
    + output(file("", size=1, executable=True))
    + output(symlink("", "/x"), 2**64 - 1),
)
TOPIC.canonical(
    "outputs_alike", "two equal outputs: outputs have no keys", output(FILE) + output(FILE)
)

# ---- entries

TOPIC.refused("output_empty", "output without an entry", blob(1), ("required", "outputs[0].output"))
TOPIC.refused(
    "entry_empty",
    "entry without a member, followed by a valid output",
    blob(1, blob(1)) + output(FILE),
    ("required", "outputs[0].output"),
)
TOPIC.refused(
    "needles_alone",
    "output with needles but without an entry",
    output(FILE) + blob(1, packed(2, 1)),
    ("required", "outputs[1].output"),
)
for _field, _member, _make in (
    (1, "directory", directory),
    (2, "file", file),
    (3, "symlink", symlink),
):
    for _label, _name in (("a", b"a"), ("slash", b"/"), ("nul", b"\0"), ("not_utf8", b"\xff")):
        TOPIC.refused(
            f"{_member}_named_{_label}",
            f"a {_member} with a name, where an entry must have none",
            output(_make(_name)),
            ("invalid_name", f"outputs[0].output.{_member}.name"),
        )
    TOPIC.other_bytes(
        f"{_member}_name_written_empty",
        "an empty name, written explicitly",
        blob(1, blob(1, blob(_field, blob(1), _make("")[2:]))),
        output(_make("")),
    )
for _length in (0, 31, 33):
    for _member, _make in (("directory", directory), ("file", file)):
        TOPIC.refused(
            f"{_member}_digest_{_length}",
            f"a {_member}'s digest of {_length} bytes",
            output(_make("", bytes(_length))),
            ("invalid_digest", f"outputs[0].output.{_member}.digest"),
        )
TOPIC.canonical("target_4095", "symlink target: 4095 bytes", output(symlink("", "t" * 4095)))
for _label, _about, _target in (
    ("empty", "empty", ""),
    ("4096", "4096 bytes", "t" * 4096),
    ("nul", "contains a NUL", "a\0b"),
):
    TOPIC.refused(
        f"target_{_label}",
        f"symlink target: {_about}",
        output(symlink("", _target)),
        ("invalid_symlink_target", "outputs[0].output.symlink.target"),
    )
TOPIC.refused(
    "name_and_digest",
    "a file with a name and without a digest: two violations",
    output(blob(2, blob(1, "a"))),
    ("invalid_name", "outputs[0].output.file.name"),
    ("invalid_digest", "outputs[0].output.file.digest"),
)
TOPIC.refused(
    "unknown_fields",
    "unknown fields at every level",
    blob(1, blob(1, blob(2, blob(2, DIGEST), number(9, 1)), number(4, 1)), number(3, 1))
    + number(2, 1),
    ("unknown_field", ""),
    ("unknown_field", "outputs[0]"),
    ("unknown_field", "outputs[0].output"),
    ("unknown_field", "outputs[0].output.file"),
)
TOPIC.refused(
    "unknown_field_and_no_member",
    "an entry with only an unknown field",
    blob(1, blob(1, number(4, 1))),
    ("unknown_field", "outputs[0].output"),
    ("required", "outputs[0].output"),
)
TOPIC.other_bytes(
    "entry_merged",
    "an entry in two parts, needles before and between them",
    blob(1, packed(2, 1), blob(1, blob(2, number(3, 5))), packed(2, 7), blob(1, file(""))),
    output(file("", size=5), 1, 7),
)
TOPIC.other_bytes(
    "member_switched",
    "an entry with a symlink, then a file: the file replaces the symlink",
    blob(1, blob(1, symlink("x", "")), blob(1, file(""))),
    output(file("")),
)

# ---- needles

TOPIC.canonical(
    "needles_ascending",
    "needles are sorted as numbers",
    output(FILE, 2, 10, 127, 128, 255, 256, 2**63),
)
TOPIC.unsorted(
    "needles_unsorted",
    "needles out of order: reported once per output",
    output(FILE, 3, 1, 2, 0) + output(FILE, 1) + output(FILE, 256, 255),
    output(FILE, 0, 1, 2, 3) + output(FILE, 1) + output(FILE, 255, 256),
    "outputs[0].needles[1]",
    "outputs[2].needles[1]",
)
TOPIC.refused(
    "needles_duplicate",
    "duplicate needles, adjacent and not adjacent",
    output(FILE, 1, 1) + output(FILE, 0, 1, 0, 0) + output(FILE, 1),
    ("duplicate", "outputs[0].needles[1]"),
    ("not_sorted", "outputs[1].needles[2]"),
    ("duplicate", "outputs[1].needles[2]"),
    ("duplicate", "outputs[1].needles[3]"),
)


def _many_needles() -> None:
    """Add too many needles for the sort of short lists, with varints of all lengths."""
    numbers = [i * 7919 % 20011 for i in range(500)]
    descent = next(i for i in range(1, 500) if numbers[i] < numbers[i - 1])
    TOPIC.unsorted(
        "needles_five_hundred",
        "500 needles out of order; needle i is 7919*i mod 20011",
        output(FILE, *numbers),
        output(FILE, *sorted(numbers)),
        f"outputs[0].needles[{descent}]",
    )
    TOPIC.canonical(
        "needles_five_hundred_sorted", "500 needles in order", output(FILE, *sorted(numbers))
    )
    TOPIC.refused(
        "needles_five_hundred_and_one",
        "501 needles; the last is a duplicate of the first",
        output(FILE, *numbers, 0),
        ("not_sorted", f"outputs[0].needles[{descent}]"),
        ("duplicate", "outputs[0].needles[500]"),
    )


_many_needles()
TOPIC.refused(
    "hundred_and_one_duplicates",
    "101 violations: a tool that lists only the first 100 must count all",
    output(FILE, *[5] * 102),
    *(("duplicate", f"outputs[0].needles[{i}]") for i in range(1, 102)),
)

# ---- with its request

TOPIC.request = ARGS + outputs("a", "b") + refscan("x", "y", "z")
TOPIC.canonical(
    "response",
    "with its request: two outputs, as requested",
    output(FILE, 0, 1, 2) + output(directory("")),
)
TOPIC.refused(
    "response_empty",
    "with its request: no outputs",
    b"",
    ("missing_output", "outputs[0]"),
    ("missing_output", "outputs[1]"),
)
TOPIC.refused(
    "response_one_missing",
    "with its request: one of two outputs is missing",
    output(FILE),
    ("missing_output", "outputs[1]"),
)
TOPIC.refused(
    "response_two_unexpected",
    "with its request: two outputs too many, the last without an entry",
    output(FILE) * 3 + blob(1),
    ("unexpected_output", "outputs[2]"),
    ("unexpected_output", "outputs[3]"),
    ("required", "outputs[3].output"),
)
TOPIC.refused(
    "response_out_of_range",
    "with its request: needles out of range; the request has three needles, so 2 is the last",
    output(FILE, 2, 3, 2**64 - 1) + output(FILE, 4, 3, 3),
    ("invalid_needle", "outputs[0].needles[1]"),
    ("invalid_needle", "outputs[0].needles[2]"),
    ("invalid_needle", "outputs[1].needles[0]"),
    ("not_sorted", "outputs[1].needles[1]"),
    ("invalid_needle", "outputs[1].needles[1]"),
    ("duplicate", "outputs[1].needles[2]"),
    ("invalid_needle", "outputs[1].needles[2]"),
)
TOPIC.unsorted(
    "response_unsorted",
    "with its request: needles out of order",
    output(FILE, 2, 0) + output(FILE),
    output(FILE, 0, 2) + output(FILE),
    "outputs[0].needles[1]",
)
TOPIC.malformed(
    "response_malformed",
    "with its request: malformed response, so no other violation is reported",
    b"\x0a",
)
TOPIC.request = ARGS
TOPIC.canonical(
    "response_nothing_requested", "with its request: no outputs requested, none produced", b""
)
TOPIC.refused(
    "response_unrequested",
    "with its request: no outputs and no needles requested, but produced",
    output(FILE, 0),
    ("unexpected_output", "outputs[0]"),
    ("invalid_needle", "outputs[0].needles[0]"),
)
TOPIC.request = ARGS + outputs(*(f"{i:03}" for i in range(150)))
TOPIC.refused(
    "response_missing_150",
    "with its request: 150 outputs missing; a tool that lists only 100 must count all",
    b"",
    *(("missing_output", f"outputs[{i}]") for i in range(150)),
)
TOPIC.request = None
