# SPDX-License-Identifier: MIT
"""`tvix-build validate` as a process: formats, sources and results."""

from __future__ import annotations

import json
import os
import pty
import re
from base64 import b64decode
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cli_support import (
    SUFFIXES,
    compressed,
    delimited,
    digest,
    encoded,
    invalid_request,
    make,
    request,
    run,
    start,
    unsorted_request,
    written,
)
from tvix.build.protos.build_pb2 import Build, BuildRequest
from tvix.castore.protos.castore_pb2 import Directory, DirectoryNode, FileNode, Node, SymlinkNode
from waiting import LIMIT

ONE = (".binpb", ".json", ".txtpb")
MANY = (".binpbs", ".ndjson")


def line(source: object, index: int, offset: int, message: BuildRequest) -> dict[str, Any]:
    """The result of a canonical record."""
    return {
        "source": str(source),
        "index": index,
        "offset": offset,
        "valid": True,
        "canonical": True,
        "digest": digest(message),
        "violations": [],
    }


@pytest.mark.parametrize("compression", SUFFIXES)
@pytest.mark.parametrize("suffix", ONE)
def test_one_message(tmp_path: Path, suffix: str, compression: str) -> None:
    path = make(tmp_path, f"request{suffix}{compression}", [request()])
    result = run("validate", "--output", "-", path)
    assert (result.status, result.stderr) == (0, "")
    assert result.lines == [line(path, 0, 0, request())]


@pytest.mark.parametrize("compression", SUFFIXES)
@pytest.mark.parametrize("suffix", MANY)
def test_stream(tmp_path: Path, suffix: str, compression: str) -> None:
    messages = [request(number) for number in range(30)]
    path = make(tmp_path, f"requests{suffix}{compression}", messages)
    result = run("validate", "--output", "-", path)
    assert (result.status, result.stderr) == (0, "")
    offset = 0
    for index, (said, message) in enumerate(zip(result.lines, messages, strict=True)):
        assert said == line(path, index, offset, message)
        offset += len(written([message], suffix))


@pytest.mark.parametrize("compression", SUFFIXES)
@pytest.mark.parametrize("suffix", ONE + MANY)
def test_stdin(suffix: str, compression: str) -> None:
    data = compressed(written([request()], suffix), compression)
    options = ("--input-format", suffix[1:], "--output", "-")
    result = run("validate", *options, "-", stdin=data)
    assert (result.status, result.stderr) == (0, "")
    assert result.lines == [line("-", 0, 0, request())]


