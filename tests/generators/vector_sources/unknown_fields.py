# SPDX-License-Identifier: MIT
"""Unknown fields at every level: other numbers, other wire types, groups."""

from __future__ import annotations

from collections.abc import Callable

from vector_sources.parts import (
    ARGS,
    DIGEST,
    SYSTEM,
    build_request,
    constraints,
    file,
    inputs,
    produced,
    symlink,
)
from vector_sources.topic import BUILD, BUILD_REQUEST, DIRECTORY, Topic
from wire import blob, fixed32, fixed64, group, nested_groups, number, tag

TOPIC = Topic(
    "unknown_fields", BUILD_REQUEST, "unknown fields: other field numbers, other wire types, groups"
)

# ---- every message, with an unknown number of each wire type

EXTRAS: dict[str, bytes] = {
    "varint": number(9, 0),
    "fixed64": fixed64(9),
    "bytes": blob(9),
    "group": group(9),
    "fixed32": fixed32(9),
}


Wrap = Callable[[bytes], bytes]

NAMED = blob(1, "a") + blob(2, DIGEST)
LINK = blob(1, "a") + blob(2, "t")
ASKING = build_request(ARGS, blob(2, "a"))

#: The places for a field: a name, the kind, the path of the message with the field, its depth
#: below the root, and a function that returns the message with the field.
PLACES: tuple[tuple[str, str, str, int, Wrap], ...] = (
    ("request", BUILD_REQUEST, "", 0, lambda x: ARGS + x),
    ("env", BUILD_REQUEST, "environment_vars[0]", 1, lambda x: ARGS + blob(3, blob(1, "A"), x)),
    ("input", BUILD_REQUEST, "inputs[0]", 1, lambda x: ARGS + inputs(file("a") + x)),
    (
        "input_directory",
        BUILD_REQUEST,
        "inputs[0].directory",
        2,
        lambda x: ARGS + inputs(blob(1, NAMED, x)),
    ),
    ("input_file", BUILD_REQUEST, "inputs[0].file", 2, lambda x: ARGS + inputs(blob(2, NAMED, x))),
    (
        "input_symlink",
        BUILD_REQUEST,
        "inputs[0].symlink",
        2,
        lambda x: ARGS + inputs(blob(3, LINK, x)),
    ),
    ("constraints", BUILD_REQUEST, "constraints", 1, lambda x: ARGS + constraints(SYSTEM, x)),
    ("build", BUILD, "", 0, lambda x: build_request(ARGS) + x),
    ("build_request", BUILD, "build_request", 1, lambda x: build_request(ARGS, x)),
    (
        "build_request_constraints",
        BUILD,
        "build_request.constraints",
        2,
        lambda x: build_request(ARGS, constraints(SYSTEM, x)),
    ),
    (
        "build_request_input_file",
        BUILD,
        "build_request.inputs[0].file",
        3,
        lambda x: build_request(ARGS, inputs(blob(2, NAMED, x))),
    ),
    ("output", BUILD, "outputs[0]", 1, lambda x: ASKING + produced(file("a") + x)),
    ("output_file", BUILD, "outputs[0].file", 2, lambda x: ASKING + produced(blob(2, NAMED, x))),
    ("directory", DIRECTORY, "", 0, lambda x: x),
    ("directories", DIRECTORY, "directories[0]", 1, lambda x: blob(1, NAMED, x)),
    ("files", DIRECTORY, "files[0]", 1, lambda x: blob(2, NAMED, x)),
    ("symlinks", DIRECTORY, "symlinks[0]", 1, lambda x: blob(3, LINK, x)),
)

for _label, _extra in EXTRAS.items():
    for _place, _kind, _path, _depth, _wrap in PLACES:
        TOPIC.refused(
            f"{_place}_{_label}",
            f"field 9 as {_label}, in {_place}",
            _wrap(_extra),
            ("unknown_field", _path),
            kind=_kind,
        )

# ---- place and number of unknown fields

