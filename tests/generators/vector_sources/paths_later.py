# SPDX-License-Identifier: MIT
"""All rules for paths in the BuildRequest of the later schemas, on both sides of their limits."""

from __future__ import annotations

from vector_sources.parts_later import (
    ARGS,
    SYSTEM,
    constraints,
    file_at,
    inputs_dir,
    outputs,
    ro_paths,
    scratch_paths,
    working_dir,
)
from vector_sources.topic import BUILD_REQUEST, SNIX, TVIX_2024, Topic
from wire import blob

STORE = inputs_dir("nix/store")

CLEAN = {
    "one": ("one component", "a"),
    "two": ("two components", "a/b"),
    "dots_within": ("dots within names", ".a/..b/c./.../d.."),
    "long": ("components may be long", "n" * 300 + "/b"),
    "odd": ("space, newline, backslash, UTF-8", " /\n\\/€"),
}
NOT_CLEAN = {
    "slash": ("a slash alone", "/"),
    "absolute": ("absolute", "/a"),
    "slash_last": ("a slash at the end", "a/"),
    "slashes": ("two slashes", "a//b"),
    "dot": ("one dot", "."),
    "dot_first": ("one dot first", "./a"),
    "dot_within": ("one dot within", "a/./b"),
    "dot_last": ("one dot last", "a/."),
    "two_dots": ("two dots", ".."),
    "two_dots_first": ("two dots first", "../a"),
    "two_dots_within": ("two dots within", "a/../b"),
    "two_dots_last": ("two dots last", "a/.."),
    "nul": ("NUL alone", "\0"),
    "nul_within": ("NUL within", "a\0b/c"),
}


def _directories(topic: Topic) -> None:
    for name, make in (("working_dir", working_dir), ("inputs_dir", inputs_dir)):
        for label, (about, path) in CLEAN.items():
            topic.canonical(f"{name}_{label}", f"{name}: {about}", ARGS + make(path))
        for label, (about, path) in NOT_CLEAN.items():
            data = ARGS + make(path)
            topic.refused(f"{name}_{label}", f"{name}: {about}", data, ("invalid_path", name))
        topic.other_bytes(
            f"{name}_written_empty", f"{name}: empty is the default", ARGS + make(""), ARGS
        )
        topic.other_bytes(
            f"{name}_twice", f"{name}: the last one", ARGS + make("/") + make("a"), ARGS + make("a")
        )
    topic.canonical(
        "directories_alike", "both may be one", ARGS + working_dir("a") + inputs_dir("a")
    )


def _path_lists(topic: Topic) -> None:
    for name, make in (("scratch_paths", scratch_paths), ("outputs", outputs)):
        for label, (about, path) in CLEAN.items():
            topic.canonical(f"{name}_{label}", f"{name}: {about}", ARGS + make(path))
        for label, (about, path) in {**NOT_CLEAN, "empty": ("empty", "")}.items():
            topic.refused(
                f"{name}_{label}",
                f"{name}: {about}",
                ARGS + make("a", path, "zz") if path > "a" else ARGS + make(path, "a"),
                ("invalid_path", f"{name}[{int(path > 'a')}]"),
            )
        topic.canonical(
            f"{name}_ascending",
            f"{name}: by byte, a slash as any other",
            ARGS + make("a", "a-", "a/b", "a0", "a\u0080"),
        )
        topic.unsorted(
            f"{name}_unsorted",
            f"{name}: by component",
            ARGS + make("a", "a/b", "a-"),
            ARGS + make("a", "a-", "a/b"),
            f"{name}[2]",
        )
        topic.refused(
            f"{name}_duplicate",
            f"{name}: twice, and once apart",
            ARGS + make("a", "a", "b", "a"),
            ("duplicate", f"{name}[1]"),
            ("not_sorted", f"{name}[3]"),
            ("duplicate", f"{name}[3]"),
        )
    topic.canonical(
        "lists_share", "an output may be a scratch path", ARGS + scratch_paths("a") + outputs("a")
    )
    topic.canonical("output_below_output", "and below another", ARGS + outputs("a", "a/b"))