@pytest.mark.parametrize("compression", SUFFIXES)
def test_compression_is_recognised_without_its_suffix(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "requests.binpbs"
    path.write_bytes(compressed(written([request()] * 2, ".binpbs"), compression))
    assert [said["index"] for said in run("validate", "--output", "-", path).lines] == [0, 1]


@pytest.mark.parametrize("compression", SUFFIXES[1:])
def test_frames_in_a_row_are_one_stream(tmp_path: Path, compression: str) -> None:
    data = written([request(number) for number in range(3)], ".binpbs")
    path = tmp_path / f"requests.binpbs{compression}"
    frames = [
        compressed(data[begin : begin + 50], compression) for begin in range(0, len(data), 50)
    ]
    if compression == ".xz":
        frames = [frame + bytes(8) for frame in frames]  # padding, as the format allows
    if compression == ".zst":
        frames.insert(1, b"\x57\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"any")
    path.write_bytes(b"".join([*frames, compressed(b"", compression)]))
    result = run("validate", "--output", "-", path)
    assert (result.status, len(result.lines)) == (0, 3), result.stderr


@pytest.mark.parametrize("number", [0x50, 0x5F])
def test_zstd_that_begins_with_a_skippable_frame(tmp_path: Path, number: int) -> None:
    """As pzstd writes it."""
    frame = compressed(written([request()] * 2, ".binpbs"), ".zst")
    size = len(frame).to_bytes(4, "little")
    skippable = bytes([number]) + b"\x2a\x4d\x18\x04\x00\x00\x00" + size
    path = tmp_path / "requests.binpbs"
    path.write_bytes(skippable + frame + skippable)
    for arguments in (["-"], [path]):
        options = ("--input-format", "binpbs", "--output", "-")
        result = run("validate", *options, *arguments, stdin=path.read_bytes())
        assert (result.status, len(result.lines)) == (0, 2), result.stderr


@pytest.mark.parametrize("padding", [1, 511, 3 << 18])
def test_zeros_behind_gzip(padding: int) -> None:
    """Tapes have whole blocks; gunzip ignores the zeros."""
    member = compressed(written([request()], ".binpbs"), ".gz")
    options = ("--input-format", "binpbs", "--output", "-", "-")
    result = run("validate", *options, stdin=member + member + bytes(padding))
    assert (result.status, len(result.lines)) == (0, 2), result.stderr
    for rest in (b"x", member):
        result = run("validate", *options, stdin=member + bytes(padding) + rest)
        assert (result.status, len(result.lines)) == (2, 1)
        assert "expected only zeros after the last gzip member" in result.stderr


def test_input_format_overrides_the_name(tmp_path: Path) -> None:
    path = tmp_path / "requests.json.gz"
    path.write_bytes(compressed(written([request(1), request(2)], ".ndjson"), ".gz"))
    result = run("validate", "--input-format", "ndjson", "--output", "-", path)
    assert (result.status, len(result.lines)) == (0, 2)
    other = tmp_path / "request.dat"
    other.write_bytes(encoded(request()))
    assert run("validate", "--input-format", "binpb", other).status == 0
    assert run("validate", other).status == 2


def test_directory(tmp_path: Path) -> None:
    names = ["b.binpb", "a/z.binpbs.zst", "a/b.json", "a-b.txtpb", "B.ndjson.xz"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        make(tmp_path, name, [request()])
    (tmp_path / "notes.txt").write_text("not a request")
    (tmp_path / "archive.zst").write_text("not a request")
    os.mkfifo(tmp_path / "pipe.binpb")
    result = run("validate", "--output", "-", ".", cwd=tmp_path)
    assert result.status == 0
    order = ["B.ndjson.xz", "a-b.txtpb", "a/b.json", "a/z.binpbs.zst", "b.binpb"]
    assert [said["source"] for said in result.lines] == [f"./{name}" for name in order]


def test_links_to_directories(tmp_path: Path) -> None:
    for name in ("real", "tree"):
        (tmp_path / name).mkdir()
        make(tmp_path, f"{name}/a.binpb", [invalid_request() if name == "real" else request()])
    (tmp_path / "tree" / "link").symlink_to("../real")
    (tmp_path / "tree" / "same").symlink_to("link")
    for name in ("tree/0", "real/0"):  # Leads nowhere, and hides nothing.
        (tmp_path / name).symlink_to(os.path.basename(name))
    result = run("validate", "--output", "-", "tree", cwd=tmp_path)
    assert (result.status, result.stderr) == (1, "")
    names = ["tree/a.binpb", "tree/link/a.binpb", "tree/same/a.binpb"]
    assert [said["source"] for said in result.lines] == names
    (tmp_path / "real" / "up").symlink_to("../tree")
    result = run("validate", "--output", "-", "tree", cwd=tmp_path)
    assert result.status == 2
    assert "tree/link/up: directory contains itself" in result.stderr
    assert [said["source"] for said in result.lines] == names


def test_directory_without_records(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a request")
    result = run("validate", tmp_path)
    assert result.status == 2
    assert f"tvix-build: {tmp_path}: expected files named .binpb" in result.stderr


def test_name_that_is_not_text(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff\n.binpb"
    with open(path, "wb") as file:
        file.write(encoded(invalid_request()))
    result = run("validate", "--output", "-", tmp_path)
    assert result.lines[0]["source"] == f"{tmp_path}/\\xff\n.binpb"
    assert b"\\ud" not in result.stdout  # What is not Unicode is refused by other parsers.
    summary = run("validate", tmp_path).stdout
    assert rb"\xff\n.binpb: outputs[0]: " in summary


def test_invalid_records(tmp_path: Path) -> None:
    messages = [request(), unsorted_request(), invalid_request(), request(3)]
    path = make(tmp_path, "requests.binpbs", messages)
    result = run("validate", "--output", "-", path)
    assert (result.status, result.stderr) == (1, "")
    first, second, third, last = result.lines
    assert (first["valid"], last["valid"]) == (True, True)
    assert [violation["code"] for violation in second["violations"]] == ["not_sorted"]
    assert second["violations"][0]["path"] == "outputs[1]"
    assert second["digest"] == digest(request(1, outputs=["a", "b"]))
    assert (third["valid"], third["canonical"], third["digest"]) == (False, False, None)
    found = [(violation["code"], violation["path"]) for violation in third["violations"]]
    assert found == [("required", "command_args"), ("invalid_name", "outputs[0]")]
    assert all(violation["message"] for violation in third["violations"])
    assert "violation_count" not in third


def test_valid_but_not_canonical(tmp_path: Path) -> None:
    path = tmp_path / "request.binpb"
    message = request()
    start = BuildRequest(outputs=message.outputs)
    rest = request(outputs=[])
    path.write_bytes(encoded(start) + encoded(rest))
    (said,) = run("validate", "--output", "-", path).lines
    assert said == {**line(path, 0, 0, message), "canonical": False}


def test_many_violations_are_counted(tmp_path: Path) -> None:
    path = make(tmp_path, "request.binpb", [request(outputs=[""] * 150)])
    (said,) = run("validate", "--output", "-", path).lines
    assert len(said["violations"]) == 100
    assert said["violation_count"] > 150


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"outputs": 5}', "outputs"),
        ('{"commandArgs": ["a"], }', "column 2"),
        ('{"noSuchField": 5}', "noSuchField"),
        ("[]", "does not begin with '{'"),
        ("null", "does not begin with '{'"),
        ('{"inputs": [{"file": {"size": -1}}]}', "-1"),
        ('{"commandArgs": ["\\ud800"]}', "surrogate"),
        ("{" * 2000, "found: "),
        ('{"constraints":' * 50_000, "found: "),
        ('{"outputs": ["' + "x" * 10_000, "column"),
        ('{"outputs": ["\udcff"]}', "0xff, which is not UTF-8, at offset 14"),
        ('{"environmentVars": [{"value": "é"}]}', "environmentVars[0].value: expected base64"),
        ('{"environmentVars": [{"value": "a b!"}]}', "value: expected base64, found 'a b!'"),
        ('{"environmentVars": [{"value": "Zg==Zg"}]}', "value: expected base64, found 'Zg==Zg'"),
        ('{"environmentVars": [{"value": "Zh=="}]}', "value: expected base64, found 'Zh=='"),
        ('{"environmentVars": [{"value": "Zg==="}]}', "value: expected base64, found 'Zg==='"),
        ('{"environmentVars": [{"value": "Z"}]}', "value: expected base64, found 'Z'"),
        ('{"inputs": [{}, {"file": {"digest": "%"}}]}', "inputs[1].file.digest: expected base64"),
        ('{"commandArgs": ["a"], "command_args": ["b"]}', "'commandArgs' and 'command_args'"),
        ('{"command_args": ["a"], "commandArgs": ["b"]}', "'command_args' and 'commandArgs'"),
        ('{"constraints": []}', "constraints: expected an object, found []"),
        ('{"inputs": [[]]}', "inputs[0]: expected an object, found []"),
        ('{"environmentVars": [{"value": "+_8="}]}', "value: expected base64, found '+_8='"),
        ('{"environmentVars": [{"value": "-_=="}]}', "value: expected base64, found '-_=='"),
        ('{"environmentVars": [{"value": "+/"}]}', "value: expected base64, found '+/'"),
        ('{"environmentVars": [{"value": "Zg=="}, {"value": 5}]}', "expected base64, found 5"),
        ('{"commandArgs": [5]}', "commandArgs[0]: expected a string, found 5"),
        ('{"constraints": {}, "constraints": {}}', "duplicate name in an object: 'constraints'"),
        (
            '{"constraints": {"system": "a", "system": "b"}}',
            "duplicate name in an object: 'system'",
        ),
        ('{"\\ud800": 5}', r"\ud800"),
        ('{"commandArgs": NaN}', "expected a JSON value, found NaN"),
    ],
)
def test_json_that_does_not_parse(text: str, reason: str) -> None:
    data = text.encode(errors="surrogateescape")
    lines = b"\n".join([written([request()], ".ndjson").strip(), data, b"  \r\n", b"{}"])
    result = run("validate", "--input-format", "ndjson", "--output", "-", "-", stdin=lines)
    assert (result.status, result.stderr) == (1, "")
    first, second, third = result.lines
    assert first["valid"]
    assert (second["digest"], second["index"], third["index"]) == (None, 1, 2)
    assert third["offset"] == len(lines) - 2
    (violation,) = second["violations"]
    assert (violation["code"], violation["path"]) == ("malformed", "")
    assert violation["message"].startswith("expected a BuildRequest in proto3 JSON, found")
    assert reason in violation["message"]
    assert "line 1 " not in violation["message"]
    assert len(violation["message"]) < 500
    assert third["violations"][0]["code"] == "required"


@pytest.mark.parametrize(
    "number",
    [
        *(
            '"1_000"',
            '"\u0665"',
            '"\uff15"',
            '"+5"',
            '"5\\n"',
            '"5\u00a0"',
            '" 5"',
            '"5 "',
            '"0x5"',
            '""',
        ),
        *('"05"', '".5"', '"5."', '"inf"', '"NaN"', "NaN", "true", "[5]", "1.5", '"5e-1"', "-1"),
        *("9007199254740993.5", "18446744073709551616", "1e20", "1.8446744073709551616e19"),
        *("1e999999999", "1e-999999999", '"1e99999999999999999999"', "0.1e0", '"-5"'),
    ],
)
def test_json_numbers_that_are_no_uint64(number: str) -> None:
    text = f'{{"constraints": {{"minMemory": {number}}}}}'
    result = run("validate", "--input-format", "json", "--output", "-", "-", stdin=text.encode())
    (violation,) = result.lines[0]["violations"]
    assert violation["code"] == "malformed"
    if number != "NaN":
        assert "constraints.minMemory: expected an integer" in violation["message"]


@pytest.mark.parametrize(
    ("number", "value"),
    [
        *(("0", 0), ("-0", 0), ("0.0", 0), ("0e-999999999", 0), ('"5"', 5), ('"\\u0035"', 5)),
        *(("5.000", 5), ('"5.0"', 5), ("1e5", 100_000), ('"1e5"', 100_000), ('"1.5E+1"', 15)),
        *(("9007199254740993.0", 2**53 + 1), ('"9007199254740993.0"', 2**53 + 1)),
        *(("18446744073709551615", 2**64 - 1), ("1.8446744073709551615e19", 2**64 - 1)),
        *(("184467440737095516150e-1", 2**64 - 1), ("null", 0)),
    ],
)
def test_json_numbers_are_exact(number: str, value: int) -> None:
    constraints = f'{{"system": "x", "minMemory": {number}}}'
    text = f'{{"commandArgs": ["a"], "constraints": {constraints}}}'
    result = run("digest", "--input-format", "json", "-", stdin=text.encode())
    expected = BuildRequest(
        command_args=["a"],
        constraints=BuildRequest.BuildConstraints(system="x", min_memory=value),
    )
    assert result.stdout.split()[0].decode() == digest(expected), result.stderr


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("constraints {\n min_memory: 1_0 }", "2:14: expected an integer, found '1_0'"),
        *(
            (f"constraints {{ min_memory: {number} }}", "expected ")
            for number in (
                "+5",
                "0b11",
                "0o17",
                "5.0",
                "1e3",
                "5f",
                "08",
                "\u0665",
                "\uff15",
                "5\u00a0",
            )
        ),
        (r'command_args: "\q"', r"1:16: expected an escape of the text format, found \q"),
        (r'command_args: "a\?"', r"1:17: expected an escape of the text format, found \?"),
        (r'command_args: "a" "\N{DIGIT ONE}"', r"1:20: expected an escape of the text format"),
        (r"environment_vars { value: '\8' }", r"1:28: expected an escape of the text format"),
        *(
            (
                f'outputs: "{escape}"',
                f"1:11: expected an escape of a Unicode character, found {escape}",
            )
            for escape in (r"\ud800", r"\uDFFF", r"\U0000d800", r"\U00110000", r"\UFFFFFFFF")
        ),
        ('command_args:\u00a0"a"', r"1:14: expected a field or its value, found '\xa0'"),
    ],
)
def test_text_format_that_only_python_reads(text: str, reason: str) -> None:
    result = run("validate", "--input-format", "txtpb", "--output", "-", "-", stdin=text.encode())
    (violation,) = result.lines[0]["violations"]
    assert violation["code"] == "malformed"
    assert reason in violation["message"]


