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
    "dots_within": ("names that contain dots", ".a/..b/c./.../d.."),
    "long": ("a long component", "n" * 300 + "/b"),
    "odd": ("space, newline, backslash, non-ASCII characters", " /\n\\/€"),
}
NOT_CLEAN = {
    "slash": ("only a slash", "/"),
    "absolute": ("absolute", "/a"),
    "slash_last": ("trailing slash", "a/"),
    "slashes": ("two consecutive slashes", "a//b"),
    "dot": (". alone", "."),
    "dot_first": (". as the first component", "./a"),
    "dot_within": (". as a middle component", "a/./b"),
    "dot_last": (". as the last component", "a/."),
    "two_dots": (".. alone", ".."),
    "two_dots_first": (".. as the first component", "../a"),
    "two_dots_within": (".. as a middle component", "a/../b"),
    "two_dots_last": (".. as the last component", "a/.."),
    "nul": ("only a NUL", "\0"),
    "nul_within": ("contains a NUL", "a\0b/c"),
}


def _directories(topic: Topic) -> None:
    for name, make in (("working_dir", working_dir), ("inputs_dir", inputs_dir)):
        for label, (about, path) in CLEAN.items():
            topic.canonical(f"{name}_{label}", f"{name}: {about}", ARGS + make(path))
        for label, (about, path) in NOT_CLEAN.items():
            data = ARGS + make(path)
            topic.refused(f"{name}_{label}", f"{name}: {about}", data, ("invalid_path", name))
        topic.other_bytes(
            f"{name}_written_empty",
            f"{name}: empty value written explicitly",
            ARGS + make(""),
            ARGS,
        )
        topic.other_bytes(
            f"{name}_twice",
            f"{name}: given twice, the last value counts",
            ARGS + make("/") + make("a"),
            ARGS + make("a"),
        )
    topic.canonical(
        "directories_alike",
        "working_dir and inputs_dir are equal",
        ARGS + working_dir("a") + inputs_dir("a"),
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
            f"{name}: sorted by byte; a slash is a byte like any other",
            ARGS + make("a", "a-", "a/b", "a0", "a\u0080"),
        )
        topic.unsorted(
            f"{name}_unsorted",
            f"{name}: sorted by component, not by byte",
            ARGS + make("a", "a/b", "a-"),
            ARGS + make("a", "a-", "a/b"),
            f"{name}[2]",
        )
        topic.refused(
            f"{name}_duplicate",
            f"{name}: duplicates, adjacent and not adjacent",
            ARGS + make("a", "a", "b", "a"),
            ("duplicate", f"{name}[1]"),
            ("not_sorted", f"{name}[3]"),
            ("duplicate", f"{name}[3]"),
        )
    topic.canonical(
        "lists_share",
        "an output that is also a scratch path",
        ARGS + scratch_paths("a") + outputs("a"),
    )
    topic.canonical(
        "output_below_output", "an output below another output", ARGS + outputs("a", "a/b")
    )


