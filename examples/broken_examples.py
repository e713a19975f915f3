# SPDX-License-Identifier: MIT
"""The broken messages that the text format cannot express, and the table of all broken messages.

The other ones are written by hand in text format. The comment at the beginning of each file names
the mistake and the violations.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from google.protobuf import json_format

import tvix_build
from snix.build.protos.build_pb2 import BuildRequest as LaterRequest
from tvix.build.protos.build_pb2 import Build, BuildRequest
from tvix.castore.protos.castore_pb2 import Directory, FileNode, Node
from tvix_build.plan.v1.plan_pb2 import InputRef, Plan, Step

README = """\
<!-- SPDX-License-Identifier: MIT -->
<!-- Made by ../make_examples.py. -->

# Broken messages

Each file contains one mistake, and its name begins with the code of the violation;
`several.at-once` contains several. The directory is the kind of the message: BuildRequest, Build,
Directory or Plan. The schema is `snix.build.v1` in `requests-snix`, `tvix.build.v1@2024` in
`builds-2024`, and `tvix.build.v1` in all other directories. `expected.json` is the same table as
JSON.

| file | mistake | violations, in order |
| --- | --- | --- |
"""


class Broken(NamedTuple):
    """A broken message: the mistake, and the violations as `code path`, in order."""

    wrong: str
    violations: list[str]
    data: bytes = b""


def binary_examples(whole: BuildRequest) -> dict[str, Broken]:
    """Return the broken messages that text cannot express, by path; some derive from `whole`."""
    data = whole.SerializeToString()
    small = BuildRequest(command_args=["/bin/sh"], outputs=["hello"])
    file = FileNode(name=b"setup.sh", digest=bytes(range(32)), size=77)
    file.MergeFromString(b"\x2a\x05owner")
    with_input = BuildRequest(inputs=[Node(file=file)])
    with_input.MergeFrom(small)
    directory = Directory(files=[FileNode(name=b"setup.sh", digest=bytes(range(32)), size=77)])
    return {
        **builds_2024(),
        **plans(),
        "requests/malformed.cut-short.binpb": Broken(
            "The last three bytes are missing.", ["malformed"], data[:-3]
        ),
        "requests/malformed.not-utf-8.binpb": Broken(
            "An output name in Latin-1. Strings must be UTF-8.",
            ["malformed"],
            small.SerializeToString() + b"\x12\x05Gr\xfc\xdfe",
        ),
        "requests/malformed.json.binpb": Broken(
            "JSON in a file with the name of the binary format.",
            ["malformed"],
            json_format.MessageToJson(small).encode(),
        ),
        "requests/unknown_field.in-the-request.binpb": Broken(
            "Two unknown fields, which are one violation of the message.",
            ["unknown_field"],
            small.SerializeToString() + b"\x30\x01\x38\x01",
        ),
        "requests/unknown_field.in-an-input.binpb": Broken(
            "A file with an owner. The schema has no field for it.",
            ["unknown_field inputs[0].file"],
            with_input.SerializeToString(),
        ),
        "requests/unknown_field.wire-type.binpb": Broken(
            "min_memory as a fixed64. In the schema it is a varint.",
            ["unknown_field constraints"],
            data + b"\x2a\x09\x11" + (1 << 30).to_bytes(8, "little"),
        ),
        "builds/unknown_field.in-its-request.binpb": Broken(
            "An unknown field in the request of a Build.",
            ["unknown_field build_request"],
            Build(build_request=BuildRequest(command_args=["/bin/sh"])).SerializeToString()
            + b"\x0a\x02\x30\x01",
        ),
        "directories/malformed.cut-short.binpb": Broken(
            "The last byte is missing.", ["malformed"], directory.SerializeToString()[:-1]
        ),
        "directories/unknown_field.in-a-file.binpb": Broken(
            "A file with an owner. The schema has no field for it.",
            ["unknown_field files[0]"],
            Directory(files=[file]).SerializeToString(),
        ),
    }


def builds_2024() -> dict[str, Broken]:
    """Return Builds of tvix.build.v1@2024, which has no Python module. Its request is snix's."""
    request = LaterRequest(
        command_args=["/bin/sh"],
        outputs=["build/a", "build/b"],
        refscan_needles=["5qx5i5v9z2y0bqhs4p0d6wcgqm2vz5zq"],
    )
    # The request is field 1 and the outputs field 2, as in tvix.build.v1.
    build = Build()
    build.build_request.MergeFromString(request.SerializeToString())
    for name in (b"a", b"b"):
        build.outputs.add(file=FileNode(name=name, digest=bytes(range(32))))
    data = build.SerializeToString()
    return {
        "builds-2024/needles_mismatch.one-for-two.binpb": Broken(
            "Two outputs, but outputs_needles for only one.",
            ["needles_mismatch outputs_needles"],
            data + b"\x1a\x00",
        ),
        "builds-2024/invalid_needle.out-of-range.binpb": Broken(
            "Index 1 of the needles of a request that has one needle.",
            ["invalid_needle outputs_needles[1].needles[0]"],
            data + b"\x1a\x00\x1a\x03\x0a\x01\x01",
        ),
    }