def test_text_format_that_is_written_in_other_ways() -> None:
    text = rb"""# 1_0 \q +5 \xc2\xa0
    command_args: ["1_0\x41\101\u00e9\\q", '+5#"' "\"b\ta"]  # \q
    constraints: < system: "x", min_memory: 0x1F >;
    environment_vars { key: "K_1" value: '\xff\U0001F600\377\a' }
    """
    result = run("digest", "--input-format", "txtpb", "-", stdin=text)
    expected = BuildRequest(
        command_args=["1_0AAé\\q", '+5#""b\ta'],
        constraints=BuildRequest.BuildConstraints(system="x", min_memory=31),
        environment_vars=[{"key": "K_1", "value": b"\xff\xf0\x9f\x98\x80\xff\a"}],
    )
    assert result.stdout.split()[0].decode() == digest(expected), result.stderr


# The last four are unpadded base64url: protobuf's conformance suite accepts "-_" as 0xfb.
@pytest.mark.parametrize(
    "value", ["", "Zg==", "Zg", "-_8=", "+/8=", "-_8", "YWJj", "-_", "Zh", "__B", "_9"]
)
def test_json_that_is_written_in_other_ways(value: str) -> None:
    variables = [{"key": "K", "value": value}, {"key": "L", "value": None}]
    text = {"command_args": ["a"], "environment_vars": variables, "constraints": None}
    result = run("digest", "--input-format", "json", "-", stdin=json.dumps(text).encode())
    padded = value.replace("-", "+").replace("_", "/") + "=" * (-len(value) % 4)
    pairs = [{"key": "K", "value": b64decode(padded)}, {"key": "L", "value": b""}]
    expected = digest(BuildRequest(command_args=["a"], environment_vars=pairs))
    assert result.stdout.split()[0].decode() == expected