TOPIC.refused(
    "first", "unknown field before all known fields", number(6, 1) + ARGS, ("unknown_field", "")
)
TOPIC.refused(
    "many",
    "several unknown fields in one message: reported once",
    number(6, 1) + ARGS + fixed32(7) + blob(8, "x") + group(9),
    ("unknown_field", ""),
)
TOPIC.refused(
    "nested",
    "unknown fields in four messages: each message is reported",
    ARGS
    + inputs(blob(2, blob(1, "a"), blob(2, DIGEST), blob(9)) + blob(9), symlink("b") + blob(9))
    + blob(9),
    ("unknown_field", ""),
    ("unknown_field", "inputs[0]"),
    ("unknown_field", "inputs[0].file"),
    ("unknown_field", "inputs[1]"),
)
TOPIC.refused(
    "beside_required",
    "a node with only an unknown field: it has no member",
    ARGS + inputs(blob(9)),
    ("unknown_field", "inputs[0]"),
    ("required", "inputs[0]"),
)
TOPIC.refused(
    "beside_not_sorted",
    "an unknown field and an unsorted list: there is no canonical encoding",
    ARGS + inputs(file("b"), file("a") + number(4, 0)),
    ("unknown_field", "inputs[1]"),
    ("not_sorted", "inputs[1]"),
)
for _number in (6, 15, 16, 2047, 2048, 18999, 19000, 19999, 2**28, 2**29 - 1):
    TOPIC.refused(
        f"number_{_number}",
        f"field number {_number}",
        ARGS + number(_number, 1),
        ("unknown_field", ""),
    )

# ---- known numbers with another wire type

MakeField = Callable[[int], bytes]
OTHERS: dict[str, MakeField] = {
    "varint": lambda field: number(field, 1),
    "fixed64": fixed64,
    "group": group,
    "fixed32": fixed32,
}
for _field, _name in enumerate(
    ("command_args", "outputs", "environment_vars", "inputs", "constraints"), start=1
):
    for _label, _make in OTHERS.items():
        _missing = [] if _field > 1 else [("required", "command_args")]
        TOPIC.refused(
            f"{_name}_as_{_label}",
            f"{_name} with wire type {_label}",
            (ARGS if _field > 1 else b"") + _make(_field),
            ("unknown_field", ""),
            *_missing,
        )
WITHOUT_VARINT: dict[str, MakeField] = {
    "fixed64": fixed64,
    "bytes": blob,
    "group": group,
    "fixed32": fixed32,
}
for _label, _make in WITHOUT_VARINT.items():
    TOPIC.refused(
        f"size_as_{_label}",
        f"size of a file with wire type {_label}",
        ARGS + inputs(blob(2, blob(1, "a"), blob(2, DIGEST), _make(3))),
        ("unknown_field", "inputs[0].file"),
    )
    TOPIC.refused(
        f"executable_as_{_label}",
        f"executable bit of a file with wire type {_label}",
        ARGS + inputs(blob(2, blob(1, "a"), blob(2, DIGEST), _make(4))),
        ("unknown_field", "inputs[0].file"),
    )
    TOPIC.refused(
        f"min_memory_as_{_label}",
        f"min_memory with wire type {_label}",
        ARGS + constraints(SYSTEM, _make(2)),
        ("unknown_field", "constraints"),
    )
TOPIC.refused(
    "name_as_varint",
    "name of a file with wire type varint: it is unknown, and the name is empty",
    ARGS + inputs(blob(2, number(1, 5), blob(2, DIGEST))),
    ("unknown_field", "inputs[0].file"),
    ("invalid_name", "inputs[0].file.name"),
)
TOPIC.refused(
    "executable_of_directory",
    "field 4, which is known in a file, in a directory",
    ARGS + inputs(blob(1, blob(1, "a"), blob(2, DIGEST), number(4, 1))),
    ("unknown_field", "inputs[0].directory"),
)
TOPIC.refused(
    "size_of_symlink",
    "field 3, which is known in a file, in a symlink",
    ARGS + inputs(blob(3, blob(1, "a"), blob(2, "t"), number(3, 1))),
    ("unknown_field", "inputs[0].symlink"),
)
TOPIC.refused(
    "member_as_varint",
    "field number of another member with wire type varint: the member is not replaced",
    ARGS + inputs(file("a") + number(3, 1)),
    ("unknown_field", "inputs[0]"),
)
TOPIC.refused(
    "member_as_group",
    "field number of a member with wire type group: no member is set",
    ARGS + inputs(group(2, blob(1, "a"))),
    ("unknown_field", "inputs[0]"),
    ("required", "inputs[0]"),
)

# ---- groups

