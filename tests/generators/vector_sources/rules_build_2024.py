# SPDX-License-Identifier: MIT
"""All rules for a Build of tvix.build.v1@2024, satisfied and violated."""

from __future__ import annotations

from vector_sources.parts import directory, file, symlink
from vector_sources.parts_later import (
    ARGS,
    SYSTEM,
    args,
    build_request,
    constraints,
    env,
    file_at,
    found,
    inputs,
    inputs_dir,
    outputs,
    packed,
    produced,
    refscan,
    ro_paths,
    scratch_paths,
    working_dir,
)
from vector_sources.topic import BUILD, TVIX_2024, Topic
from wire import blob, number

TOPIC = Topic(
    "rules_build_2024", BUILD, "each rule of a Build of tvix.build.v1@2024", schema=TVIX_2024
)

THREE = refscan("x", "y", "z")

TOPIC.canonical("least", "a request without outputs", build_request(ARGS))
TOPIC.canonical(
    "everything",
    "a request with every field, all its outputs, and the needles in them",
    build_request(
        inputs(file("in")),
        ARGS,
        working_dir("build"),
        scratch_paths("build", "nix/store"),
        inputs_dir("nix/store"),
        outputs("nix/store/a", "nix/store/b", "nix/store/c"),
        env("A"),
        constraints(SYSTEM, ro_paths("/dev/kvm"), number(4, 1), number(5, 1)),
        file_at("build/f", "x"),
        THREE,
    )
    + produced(directory("a", size=9), file("b", executable=True), symlink("c", "in"))
    + found(0, 2)
    + found()
    + found(1),
)

# ---- the request

TOPIC.refused("empty_message", "no bytes at all", b"", ("required", "build_request"))
TOPIC.refused(
    "request_empty",
    "present but empty",
    build_request(),
    ("required", "build_request.command_args"),
)
TOPIC.refused(
    "request_violations",
    "the request's violations, under build_request",
    build_request(
        inputs(file("a"), file("/")),
        args("\0"),
        working_dir("/"),
        scratch_paths(""),
        inputs_dir("d"),
        outputs("/c", "d/a"),
        env("="),
        constraints(ro_paths("/d", "/d/x")),
        file_at("d/f"),
        refscan(""),
        number(11, 1),
    )
    + produced(file("a"), file("c")),
    ("unknown_field", "build_request"),
    ("not_sorted", "build_request.inputs[1]"),
    ("invalid_name", "build_request.inputs[1].file.name"),
    ("invalid_arg", "build_request.command_args[0]"),
    ("invalid_path", "build_request.working_dir"),
    ("invalid_path", "build_request.scratch_paths[0]"),
    ("invalid_path", "build_request.outputs[0]"),
    ("output_is_input", "build_request.outputs[1]"),
    ("invalid_env_key", "build_request.environment_vars[0].key"),
    ("required", "build_request.constraints.system"),
    ("invalid_path", "build_request.constraints.available_ro_paths[0]"),
    ("invalid_path", "build_request.constraints.available_ro_paths[1]"),
    ("invalid_path", "build_request.additional_files[0].path"),
    ("invalid_needle", "build_request.refscan_needles[0]"),
)
TOPIC.refused(
    "request_absent",
    "it has no outputs: outputs are unexpected, needles out of range",
    produced(file("a"), b"") + found(0) + found(),
    ("required", "build_request"),
    ("unexpected_output", "outputs[0]"),
    ("required", "outputs[1]"),
    ("not_sorted", "outputs[1]"),
    ("unexpected_output", "outputs[1]"),
    ("invalid_needle", "outputs_needles[0].needles[0]"),
)
TOPIC.other_bytes(
    "request_last",
    "fields in descending number, the request in two parts",
    found(1)
    + produced(file("a"))
    + build_request(refscan("y"), outputs("d/a"))
    + build_request(ARGS, refscan("z")),
    build_request(ARGS, outputs("d/a"), refscan("y", "z")) + produced(file("a")) + found(1),
)

# ---- requested and produced outputs

for _label, _about, _path in (
    ("root", "at the root of the build", "a"),
    ("below", "below two directories", "b/c/a"),
    ("absolute", "below the root, which is not valid", "/a"),
    ("slashes", "behind several slashes, which is not valid", "b//a"),
):
    _bad = [("invalid_path", "build_request.outputs[0]")] * (_path[0] == "/" or "//" in _path)
    _data = build_request(ARGS, outputs(_path)) + produced(file("a"))
    if _bad:
        TOPIC.refused(f"base_name_{_label}", _about, _data, *_bad)
    else:
        TOPIC.canonical(f"base_name_{_label}", _about, _data)
