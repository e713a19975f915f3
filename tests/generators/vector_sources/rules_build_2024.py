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

TOPIC = Topic("rules_build_2024", BUILD, "rules of a Build of tvix.build.v1@2024", schema=TVIX_2024)

THREE = refscan("x", "y", "z")

TOPIC.canonical("minimal", "minimal: a request without outputs", build_request(ARGS))
TOPIC.canonical(
    "everything",
    "a request with every field, all its outputs, and the needles found in them",
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

TOPIC.refused(
    "empty_message",
    "empty message: only the missing build_request is reported",
    b"",
    ("required", "build_request"),
)
TOPIC.refused(
    "request_empty",
    "empty build_request",
    build_request(),
    ("required", "build_request.command_args"),
)
TOPIC.refused(
    "request_violations",
    "violations in the request have paths below build_request",
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
    "missing build_request: all outputs are unexpected, all needles out of range",
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
    "fields in descending order of field number, the request in two parts",
    found(1)
    + produced(file("a"))
    + build_request(refscan("y"), outputs("d/a"))
    + build_request(ARGS, refscan("z")),
    build_request(ARGS, outputs("d/a"), refscan("y", "z")) + produced(file("a")) + found(1),
)

# ---- requested and produced outputs

for _label, _about, _path in (
    ("root", "requested path without a directory", "a"),
    ("below", "requested path below two directories", "b/c/a"),
    (
        "absolute",
        "absolute requested path, which is invalid; its base name matches",
        "/a",
    ),
    (
        "slashes",
        "requested path with two slashes, which is invalid; its base name matches",
        "b//a",
    ),
):
    _bad = [("invalid_path", "build_request.outputs[0]")] * (_path[0] == "/" or "//" in _path)
    _data = build_request(ARGS, outputs(_path)) + produced(file("a"))
    if _bad:
        TOPIC.refused(f"base_name_{_label}", _about, _data, *_bad)
    else:
        TOPIC.canonical(f"base_name_{_label}", _about, _data)
TOPIC.refused(
    "base_name_empty",
    "requested path with a trailing slash and a node without a member: both names are empty",
    build_request(ARGS, outputs("a/")) + produced(b""),
    ("invalid_path", "build_request.outputs[0]"),
    ("required", "outputs[0]"),
)
TOPIC.refused(
    "name_is_whole_path",
    "node named by the whole requested path instead of its base name",
    build_request(ARGS, outputs("a/b")) + produced(file("a/b")),
    ("missing_output", "build_request.outputs[0]"),
    ("unexpected_output", "outputs[0]"),
    ("invalid_name", "outputs[0].file.name"),
)
TOPIC.refused(
    "name_is_directory",
    "nodes named by the directory of the requested path, or by parts of its base name",
    build_request(ARGS, outputs("b/cd")) + produced(file("b"), file("c"), file("d")),
    ("missing_output", "build_request.outputs[0]"),
    ("unexpected_output", "outputs[0]"),
    ("unexpected_output", "outputs[1]"),
    ("unexpected_output", "outputs[2]"),
)
TOPIC.canonical(
    "one_node_for_two_outputs",
    "two requested paths with the same base name: one node matches both",
    build_request(ARGS, outputs("x/a", "y/a")) + produced(file("a")),
)
TOPIC.refused(
    "two_nodes_for_two_outputs",
    "two requested paths with the same base name, and two nodes: the second is a duplicate",
    build_request(ARGS, outputs("x/a", "y/a")) + produced(file("a"), symlink("a")),
    ("duplicate", "outputs[1]"),
)
TOPIC.refused(
    "missing_and_unexpected",
    "three missing outputs and an unexpected one",
    build_request(ARGS, outputs("1/c", "2/b", "3/a", "4/d")) + produced(file("b"), file("e")),
    ("missing_output", "build_request.outputs[0]"),
    ("missing_output", "build_request.outputs[2]"),
    ("missing_output", "build_request.outputs[3]"),
    ("unexpected_output", "outputs[1]"),
)
TOPIC.canonical(
    "order_of_base_names",
    "the order of requested paths differs from the order of their base names",
    build_request(ARGS, outputs("1/b", "2/c", "3/a"))
    + produced(file("a"), directory("b"), symlink("c")),
)
TOPIC.refused(
    "name_not_utf8",
    "produced name that is not UTF-8: it does not match the requested name",
    build_request(ARGS, outputs("d/é")) + produced(file(b"\xe9")),
    ("missing_output", "build_request.outputs[0]"),
    ("unexpected_output", "outputs[0]"),
)
TOPIC.refused(
    "node_rules",
    "invalid digests and symlink target in output nodes",
    build_request(ARGS, outputs("a", "b", "c"))
    + produced(directory("a", b""), file("b", bytes(33)), symlink("c", "")),
    ("invalid_digest", "outputs[0].directory.digest"),
    ("invalid_digest", "outputs[1].file.digest"),
    ("invalid_symlink_target", "outputs[2].symlink.target"),
)

# ---- needles

ONE = build_request(ARGS, outputs("a"), THREE) + produced(file("a"))
TWO = build_request(ARGS, outputs("a", "b"), THREE) + produced(file("a"), file("b"))

TOPIC.canonical("needles_none", "an output in which no needles were found", ONE + found())
TOPIC.canonical(
    "needles_all",
    "two outputs in which all needles were found",
    TWO + found(0, 1, 2) + found(0, 1, 2),
)
TOPIC.canonical("needles_absent", "outputs_needles is absent", TWO)
for _count in (1, 3):
    TOPIC.refused(
        f"needles_of_{_count}",
        f"two outputs, {_count} elements of outputs_needles",
        TWO + found(0) * _count,
        ("needles_mismatch", "outputs_needles"),
    )
TOPIC.refused(
    "needles_without_outputs",
    "no outputs, one element of outputs_needles",
    build_request(ARGS, THREE) + found(),
    ("needles_mismatch", "outputs_needles"),
)
TOPIC.refused(
    "needles_out_of_range",
    "indices of needles out of range: the request has three needles, so 2 is the last",
    TWO + found(2, 3, 2**64 - 1) + found(3),
    ("invalid_needle", "outputs_needles[0].needles[1]"),
    ("invalid_needle", "outputs_needles[0].needles[2]"),
    ("invalid_needle", "outputs_needles[1].needles[0]"),
)
TOPIC.refused(
    "needles_not_requested",
    "a needle was found, but the request has none",
    build_request(ARGS, outputs("a")) + produced(file("a")) + found(0),
    ("invalid_needle", "outputs_needles[0].needles[0]"),
)
TOPIC.refused(
    "needles_before_request",
    "a needle out of range; the request comes after outputs_needles on the wire",
    found(1) + produced(file("a")) + build_request(ARGS, outputs("a"), refscan("x")),
    ("invalid_needle", "outputs_needles[0].needles[0]"),
)
TOPIC.unsorted(
    "needles_unsorted",
    "needles out of order: reported once per list",
    TWO + found(2, 0, 1) + found(1, 0),
    TWO + found(0, 1, 2) + found(0, 1),
    "outputs_needles[0].needles[1]",
    "outputs_needles[1].needles[1]",
)
TOPIC.refused(
    "needles_duplicate",
    "duplicate needles, adjacent and not adjacent, some out of range",
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
    "unknown field in an element of outputs_needles",
    ONE + blob(3, packed(1, 0), number(2, 1)),
    ("unknown_field", "outputs_needles[0]"),
)
TOPIC.refused(
    "needles_mismatch_last",
    "violations of a list come before violations of its elements",
    TWO + found(3) + found() + blob(3, number(2, 1)) + number(4, 0),
    ("unknown_field", ""),
    ("needles_mismatch", "outputs_needles"),
    ("invalid_needle", "outputs_needles[0].needles[0]"),
    ("unknown_field", "outputs_needles[2]"),
)

# ---- order: the needles of an output move with the output

SORTED = build_request(ARGS, outputs("a", "b", "c"), THREE)
TOPIC.unsorted(
    "needles_sorted_with_outputs",
    "outputs out of order: needles are sorted with their outputs",
    SORTED + produced(file("c"), file("a"), file("b")) + found(2) + found(0, 1) + found(),
    SORTED + produced(file("a"), file("b"), file("c")) + found(0, 1) + found() + found(2),
    "outputs[1]",
)
TOPIC.unsorted(
    "needles_and_outputs_unsorted",
    "outputs and needles out of order",
    SORTED + produced(file("c"), file("b"), file("a")) + found(2, 1) + found() + found(1, 0),
    SORTED + produced(file("a"), file("b"), file("c")) + found(0, 1) + found() + found(1, 2),
    "outputs[1]",
    "outputs_needles[0].needles[1]",
    "outputs_needles[2].needles[1]",
)
TOPIC.unsorted(
    "outputs_unsorted_needles_absent",
    "outputs out of order, outputs_needles absent",
    SORTED + produced(symlink("c"), file("a"), directory("b")),
    SORTED + produced(file("a"), directory("b"), symlink("c")),
    "outputs[1]",
)
TOPIC.unsorted(
    "requested_outputs_unsorted",
    "requested outputs out of order, output nodes sorted: needles keep their order",
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
    "outputs_unsorted_fields_descending",
    "outputs out of order, fields in descending order of field number",
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
        "300 outputs; the name of output i and the index of its needle are 7*i mod 300",
        request
        + produced(*(file(name) for name in names))
        + b"".join(found(number) for number in numbers),
        request
        + produced(*(file(name) for name in sorted(names)))
        + b"".join(found(number) for number in range(300)),
        f"outputs[{descent}]",
    )


_long_list()