@pytest.mark.parametrize(("suffix", "text"), [("json", "\n{]"), ("txtpb", "\noutputs: 5")])
def test_text_that_does_not_parse_says_line_and_column(suffix: str, text: str) -> None:
    options = ("--kind", "directory", "--input-format", suffix, "--output", "-")
    result = run("validate", *options, "-", stdin=text.encode())
    assert result.status == 1
    message = result.lines[0]["violations"][0]["message"]
    assert re.search(r"line 2 column 2|\b2:1\b", message), message
    assert "expected a Directory in " in message


@pytest.mark.parametrize("suffix", ["binpbs", "ndjson"])
@pytest.mark.parametrize("text", [b"", b"\n \n"])
def test_no_records(suffix: str, text: bytes) -> None:
    data = b"" if suffix == "binpbs" else text
    result = run("validate", "--input-format", suffix, "--output", "-", "-", stdin=data)
    assert (result.status, result.stdout, result.stderr) == (0, b"", "")


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n", b"\n\n"])
def test_last_line(ending: bytes) -> None:
    data = written([request()], ".ndjson").rstrip() + ending
    result = run("validate", "--input-format", "ndjson", "--output", "-", "-", stdin=data)
    assert (result.status, len(result.lines)) == (0, 1)


def test_blank_lines() -> None:
    text = written([request()], ".ndjson")
    blank = b" \t\r\n" * 2_000_000
    data = blank + text + blank + b"  " + text + blank + b"   "
    result = run("validate", "--input-format", "ndjson", "--output", "-", "-", stdin=data)
    assert result.status == 0
    places = [(said["index"], said["offset"]) for said in result.lines]
    assert places == [(0, len(blank)), (1, 2 * len(blank) + len(text))]


