# SPDX-License-Identifier: MIT
"""Handmade requests of tvix.build.v1 with their translations to the later schemas, and requests
without a translation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from vector_sources import parts, parts_later
from vector_sources.parts import directory, file, symlink
from vector_sources.parts_later import NETWORK_ACCESS, PROVIDE_BIN_SH, SYSTEM
from vector_sources.topic import FIRST, SNIX, Violation
from wire import blob, number

A = "5qx5i5v9z2y0bqhs4p0d6wcgqm2vz5zq"
B = "ag2c8z6rcv2cfsn3cvzzn1hqrwvdyjqb"
C = "0123456789abcdfghijklmnpqrsvwxyz"


@dataclass(frozen=True)
class Pair:
    """The canonical bytes of a request in tvix.build.v1 and in the later schemas."""

    name: str
    about: str
    first: bytes
    later: bytes
    network_access: bool = False

    def to_json(self) -> str:
        """Return a line of the file. The order of the keys is part of the format."""
        return json.dumps(
            {
                "name": self.name,
                "about": self.about,
                "network_access": self.network_access,
                "hex": self.first.hex(),
                "later_hex": self.later.hex(),
            }
        )


@dataclass(frozen=True)
class Refusal:
    """A request without a translation, with the paths of all reasons or, if the request is invalid,
    its violations. The request is of tvix.build.v1 or of the later schemas."""

    name: str
    about: str
    schema: str
    data: bytes
    reasons: Sequence[str] = ()
    violations: Sequence[Violation] = ()
    network_access: bool = False

    def to_json(self) -> str:
        """Return a line of the file. The order of the keys is part of the format."""
        return json.dumps(
            {
                "name": self.name,
                "about": self.about,
                "schema": self.schema,
                "network_access": self.network_access,
                "hex": self.data.hex(),
                "reasons": self.reasons,
                "violations": self.violations,
            }
        )


def first(*middle: bytes, constraints: bytes = SYSTEM) -> bytes:
    """Return a request of tvix.build.v1."""
    return parts.ARGS + b"".join(middle) + parts.constraints(constraints)


def later(
    *middle: bytes,
    inputs: bytes = b"",
    needles: Sequence[str] = (),
    working_dir: bytes = parts_later.working_dir("build"),
    scratch: bytes = parts_later.scratch_paths("build", "nix/store"),
    inputs_dir: bytes = parts_later.inputs_dir("nix/store"),
    constraints: bytes = SYSTEM + PROVIDE_BIN_SH,
    files: bytes = b"",
) -> bytes:
    """Return a request of the later schemas for a Nix build; `middle` is outputs and variables."""
    return b"".join(
        (
            *(inputs, parts_later.ARGS, working_dir, scratch, inputs_dir, *middle),
            *(parts_later.constraints(constraints), files, parts_later.refscan(*needles)),
        )
    )


def outputs(*names: str) -> bytes:
    return parts_later.outputs(*(f"nix/store/{name}" for name in names))


_HOST = parts.ro_paths("/", "/dev/kvm", "/nix", "/nix/storehouse")
_MEMORY = number(2, 2**64 - 1)
_NODES = (directory(f"{C}-d", size=9), file(f"{A}-f", executable=True), symlink(f"{B}-l", "/x"))

PAIRS = (
    Pair("minimal", "minimal: a command and a system", first(), later()),
    Pair(
        "output",
        "an output, whose hash part becomes a needle",
        first(parts.outputs(f"{A}-hello")),
        later(outputs(f"{A}-hello"), needles=[A]),
    ),
    Pair(
        "inputs",
        "inputs of every kind",
        first(parts.inputs(*_NODES)),
        later(inputs=parts_later.inputs(*_NODES), needles=[C, A, B]),
    ),
    Pair(
        "needles_in_order",
        "needles of outputs come before needles of inputs, each in the order of its list",
        first(parts.outputs(f"{C}-o", f"{B}-o"), parts.inputs(file(f"{A}-i"))),
        later(
            outputs(f"{C}-o", f"{B}-o"),
            inputs=parts_later.inputs(file(f"{A}-i")),
            needles=[C, B, A],
        ),
    ),
    Pair(
        "needle_twice",
        "two outputs and an input with the same hash part: one needle for each",
        first(parts.outputs(f"{A}-a", f"{A}-b"), parts.inputs(file(f"{A}-c"))),
        later(
            outputs(f"{A}-a", f"{A}-b"),
            inputs=parts_later.inputs(file(f"{A}-c")),
            needles=[A, A, A],
        ),
    ),
    Pair(
        "everything",
        "every field is set",
        first(
            parts.outputs(f"{A}-a"),
            parts.env("K", ""),
            parts.env("PATH", b"\xff"),
            parts.inputs(file(f"{B}-b")),
            constraints=SYSTEM + _MEMORY + _HOST,
        ),
        later(
            outputs(f"{A}-a"),
            parts_later.env("K", ""),
            parts_later.env("PATH", b"\xff"),
            inputs=parts_later.inputs(file(f"{B}-b")),
            constraints=SYSTEM + _MEMORY + _HOST + PROVIDE_BIN_SH,
            needles=[A, B],
        ),
    ),
    Pair(
        "network_access",
        "network access, for which the first schema has no field",
        first(parts.outputs(f"{A}-a")),
        later(
            outputs(f"{A}-a"),
            constraints=SYSTEM + NETWORK_ACCESS + PROVIDE_BIN_SH,
            needles=[A],
        ),
        network_access=True,
    ),
    Pair(
        "long_names",
        "names of 255 bytes; the name of the input is not UTF-8",
        first(
            parts.outputs(f"{A}-" + "n" * 222),
            parts.inputs(file(f"{B}-".encode() + b"\xff" * 222)),
        ),
        later(
            outputs(f"{A}-" + "n" * 222),
            inputs=parts_later.inputs(file(f"{B}-".encode() + b"\xff" * 222)),
            needles=[A, B],
        ),
    ),
    Pair(
        "shortest_names",
        "names with one byte after the hash part: a line break or another control character",
        first(parts.outputs(f"{A}-\n"), parts.inputs(file(f"{A}-\x01"))),
        later(outputs(f"{A}-\n"), inputs=parts_later.inputs(file(f"{A}-\x01")), needles=[A, A]),
    ),
)


def _from_first(name: str, about: str, data: bytes, *reasons: str) -> Refusal:
    return Refusal(name, about, FIRST, data, reasons)


def _from_later(name: str, about: str, data: bytes, *reasons: str) -> Refusal:
    return Refusal(name, about, SNIX, data, reasons)


_ODD_NAMES = (
    ("31", "hash part of 31 characters", A[:31] + "-name"),
    ("33", "hash part of 33 characters", A + "0-name"),
    (
        "e",
        "hash part with the letter e, which is not a digit of Nix's base 32",
        "e" + A[1:] + "-name",
    ),
    ("upper", "hash part with an upper-case letter", "A" + B[1:] + "-name"),
    ("not_ascii", "hash part with a non-ASCII letter", "ä" + A[2:] + "-name"),
    ("no_dash", "no dash after the hash part", A + "_name"),
    ("hash_alone", "nothing after the hash part", A),
    ("dash_alone", "nothing after the dash", A + "-"),
    ("short", "a name without a hash part, which the first schema allows", "out"),
)

REFUSALS = (
    _from_first(
        "no_constraints",
        "no constraints: provide_bin_sh needs constraints with a system",
        parts.ARGS,
        "constraints",
    ),
    *(
        _from_first(
            f"first_output_{label}", f"output: {about}", first(parts.outputs(name)), "outputs[0]"
        )
        for label, about, name in _ODD_NAMES
    ),
    *(
        _from_first(
            f"first_input_{label}",
            f"input: {about}",
            first(parts.inputs(symlink(name))),
            "inputs[0].symlink.name",
        )
        for label, about, name in _ODD_NAMES
    ),
    _from_first(
        "first_all_reasons",
        "several names and missing constraints: reasons are in the order of the fields",
        parts.ARGS
        + parts.outputs(f"{A}-fine", "a", "b")
        + parts.inputs(file(f"{B}-fine"), directory("c"), file("d"), symlink(b"\xff")),
        *("outputs[1]", "outputs[2]", "inputs[1].directory.name", "inputs[2].file.name"),
        *("inputs[3].symlink.name", "constraints"),
    ),
    Refusal(
        "first_invalid",
        "invalid request: only violations are reported, not reasons",
        FIRST,
        parts.outputs("a/b"),
        violations=[("required", "command_args"), ("invalid_name", "outputs[0]")],
    ),
    Refusal(
        "first_unsorted",
        "unsorted request: it is rejected, not sorted",
        FIRST,
        first(parts.outputs(f"{B}-b", f"{A}-a")),
        violations=[("not_sorted", "outputs[1]")],
    ),
    Refusal("first_malformed", "malformed request", FIRST, b"\x0a", violations=[("malformed", "")]),
    *(
        _from_later(
            f"later_output_{label}",
            f"output: {about}",
            later(outputs(name), needles=[A]),
            "outputs[0]",
        )
        for label, about, name in _ODD_NAMES
    ),
    *(
        _from_later(
            f"later_input_{label}",
            f"input: {about}",
            later(inputs=parts_later.inputs(symlink(name)), needles=[A]),
            "inputs[0].symlink.name",
        )
        for label, about, name in _ODD_NAMES
    ),
    *(
        _from_later(
            f"output_{label}",
            about,
            later(parts_later.outputs(path), needles=[A]),
            "outputs[0]",
        )
        for label, about, path in (
            ("elsewhere", "output in another directory", f"build/{A}-a"),
            ("at_the_root", "output without a directory", f"{A}-a"),
            ("deeper", "output below another path of the store", f"nix/store/{A}-a/b"),
            (
                "beside",
                "output in a directory whose name starts with that of the store",
                f"nix/storehouse/{A}-a",
            ),
            ("store", "output that is the store itself", "nix/store"),
            ("256", "output with a name of 256 bytes", f"nix/store/{A}-" + "n" * 223),
        )
    ),
    *(
        _from_later(
            f"working_dir_{label}",
            "working_dir absent or another directory",
            later(working_dir=field),
            "working_dir",
        )
        for label, field in (("absent", b""), ("store", parts_later.working_dir("nix/store")))
    ),
    *(
        _from_later(
            f"scratch_paths_{label}",
            "scratch_paths absent or other paths",
            later(scratch=parts_later.scratch_paths(*paths)),
            "scratch_paths",
        )
        for label, paths in (
            ("absent", ()),
            ("build", ("build",)),
            ("store", ("nix/store",)),
            ("more", ("build", "nix/store", "tmp")),
        )
    ),
    *(
        _from_later(
            f"inputs_dir_{label}",
            "inputs_dir absent or another directory",
            later(inputs_dir=field),
            "inputs_dir",
        )
        for label, field in (("absent", b""), ("other", parts_later.inputs_dir("nix")))
    ),
    _from_later(
        "network_access_unexpected",
        "the request has network access, network_access=False",
        later(constraints=SYSTEM + NETWORK_ACCESS + PROVIDE_BIN_SH),
        "constraints.network_access",
    ),
    Refusal(
        "network_access_missing",
        "the request has no network access, network_access=True",
        SNIX,
        later(),
        ["constraints.network_access"],
        network_access=True,
    ),
    _from_later(
        "no_bin_sh",
        "provide_bin_sh is not set",
        later(constraints=SYSTEM),
        "constraints.provide_bin_sh",
    ),
    Refusal(
        "later_no_constraints",
        "constraints absent, so neither network_access nor provide_bin_sh is set",
        SNIX,
        later()[: -len(parts_later.constraints(SYSTEM + PROVIDE_BIN_SH))],
        ["constraints.network_access", "constraints.provide_bin_sh"],
        network_access=True,
    ),
    _from_later(
        "additional_file",
        "an additional file",
        later(files=parts_later.file_at("build/a")),
        "additional_files",
    ),
    _from_later(
        "needles_absent",
        "no needle for an output",
        later(outputs(f"{A}-a")),
        "refscan_needles",
    ),
    _from_later(
        "needle_too_many",
        "a needle without an output or input",
        later(needles=[A]),
        "refscan_needles",
    ),
    _from_later(
        "needles_swapped",
        "needle of the input before needle of the output",
        later(outputs(f"{A}-a"), inputs=parts_later.inputs(file(f"{B}-b")), needles=[B, A]),
        *("refscan_needles[0]", "refscan_needles[1]"),
    ),
    _from_later(
        "needle_of_another",
        "the second needle is not that of the input",
        later(outputs(f"{A}-a"), inputs=parts_later.inputs(file(f"{B}-b")), needles=[A, C]),
        "refscan_needles[1]",
    ),
    _from_later(
        "needle_missing_for_equal_hash",
        "two outputs with the same hash part, which need two needles, and one needle",
        later(outputs(f"{A}-a", f"{A}-b"), needles=[A]),
        "refscan_needles",
    ),
    _from_later(
        "host_paths_in_the_store",
        "host paths in /nix/store: allowed without inputs_dir, but not in the first schema",
        later(
            inputs_dir=b"",
            constraints=SYSTEM
            + parts.ro_paths("/nix", "/nix/store", "/nix/store/a", "/nix/storehouse")
            + PROVIDE_BIN_SH,
        ),
        "inputs_dir",
        *("constraints.available_ro_paths[1]", "constraints.available_ro_paths[2]"),
    ),
    _from_later(
        "output_is_input",
        "output with the name of an input: allowed without inputs_dir, but not in the first schema",
        later(
            outputs(f"{A}-a"),
            inputs=parts_later.inputs(file(f"{A}-a")),
            inputs_dir=b"",
            needles=[A, A],
        ),
        *("inputs_dir", "outputs[0]"),
    ),
    _from_later(
        "later_all_reasons",
        "several reasons, in the order of the fields; needles need names with hash parts",
        later(
            parts_later.outputs("a", f"nix/store/{A}-a", "nix/store/b"),
            inputs=parts_later.inputs(file("in")),
            working_dir=b"",
            scratch=b"",
            inputs_dir=b"",
            constraints=SYSTEM + parts.ro_paths("/nix/store") + NETWORK_ACCESS,
            files=parts_later.file_at("build/a"),
            needles=["x"],
        ),
        *("inputs[0].file.name", "working_dir", "scratch_paths", "inputs_dir", "outputs[0]"),
        *("outputs[2]", "constraints.available_ro_paths[0]", "constraints.network_access"),
        *("constraints.provide_bin_sh", "additional_files"),
    ),
    Refusal(
        "later_invalid",
        "invalid request: only violations are reported, not reasons",
        SNIX,
        parts_later.ARGS + parts_later.outputs("/a") + blob(10),
        violations=[("invalid_path", "outputs[0]"), ("invalid_needle", "refscan_needles[0]")],
    ),
    Refusal(
        "later_unsorted",
        "unsorted request: it is rejected, not sorted",
        SNIX,
        later(scratch=parts_later.scratch_paths("nix/store", "build")),
        violations=[("not_sorted", "scratch_paths[1]")],
    ),
    Refusal(
        "later_unknown_field",
        "unknown field: the request is rejected, the field is not dropped",
        SNIX,
        later() + number(11, 1),
        violations=[("unknown_field", "")],
    ),
)
