# SPDX-License-Identifier: MIT
"""The command `convert`: converts requests to another schema or to text, atomically."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from google.protobuf import json_format

from cli_support import delimited, encoded, invalid_request, make, request, run
from snix.build.protos.build_pb2 import BuildRequest as SnixBuildRequest
from tvix.build.protos.build_pb2 import BuildRequest
from tvix_build import convert
from tvix_build._core.report import SchemaLike

LATER: Final = ("tvix.build.v1@2024", "snix.build.v1")
HASH = "0123456789abcdfghijklmnpqrsvwxyz"


def named(number: int) -> BuildRequest:
    """A request that the later schemas can represent."""
    return request(number, outputs=[f"{HASH}-{number}"], inputs=[])


MESSAGES = [encoded(named(number)) for number in range(5)]


@pytest.mark.parametrize("later", LATER)
def test_there_and_back(tmp_path: Path, later: SchemaLike) -> None:
    (tmp_path / "in.binpbs").write_bytes(delimited(MESSAGES))
    there = run("convert", "--to", later, "in.binpbs", "later.binpbs.xz", cwd=tmp_path)
    back = ("--to", "tvix.build.v1", "--schema", later)
    again = run("convert", *back, "later.binpbs.xz", "out.binpbs.zst", cwd=tmp_path)
    plain = ("--output-format", "binpbs", "out.binpbs.zst", "-")
    assert [there.status, again.status, there.stderr, again.stderr] == [0, 0, "", ""]
    assert run("convert", *plain, cwd=tmp_path).stdout == delimited(MESSAGES)
    made = run("convert", "--output-format", "binpbs", "later.binpbs.xz", "-", cwd=tmp_path)
    assert made.stdout == delimited(convert(data, to=later) for data in MESSAGES)


def test_text_and_one_message(tmp_path: Path) -> None:
    text = '{"commandArgs": ["sh"], "constraints": {"system": "x"}}'
    (tmp_path / "in.json").write_text(text)
    assert run("convert", "--to", LATER[1], "in.json", "out.binpb", cwd=tmp_path).status == 0
    expected = BuildRequest(command_args=["sh"])
    expected.constraints.system = "x"
    later = convert(expected, to="snix.build.v1")
    assert (tmp_path / "out.binpb").read_bytes() == later.SerializeToString()


@pytest.mark.parametrize("text", ["x.json", "x.txtpb", "x.ndjson.zst", "x.json.gz"])
def test_text_and_back(tmp_path: Path, text: str) -> None:
    messages = [invalid_request(), BuildRequest(), request(1, outputs=["b", "a"])]
    for message in messages:
        (tmp_path / "in.binpb").write_bytes(encoded(message))
        result = run("convert", "in.binpb", text, cwd=tmp_path)
        assert (result.status, result.stdout, result.stderr) == (0, b"", "")
        assert run("convert", text, "out.binpb", cwd=tmp_path).status == 0
        assert (tmp_path / "out.binpb").read_bytes() == encoded(message)


def test_json_is_that_of_protobuf(tmp_path: Path) -> None:
    messages = [request(number) for number in range(3)]
    path = make(tmp_path, "in.binpbs", messages)
    result = run("convert", "--output-format", "ndjson", path, "-")
    assert result.status == 0
    lines = result.stdout.decode().splitlines()
    assert [json_format.Parse(line, BuildRequest()) for line in lines] == messages
    result = run("convert", "--output-format", "json", f"{path}[2]", "-")
    assert result.stdout.decode() == json_format.MessageToJson(messages[2]) + "\n"
    result = run("convert", path, "x.json", cwd=tmp_path)
    assert result.status == 2
    assert "expected one record for a .json file, found several" in result.stderr
    assert not (tmp_path / "x.json").exists()


def test_json_of_another_schema(tmp_path: Path) -> None:
    (tmp_path / "in.binpb").write_bytes(MESSAGES[0])
    assert run("convert", "--to", LATER[1], "in.binpb", "out.json", cwd=tmp_path).status == 0
    made = json_format.Parse((tmp_path / "out.json").read_text(), SnixBuildRequest())
    assert made.SerializeToString() == convert(MESSAGES[0], to="snix.build.v1")


def test_text_does_not_lose_fields(tmp_path: Path) -> None:
    node = encoded(request()) + b"\x22\x02\x7a\x00"  # an unknown field in inputs[1]
    bad = [b"\xff", MESSAGES[0] + b"\xf8\x01\x01", node]
    (tmp_path / "in.binpbs").write_bytes(delimited([MESSAGES[0], *bad]))
    result = run("convert", "in.binpbs", "out.ndjson", cwd=tmp_path)
    assert result.status == 1
    assert not (tmp_path / "out.ndjson").exists()
    lines = result.stderr.splitlines()
    assert [line.split(" ")[1] for line in lines[:2]] == ["in.binpbs[1]", "in.binpbs[2]"]
    assert ": malformed: " in lines[0]
    assert ": unknown_field: " in lines[1]
    assert "in.binpbs[3]" in lines[2]
    assert lines[-1] == (
        "tvix-build: 3 records cannot be converted to ndjson; the output was not written"
    )


def test_network_access(tmp_path: Path) -> None:
    (tmp_path / "in.binpb").write_bytes(MESSAGES[0])
    there = ("convert", "--to", LATER[1], "--network-access", "in.binpb", "later.binpb")
    assert run(*there, cwd=tmp_path).status == 0
    data = convert(MESSAGES[0], to=LATER[1], network_access=True)
    assert (tmp_path / "later.binpb").read_bytes() == data
    back = ("convert", "--to", "tvix.build.v1", "--schema", LATER[1], "later.binpb", "out.binpb")
    refused = run(*back, cwd=tmp_path)
    assert refused.status == 1
    assert refused.stderr == (
        "tvix-build: later.binpb: constraints.network_access: "
        "expected false, found true\n"
        "tvix-build: 1 record cannot be converted to tvix.build.v1; the output was not written\n"
    )
    assert not (tmp_path / "out.binpb").exists()
    assert run(*back, "--network-access", cwd=tmp_path).status == 0
    assert (tmp_path / "out.binpb").read_bytes() == MESSAGES[0]


def test_all_that_is_refused_is_said(tmp_path: Path) -> None:
    nameless = request(7, outputs=["a", "b"], inputs=[])
    nameless.ClearField("constraints")
    unsorted = request(8, outputs=[f"{HASH}-b", f"{HASH}-a"], inputs=[])
    bad = [encoded(nameless), b"\xff", encoded(unsorted), b""]
    (tmp_path / "in.binpbs").write_bytes(delimited([MESSAGES[0], *bad, MESSAGES[1]]))
    result = run("convert", "--to", LATER[0], "in.binpbs", "out.binpbs", cwd=tmp_path)
    assert result.status == 1
    assert not (tmp_path / "out.binpbs").exists()
    hash_part = "expected a name as in a store path: a hash of 32 characters, '-' and more"
    lines = [line.split(": ", 2)[1:] for line in result.stderr.splitlines()]
    offset = 1 + len(MESSAGES[0])
    assert lines[:3] == [
        [f"in.binpbs[1] at byte {offset}", f"outputs[0]: {hash_part}, found 'a'"],
        [f"in.binpbs[1] at byte {offset}", f"outputs[1]: {hash_part}, found 'b'"],
        [
            f"in.binpbs[1] at byte {offset}",
            "constraints: expected constraints, found none",
        ],
    ]
    assert [line[1].rpartition(": expected")[0] for line in lines[3:6]] == [
        "malformed",
        "outputs[1]: not_sorted",
        "command_args: required",
    ]
    assert lines[6:] == [
        ["4 records cannot be converted to tvix.build.v1@2024; the output was not written"]
    ]


def test_on_stdout_it_ends_before_what_is_refused() -> None:
    first = [encoded(named(number)) for number in range(3000)]  # more than a batch
    data = delimited([*first, b"", MESSAGES[0]])
    formats = ("--input-format", "binpbs", "--output-format", "binpbs")
    result = run("convert", "--to", LATER[1], "-", "-", *formats, stdin=data)
    assert result.status == 1
    assert "1 record cannot be converted to snix.build.v1; the output ends before" in result.stderr
    whole = delimited(convert(one, to=LATER[1]) for one in first)
    assert whole.startswith(result.stdout)
    assert len(result.stdout) > len(whole) // 2


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--network-access",), "--network-access requires --to"),
        (("--to", "snix.build.v1", "--kind", "build"), "--to converts requests only, found"),
        (
            ("--to", "tvix.build.v1", "--network-access"),
            "network_access is for conversions from or to tvix.build.v1 only",
        ),
        (("--to", "snix"), "Invalid value for '--to'"),
    ],
)
def test_options_that_do_not_go_together(
    tmp_path: Path, options: tuple[str, ...], reason: str
) -> None:
    (tmp_path / "in.binpb").write_bytes(MESSAGES[0])
    result = run("convert", *options, "in.binpb", "out.binpb", cwd=tmp_path)
    assert result.status == 2
    assert reason in " ".join(result.stderr.split())
    assert not (tmp_path / "out.binpb").exists()
