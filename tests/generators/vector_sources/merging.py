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

TOPIC = Topic("merging", BUILD_REQUEST, "fields out of order and more than once")

NAME = blob(1, "a")
NAMED = NAME + blob(2, DIGEST)


def _file_bytes(*parts: bytes) -> bytes:
    """Return a request with one input, a file with name, digest and `parts`."""
    return ARGS + inputs(blob(2, NAMED, *parts))


# ---- order of fields, and lists in pieces

TOPIC.other_bytes(
    "fields_backwards",
    "descending numbers",
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
    "elements of several lists in turn; each list in order",
    outputs("a") + args("x") + env("A") + outputs("b") + args("y") + env("B") + outputs("c"),
    args("x", "y") + outputs("a", "b", "c") + env("A") + env("B"),
)
TOPIC.unsorted(
    "lists_interleaved_unsorted",
    "indices count the elements of one list",
    outputs("b") + args("x") + env("B") + outputs("a") + args("w") + env("A"),
    args("x", "w") + outputs("a", "b") + env("A") + env("B"),
    "outputs[1]",
    "environment_vars[1]",
)
TOPIC.refused(
    "lists_interleaved_duplicate",
    "equal elements with other fields between them",
    outputs("a") + ARGS + outputs("b") + env("A") + outputs("b"),
    ("duplicate", "outputs[2]"),
)

# ---- scalars: the last wins, defaults are not written

TOPIC.other_bytes(
    "last_number",
    "a size three times",
    _file_bytes(number(3, 9), number(3, 0), number(3, 5)),
    _file_bytes(number(3, 5)),
)
TOPIC.other_bytes(
    "last_number_default",
    "a size, then 0",
    _file_bytes(number(3, 9), number(3, 0)),
    _file_bytes(),
)
TOPIC.other_bytes(
    "last_bool", "true, then false", _file_bytes(number(4, 1), number(4, 0)), _file_bytes()
)
TOPIC.other_bytes(
    "last_string",
    "a system twice",
    ARGS + constraints(blob(1, "a"), blob(1, "b")),
    ARGS + constraints(blob(1, "b")),
)
TOPIC.refused(
    "last_string_empty",
    "a system, then an empty one",
    ARGS + constraints(SYSTEM, blob(1)),
    ("required", "constraints.system"),
)
TOPIC.other_bytes(
    "last_bytes",
    "an invalid name and digest, then good ones",
    ARGS + inputs(blob(2, blob(1, "/"), blob(2, "short"), NAMED)),
    ARGS + inputs(file("a")),
)
TOPIC.refused(
    "last_bytes_bad",
    "a good digest, then an empty one",
    ARGS + inputs(blob(2, NAMED, blob(2))),
    ("invalid_digest", "inputs[0].file.digest"),
)
TOPIC.other_bytes(
    "last_env",
    "key and value twice each",
    ARGS + blob(3, blob(1, "="), blob(2, "\0"), blob(1, "A"), blob(2, "v")),
    ARGS + env("A"),
)
TOPIC.other_bytes(
    "same_value_twice",
    "the same size twice",
    _file_bytes(number(3, 5), number(3, 5)),
    _file_bytes(number(3, 5)),
)
TOPIC.unsorted(
    "last_key_sorts",
    "the last name is the one that sorts",
    ARGS + inputs(blob(2, NAMED, blob(1, "z")), file("b")),
    ARGS + inputs(file("b"), file("z")),
    "inputs[1]",
)
TOPIC.refused(
    "last_key_repeats",
    "the last name is the one that repeats",
    ARGS + inputs(blob(2, NAMED, blob(1, "b")), file("b")),
    ("duplicate", "inputs[1]"),
)
TOPIC.other_bytes(
    "defaults_explicit",
    "defaults written out: size 0, executable false, empty value, no memory",
    ARGS
    + blob(3, blob(1, "A"), blob(2))
    + inputs(blob(2, NAMED, number(3, 0), number(4, 0)))
    + constraints(SYSTEM, number(2, 0)),
    ARGS + env("A", "") + inputs(file("a")) + constraints(SYSTEM),
)
TOPIC.other_bytes(
    "default_before_value",
    "an empty name before the name",
    ARGS + inputs(blob(2, blob(1), NAMED)),
    ARGS + inputs(file("a")),
)
TOPIC.refused(
    "list_default_is_element",
    "an empty string in a list is an element",
    ARGS + outputs(""),
    ("invalid_name", "outputs[0]"),
)

# ---- embedded messages that merge