TOPIC.refused(
    "base_name_empty",
    "a slash at the end: the name is empty, as is that of a node without member",
    build_request(ARGS, outputs("a/")) + produced(b""),
    ("invalid_path", "build_request.outputs[0]"),
    ("required", "outputs[0]"),
)
TOPIC.refused(
    "whole_path_is_no_name",
    "the node is named by the whole path",
    build_request(ARGS, outputs("a/b")) + produced(file("a/b")),
    ("missing_output", "build_request.outputs[0]"),
    ("unexpected_output", "outputs[0]"),
    ("invalid_name", "outputs[0].file.name"),
)
TOPIC.refused(
    "directory_is_no_name",
    "another part of the path, and parts of the name",
    build_request(ARGS, outputs("b/cd")) + produced(file("b"), file("c"), file("d")),
    ("missing_output", "build_request.outputs[0]"),
    ("unexpected_output", "outputs[0]"),
    ("unexpected_output", "outputs[1]"),
    ("unexpected_output", "outputs[2]"),
)
TOPIC.canonical(
    "one_for_two",
    "two outputs with one base name: one node has both names",
    build_request(ARGS, outputs("x/a", "y/a")) + produced(file("a")),
)
TOPIC.refused(
    "two_for_two",
    "two outputs with one base name, two nodes",
    build_request(ARGS, outputs("x/a", "y/a")) + produced(file("a"), symlink("a")),
    ("duplicate", "outputs[1]"),
)
TOPIC.refused(
    "missing_and_unexpected",
    "some of each",
    build_request(ARGS, outputs("1/c", "2/b", "3/a", "4/d")) + produced(file("b"), file("e")),
    ("missing_output", "build_request.outputs[0]"),
    ("missing_output", "build_request.outputs[2]"),
    ("missing_output", "build_request.outputs[3]"),
    ("unexpected_output", "outputs[1]"),
)
TOPIC.canonical(
    "base_names_in_another_order",
    "by path b, c, a; by name a, b, c",
    build_request(ARGS, outputs("1/b", "2/c", "3/a"))
    + produced(file("a"), directory("b"), symlink("c")),
)
TOPIC.refused(
    "bytes_against_text",
    "a produced name that is not UTF-8",
    build_request(ARGS, outputs("d/é")) + produced(file(b"\xe9")),
    ("missing_output", "build_request.outputs[0]"),
    ("unexpected_output", "outputs[0]"),
)
TOPIC.refused(
    "node_rules",
    "name, digest and target of output nodes",
    build_request(ARGS, outputs("a", "b", "c"))
    + produced(directory("a", b""), file("b", bytes(33)), symlink("c", "")),
    ("invalid_digest", "outputs[0].directory.digest"),
    ("invalid_digest", "outputs[1].file.digest"),
    ("invalid_symlink_target", "outputs[2].symlink.target"),
)

# ---- needles

ONE = build_request(ARGS, outputs("a"), THREE) + produced(file("a"))
TWO = build_request(ARGS, outputs("a", "b"), THREE) + produced(file("a"), file("b"))

TOPIC.canonical("needles_none", "nothing was found", ONE + found())
TOPIC.canonical("needles_all", "all were found, in both", TWO + found(0, 1, 2) + found(0, 1, 2))
TOPIC.canonical("needles_absent", "needles of no output", TWO)
for _count in (1, 3):
    TOPIC.refused(
        f"needles_of_{_count}",
        f"two outputs, needles of {_count}",
        TWO + found(0) * _count,
        ("needles_mismatch", "outputs_needles"),
    )