def plans() -> dict[str, Broken]:
    """Return plans of a step that needs another one."""
    lib = Step(schema="tvix.build.v1")
    lib.request = BuildRequest(command_args=["cc"], outputs=["lib"]).SerializeToString()
    digest = tvix_build.digest(lib)
    app = Step(schema="tvix.build.v1", input_refs=[InputRef(step=digest, output="lib")])
    app.request = BuildRequest(command_args=["cc"], outputs=["app"]).SerializeToString()
    root = tvix_build.digest(app)
    return {
        "plans/unknown_step.missing.binpb": Broken(
            "The plan lacks the step that its step needs.",
            ["unknown_step steps[0].input_refs[0].step"],
            Plan(steps=[app], roots=[root]).SerializeToString(),
        ),
        "plans/unreachable_step.not-needed.binpb": Broken(
            "The step that needs the root is not a root itself.",
            [f"unreachable_step steps[{int(root > digest)}]"],
            Plan(
                steps=[app, lib] if root < digest else [lib, app], roots=[digest]
            ).SerializeToString(),
        ),
    }


def broken_text(text: str) -> Broken:
    """Parse the comment at the beginning of a broken message in text format."""
    head = text.partition("\n\n")[0].partition("#\n")[2]
    lines = [line.removeprefix("# ") for line in head.splitlines()]
    violations = [line.removeprefix("violation: ") for line in lines if "violation: " in line]
    return Broken(" ".join(line for line in lines if "violation: " not in line), violations)


def broken_examples(whole: BuildRequest, directory: Path) -> dict[str, Broken]:
    """Return all broken messages, by path in `directory`, which contains those in text format."""
    broken = binary_examples(whole)
    for path in directory.glob("*/*.txtpb"):
        broken[path.relative_to(directory).as_posix()] = broken_text(path.read_text("utf-8"))
    return dict(sorted(broken.items()))


def expectations(broken: Mapping[str, Broken]) -> dict[str, object]:
    """Return the mistake and the violations of each message, for expected.json."""
    return {
        path: {
            "wrong": example.wrong,
            "violations": [
                {"code": code, "path": where}
                for code, _, where in (line.partition(" ") for line in example.violations)
            ],
        }
        for path, example in broken.items()
    }


def readme(broken: Mapping[str, Broken]) -> str:
    """Return the same as a Markdown page."""

    def cell(violation: str) -> str:
        code, _, path = violation.partition(" ")
        return f"`{code}` at `{path}`" if path else f"`{code}`"

    rows = (
        f"| [{path}]({path}) | {example.wrong} | {', '.join(map(cell, example.violations))} |\n"
        for path, example in broken.items()
    )
    return README + "".join(rows)
