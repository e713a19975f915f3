# SPDX-License-Identifier: MIT
"""Fields in any order and repeated: the last value, merged messages, switched oneofs."""

from __future__ import annotations

from vector_sources.parts import (
    ARGS,
    DIGEST,
    SYSTEM,
    args,
    build_request,
    constraints,
    directory,
    env,
    file,
    inputs,
    outputs,
    produced,
    ro_paths,
    symlink,
    uint,
)
from vector_sources.topic import BUILD, BUILD_REQUEST, DIRECTORY, Topic
from wire import blob, number, tag

TOPIC = Topic("merging", BUILD_REQUEST, "fields out of order and repeated fields")

NAME = blob(1, "a")
NAMED = NAME + blob(2, DIGEST)


def _file_bytes(*parts: bytes) -> bytes:
    """Return a request with one input, a file with name, digest and `parts`."""
    return ARGS + inputs(blob(2, NAMED, *parts))


# ---- order of fields, and lists in pieces

TOPIC.other_bytes(
    "fields_descending",
    "fields in descending order of field number",
    constraints(uint(2, 1), SYSTEM)
    + inputs(blob(2, number(4, 1), number(3, 5), blob(2, DIGEST), NAME))
    + blob(3, blob(2, "v"), blob(1, "A"))
    + outputs("o")
    + ARGS,
    ARGS
    + outputs("o")
    + env("A")
    + inputs(file("a", size=5, executable=True))
    + constraints(SYSTEM, uint(2, 1)),
)
TOPIC.other_bytes(
    "lists_interleaved",
    "interleaved elements of several lists, each list sorted",
    outputs("a") + args("x") + env("A") + outputs("b") + args("y") + env("B") + outputs("c"),
    args("x", "y") + outputs("a", "b", "c") + env("A") + env("B"),
)
TOPIC.unsorted(
    "lists_interleaved_unsorted",
    "interleaved elements of several lists: an index counts elements of its own list only",
    outputs("b") + args("x") + env("B") + outputs("a") + args("w") + env("A"),
    args("x", "w") + outputs("a", "b") + env("A") + env("B"),
    "outputs[1]",
    "environment_vars[1]",
)
TOPIC.refused(
    "lists_interleaved_duplicate",
    "equal elements separated by other fields",
    outputs("a") + ARGS + outputs("b") + env("A") + outputs("b"),
    ("duplicate", "outputs[2]"),
)

# ---- scalars: the last wins, defaults are not written

TOPIC.other_bytes(
    "last_number",
    "size given three times: the last value counts",
    _file_bytes(number(3, 9), number(3, 0), number(3, 5)),
    _file_bytes(number(3, 5)),
)
TOPIC.other_bytes(
    "last_number_default",
    "size, then size 0: the last value counts",
    _file_bytes(number(3, 9), number(3, 0)),
    _file_bytes(),
)
TOPIC.other_bytes(
    "last_bool",
    "executable true, then false: the last value counts",
    _file_bytes(number(4, 1), number(4, 0)),
    _file_bytes(),
)
TOPIC.other_bytes(
    "last_string",
    "system given twice: the last value counts",
    ARGS + constraints(blob(1, "a"), blob(1, "b")),
    ARGS + constraints(blob(1, "b")),
)
TOPIC.refused(
    "last_string_empty",
    "system, then an empty system: the last value counts",
    ARGS + constraints(SYSTEM, blob(1)),
    ("required", "constraints.system"),
)
TOPIC.other_bytes(
    "last_bytes",
    "invalid name and digest, then valid ones: the last values count",
    ARGS + inputs(blob(2, blob(1, "/"), blob(2, "short"), NAMED)),
    ARGS + inputs(file("a")),
)
TOPIC.refused(
    "last_bytes_invalid",
    "valid digest, then an empty one: the last value counts",
    ARGS + inputs(blob(2, NAMED, blob(2))),
    ("invalid_digest", "inputs[0].file.digest"),
)
TOPIC.other_bytes(
    "last_env",
    "key and value of a variable given twice: the last values count",
    ARGS + blob(3, blob(1, "="), blob(2, "\0"), blob(1, "A"), blob(2, "v")),
    ARGS + env("A"),
)
TOPIC.other_bytes(
    "same_value_twice",
    "the same size given twice",
    _file_bytes(number(3, 5), number(3, 5)),
    _file_bytes(number(3, 5)),
)
TOPIC.unsorted(
    "last_key_sorts",
    "name given twice: the last name determines the order",
    ARGS + inputs(blob(2, NAMED, blob(1, "z")), file("b")),
    ARGS + inputs(file("b"), file("z")),
    "inputs[1]",
)
TOPIC.refused(
    "last_key_repeats",
    "name given twice: the last name is a duplicate",
    ARGS + inputs(blob(2, NAMED, blob(1, "b")), file("b")),
    ("duplicate", "inputs[1]"),
)
TOPIC.other_bytes(
    "defaults_explicit",
    "default values written explicitly: size 0, executable false, empty value, min_memory 0",
    ARGS
    + blob(3, blob(1, "A"), blob(2))
    + inputs(blob(2, NAMED, number(3, 0), number(4, 0)))
    + constraints(SYSTEM, number(2, 0)),
    ARGS + env("A", "") + inputs(file("a")) + constraints(SYSTEM),
)
TOPIC.other_bytes(
    "default_before_value",
    "empty name, then a name: the last value counts",
    ARGS + inputs(blob(2, blob(1), NAMED)),
    ARGS + inputs(file("a")),
)
TOPIC.refused(
    "list_default_is_element",
    "an empty string in a repeated field is an element",
    ARGS + outputs(""),
    ("invalid_name", "outputs[0]"),
)

