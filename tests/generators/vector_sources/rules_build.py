# SPDX-License-Identifier: MIT
"""All rules for a Build, satisfied and violated."""

from __future__ import annotations

from vector_sources.parts import (
    ARGS,
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
)
from vector_sources.topic import BUILD, Topic
from wire import blob

TOPIC = Topic(
    "rules_build", BUILD, "rules of a Build: its request, its outputs, and their relation"
)

TOPIC.canonical("minimal", "minimal: a request without outputs", build_request(ARGS))
TOPIC.canonical(
    "everything",
    "a request with every field, and all its outputs",
    build_request(
        ARGS,
        outputs("0-a", "1-b", "2-c"),
        env("A"),
        inputs(file("3-f")),
        constraints(SYSTEM, ro_paths("/dev/kvm")),
    )
    + produced(directory("0-a", size=9), file("1-b", executable=True), symlink("2-c", "3-f")),
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
    "request_absent_with_outputs",
    "missing build_request: all outputs are unexpected",
    produced(file("a"), b""),
    ("required", "build_request"),
    ("unexpected_output", "outputs[0]"),
    ("required", "outputs[1]"),
    ("not_sorted", "outputs[1]"),
    ("unexpected_output", "outputs[1]"),
)
TOPIC.refused(
    "request_violations",
    "violations in the request have paths below build_request",
    build_request(
        args("\0"),
        outputs("/", ".."),
        env("="),
        inputs(file("/"), symlink("s", "")),
        constraints(ro_paths("/nix/store")),
        blob(9),
    )
    + produced(file("/"), file("..")),
    ("unknown_field", "build_request"),
    ("invalid_arg", "build_request.command_args[0]"),
    ("invalid_name", "build_request.outputs[0]"),
    ("output_is_input", "build_request.outputs[0]"),
    ("invalid_name", "build_request.outputs[1]"),
    ("not_sorted", "build_request.outputs[1]"),
    ("invalid_env_key", "build_request.environment_vars[0].key"),
    ("invalid_name", "build_request.inputs[0].file.name"),
    ("invalid_symlink_target", "build_request.inputs[1].symlink.target"),
    ("required", "build_request.constraints.system"),
    ("invalid_path", "build_request.constraints.available_ro_paths[0]"),
    ("invalid_name", "outputs[0].file.name"),
    ("not_sorted", "outputs[1]"),
    ("invalid_name", "outputs[1].file.name"),
)

# ---- output nodes

