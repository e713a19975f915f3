# SPDX-License-Identifier: MIT
"""All rules for the BuildRequest of the later schemas, satisfied and violated."""

from __future__ import annotations

from vector_sources.parts import directory, file, symlink, uint
from vector_sources.parts_later import (
    ARGS,
    NETWORK_ACCESS,
    PROVIDE_BIN_SH,
    SYSTEM,
    args,
    constraints,
    env,
    file_at,
    inputs,
    inputs_dir,
    outputs,
    refscan,
    ro_paths,
    scratch_paths,
    working_dir,
)
from vector_sources.topic import BUILD_REQUEST, SNIX, TVIX_2024, Topic
from wire import blob, number

STORE = inputs_dir("nix/store")


def _whole_requests(topic: Topic) -> None:
    topic.canonical("minimal", "minimal: only command_args", ARGS)
    topic.canonical(
        "everything",
        "every field is set",
        inputs(directory("a", size=3), file("b", executable=True), symlink("c", "/x"))
        + args("/bin/sh", "-c", "echo hi")
        + working_dir("build")
        + scratch_paths("build", "nix/store")
        + STORE
        + outputs("nix/store/out", "result")
        + env("A", "1")
        + env("B", b"\xff\xfe")
        + constraints(
            SYSTEM, uint(2, 1 << 30), ro_paths("/dev/kvm"), NETWORK_ACCESS, PROVIDE_BIN_SH
        )
        + file_at("build/script", b"\0\xff")
        + file_at("etc/hosts")
        + refscan("b" * 32, "a" * 32),
    )
    topic.refused(
        "empty_message",
        "empty message: only the missing command is reported",
        b"",
        ("required", "command_args"),
    )
    topic.malformed(
        "first_schema",
        "a request of tvix.build.v1, whose command does not decode as an input",
        blob(1, "sh") + blob(2, "out"),
    )
    topic.refused("unknown_field", "unknown field 11", ARGS + number(11, 1), ("unknown_field", ""))
    topic.other_bytes(
        "descending",
        "fields in descending order of field number",
        refscan("b", "a") + env("A") + outputs("o") + working_dir("w") + ARGS,
        ARGS + working_dir("w") + outputs("o") + env("A") + refscan("b", "a"),
    )


def _constraints(topic: Topic) -> None:
    topic.refused(
        "constraints_empty",
        "constraints present but empty: system is required",
        ARGS + constraints(),
        ("required", "constraints.system"),
    )
    for label, flag in (("network_access", NETWORK_ACCESS), ("provide_bin_sh", PROVIDE_BIN_SH)):
        topic.canonical(f"{label}_true", f"{label} is set", ARGS + constraints(SYSTEM, flag))
        topic.other_bytes(
            f"{label}_2",
            f"{label}: any number except 0 is true",
            ARGS + constraints(SYSTEM, flag[:1], b"\x82\x00"),
            ARGS + constraints(SYSTEM, flag),
        )
        topic.other_bytes(
            f"{label}_false",
            f"{label}: false is not written",
            ARGS + constraints(SYSTEM, flag[:1], b"\x00"),
            ARGS + constraints(SYSTEM),
        )
    topic.unsorted(
        "ro_paths_unsorted",
        "host paths out of order",
        ARGS + constraints(SYSTEM, ro_paths("/b", "/a"), NETWORK_ACCESS),
        ARGS + constraints(SYSTEM, ro_paths("/a", "/b"), NETWORK_ACCESS),
        "constraints.available_ro_paths[1]",
    )
    topic.refused(
        "constraints_unknown",
        "unknown field 6 in the constraints",
        ARGS + constraints(SYSTEM, number(6, 1)),
        ("unknown_field", "constraints"),
    )


def _needles(topic: Topic) -> None:
    topic.canonical(
        "needles_keep_order",
        "needles keep their order and may repeat",
        ARGS + refscan("b", "a", "b"),
    )
    topic.canonical("needles_any_text", "needles of any text", ARGS + refscan("\0", "/", "€"))
    topic.refused(
        "needles_empty",
        "empty needles: each is reported",
        ARGS + refscan("", "a", ""),
        ("invalid_needle", "refscan_needles[0]"),
        ("invalid_needle", "refscan_needles[2]"),
    )
    topic.malformed("needles_not_utf8", "a needle that is not UTF-8", ARGS + refscan(b"\xff"))


