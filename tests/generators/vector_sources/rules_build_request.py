# SPDX-License-Identifier: MIT
"""All rules for a BuildRequest, satisfied and violated, on both sides of their limits."""

from __future__ import annotations

from vector_sources.parts import (
    ARGS,
    DIGEST,
    SYSTEM,
    args,
    constraints,
    directory,
    env,
    file,
    inputs,
    outputs,
    ro_paths,
    symlink,
    uint,
)
from vector_sources.topic import BUILD_REQUEST, Topic
from wire import blob

TOPIC = Topic(
    "rules_build_request", BUILD_REQUEST, "rules of a BuildRequest, on both sides of their limits"
)

# ---- whole requests

TOPIC.canonical("minimal", "minimal: only command_args", ARGS)
TOPIC.canonical(
    "everything",
    "every field is set",
    args("/bin/sh", "-c", "echo hi")
    + outputs("0-a", "1-b")
    + env("A", "1")
    + env("B", b"\xff\xfe")
    + inputs(directory("2-d", size=3), file("3-f", size=7, executable=True), symlink("4-s", "/x"))
    + constraints(SYSTEM, uint(2, 1 << 30), ro_paths("/dev/kvm", "/etc")),
)

# ---- command_args

TOPIC.refused(
    "empty_message",
    "empty message: only the missing command is reported",
    b"",
    ("required", "command_args"),
)
TOPIC.refused("no_args", "outputs without a command", outputs("a"), ("required", "command_args"))
TOPIC.canonical("arg_empty", "an empty argument is allowed", args(""))
TOPIC.canonical("args_keep_order", "command_args keeps its order", args("b", "a", "c", "a"))
TOPIC.canonical(
    "arg_any_text",
    "argument: control characters, quotes, non-ASCII characters",
    args("\x01\n\"'\\=/", "é€😀"),
)
TOPIC.refused(
    "arg_nul", "argument: only a NUL", args("a", "\0"), ("invalid_arg", "command_args[1]")
)
TOPIC.refused(
    "arg_nul_within",
    "argument: NUL at the start, in the middle and at the end",
    args("\0a", "a\0b", "ab", "ab\0"),
    ("invalid_arg", "command_args[0]"),
    ("invalid_arg", "command_args[1]"),
    ("invalid_arg", "command_args[3]"),
)
TOPIC.refused(
    "arg_nul_late",
    "argument: NUL as the 1000th byte",
    args("a" * 999 + "\0" + "b" * 100),
    ("invalid_arg", "command_args[0]"),
)

# ---- names: outputs


def _name_vectors() -> None:
    good = {
        "one_byte": ("symlink target: one byte", "a"),
        "255": ("255 bytes", "n" * 255),
        "255_utf8": ("255 bytes in 85 characters", "€" * 85),
        "three_dots": ("three dots", "..."),
        "dot_first": ("starts with a dot", ".a"),
        "two_dots_first": ("starts with two dots", "..a"),
        "odd": ("space, backslash, colon, newline", " \\:\n"),
        "control": ("byte 01", "\x01"),
    }
    bad = {
        "empty": ("empty", ""),
        "256": ("256 bytes", "n" * 256),
        "256_utf8": ("256 bytes in 128 characters", "é" * 128),
        "dot": ("one dot", "."),
        "two_dots": ("two dots", ".."),
        "slash": ("only a slash", "/"),
        "slash_within": ("contains a slash", "a/b"),
        "slash_last": ("trailing slash", "a/"),
        "nul": ("argument: only a NUL", "\0"),
        "nul_last": ("trailing NUL", "a\0"),
        "nul_255th": ("NUL as the 255th byte", "n" * 254 + "\0"),
    }
    members = (("directory", directory), ("file", file), ("symlink", symlink))
    for label, (about, value) in good.items():
        TOPIC.canonical(f"output_{label}", f"output: {about}", ARGS + outputs(value))
        for member, make in members:
            data = ARGS + inputs(make(value))
            TOPIC.canonical(f"{member}_name_{label}", f"{member} name: {about}", data)
    for label, (about, value) in bad.items():
        TOPIC.refused(
            f"output_{label}",
            f"output: {about}",
            ARGS + outputs(value),
            ("invalid_name", "outputs[0]"),
        )
        for member, make in members:
            TOPIC.refused(
                f"{member}_name_{label}",
                f"{member} name: {about}",
                ARGS + inputs(make(value)),
                ("invalid_name", f"inputs[0].{member}.name"),
            )