# ---- embedded messages that merge

TOPIC.other_bytes(
    "merge_constraints",
    "constraints given twice: numbers and strings are overwritten, lists appended",
    constraints(blob(1, "a"), uint(2, 1), ro_paths("/a"))
    + ARGS
    + constraints(SYSTEM, ro_paths("/b")),
    ARGS + constraints(SYSTEM, uint(2, 1), ro_paths("/a", "/b")),
)
TOPIC.other_bytes(
    "merge_constraints_empty",
    "constraints, then empty constraints, which change nothing",
    ARGS + constraints(SYSTEM) + constraints(),
    ARGS + constraints(SYSTEM),
)
TOPIC.other_bytes(
    "merge_constraints_first_empty",
    "empty constraints, then constraints",
    constraints() + ARGS + constraints(SYSTEM),
    ARGS + constraints(SYSTEM),
)
TOPIC.unsorted(
    "merge_constraints_unsorted",
    "constraints given twice: both lists are sorted, the merged list is not",
    ARGS + constraints(SYSTEM, ro_paths("/b", "/c")) + constraints(ro_paths("/a", "/d")),
    ARGS + constraints(SYSTEM, ro_paths("/a", "/b", "/c", "/d")),
    "constraints.available_ro_paths[2]",
)
TOPIC.refused(
    "merge_constraints_duplicate",
    "constraints given twice, with the same path in both",
    ARGS + constraints(SYSTEM, ro_paths("/a")) + constraints(ro_paths("/a")),
    ("duplicate", "constraints.available_ro_paths[1]"),
)
TOPIC.refused(
    "merge_constraints_unknown",
    "constraints given twice: an unknown field of the first occurrence is kept",
    ARGS + constraints(SYSTEM, blob(9)) + constraints(SYSTEM),
    ("unknown_field", "constraints"),
)
TOPIC.other_bytes(
    "merge_build_request",
    "request in three parts: lists are appended, constraints merged",
    build_request(ARGS, outputs("a"), constraints(blob(1, "x"), ro_paths("/a")))
    + produced(file("a"))
    + build_request(constraints(SYSTEM), env("A"))
    + produced(file("b"))
    + build_request(outputs("b"), args("x"), constraints(ro_paths("/b"))),
    build_request(
        ARGS,
        args("x"),
        outputs("a", "b"),
        env("A"),
        constraints(SYSTEM, ro_paths("/a", "/b")),
    )
    + produced(file("a"), file("b")),
    kind=BUILD,
)
TOPIC.refused(
    "merge_build_request_indices",
    "request in two parts: indices continue in the second part",
    build_request(ARGS, outputs("a")) + build_request(args("\0"), outputs("b", "a")),
    ("invalid_arg", "build_request.command_args[1]"),
    ("missing_output", "build_request.outputs[0]"),
    ("missing_output", "build_request.outputs[1]"),
    ("not_sorted", "build_request.outputs[2]"),
    ("duplicate", "build_request.outputs[2]"),
    ("missing_output", "build_request.outputs[2]"),
    kind=BUILD,
)
TOPIC.refused(
    "elements_do_not_merge",
    "elements of a repeated field do not merge: one variable has only a key, the next only a value",
    ARGS + blob(3, blob(1, "A")) + blob(3, blob(2, "v")),
    ("not_sorted", "environment_vars[1]"),
    ("invalid_env_key", "environment_vars[1].key"),
)
TOPIC.refused(
    "directory_elements_do_not_merge",
    "elements of a repeated field of a Directory do not merge",
    blob(2, NAME) + blob(2, blob(2, DIGEST)),
    ("invalid_digest", "files[0].digest"),
    ("not_sorted", "files[1]"),
    ("invalid_name", "files[1].name"),
    kind=DIRECTORY,
)