TOPIC.refused(
    "group_contents_skipped",
    "unknown group with invalid UTF-8 and known field numbers, which are skipped",
    ARGS + group(9, blob(1, b"\xff"), number(2, 7), fixed32(3), fixed64(4), group(5, blob(5))),
    ("unknown_field", ""),
)
TOPIC.refused(
    "bytes_contents_skipped",
    "unknown length-delimited field whose contents do not decode: they are skipped",
    ARGS + blob(9, b"\xff\xff\xff"),
    ("unknown_field", ""),
)
TOPIC.refused(
    "group_field_0",
    "unknown group with field number 0, which upb accepts",
    ARGS + group(9, number(0, 1), fixed64(0), blob(0, "a"), group(0), fixed32(0)),
    ("unknown_field", ""),
)
TOPIC.refused(
    "group_same_number",
    "unknown group within a group with the same field number",
    ARGS + group(9, group(9), group(9)),
    ("unknown_field", ""),
)
TOPIC.refused(
    "group_long_end_tag",
    "unknown group whose end tag has five bytes",
    ARGS + tag(9, 3) + tag(9, 4, length=5),
    ("unknown_field", ""),
)
for _place, _kind, _path, _depth, _wrap in PLACES:
    TOPIC.refused(
        f"groups_{100 - _depth}_in_{_place}",
        f"nested to depth 100, the limit: {100 - _depth} groups in {_place}",
        _wrap(nested_groups(9, 100 - _depth)),
        ("unknown_field", _path),
        kind=_kind,
    )
    TOPIC.malformed(
        f"groups_{101 - _depth}_in_{_place}",
        f"nested to depth 101, above the limit: {101 - _depth} groups in {_place}",
        _wrap(nested_groups(9, 101 - _depth)),
        kind=_kind,
    )
TOPIC.refused(
    "groups_100_side_by_side",
    "two unknown groups nested to depth 100, side by side: only the depth is limited",
    ARGS + nested_groups(9, 100) + nested_groups(8, 100),
    ("unknown_field", ""),
)
TOPIC.refused(
    "groups_100_as_bytes",
    "unknown length-delimited field that contains nested groups: they do not count",
    ARGS + blob(9, nested_groups(9, 200)),
    ("unknown_field", ""),
)

# ---- groups that do not decode

for _label, _about, _bytes in (
    ("open", "without an end tag", tag(9, 3)),
    ("open_outer", "inner group with an end tag, outer group without one", tag(9, 3) + group(9)),
    ("only_end", "end tag without a start tag", tag(9, 4)),
    ("end_of_known", "end tag of a known field number without a start tag", tag(5, 4)),
    ("end_of_0", "end tag of field number 0 without a start tag", tag(0, 4)),
    ("other_end", "end tag with another field number", tag(9, 3) + tag(8, 4)),
    (
        "crossed",
        "two groups whose end tags are in the wrong order",
        tag(8, 3) + tag(9, 3) + tag(8, 4) + tag(9, 4),
    ),
    (
        "ends_after_parent",
        "starts in the constraints, ends after them",
        constraints(SYSTEM, tag(9, 3)) + tag(9, 4),
    ),
    (
        "ends_in_child",
        "starts before the constraints, ends in them",
        tag(9, 3) + constraints(SYSTEM, tag(9, 4))[:-1],
    ),
    ("number_0", "field number 0", group(0)),
    ("wire_type_6", "contains a field with wire type 6", group(9, tag(1, 6))),
    ("wire_type_7", "contains a field with wire type 7", group(9, tag(1, 7))),
    ("varint_11", "contains a varint of 11 bytes", group(9, number(1, 0, length=11))),
    (
        "varint_cut",
        "contains a truncated varint, which the end tag would complete",
        tag(9, 3) + number(1, 0, length=2)[:-1] + tag(9, 4),
    ),
    ("tag_6", "contains a tag of 6 bytes", group(9, tag(1, 0, length=6) + b"\0")),
    (
        "bytes_cut",
        "contains a length-delimited field that extends beyond the end of the message",
        group(9, tag(1, 2) + b"\x05a"),
    ),
    (
        "fixed64_cut",
        "contains a fixed64 field truncated after 7 bytes",
        tag(9, 3) + fixed64(1)[:-1],
    ),
    ("contains_end_of_0", "contains an end tag of field number 0", group(9, tag(0, 4))),
    ("end_tag_6", "end tag of 6 bytes", tag(9, 3) + tag(9, 4, length=6)),
):
    TOPIC.malformed(f"group_{_label}", f"group: {_about}", ARGS + _bytes)
