# SPDX-License-Identifier: MIT
"""The broken messages that text cannot express, and the table of what is wrong in all of them.

The others are written by hand, in text format, with what is wrong in the comments at their head.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from google.protobuf import json_format

from snix.build.protos.build_pb2 import BuildRequest as LaterRequest
from tvix.build.protos.build_pb2 import Build, BuildRequest
from tvix.castore.protos.castore_pb2 import Directory, FileNode, Node

README = """\
<!-- SPDX-License-Identifier: MIT -->
<!-- Made by ../make_examples.py. -->

# Broken messages

One mistake a file, with its code as the first part of the name; `several.at-once` has many. The
folder says what a file holds: BuildRequest, Build or Directory; those in `requests-snix` are of
`snix.build.v1`, those in `builds-2024` of `tvix.build.v1@2024`, all others of `tvix.build.v1`.
`expected.json` has this table for programs.

| file | what is wrong | violations, in order |
| --- | --- | --- |
"""


class Broken(NamedTuple):
    """A broken message: what is wrong with it, and its violations as `code path`, in order."""

    wrong: str
    violations: list[str]
    data: bytes = b""


def binary_examples(whole: BuildRequest) -> dict[str, Broken]:
    """The broken messages that text cannot express, by path; some are made of `whole`."""
    data = whole.SerializeToString()
    small = BuildRequest(command_args=["/bin/sh"], outputs=["hello"])
    file = FileNode(name=b"setup.sh", digest=bytes(range(32)), size=77)
    file.MergeFromString(b"\x2a\x05owner")
    with_input = BuildRequest(inputs=[Node(file=file)])
    with_input.MergeFrom(small)
    directory = Directory(files=[FileNode(name=b"setup.sh", digest=bytes(range(32)), size=77)])
    return {
        **builds_2024(),
        "requests/malformed.cut-short.binpb": Broken(
            "The last three bytes are lost.", ["malformed"], data[:-3]
        ),
        "requests/malformed.not-utf-8.binpb": Broken(
            "An output's name in Latin-1; strings are UTF-8.",
            ["malformed"],
            small.SerializeToString() + b"\x12\x05Gr\xfc\xdfe",
        ),
        "requests/malformed.json.binpb": Broken(
            "JSON under the name of the binary format.",
            ["malformed"],
            json_format.MessageToJson(small).encode(),
        ),
        "requests/unknown_field.in-the-request.binpb": Broken(
            "Two fields that the schema lacks: one violation for the message.",
            ["unknown_field"],
            small.SerializeToString() + b"\x30\x01\x38\x01",
        ),
        "requests/unknown_field.in-an-input.binpb": Broken(
            "A file with an owner, for which the schema has no field.",
            ["unknown_field inputs[0].file"],
            with_input.SerializeToString(),
        ),
        "requests/unknown_field.wire-type.binpb": Broken(
            "min_memory as eight fixed bytes; the schema has a varint.",
            ["unknown_field constraints"],
            data + b"\x2a\x09\x11" + (1 << 30).to_bytes(8, "little"),
        ),
        "builds/unknown_field.in-its-request.binpb": Broken(
            "A field that the schema lacks, in the request.",
            ["unknown_field build_request"],
            Build(build_request=BuildRequest(command_args=["/bin/sh"])).SerializeToString()
            + b"\x0a\x02\x30\x01",
        ),
        "directories/malformed.cut-short.binpb": Broken(
            "The last byte is lost.", ["malformed"], directory.SerializeToString()[:-1]
        ),
        "directories/unknown_field.in-a-file.binpb": Broken(
            "A file with an owner, for which the schema has no field.",
            ["unknown_field files[0]"],
            Directory(files=[file]).SerializeToString(),
        ),
    }


def builds_2024() -> dict[str, Broken]:
    """Builds of tvix.build.v1@2024, which has no classes. Its request is that of snix."""
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
            "The needles of one output, and two outputs.",
            ["needles_mismatch outputs_needles"],
            data + b"\x1a\x00",
        ),
        "builds-2024/invalid_needle.out-of-range.binpb": Broken(
            "The second needle of a request that has one.",
            ["invalid_needle outputs_needles[1].needles[0]"],
            data + b"\x1a\x00\x1a\x03\x0a\x01\x01",
        ),
    }


def broken_text(text: str) -> Broken:
    """Reads the comments at the head of a broken message in text format."""
    head = text.partition("\n\n")[0].partition("#\n")[2]
    lines = [line.removeprefix("# ") for line in head.splitlines()]
    violations = [line.removeprefix("violation: ") for line in lines if "violation: " in line]
    return Broken(" ".join(line for line in lines if "violation: " not in line), violations)


def broken_examples(whole: BuildRequest, folder: Path) -> dict[str, Broken]:
    """All broken messages, by path below `folder`, which holds those in text format."""
    broken = binary_examples(whole)
    for path in folder.glob("*/*.txtpb"):
        broken[path.relative_to(folder).as_posix()] = broken_text(path.read_text("utf-8"))
    return dict(sorted(broken.items()))


def expectations(broken: Mapping[str, Broken]) -> dict[str, object]:
    """What is wrong in each, for programs."""
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
    """The same for people."""

    def cell(violation: str) -> str:
        code, _, path = violation.partition(" ")
        return f"`{code}` at `{path}`" if path else f"`{code}`"

    rows = (
        f"| [{path}]({path}) | {example.wrong} | {', '.join(map(cell, example.violations))} |\n"
        for path, example in broken.items()
    )
    return README + "".join(rows)