def _ro_paths(topic: Topic) -> None:
    def request(*paths: str, directory: bytes = STORE) -> bytes:
        return ARGS + directory + constraints(SYSTEM, ro_paths(*paths))

    for label, about, path in (
        ("root", "the root", "/"),
        ("dev_kvm", "two components", "/dev/kvm"),
        ("above", "parent of inputs_dir", "/nix"),
        ("beside", "sibling of inputs_dir", "/nix/var"),
        ("begins", "inputs_dir is a prefix of the text, not of the path", "/nix/storefoo"),
        ("shorter", "a prefix of the text of inputs_dir", "/nix/stor"),
        ("below_another", "inputs_dir below another directory", "/a/nix/store"),
        ("case", "inputs_dir in other case", "/NIX/store"),
    ):
        topic.canonical(f"ro_path_{label}", f"host path: {about}", request(path))
    for label, about, path in (
        ("empty", "empty", ""),
        ("relative", "not absolute", "dev/kvm"),
        ("slash_last", "trailing slash", "/a/"),
        ("slashes", "two leading slashes", "//a"),
        ("dot", ". alone", "/."),
        ("two_dots", ".. alone", "/a/.."),
        ("nul", "contains a NUL", "/a\0"),
        ("inputs", "inputs_dir itself", "/nix/store"),
        ("input", "below inputs_dir", "/nix/store/x"),
        ("inputs_slash", "inputs_dir with a trailing slash; one violation", "/nix/store/"),
        ("inputs_dots", "inputs_dir followed by ..; one violation", "/nix/store/.."),
    ):
        place = "constraints.available_ro_paths[0]"
        topic.refused(
            f"ro_path_{label}", f"host path: {about}", request(path), ("invalid_path", place)
        )
    topic.canonical(
        "ro_path_store",
        "host path: /nix/store is allowed if inputs_dir is another directory",
        request("/nix/store", "/nix/store/x", directory=inputs_dir("inputs")),
    )
    topic.canonical(
        "ro_path_no_inputs_dir",
        "without inputs_dir, any clean path is allowed",
        request("/", "/nix/store", directory=b""),
    )
    topic.refused(
        "ro_path_invalid_inputs_dir",
        "host path: compared with inputs_dir even if inputs_dir is not clean",
        request("/a/.", "/b", "/b/./x", directory=inputs_dir("b/.")),
        ("invalid_path", "inputs_dir"),
        ("invalid_path", "constraints.available_ro_paths[0]"),
        ("invalid_path", "constraints.available_ro_paths[2]"),
    )
    topic.refused(
        "ro_path_inputs_dir_late",
        "host path: inputs_dir comes after the constraints on the wire",
        constraints(SYSTEM, ro_paths("/nix/store")) + ARGS + STORE,
        ("invalid_path", "constraints.available_ro_paths[0]"),
    )
    topic.refused(
        "ro_path_inputs_dir_twice",
        "host path: inputs_dir is given twice, the last value counts",
        ARGS + STORE + inputs_dir("b") + constraints(SYSTEM, ro_paths("/b", "/nix/store")),
        ("invalid_path", "constraints.available_ro_paths[0]"),
    )


def _additional_files(topic: Topic) -> None:
    for label, (about, path) in CLEAN.items():
        topic.canonical(
            f"file_{label}", f"additional file: {about}", ARGS + STORE + file_at(path, "x")
        )
    for label, about, path in (
        *((label, *found) for label, found in NOT_CLEAN.items()),
        ("empty", "empty", ""),
        ("inputs", "inputs_dir itself", "nix/store"),
        ("input", "below inputs_dir", "nix/store/x"),
        ("inputs_slash", "inputs_dir with a trailing slash; one violation", "nix/store/"),
    ):
        data = ARGS + STORE + file_at(path)
        topic.refused(
            f"file_{label}",
            f"additional file: {about}",
            data,
            ("invalid_path", "additional_files[0].path"),
        )
    topic.canonical(
        "file_beside",
        "additional files beside inputs_dir, or with a similar path",
        ARGS + STORE + file_at("nix/stor") + file_at("nix/store-2") + file_at("x/nix/store"),
    )
    topic.canonical(
        "file_no_inputs_dir",
        "without inputs_dir, any clean path is allowed",
        ARGS + file_at("nix/store/x"),
    )
    topic.canonical(
        "file_contents",
        "additional files: contents are any bytes",
        ARGS + file_at("a", bytes(range(256))) + file_at("b"),
    )
    topic.unsorted(
        "files_unsorted",
        "additional files out of order: contents are sorted with their paths",
        ARGS + file_at("b", "1") + file_at("a", "2"),
        ARGS + file_at("a", "2") + file_at("b", "1"),
        "additional_files[1]",
    )
    topic.refused(
        "files_duplicate",
        "additional files: equal paths with different contents",
        ARGS + file_at("a", "1") + file_at("a", "2"),
        ("duplicate", "additional_files[1]"),
    )
    topic.refused(
        "file_without_fields",
        "additional files: one without fields, one with an unknown field",
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