_name_vectors()
TOPIC.canonical(
    "name_not_utf8",
    "name of a node that is not UTF-8, which is allowed",
    ARGS + inputs(file(b"\x80\xff")),
)

# ---- digests

for _length in (0, 1, 31, 33, 64):
    for _member, _make in (("directory", directory), ("file", file)):
        TOPIC.refused(
            f"{_member}_digest_{_length}",
            f"a {_member}'s digest of {_length} bytes",
            ARGS + inputs(_make("a", bytes(_length))),
            ("invalid_digest", f"inputs[0].{_member}.digest"),
        )
TOPIC.canonical(
    "digest_zeroes", "digest of 32 zero bytes", ARGS + inputs(directory("a", bytes(32)))
)
TOPIC.canonical("size_0", "size 0, which is not written", ARGS + inputs(directory("a", size=0)))
TOPIC.canonical(
    "size_greatest",
    "size 2^64-1, the maximum",
    ARGS + inputs(directory("a", size=2**64 - 1), file("b", size=2**64 - 1)),
)

# ---- symlink targets

TOPIC.canonical("target_1", "symlink target: one byte", ARGS + inputs(symlink("a", "t")))
TOPIC.canonical(
    "target_4095", "symlink target: 4095 bytes", ARGS + inputs(symlink("a", "t" * 4095))
)
TOPIC.canonical(
    "target_any",
    "symlink target: not UTF-8, not a clean path",
    ARGS + inputs(symlink("a", b"//../\xff/.")),
)
for _label, _about, _target in (
    ("empty", "empty", ""),
    ("4096", "4096 bytes", "t" * 4096),
    ("nul", "argument: only a NUL", "\0"),
    ("nul_within", "contains a NUL", "a\0b"),
    ("nul_4095th", "NUL as the 4095th byte", "t" * 4094 + "\0"),
):
    TOPIC.refused(
        f"target_{_label}",
        f"symlink target: {_about}",
        ARGS + inputs(symlink("a", _target)),
        ("invalid_symlink_target", "inputs[0].symlink.target"),
    )

# ---- nodes

TOPIC.refused("node_empty", "node without a member", ARGS + inputs(b""), ("required", "inputs[0]"))
TOPIC.refused(
    "node_empty_members",
    "empty members: name, digest and target are checked",
    ARGS + inputs(blob(1), blob(2), blob(3)),
    ("invalid_name", "inputs[0].directory.name"),
    ("invalid_digest", "inputs[0].directory.digest"),
    ("duplicate", "inputs[1]"),
    ("invalid_name", "inputs[1].file.name"),
    ("invalid_digest", "inputs[1].file.digest"),
    ("duplicate", "inputs[2]"),
    ("invalid_name", "inputs[2].symlink.name"),
    ("invalid_symlink_target", "inputs[2].symlink.target"),
)
TOPIC.refused(
    "node_empty_twice",
    "two nodes without a member: both have the empty name, so the second is a duplicate",
    ARGS + inputs(b"", file("a"), b""),
    ("required", "inputs[0]"),
    ("required", "inputs[2]"),
    ("not_sorted", "inputs[2]"),
    ("duplicate", "inputs[2]"),
)

# ---- environment variables

TOPIC.canonical(
    "env_value_empty", "empty value of a variable, which is not written", ARGS + env("A", "")
)
TOPIC.canonical(
    "env_value_any",
    "value of a variable: any bytes except NUL",
    ARGS + env("A", bytes(range(1, 256))),
)
TOPIC.canonical(
    "env_key_any", "key of a variable: any text except = and NUL", ARGS + env(" a-b/€\n")
)
for _label, _about, _key in (
    ("empty", "empty", ""),
    ("equals", "only =", "="),
    ("equals_within", "contains =", "A=B"),
    ("equals_last", "trailing =", "A="),
    ("nul", "argument: only a NUL", "\0"),
    ("nul_within", "contains a NUL", "A\0B"),
    ("both", "contains = and NUL", "=\0"),
):
    TOPIC.refused(
        f"env_key_{_label}",
        f"key: {_about}",
        ARGS + env(_key),
        ("invalid_env_key", "environment_vars[0].key"),
    )
for _label, _about, _value in (
    ("nul", "argument: only a NUL", "\0"),
    ("nul_within", "contains a NUL", "a\0b"),
    ("nul_last", "trailing NUL", b"\xff\0"),
):
    TOPIC.refused(
        f"env_value_{_label}",
        f"value: {_about}",
        ARGS + env("A", _value),
        ("invalid_env_value", "environment_vars[0].value"),
    )