TOPIC.other_bytes(
    "merge_constraints",
    "constraints twice: numbers and strings overwritten, lists appended",
    constraints(blob(1, "a"), uint(2, 1), ro_paths("/a"))
    + ARGS
    + constraints(SYSTEM, ro_paths("/b")),
    ARGS + constraints(SYSTEM, uint(2, 1), ro_paths("/a", "/b")),
)
TOPIC.other_bytes(
    "merge_constraints_empty",
    "an empty second occurrence changes nothing",
    ARGS + constraints(SYSTEM) + constraints(),
    ARGS + constraints(SYSTEM),
)
TOPIC.other_bytes(
    "merge_constraints_first_empty",
    "an empty first occurrence",
    constraints() + ARGS + constraints(SYSTEM),
    ARGS + constraints(SYSTEM),
)
TOPIC.unsorted(
    "merge_constraints_unsorted",
    "each occurrence sorted, the merged list not",
    ARGS + constraints(SYSTEM, ro_paths("/b", "/c")) + constraints(ro_paths("/a", "/d")),
    ARGS + constraints(SYSTEM, ro_paths("/a", "/b", "/c", "/d")),
    "constraints.available_ro_paths[2]",
)
TOPIC.refused(
    "merge_constraints_duplicate",
    "the same path in both occurrences",
    ARGS + constraints(SYSTEM, ro_paths("/a")) + constraints(ro_paths("/a")),
    ("duplicate", "constraints.available_ro_paths[1]"),
)
TOPIC.refused(
    "merge_constraints_unknown",
    "unknown fields of every occurrence stay",
    ARGS + constraints(SYSTEM, blob(9)) + constraints(SYSTEM),
    ("unknown_field", "constraints"),
)
TOPIC.other_bytes(
    "merge_build_request",
    "a request in three pieces: lists appended, constraints merged within",
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
    "indices go on through the occurrences",
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
    "elements of a list stay apart: one has the key, the other the value",
    ARGS + blob(3, blob(1, "A")) + blob(3, blob(2, "v")),
    ("not_sorted", "environment_vars[1]"),
    ("invalid_env_key", "environment_vars[1].key"),
)
TOPIC.refused(
    "directory_elements_do_not_merge",
    "elements of a Directory's list stay apart",
    blob(2, NAME) + blob(2, blob(2, DIGEST)),
    ("invalid_digest", "files[0].digest"),
    ("not_sorted", "files[1]"),
    ("invalid_name", "files[1].name"),
    kind=DIRECTORY,
)

# ---- oneof

TOPIC.other_bytes(
    "oneof_same_member_merges",
    "a file in two pieces",
    ARGS + inputs(blob(2, NAME, number(3, 5)) + blob(2, blob(2, DIGEST), number(4, 1))),
    ARGS + inputs(file("a", size=5, executable=True)),
)
TOPIC.other_bytes(
    "oneof_same_member_overwrites",
    "a file, then the same member with another name",
    ARGS + inputs(file("z", size=5) + blob(2, blob(1, "a"))),
    ARGS + inputs(file("a", size=5)),
)
TOPIC.other_bytes(
    "oneof_same_member_empty",
    "a file, then the same member empty",
    ARGS + inputs(file("a") + blob(2)),
    ARGS + inputs(file("a")),
)
TOPIC.other_bytes(
    "oneof_switch",
    "a directory, then a symlink",
    ARGS + inputs(directory("z", size=5) + symlink("a")),
    ARGS + inputs(symlink("a")),
)
TOPIC.other_bytes(
    "oneof_switch_each",
    "each member in turn",
    ARGS + inputs(symlink("x") + file("y") + directory("a")),
    ARGS + inputs(directory("a")),
)
TOPIC.other_bytes(
    "oneof_there_and_back",
    "a file, a symlink, a file: nothing is left of the first",
    ARGS + inputs(file("z", size=5, executable=True) + symlink("y") + file("a")),
    ARGS + inputs(file("a")),
)
TOPIC.refused(
    "oneof_there_and_back_empty",
    "a file, a symlink, an empty file",
    ARGS + inputs(file("a") + symlink("b") + blob(2)),
    ("invalid_name", "inputs[0].file.name"),
    ("invalid_digest", "inputs[0].file.digest"),
)
TOPIC.refused(
    "oneof_switch_to_empty",
    "a file, then an empty directory",
    ARGS + inputs(file("a") + blob(1)),
    ("invalid_name", "inputs[0].directory.name"),
    ("invalid_digest", "inputs[0].directory.digest"),
)
TOPIC.other_bytes(
    "oneof_back_in_pieces",
    "a file, a symlink, then a file in two pieces",
    ARGS + inputs(file("z", size=9) + symlink("y") + blob(2, NAME) + blob(2, blob(2, DIGEST))),
    ARGS + inputs(file("a")),
)
TOPIC.other_bytes(
    "oneof_dropped_unknown",
    "an unknown field of a dropped member goes with it",
    ARGS + inputs(blob(2, NAMED, blob(9)) + symlink("a")),
    ARGS + inputs(symlink("a")),
)
TOPIC.other_bytes(
    "oneof_dropped_unknown_there_and_back",
    "an unknown field of a dropped member does not come back with the member",
    ARGS + inputs(blob(2, NAMED, blob(9)) + symlink("b") + file("a")),
    ARGS + inputs(file("a")),
)
TOPIC.refused(
    "oneof_merged_unknown",
    "an unknown field stays where the same member merges",
    ARGS + inputs(blob(2, NAMED, blob(9)) + blob(2, number(3, 5))),
    ("unknown_field", "inputs[0].file"),
)
TOPIC.refused(
    "oneof_node_unknown",
    "an unknown field of the node itself stays whatever member is set",
    ARGS + inputs(file("b") + blob(9) + symlink("a")),
    ("unknown_field", "inputs[0]"),
)
TOPIC.other_bytes(
    "oneof_dropped_invalid",
    "what was wrong in a dropped member is not reported",
    ARGS + inputs(file("/", b"") + symlink("", "") + directory("a")),
    ARGS + inputs(directory("a")),
)
TOPIC.malformed(
    "oneof_dropped_malformed",
    "what does not decode in a dropped member does not decode",
    ARGS + inputs(blob(2, NAMED, tag(3, 0)) + symlink("a")),
)
TOPIC.unsorted(
    "oneof_last_name_sorts",
    "the name of the last member is the key",
    ARGS + inputs(file("a") + symlink("c"), file("z") + directory("b")),
    ARGS + inputs(directory("b"), symlink("c")),
    "inputs[1]",
)
TOPIC.other_bytes(
    "oneof_output_node",
    "the same holds for a Build's outputs",
    build_request(ARGS, outputs("a")) + produced(directory("b") + blob(2, NAME) + file("a")),
    build_request(ARGS, outputs("a")) + produced(file("a")),
    kind=BUILD,
)