def test_broken_symlink_in_a_directory(tmp_path: Path) -> None:
    (tmp_path / "lost.binpb").symlink_to("nowhere")
    result = run("validate", tmp_path)
    assert result.status == 2
    assert "lost.binpb: No such file or directory" in result.stderr


def test_kinds(tmp_path: Path) -> None:
    output = Node(symlink=SymlinkNode(name=b"0000-out", target=b"/x"))
    build = Build(build_request=request(), outputs=[output])
    directory = Directory(
        directories=[DirectoryNode(name=b"d", digest=bytes(32), size=0)],
        files=[FileNode(name=b"f", digest=bytes(32))],
    )
    for kind, message in (("build", build), ("directory", directory)):
        path = tmp_path / f"{kind}.binpb"
        path.write_bytes(message.SerializeToString())
        assert run("validate", "--kind", kind, path).status == 0
        assert run("validate", path).status == 1


@pytest.mark.slow
def test_large_records_in_a_stream(tmp_path: Path) -> None:
    big = request(1, command_args=["x" * 9_000_000])
    messages = [request(0), big, request(2), big, *(request(number) for number in range(20))]
    for name in ("requests.binpbs.zst", "requests.ndjson.gz"):
        result = run("validate", "--output", "-", make(tmp_path, name, messages))
        assert result.status == 0
        assert [said["digest"] for said in result.lines] == list(map(digest, messages))