TOPIC.refused(
    "node_empty",
    "output node without a member: its name is empty and was not requested",
    build_request(ARGS) + produced(b""),
    ("required", "outputs[0]"),
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
TOPIC.refused(
    "unknown_fields_below",
    "unknown fields in an output node and in a symlink",
    build_request(ARGS, outputs("a", "b"))
    + produced(file("a") + blob(9), blob(3, blob(1, "b"), blob(2, "t"), blob(3, "u"))),
    ("unknown_field", "outputs[0]"),
    ("unknown_field", "outputs[1].symlink"),
)

# ---- requested and produced outputs

TOPIC.refused(
    "missing_one",
    "two requested, one produced",
    build_request(ARGS, outputs("a", "b")) + produced(file("a")),
    ("missing_output", "build_request.outputs[1]"),
)
TOPIC.refused(
    "missing_all",
    "two requested, none produced",
    build_request(ARGS, outputs("a", "b")),
    ("missing_output", "build_request.outputs[0]"),
    ("missing_output", "build_request.outputs[1]"),
)
TOPIC.refused(
    "unexpected_one",
    "one requested, two produced",
    build_request(ARGS, outputs("b")) + produced(file("a"), file("b")),
    ("unexpected_output", "outputs[0]"),
)
TOPIC.refused(
    "missing_and_unexpected",
    "one requested, another produced",
    build_request(ARGS, outputs("a")) + produced(symlink("b")),
    ("missing_output", "build_request.outputs[0]"),
    ("unexpected_output", "outputs[0]"),
)
TOPIC.refused(
    "prefixes",
    "produced names that are a prefix or an extension of the requested name",
    build_request(ARGS, outputs("ab")) + produced(file("a"), file("abc")),
    ("missing_output", "build_request.outputs[0]"),
    ("unexpected_output", "outputs[0]"),
    ("unexpected_output", "outputs[1]"),
)
TOPIC.refused(
    "missing_twice",
    "the same output requested twice and not produced: both are reported",
    build_request(ARGS, outputs("a", "a")),
    ("missing_output", "build_request.outputs[0]"),
    ("duplicate", "build_request.outputs[1]"),
    ("missing_output", "build_request.outputs[1]"),
)
TOPIC.refused(
    "duplicate_produced",
    "two output nodes with the same requested name",
    build_request(ARGS, outputs("a")) + produced(file("a"), symlink("a")),
    ("duplicate", "outputs[1]"),
)
TOPIC.refused(
    "unexpected_twice",
    "two output nodes with the same unexpected name",
    build_request(ARGS) + produced(file("a"), directory("a")),
    ("unexpected_output", "outputs[0]"),
    ("duplicate", "outputs[1]"),
    ("unexpected_output", "outputs[1]"),
)
TOPIC.refused(
    "empty_name_requested",
    "empty name requested, and a node without a member: both names are empty",
    build_request(ARGS, outputs("")) + produced(b""),
    ("invalid_name", "build_request.outputs[0]"),
    ("required", "outputs[0]"),
)
TOPIC.refused(
    "name_not_utf8",
    "produced name that is not UTF-8: it does not match the requested name",
    build_request(ARGS, outputs("é")) + produced(file(b"\xe9")),
    ("missing_output", "build_request.outputs[0]"),
    ("unexpected_output", "outputs[0]"),
)
TOPIC.canonical(
    "utf8_names",
    "non-ASCII names: the text in the request matches the bytes in the node",
    build_request(ARGS, outputs("é", "€")) + produced(file("é"), file("€")),
)
TOPIC.canonical(
    "output_not_own_input",
    "an output whose name is not the name of an input",
    build_request(ARGS, outputs("b"), inputs(file("a"))) + produced(file("b")),
)
TOPIC.refused(
    "output_is_input",
    "requested and produced output with the name of an input",
    build_request(ARGS, outputs("a"), inputs(file("a"))) + produced(file("a")),
    ("output_is_input", "build_request.outputs[0]"),
)

# ---- order

TOPIC.unsorted(
    "unsorted_produced",
    "output nodes out of order; the outputs of the request are sorted",
    build_request(ARGS, outputs("a", "b")) + produced(file("b"), file("a")),
    build_request(ARGS, outputs("a", "b")) + produced(file("a"), file("b")),
    "outputs[1]",
)
TOPIC.unsorted(
    "unsorted_everywhere",
    "all lists of a Build out of order",
    build_request(
        ARGS,
        outputs("b", "a"),
        env("B") + env("A"),
        inputs(file("d"), file("c")),
        constraints(SYSTEM, ro_paths("/b", "/a")),
    )
    + produced(symlink("b"), directory("a")),
    build_request(
        ARGS,
        outputs("a", "b"),
        env("A") + env("B"),
        inputs(file("c"), file("d")),
        constraints(SYSTEM, ro_paths("/a", "/b")),
    )
    + produced(directory("a"), symlink("b")),
    "build_request.outputs[1]",
    "build_request.environment_vars[1]",
    "build_request.inputs[1]",
    "build_request.constraints.available_ro_paths[1]",
    "outputs[1]",
)
TOPIC.other_bytes(
    "outputs_before_request",
    "fields in descending order of field number",
    produced(file("a")) + build_request(ARGS, outputs("a")),
    build_request(ARGS, outputs("a")) + produced(file("a")),
)