TOPIC.refused(
    "env_empty",
    "variable without any field",
    ARGS + blob(3),
    ("invalid_env_key", "environment_vars[0].key"),
)

# ---- constraints

TOPIC.canonical("constraints_absent", "constraints absent", ARGS + outputs("a"))
TOPIC.canonical("system_alone", "constraints: only a system", ARGS + constraints(SYSTEM))
TOPIC.refused(
    "constraints_empty",
    "constraints present but empty: system is required",
    ARGS + constraints(),
    ("required", "constraints.system"),
)
TOPIC.refused(
    "system_written_empty",
    "constraints: an empty system, written explicitly, is no system",
    ARGS + constraints(blob(1)),
    ("required", "constraints.system"),
)
TOPIC.refused(
    "system_missing",
    "constraints: min_memory without a system",
    ARGS + constraints(uint(2, 1)),
    ("required", "constraints.system"),
)
TOPIC.canonical(
    "system_any", "constraints: a system of any text", ARGS + constraints(blob(1, "\0 €"))
)
TOPIC.canonical("memory_1", "constraints: min_memory 1", ARGS + constraints(SYSTEM, uint(2, 1)))
TOPIC.canonical("memory_greatest", "2^64-1", ARGS + constraints(SYSTEM, uint(2, 2**64 - 1)))

for _label, _about, _path in (
    ("root", "the root", "/"),
    ("dev_kvm", "two components", "/dev/kvm"),
    ("one", "one component", "/a"),
    ("dots_within", "names that contain dots", "/.a/..b/c./.../d.."),
    ("nix", "parent of the store", "/nix"),
    ("nix_var", "sibling of the store", "/nix/var"),
    ("storefoo", "/nix/store is a prefix of the text, not of the path", "/nix/storefoo"),
    ("store_dot", "the store's path with a suffix that starts with a dot", "/nix/store."),
    ("stor", "a prefix of the text of the store's path", "/nix/stor"),
    ("nix_store_below", "the store's path below another directory", "/a/nix/store/x"),
    ("store_upper", "the store's path in other case", "/NIX/store"),
    ("long", "a long component", "/" + "n" * 300),
    ("odd", "space, newline, non-ASCII characters", "/ /\n/€"),
):
    TOPIC.canonical(
        f"path_{_label}", f"host path: {_about}", ARGS + constraints(SYSTEM, ro_paths(_path))
    )
for _label, _about, _path in (
    ("empty", "empty", ""),
    ("relative", "not absolute", "a"),
    ("relative_deep", "not absolute, two components", "dev/kvm"),
    ("dot_alone", "not absolute, only a dot", "."),
    ("two_slashes", "only two slashes", "//"),
    ("slash_last", "trailing slash", "/a/"),
    ("slashes_first", "two leading slashes", "//a"),
    ("slashes_within", "two consecutive slashes", "/a//b"),
    ("dot", ". as a middle component", "/a/./b"),
    ("dot_first", ". as the first component", "/./a"),
    ("dot_last", ". as the last component", "/a/."),
    ("dot_only", ". as the only component", "/."),
    ("two_dots", ".. as a middle component", "/a/../b"),
    ("two_dots_first", ".. as the first component", "/../a"),
    ("two_dots_last", ".. as the last component", "/a/.."),
    ("two_dots_only", ".. as the only component", "/.."),
    ("nul", "contains a NUL", "/a\0b"),
    ("nul_last", "trailing NUL", "/a\0"),
    ("nul_alone", "argument: only a NUL", "\0"),
    ("store", "the store itself", "/nix/store"),
    ("store_slash", "the store with a trailing slash", "/nix/store/"),
    ("store_x", "below the store", "/nix/store/x"),
    ("store_deep", "several levels below the store", "/nix/store/x/y/z"),
    ("store_via_dots", "the store via a .. component", "/nix/x/../store"),
    ("store_unclean", "below the store, not clean", "/nix/store//x"),
):
    TOPIC.refused(
        f"path_{_label}",
        f"host path: {_about}",
        ARGS + constraints(SYSTEM, ro_paths(_path)),
        ("invalid_path", "constraints.available_ro_paths[0]"),
    )

# ---- an output that is an input

for _member, _node in (
    ("directory", directory("b")),
    ("file", file("b")),
    ("symlink", symlink("b")),
):
    TOPIC.refused(
        f"output_is_{_member}",
        f"the second output has the name of an input {_member}",
        ARGS + outputs("a", "b", "c") + inputs(_node),
        ("output_is_input", "outputs[1]"),
    )