@pytest.mark.slow
def test_more_tiny_records_than_a_batch_holds(tmp_path: Path) -> None:
    count = 70_000
    path = tmp_path / "requests.binpbs"
    path.write_bytes(bytes(count))
    result = run("validate", "--kind", "directory", "--output", "-", path)
    assert result.status == 0
    places = [(said["index"], said["offset"]) for said in result.lines]
    assert places == [(index, index) for index in range(count)]


def test_summary(tmp_path: Path) -> None:
    good = make(tmp_path, "good.binpbs", [request(number) for number in range(5)])
    bad = make(tmp_path, "bad.binpbs", [request(), *[invalid_request()] * 4, unsorted_request()])
    result = run("validate", good, bad)
    assert (result.status, result.stderr) == (1, "")
    text = result.stdout.decode()
    for name, count in {
        "records": 11,
        "valid": 6,
        "canonical": 6,
        "invalid": 5,
        "required": 4,
        "invalid_name": 4,
        "not_sorted": 1,
    }.items():
        assert re.search(rf"^ *{name} +{count}$", text, re.MULTILINE), (name, text)
    offset = len(delimited([encoded(request())]))
    assert f"{bad}[1] at byte {offset}: command_args: " in text
    assert text.count("command_args: ") == 3


def test_output_and_summary(tmp_path: Path) -> None:
    path = make(tmp_path, "request.json", [request()])
    output = tmp_path / "report.ndjson"
    result = run("validate", "--output", output, path)
    assert result.status == 0
    assert b"records" in result.stdout
    assert [json.loads(said) for said in output.read_bytes().splitlines()] == [
        line(path, 0, 0, request())
    ]