TOPIC.refused(
    "needles_without_outputs",
    "no output",
    build_request(ARGS, THREE) + found(),
    ("needles_mismatch", "outputs_needles"),
)
TOPIC.refused(
    "needles_out_of_range",
    "three are requested: 3 is out of range",
    TWO + found(2, 3, 2**64 - 1) + found(3),
    ("invalid_needle", "outputs_needles[0].needles[1]"),
    ("invalid_needle", "outputs_needles[0].needles[2]"),
    ("invalid_needle", "outputs_needles[1].needles[0]"),
)
TOPIC.refused(
    "needles_not_asked_for",
    "no refscan_needles",
    build_request(ARGS, outputs("a")) + produced(file("a")) + found(0),
    ("invalid_needle", "outputs_needles[0].needles[0]"),
)
TOPIC.refused(
    "needles_asked_for_late",
    "the request comes behind what was found",
    found(1) + produced(file("a")) + build_request(ARGS, outputs("a"), refscan("x")),
    ("invalid_needle", "outputs_needles[0].needles[0]"),
)
TOPIC.unsorted(
    "needles_unsorted",
    "out of order, reported once a list",
    TWO + found(2, 0, 1) + found(1, 0),
    TWO + found(0, 1, 2) + found(0, 1),
    "outputs_needles[0].needles[1]",
    "outputs_needles[1].needles[1]",
)
TOPIC.refused(
    "needles_duplicate",
    "equal to one before, next to it or not, and out of range",
    ONE + found(0, 2, 2, 0, 9, 9),
    ("duplicate", "outputs_needles[0].needles[2]"),
    ("not_sorted", "outputs_needles[0].needles[3]"),
    ("duplicate", "outputs_needles[0].needles[3]"),
    ("invalid_needle", "outputs_needles[0].needles[4]"),
    ("duplicate", "outputs_needles[0].needles[5]"),
    ("invalid_needle", "outputs_needles[0].needles[5]"),
)
TOPIC.refused(
    "needles_unknown_field",
    "field 2 of what was found in an output",
    ONE + blob(3, packed(1, 0), number(2, 1)),
    ("unknown_field", "outputs_needles[0]"),
)
TOPIC.refused(
    "needles_mismatch_last",
    "a place comes before what is in it",
    TWO + found(3) + found() + blob(3, number(2, 1)) + number(4, 0),
    ("unknown_field", ""),
    ("needles_mismatch", "outputs_needles"),
    ("invalid_needle", "outputs_needles[0].needles[0]"),
    ("unknown_field", "outputs_needles[2]"),
)

# ---- order: the needles of an output move with the output

SORTED = build_request(ARGS, outputs("a", "b", "c"), THREE)
TOPIC.unsorted(
    "needles_move",
    "outputs c, a, b",
    SORTED + produced(file("c"), file("a"), file("b")) + found(2) + found(0, 1) + found(),
    SORTED + produced(file("a"), file("b"), file("c")) + found(0, 1) + found() + found(2),
    "outputs[1]",
)
TOPIC.unsorted(
    "needles_move_and_are_sorted",
    "both outputs and needles are out of order",
    SORTED + produced(file("c"), file("b"), file("a")) + found(2, 1) + found() + found(1, 0),
    SORTED + produced(file("a"), file("b"), file("c")) + found(0, 1) + found() + found(1, 2),
    "outputs[1]",
    "outputs_needles[0].needles[1]",
    "outputs_needles[2].needles[1]",
)
TOPIC.unsorted(
    "outputs_move_alone",
    "needles are not compared",
    SORTED + produced(symlink("c"), file("a"), directory("b")),
    SORTED + produced(file("a"), directory("b"), symlink("c")),
    "outputs[1]",
)
TOPIC.unsorted(
    "needles_stay",
    "the outputs of the request move, those of the Build are in order",
    build_request(ARGS, outputs("b", "a"), THREE)
    + produced(file("a"), file("b"))
    + found(1)
    + found(),
    build_request(ARGS, outputs("a", "b"), THREE)
    + produced(file("a"), file("b"))
    + found(1)
    + found(),
    "build_request.outputs[1]",
)
TOPIC.unsorted(
    "needles_move_late",
    "fields in descending number",
    found(2)
    + found(1)
    + produced(file("b"), file("a"))
    + build_request(THREE, outputs("a", "b"), ARGS),
    build_request(ARGS, outputs("a", "b"), THREE)
    + produced(file("a"), file("b"))
    + found(1)
    + found(2),
    "outputs[1]",
)


def _long_list() -> None:
    """Add 300 outputs in a fixed unsorted order: too many for the sort of short lists."""
    numbers = [i * 7 % 300 for i in range(300)]
    names = [f"{number:03}" for number in numbers]
    descent = next(i for i in range(1, 300) if names[i] < names[i - 1])
    request = build_request(
        ARGS, outputs(*sorted(names)), refscan(*(f"n{number}" for number in range(300)))
    )
    TOPIC.unsorted(
        "three_hundred",
        "300 outputs, the i-th named by the number 7 i mod 300, which is also what was found in it",
        request
        + produced(*(file(name) for name in names))
        + b"".join(found(number) for number in numbers),
        request
        + produced(*(file(name) for name in sorted(names)))
        + b"".join(found(number) for number in range(300)),
        f"outputs[{descent}]",
    )


_long_list()