def _outputs_and_inputs(topic: Topic) -> None:
    node = inputs(file("a"))
    place = ("output_is_input", "outputs[0]")
    topic.refused(
        "output_is_input",
        "output with the path of an input in inputs_dir",
        node + ARGS + STORE + outputs("nix/store/a"),
        place,
    )
    topic.canonical(
        "output_is_named_as_input",
        "outputs with the name of an input in another directory, or below an input",
        node + ARGS + STORE + outputs("a", "nix/store/a/b", "nix/store/ab", "store/a"),
    )
    topic.refused(
        "output_is_input_at_root",
        "output with the name of an input; inputs_dir is absent",
        node + ARGS + outputs("a", "x/a"),
        place,
    )
    topic.refused(
        "output_is_empty_input",
        "input node without a member, whose name is empty: it is at inputs_dir/",
        inputs(b"") + ARGS + inputs_dir("d") + outputs("d", "d/"),
        ("required", "inputs[0]"),
        ("invalid_path", "outputs[1]"),
        ("output_is_input", "outputs[1]"),
    )
    topic.refused(
        "output_is_empty_input_at_root",
        "input node without a member and an empty output: both paths are empty",
        inputs(b"") + ARGS + outputs(""),
        ("required", "inputs[0]"),
        ("invalid_path", "outputs[0]"),
        ("output_is_input", "outputs[0]"),
    )
    topic.refused(
        "output_is_input_invalid",
        "paths of outputs and inputs are compared even if they are invalid",
        inputs(file("b/c")) + ARGS + inputs_dir("/") + outputs("//b/c", "b/c"),
        ("invalid_name", "inputs[0].file.name"),
        ("invalid_path", "inputs_dir"),
        ("invalid_path", "outputs[0]"),
        ("output_is_input", "outputs[0]"),
    )
    topic.refused(
        "outputs_that_are_inputs",
        "several outputs with paths of inputs of every kind; neither list is sorted",
        inputs(symlink("c"), directory("a"), file("b"), file(b"\xff"))
        + ARGS
        + STORE
        + outputs("nix/store/b", "nix/store/d", "nix/store/a", "nix/store/c"),
        ("not_sorted", "inputs[1]"),
        ("output_is_input", "outputs[0]"),
        ("not_sorted", "outputs[2]"),
        ("output_is_input", "outputs[2]"),
        ("output_is_input", "outputs[3]"),
    )


def _carried_over(topic: Topic) -> None:
    topic.refused(
        "arg_nul",
        "argument that contains a NUL",
        args("a", "b\0"),
        ("invalid_arg", "command_args[1]"),
    )
    topic.canonical("args_keep_order", "command_args keeps its order", args("b", "a", "b"))
    topic.refused(
        "input_rules",
        "inputs: names, digests, targets, nodes without a member",
        inputs(b"", directory("a", b""), file("/"), symlink("b", "")) + ARGS,
        ("required", "inputs[0]"),
        ("invalid_digest", "inputs[1].directory.digest"),
        ("not_sorted", "inputs[2]"),
        ("invalid_name", "inputs[2].file.name"),
        ("invalid_symlink_target", "inputs[3].symlink.target"),
    )
    topic.refused(
        "env_rules",
        "environment_vars: invalid keys and values",
        ARGS + env("=", "\0") + env("A") + env("A", "w"),
        ("invalid_env_key", "environment_vars[0].key"),
        ("invalid_env_value", "environment_vars[0].value"),
        ("duplicate", "environment_vars[2]"),
    )
    topic.unsorted(
        "all_lists",
        "all lists out of order",
        inputs(file("f"), directory("e"))
        + ARGS
        + scratch_paths("b", "a")
        + outputs("d", "c")
        + env("B")
        + env("A")
        + constraints(SYSTEM, ro_paths("/h", "/g"))
        + file_at("j", "1")
        + file_at("i", "2")
        + refscan("z", "y"),
        inputs(directory("e"), file("f"))
        + ARGS
        + scratch_paths("a", "b")
        + outputs("c", "d")
        + env("A")
        + env("B")
        + constraints(SYSTEM, ro_paths("/g", "/h"))
        + file_at("i", "2")
        + file_at("j", "1")
        + refscan("z", "y"),
        *("inputs[1]", "scratch_paths[1]", "outputs[1]", "environment_vars[1]"),
        *("constraints.available_ro_paths[1]", "additional_files[1]"),
    )
    topic.refused(
        "order_of_violations",
        "violations are ordered by field, then by index, then as in the table",
        refscan("")
        + file_at("/")
        + constraints(ro_paths("/z", "", ""), number(9, 1))
        + env("")
        + outputs("b", "a", "a", "")
        + inputs_dir("/")
        + scratch_paths("..")
        + working_dir("/")
        + args("\0")
        + inputs(file("/", b""), file("a"))
        + number(99, 1),
        ("unknown_field", ""),
        ("invalid_name", "inputs[0].file.name"),
        ("invalid_digest", "inputs[0].file.digest"),
        ("invalid_arg", "command_args[0]"),
        ("invalid_path", "working_dir"),
        ("invalid_path", "scratch_paths[0]"),
        ("invalid_path", "inputs_dir"),
        ("not_sorted", "outputs[1]"),
        ("duplicate", "outputs[2]"),
        ("invalid_path", "outputs[3]"),
        ("invalid_env_key", "environment_vars[0].key"),
        ("unknown_field", "constraints"),
        ("required", "constraints.system"),
        ("invalid_path", "constraints.available_ro_paths[1]"),
        ("not_sorted", "constraints.available_ro_paths[1]"),
        ("invalid_path", "constraints.available_ro_paths[2]"),
        ("duplicate", "constraints.available_ro_paths[2]"),
        ("invalid_path", "additional_files[0].path"),
        ("invalid_needle", "refscan_needles[0]"),
    )


def _topic(name: str, schema: str) -> Topic:
    about = f"rules of a BuildRequest of {schema}, except those of paths"
    topic = Topic(name, BUILD_REQUEST, about, schema=schema, source="rules_request_later")
    _whole_requests(topic)
    _constraints(topic)
    _needles(topic)
    _outputs_and_inputs(topic)
    _carried_over(topic)
    return topic


TOPIC_2024 = _topic("rules_build_request_2024", TVIX_2024)
TOPIC_SNIX = _topic("rules_build_request_snix", SNIX)