TOPIC.canonical(
    "output_like_input",
    "output names that are a prefix of an input name",
    ARGS + outputs("a", "ab") + inputs(file("aa"), file("abc")),
)
TOPIC.refused(
    "output_is_input_far",
    "outputs with names of inputs; the inputs are not sorted",
    ARGS + outputs("a", "m") + inputs(file("z"), file("m"), file("b"), file("a")),
    ("output_is_input", "outputs[0]"),
    ("output_is_input", "outputs[1]"),
    ("not_sorted", "inputs[1]"),
)
TOPIC.refused(
    "output_is_input_each",
    "two equal outputs and two inputs with that name: one output_is_input per output",
    ARGS + outputs("a", "a") + inputs(file("a"), symlink("a")),
    ("output_is_input", "outputs[0]"),
    ("duplicate", "outputs[1]"),
    ("output_is_input", "outputs[1]"),
    ("duplicate", "inputs[1]"),
)
TOPIC.refused(
    "output_is_input_empty",
    "empty output name, and an input node without a member: both names are empty",
    ARGS + outputs("") + inputs(b""),
    ("invalid_name", "outputs[0]"),
    ("output_is_input", "outputs[0]"),
    ("required", "inputs[0]"),
)
TOPIC.refused(
    "output_is_input_invalid_name",
    "output with the invalid name of an input: invalid names are compared too",
    ARGS + outputs("..") + inputs(file("..")),
    ("invalid_name", "outputs[0]"),
    ("output_is_input", "outputs[0]"),
    ("invalid_name", "inputs[0].file.name"),
)

# ---- all violations, in order

TOPIC.refused(
    "order_of_violations",
    "violations are ordered by field, then by index, then as in the table",
    constraints(ro_paths("/z", "", ""), blob(9))
    + inputs(b"", blob(2, blob(2, b"short"), blob(1, "/"), blob(9)), file("/"))
    + env("A", "\0")
    + env("", "\0")
    + outputs("b", "/", "/")
    + args("\0")
    + blob(9),
    ("unknown_field", ""),
    ("invalid_arg", "command_args[0]"),
    ("invalid_name", "outputs[1]"),
    ("not_sorted", "outputs[1]"),
    ("output_is_input", "outputs[1]"),
    ("invalid_name", "outputs[2]"),
    ("duplicate", "outputs[2]"),
    ("output_is_input", "outputs[2]"),
    ("invalid_env_value", "environment_vars[0].value"),
    ("not_sorted", "environment_vars[1]"),
    ("invalid_env_key", "environment_vars[1].key"),
    ("invalid_env_value", "environment_vars[1].value"),
    ("required", "inputs[0]"),
    ("unknown_field", "inputs[1].file"),
    ("invalid_name", "inputs[1].file.name"),
    ("invalid_digest", "inputs[1].file.digest"),
    ("duplicate", "inputs[2]"),
    ("invalid_name", "inputs[2].file.name"),
    ("unknown_field", "constraints"),
    ("required", "constraints.system"),
    ("invalid_path", "constraints.available_ro_paths[1]"),
    ("not_sorted", "constraints.available_ro_paths[1]"),
    ("invalid_path", "constraints.available_ro_paths[2]"),
    ("duplicate", "constraints.available_ro_paths[2]"),
)
TOPIC.refused(
    "index_order",
    "violations are ordered by index as a number: 2 before 10",
    args(*(["a"] * 2 + ["\0"] + ["a"] * 7 + ["\0"])),
    ("invalid_arg", "command_args[2]"),
    ("invalid_arg", "command_args[10]"),
)
TOPIC.refused(
    "hundred_violations",
    "100 violations",
    args(*["\0"] * 100),
    *(("invalid_arg", f"command_args[{i}]") for i in range(100)),
)
TOPIC.refused(
    "hundred_and_one_violations",
    "101 violations: a tool that lists only the first 100 must count all",
    args(*["\0"] * 101),
    *(("invalid_arg", f"command_args[{i}]") for i in range(101)),
)
TOPIC.refused(
    "first_violations_last_on_wire",
    "150 violations in inputs come on the wire before the first violation in order",
    inputs(*[blob(2, blob(1, f"{i:03}"), blob(2, DIGEST[1:])) for i in range(150)])
    + outputs("/")
    + args("\0"),
    ("invalid_arg", "command_args[0]"),
    ("invalid_name", "outputs[0]"),
    *(("invalid_digest", f"inputs[{i}].file.digest") for i in range(150)),
)