# ---- oneof

TOPIC.other_bytes(
    "oneof_same_member_merges",
    "node: a file in two parts, which merge",
    ARGS + inputs(blob(2, NAME, number(3, 5)) + blob(2, blob(2, DIGEST), number(4, 1))),
    ARGS + inputs(file("a", size=5, executable=True)),
)
TOPIC.other_bytes(
    "oneof_same_member_overwrites",
    "node: a file, then a file with only a name, which overwrites the name",
    ARGS + inputs(file("z", size=5) + blob(2, blob(1, "a"))),
    ARGS + inputs(file("a", size=5)),
)
TOPIC.other_bytes(
    "oneof_same_member_empty",
    "node: a file, then an empty file, which changes nothing",
    ARGS + inputs(file("a") + blob(2)),
    ARGS + inputs(file("a")),
)
TOPIC.other_bytes(
    "oneof_switch",
    "node: a directory, then a symlink, which replaces it",
    ARGS + inputs(directory("z", size=5) + symlink("a")),
    ARGS + inputs(symlink("a")),
)
TOPIC.other_bytes(
    "oneof_switch_each",
    "node: a symlink, then a file, then a directory, which remains",
    ARGS + inputs(symlink("x") + file("y") + directory("a")),
    ARGS + inputs(directory("a")),
)
TOPIC.other_bytes(
    "oneof_switch_back",
    "node: a file, a symlink, a file: no field of the first file remains",
    ARGS + inputs(file("z", size=5, executable=True) + symlink("y") + file("a")),
    ARGS + inputs(file("a")),
)
TOPIC.refused(
    "oneof_switch_back_empty",
    "node: a file, a symlink, an empty file: no field of the first file remains",
    ARGS + inputs(file("a") + symlink("b") + blob(2)),
    ("invalid_name", "inputs[0].file.name"),
    ("invalid_digest", "inputs[0].file.digest"),
)
TOPIC.refused(
    "oneof_switch_to_empty",
    "node: a file, then an empty directory, which replaces it",
    ARGS + inputs(file("a") + blob(1)),
    ("invalid_name", "inputs[0].directory.name"),
    ("invalid_digest", "inputs[0].directory.digest"),
)
TOPIC.other_bytes(
    "oneof_switch_back_in_parts",
    "node: a file, a symlink, then a file in two parts, which merge",
    ARGS + inputs(file("z", size=9) + symlink("y") + blob(2, NAME) + blob(2, blob(2, DIGEST))),
    ARGS + inputs(file("a")),
)
TOPIC.other_bytes(
    "oneof_dropped_unknown",
    "node: an unknown field in a replaced member is dropped",
    ARGS + inputs(blob(2, NAMED, blob(9)) + symlink("a")),
    ARGS + inputs(symlink("a")),
)
TOPIC.other_bytes(
    "oneof_dropped_unknown_switch_back",
    "node: an unknown field in a replaced file is dropped, also if a file is set again",
    ARGS + inputs(blob(2, NAMED, blob(9)) + symlink("b") + file("a")),
    ARGS + inputs(file("a")),
)
TOPIC.refused(
    "oneof_merged_unknown",
    "node: an unknown field is kept if a member merges with the same member",
    ARGS + inputs(blob(2, NAMED, blob(9)) + blob(2, number(3, 5))),
    ("unknown_field", "inputs[0].file"),
)
TOPIC.refused(
    "oneof_node_unknown",
    "node: an unknown field of the node itself is kept if a member is replaced",
    ARGS + inputs(file("b") + blob(9) + symlink("a")),
    ("unknown_field", "inputs[0]"),
)
TOPIC.other_bytes(
    "oneof_dropped_invalid",
    "node: violations in a replaced member are not reported",
    ARGS + inputs(file("/", b"") + symlink("", "") + directory("a")),
    ARGS + inputs(directory("a")),
)
TOPIC.malformed(
    "oneof_dropped_malformed",
    "node: a malformed member is malformed even if a later member replaces it",
    ARGS + inputs(blob(2, NAMED, tag(3, 0)) + symlink("a")),
)
TOPIC.unsorted(
    "oneof_last_name_sorts",
    "node: the name of the last member determines the order",
    ARGS + inputs(file("a") + symlink("c"), file("z") + directory("b")),
    ARGS + inputs(directory("b"), symlink("c")),
    "inputs[1]",
)
TOPIC.other_bytes(
    "oneof_output_node",
    "output node of a Build: the last member replaces earlier ones",
    build_request(ARGS, outputs("a")) + produced(directory("b") + blob(2, NAME) + file("a")),
    build_request(ARGS, outputs("a")) + produced(file("a")),
    kind=BUILD,
)