def test_several_files_and_a_missing_one(tmp_path: Path) -> None:
    first = make(tmp_path, "first.binpb", [request(1)])
    last = make(tmp_path, "last.json", [invalid_request()])
    result = run("validate", "--output", "-", first, tmp_path / "missing.binpb", last)
    assert result.status == 2
    assert [said["source"] for said in result.lines] == [str(first), str(last)]
    assert result.stderr == f"tvix-build: {tmp_path}/missing.binpb: No such file or directory\n"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("validate",),
        ("validate", "-"),
        ("validate", "--kind", "other", "x.binpb"),
        ("validate", "--input-format", "binpb", "-", "-"),
        ("validate", "x"),
        ("validate", "x.zst"),
        ("show", "x.zst[3]"),
        ("no-such-command",),
    ],
)
def test_usage_errors(arguments: tuple[str, ...], tmp_path: Path) -> None:
    for name in ("x", "x.zst"):
        (tmp_path / name).write_bytes(b"")
    result = run(*arguments, cwd=tmp_path)
    assert (result.status, result.stdout) == (2, b"")
    assert "Usage: tvix-build" in result.stderr


def on_terminal(*arguments: str | Path, stdout: int | None = None) -> tuple[int, bytes]:
    """Run a command on a terminal. Return its status and what the terminal shows.

    Args:
        arguments: the arguments.
        stdout: another file for stdout.
    """
    ours, theirs = pty.openpty()
    output = theirs if stdout is None else stdout
    process = start(*arguments, terminal="xterm", stdin=theirs, stdout=output, stderr=theirs)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # Linux says EIO where the other side is closed.
        while data := os.read(ours, 1 << 16):
            shown += data
    os.close(ours)
    return process.wait(timeout=LIMIT), shown


def test_progress_and_colour_on_a_terminal(tmp_path: Path) -> None:
    path = make(tmp_path, "requests.binpbs", [request(), invalid_request()])
    status, shown = on_terminal("validate", path)
    assert status == 1
    assert b"2 records" in shown
    assert b"1 invalid" in shown
    assert b"MB/s" in shown
    assert b"\x1b[" in shown
    status, shown = on_terminal("validate", "--quiet", path)
    assert (status, shown) == (1, b"")


@pytest.mark.parametrize(
    "arguments",
    [
        ("validate", "--output", "-", "IN"),
        ("digest", "IN"),
        ("canonicalize", "IN", "-", "--output-format", "binpbs"),
        ("convert", "IN", "-", "--output-format", "binpbs"),
    ],
)
def test_progress_while_stdout_is_a_file(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    path = make(tmp_path, "requests.binpbs", [request(), request(1)])
    command = [str(path) if argument == "IN" else argument for argument in arguments]
    with (tmp_path / "out").open("wb") as file:
        status, shown = on_terminal(*command, stdout=file.fileno())
    assert status == 0
    assert b"2 records" in shown
    assert (tmp_path / "out").stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize("output_format", ["binpb", "binpbs", "arrow"])
@pytest.mark.parametrize("command", ["canonicalize", "convert"])
def test_binary_output_is_not_written_to_a_terminal(
    tmp_path: Path, command: str, output_format: str
) -> None:
    path = make(tmp_path, "request.json", [request()])
    status, shown = on_terminal(command, path, "-", "--output-format", output_format)
    assert status == 2
    words = " ".join(shown.decode().split())
    assert f"{output_format} is a binary format, and stdout is a terminal: write to a file" in words


def test_text_is_written_to_a_terminal(tmp_path: Path) -> None:
    path = make(tmp_path, "request.binpb", [request()])
    status, shown = on_terminal("canonicalize", path, "-", "--output-format", "json")
    assert status == 0
    assert b'"commandArgs"' in shown