def _ro_paths(topic: Topic) -> None:
    def request(*paths: str, directory: bytes = STORE) -> bytes:
        return ARGS + directory + constraints(SYSTEM, ro_paths(*paths))

    for label, about, path in (
        ("root", "the root alone is clean", "/"),
        ("dev_kvm", "two components", "/dev/kvm"),
        ("above", "above the inputs", "/nix"),
        ("beside", "beside the inputs", "/nix/var"),
        ("begins", "a name that only begins as that of the inputs", "/nix/storefoo"),
        ("shorter", "a prefix of the inputs' name", "/nix/stor"),
        ("below_another", "the inputs' path below another", "/a/nix/store"),
        ("case", "case matters", "/NIX/store"),
    ):
        topic.canonical(f"ro_path_{label}", about, request(path))
    for label, about, path in (
        ("empty", "empty", ""),
        ("relative", "not absolute", "dev/kvm"),
        ("slash_last", "a slash at the end", "/a/"),
        ("slashes", "two slashes first", "//a"),
        ("dot", "one dot", "/."),
        ("two_dots", "two dots", "/a/.."),
        ("nul", "NUL", "/a\0"),
        ("inputs", "where the inputs are", "/nix/store"),
        ("input", "below where the inputs are", "/nix/store/x"),
        ("inputs_slash", "the inputs' path and a slash: one violation", "/nix/store/"),
        ("inputs_dots", "below, as text, with two dots: one violation", "/nix/store/.."),
    ):
        place = "constraints.available_ro_paths[0]"
        topic.refused(f"ro_path_{label}", about, request(path), ("invalid_path", place))
    topic.canonical(
        "ro_path_store",
        "/nix/store is as any path where the inputs are elsewhere",
        request("/nix/store", "/nix/store/x", directory=inputs_dir("inputs")),
    )
    topic.canonical(
        "ro_path_no_inputs_dir",
        "without inputs_dir any clean path",
        request("/", "/nix/store", directory=b""),
    )
    topic.refused(
        "ro_path_invalid_inputs_dir",
        "compared though inputs_dir is not clean",
        request("/a/.", "/b", "/b/./x", directory=inputs_dir("b/.")),
        ("invalid_path", "inputs_dir"),
        ("invalid_path", "constraints.available_ro_paths[0]"),
        ("invalid_path", "constraints.available_ro_paths[2]"),
    )
    topic.refused(
        "ro_path_inputs_dir_late",
        "inputs_dir comes behind the constraints",
        constraints(SYSTEM, ro_paths("/nix/store")) + ARGS + STORE,
        ("invalid_path", "constraints.available_ro_paths[0]"),
    )
    topic.refused(
        "ro_path_inputs_dir_twice",
        "of two, the last inputs_dir counts",
        ARGS + STORE + inputs_dir("b") + constraints(SYSTEM, ro_paths("/b", "/nix/store")),
        ("invalid_path", "constraints.available_ro_paths[0]"),
    )


def _additional_files(topic: Topic) -> None:
    for label, (about, path) in CLEAN.items():
        topic.canonical(f"file_{label}", f"path: {about}", ARGS + STORE + file_at(path, "x"))
    for label, about, path in (
        *((label, *found) for label, found in NOT_CLEAN.items()),
        ("empty", "empty", ""),
        ("inputs", "where the inputs are", "nix/store"),
        ("input", "below where the inputs are", "nix/store/x"),
        ("inputs_slash", "the inputs' path and a slash: one violation", "nix/store/"),
    ):
        data = ARGS + STORE + file_at(path)
        topic.refused(
            f"file_{label}", f"path: {about}", data, ("invalid_path", "additional_files[0].path")
        )
    topic.canonical(
        "file_beside",
        "near where the inputs are, or named like it",
        ARGS + STORE + file_at("nix/stor") + file_at("nix/store-2") + file_at("x/nix/store"),
    )
    topic.canonical(
        "file_no_inputs_dir", "without inputs_dir any clean path", ARGS + file_at("nix/store/x")
    )
    topic.canonical(
        "file_contents", "any bytes", ARGS + file_at("a", bytes(range(256))) + file_at("b")
    )
    topic.unsorted(
        "files_unsorted",
        "contents move with their paths",
        ARGS + file_at("b", "1") + file_at("a", "2"),
        ARGS + file_at("a", "2") + file_at("b", "1"),
        "additional_files[1]",
    )
    topic.refused(
        "files_duplicate",
        "one path, other contents",
        ARGS + file_at("a", "1") + file_at("a", "2"),
        ("duplicate", "additional_files[1]"),
    )
    topic.refused(
        "file_without_fields",
        "and an unknown one",
        ARGS + blob(9) + blob(9, blob(1, "a"), blob(3)),
        ("invalid_path", "additional_files[0].path"),
        ("unknown_field", "additional_files[1]"),
    )


def _topic(name: str, schema: str) -> Topic:
    about = f"paths of a BuildRequest of {schema}"
    topic = Topic(name, BUILD_REQUEST, about, schema=schema, source="paths_later")
    _directories(topic)
    _path_lists(topic)
    _ro_paths(topic)
    _additional_files(topic)
    return topic


TOPIC_2024 = _topic("paths_2024", TVIX_2024)
TOPIC_SNIX = _topic("paths_snix", SNIX)
