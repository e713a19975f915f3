# SPDX-License-Identifier: MIT
"""`tvix-build canonicalize`, `digest` and `show` as processes, and what all commands share."""

from __future__ import annotations

import gzip
import json
import os
import re
import sys
from pathlib import Path

import pytest
from google.protobuf import json_format, text_format
from google.protobuf.message import Message

import tvix_build
from cli_support import (
    SUFFIXES,
    Result,
    compressed,
    decompressed,
    delimited,
    digest,
    encoded,
    invalid_request,
    make,
    request,
    run,
    run_python,
    unsorted_request,
    written,
)
from tvix.build.protos.build_pb2 import Build, BuildRequest
from tvix.castore.protos.castore_pb2 import Directory, DirectoryNode, FileNode, Node, SymlinkNode

SORTED = request(1, outputs=["a", "b"])  # what unsorted_request() is in canonical form


@pytest.mark.parametrize("compression", SUFFIXES)
@pytest.mark.parametrize("source", [".binpb", ".json", ".txtpb", ".binpbs", ".ndjson"])
@pytest.mark.parametrize("target", [".binpb", ".binpbs"])
def test_canonicalize_one(tmp_path: Path, source: str, target: str, compression: str) -> None:
    path = make(tmp_path, f"in{source}{compression}", [unsorted_request()])
    output = tmp_path / f"out{target}{compression}"
    result = run("canonicalize", path, output)
    assert (result.status, result.stdout, result.stderr) == (0, b"", "")
    expected = encoded(SORTED) if target == ".binpb" else delimited([encoded(SORTED)])
    assert decompressed(output.read_bytes(), compression) == expected


@pytest.mark.slow
@pytest.mark.parametrize("source", [".binpbs", ".ndjson"])
def test_canonicalize_stream(tmp_path: Path, source: str) -> None:
    messages = [request(0), unsorted_request(), *(request(number) for number in range(9000))]
    path = make(tmp_path, f"in{source}.zst", messages)
    output = tmp_path / "out.binpbs.gz"
    assert run("canonicalize", path, output).status == 0
    messages[1] = SORTED
    expected = delimited(map(encoded, messages))
    assert decompressed(output.read_bytes(), ".gz") == expected
    again = tmp_path / "again.binpbs.gz"
    assert run("canonicalize", output, again).status == 0
    assert again.read_bytes() == output.read_bytes()


def test_canonicalize_to_text(tmp_path: Path) -> None:
    path = make(tmp_path, "in.binpb", [unsorted_request()])
    for suffix in ("json", "txtpb", "ndjson"):
        output = tmp_path / f"out.{suffix}"
        assert run("canonicalize", path, output).status == 0
        text = output.read_text()
        assert text.endswith("\n")
        message = BuildRequest()
        if suffix == "txtpb":
            text_format.Parse(text, message)
        else:
            json_format.Parse(text, message)
        assert encoded(message) == encoded(SORTED)
        assert suffix != "ndjson" or text.count("\n") == 1


def test_canonicalize_stdin_to_stdout() -> None:
    data = compressed(written([unsorted_request()] * 3, ".ndjson"), ".xz")
    formats = ("--input-format", "ndjson", "--output-format", "binpbs")
    result = run("canonicalize", *formats, "-", "-", stdin=data)
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout == delimited([encoded(SORTED)] * 3)
    assert run("canonicalize", "--input-format", "ndjson", "-", "-", stdin=data).status == 2
    assert run("canonicalize", "--output-format", "ndjson", "-", "-", stdin=data).status == 2


def test_canonicalize_writes_nothing_when_a_record_is_refused(tmp_path: Path) -> None:
    messages = [*[request()] * 5000, invalid_request(), unsorted_request()]
    path = make(tmp_path, "in.binpbs", messages)
    output = tmp_path / "out.binpbs"
    output.write_bytes(b"as it was")
    result = run("canonicalize", path, output)
    assert (result.status, result.stdout) == (1, b"")
    offset = len(delimited([encoded(request())] * 5000))
    first, second, last = result.stderr.splitlines()
    place = f"tvix-build: {path}[5000] at byte {offset}: "
    assert first.startswith(place + "command_args: required: expected ")
    assert second.startswith(place + "outputs[0]: invalid_name: expected ")
    assert (
        last
        == f"tvix-build: {path}: 1 record has no canonical encoding; the output was not written"
    )
    assert output.read_bytes() == b"as it was"
    assert sorted(tmp_path.iterdir()) == [path, output]


def test_canonicalize_to_stdout_ends_at_a_refused_record() -> None:
    good = delimited([encoded(request())] * 9000)
    data = good + delimited([encoded(invalid_request())]) + good
    formats = ("--input-format", "binpbs", "--output-format", "binpbs")
    result = run("canonicalize", *formats, "-", "-", stdin=data)
    assert result.status == 1
    assert good.startswith(result.stdout)
    assert result.stderr.endswith(
        "has no canonical encoding; the output ends before the first of them\n"
    )


def test_canonicalize_reports_no_endless_list(tmp_path: Path) -> None:
    path = make(tmp_path, "in.binpbs", [invalid_request()] * 500)
    result = run("canonicalize", path, tmp_path / "out.binpbs")
    assert result.status == 1
    assert len(result.stderr.splitlines()) < 50
    assert "500 records have no canonical encoding" in result.stderr


def test_canonicalize_writes_nothing_from_a_damaged_file(tmp_path: Path) -> None:
    path = make(tmp_path, "in.binpbs", [request()] * 3)
    path.write_bytes(path.read_bytes()[:-1])
    result = run("canonicalize", path, tmp_path / "out.binpbs")
    assert result.status == 2
    assert f"{path}[2] at byte " in result.stderr
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("count", [0, 2, 5000])
@pytest.mark.parametrize("name", ["out.binpb", "out.json.gz", "out.txtpb"])
def test_canonicalize_several_records_to_a_file_for_one(
    tmp_path: Path, count: int, name: str
) -> None:
    path = make(tmp_path, "in.binpbs", [request()] * count)
    result = run("canonicalize", path, tmp_path / name)
    assert result.status == 2
    assert "expected one record" in result.stderr
    assert list(tmp_path.iterdir()) == [path]


def test_canonicalize_kinds(tmp_path: Path) -> None:
    directory = Directory(files=[FileNode(name=b"b", digest=bytes(32)), FileNode(name=b"a")])
    directory.files[1].digest = bytes(32)
    path = tmp_path / "in.binpb"
    path.write_bytes(directory.SerializeToString())
    output = tmp_path / "out.binpb"
    assert run("canonicalize", "--kind", "directory", path, output).status == 0
    names = [node.name for node in Directory.FromString(output.read_bytes()).files]
    assert names == [b"a", b"b"]


def test_digest(tmp_path: Path) -> None:
    make(tmp_path, "one.json", [request(7)])
    make(tmp_path, "many.binpbs.zst", [request(1), unsorted_request(), request(2)])
    result = run("digest", "one.json", "many.binpbs.zst", cwd=tmp_path)
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout.decode().splitlines() == [
        f"{digest(request(7))}  one.json",
        f"{digest(request(1))}  many.binpbs.zst[0]",
        f"{digest(SORTED)}  many.binpbs.zst[1]",
        f"{digest(request(2))}  many.binpbs.zst[2]",
    ]


def test_digest_of_invalid_and_damaged(tmp_path: Path) -> None:
    many = make(tmp_path, "many.binpbs", [request(1), invalid_request(), request(2), request(3)])
    result = run("digest", many)
    assert result.status == 1
    lines = result.stdout.decode().splitlines()
    assert lines == [f"{digest(request(n))}  {many}[{i}]" for n, i in ((1, 0), (2, 2), (3, 3))]
    assert f"{many}[1] at byte " in result.stderr
    many.write_bytes(many.read_bytes()[:-1])
    result = run("digest", many, "-", "--input-format", "binpbs", stdin=b"")
    assert (result.status, len(result.stdout.splitlines())) == (2, 2)


def test_digest_of_names_that_need_escapes(tmp_path: Path) -> None:
    for name in (b"a\nb.binpb", b"c\\d.binpb", b"\xff.binpb"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(encoded(request()))
    result = run("digest", ".", cwd=tmp_path)
    name = digest(request()).encode()
    assert result.stdout.splitlines() == [
        b"\\" + name + b"  ./a\\nb.binpb",
        b"\\" + name + b"  ./c\\\\d.binpb",
        name + b"  ./\xff.binpb",
    ]


def test_digest_of_stdin() -> None:
    result = run("digest", "--input-format", "binpb", "-", stdin=encoded(request()))
    assert result.stdout.decode() == f"{digest(request())}  -\n"


def test_show(tmp_path: Path) -> None:
    nodes = [
        Node(directory=DirectoryNode(name=b"a", digest=b"\xab" * 32, size=3)),
        Node(file=FileNode(name=b"b", digest=b"\xcd" * 32, size=1, executable=True)),
        Node(symlink=SymlinkNode(name=b"c", target=b"/nix/store/x")),
    ]
    variables = [
        BuildRequest.EnvVar(key="A", value=b"\xff\x1b[2J\n"),
        BuildRequest.EnvVar(key="B", value=b"v" * 5000),
    ]
    message = request(inputs=nodes, environment_vars=variables)
    path = make(tmp_path, "request.txtpb", [message])
    result = run("show", path)
    assert (result.status, result.stderr) == (0, "")
    text = result.stdout.decode()
    assert "\x1b" not in text
    assert f"{path}  build-request  canonical\ndigest {digest(message)}\n" in text
    assert "command_args (3)\n  /bin/sh\n  -c\n  build 0\n" in text
    assert re.search(rf"^  directory +{'ab' * 32} +3 a$", text, re.MULTILINE)
    assert re.search(rf"^  executable +{'cd' * 32} +1 b$", text, re.MULTILINE)
    assert re.search(r"^  symlink +c -> /nix/store/x$", text, re.MULTILINE)
    assert "\n  A=\\xff\\x1b[2J\n    \n  B=v" in text
    assert f"\n  B={'v' * 160}… (length 5,000)\n" in text
    assert "  system x86_64-linux" in text
    assert "v" * 5000 in run("show", "--full", path).stdout.decode()


def test_show_records(tmp_path: Path) -> None:
    messages = [request(number) for number in range(5000)]
    path = make(tmp_path, "requests.binpbs", messages)
    for option, indices in (("0", [0]), ("4999", [4999]), ("4094-4098", range(4094, 4099))):
        text = run("show", "--records", option, path).stdout.decode()
        shown = [int(index) for index in re.findall(r"binpbs\[(\d+)\]", text)]
        assert shown == list(indices)
        assert all(digest(request(index)) in text for index in indices)
    for option in ("5000", "4999-5000"):
        result = run("show", "--records", option, path)
        assert result.status == 2
        assert "found only 5000 records" in result.stderr
    for option in ("x", "-1", "3-2", "1-"):
        assert run("show", "--records", option, path).status == 2


def test_a_record_is_named_as_digest_prints_it(tmp_path: Path) -> None:
    """FILE[INDEX] means the record wherever a file is read, and all that is printed says it."""
    messages = [request(number) for number in range(4999)]
    messages += [request(5000, outputs=["b", "a"]), request(5001, outputs=["a/b"])]
    make(tmp_path, "many.binpbs.zst", messages)
    make(tmp_path, "lines.ndjson", messages[-2:])
    make(tmp_path, "one.json", [request(7)])

    def done(*arguments: str) -> Result:
        return run(*arguments, cwd=tmp_path)

    listed = done("digest", "many.binpbs.zst").stdout.decode().splitlines()
    for digest_line in (listed[0], listed[2500], listed[4999]):
        digest_said, name = digest_line.split("  ")
        assert done("digest", name).stdout.decode() == f"{digest_line}\n"
        shown = done("show", name).stdout.decode()
        assert shown.startswith(f"{name}  build-request  ")
        assert shown.splitlines()[1] == f"digest {digest_said}"
        (said,) = done("validate", "--output", "-", name).lines
        assert (said["digest"], f"{said['source']}[{said['index']}]") == (digest_said, name)
        differences = done("diff", name, "one.json").stdout.decode().splitlines()
        assert differences[0] == f"- {digest_said}  {name}"
        assert f"+ {digest(request(7))}  one.json" in differences
        added = done("store", "add", "store", name)
        assert added.stdout.decode() == f"{digest_line}\n"
        assert done("canonicalize", name, "out.binpb").status == 0
        assert done("digest", "out.binpb").stdout.decode() == f"{digest_said}  out.binpb\n"
        assert done("convert", name, "out.binpbs").status == 0
        assert len(done("validate", "--output", "-", "out.binpbs").lines) == 1
    assert (tmp_path / "out.binpbs").read_bytes() == delimited([encoded(messages[4999])])
    offset = len(delimited(map(encoded, messages[:-1])))
    place = f"many.binpbs.zst[5000] at byte {offset}: "
    invalid = "many.binpbs.zst[5000]"
    for command in (("digest",), ("canonicalize",), ("convert", "--to", "tvix.build.v1@2024")):
        target = [] if command == ("digest",) else ["out.binpbs"]
        assert f"tvix-build: {place}outputs[0]: invalid_name: " in (
            done(*command, invalid, *target).stderr
        )
    assert f"{place}outputs[0]: " in done("validate", invalid).stdout.decode()
    assert done("show", "lines.ndjson[1]").stdout.startswith(b"lines.ndjson[1]  build-request  ")
    options = ("--input-format", "ndjson")
    piped = run("digest", *options, "--", "-[0]", stdin=(tmp_path / "lines.ndjson").read_bytes())
    assert piped.stdout.endswith(b"  -[0]\n")
    for arguments, reason in (
        (("show", "lines.ndjson[2]"), "lines.ndjson: expected record 2, found only 2 records"),
        (("digest", "one.json[1]"), "one.json: expected record 1, found only 1 records"),
        (("show", "lines.ndjson[1]", "--records", "0"), "expected either FILE[INDEX] or --records"),
        (("digest", ".[0]"), "expected a file to read, found the directory ."),
        (("digest", *options, "--", "-[0]", "-"), "expected '-' at most once"),
        (("show", "no.ndjson[0]"), "no.ndjson: No such file or directory"),
    ):
        result = done(*arguments)
        assert (result.status, result.stdout) == (2, b"")
        assert reason in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        *(("validate",), ("digest",), ("show",), ("diff", "x.binpb"), ("store", "add", "store")),
        *(("canonicalize", "x.binpb"), ("convert", "x.binpb"), ("build", "--builder=grpc+unix:/x")),
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("name", ["missing", "missing.zst", "missing.txt", "missing.parquet.gz"])
def test_no_such_file(tmp_path: Path, command: tuple[str, ...], name: str) -> None:
    make(tmp_path, "x.binpb", [request()])
    arguments = [*command, name]
    if command[0] in ("canonicalize", "convert"):
        arguments[1:] = [name, "x.binpb"]
    result = run(*arguments, cwd=tmp_path)
    assert result.status == 2
    assert result.stderr == f"tvix-build: {name}: No such file or directory\n"


def test_an_unknown_format_of_an_output(tmp_path: Path) -> None:
    make(tmp_path, "x.binpb", [request()])
    for command in ("canonicalize", "convert"):
        to_stdout = run(command, "x.binpb", "-", cwd=tmp_path).stderr
        assert "the format of stdout is unknown: pass --output-format binpb|" in to_stdout
        to_file = run(command, "x.binpb", "out", cwd=tmp_path).stderr
        assert "the format of the output 'out' is unknown: pass --output-format" in to_file
        from_stdin = run(command, "-", "out.binpb", cwd=tmp_path).stderr
        assert "the format of stdin is unknown: pass --input-format" in from_stdin


@pytest.mark.parametrize("command", ["show", "check"])
def test_an_unknown_format_of_a_plan(tmp_path: Path, command: str) -> None:
    """The commands of plans have no option for the format."""
    (tmp_path / "plan").touch()
    remedy = "is unknown: pass a name such as x.binpbs or x.json.zst\n"
    found = run("plan", command, "plan", cwd=tmp_path)
    assert (found.status, found.stdout) == (2, b"")
    assert found.stderr.endswith(f"Error: the format of 'plan' {remedy}")
    assert run("plan", command, "-").stderr.endswith(f"Error: the format of stdin {remedy}")


def test_show_says_what_is_wrong(tmp_path: Path) -> None:
    data = delimited([encoded(invalid_request()), b"\xff", encoded(request())])
    result = run("show", "--input-format", "binpbs", "-", stdin=data)
    assert result.status == 1
    first, second, third = result.stdout.decode().split("\n\n")
    assert first.startswith("-[0]  build-request  invalid\ncommand_args: required: expected ")
    assert "outputs (1)\n  a/b\n" in first
    assert second.startswith("-[1]  build-request  invalid\nmalformed: expected ")
    assert third.startswith("-[2]  build-request  canonical\n")


def test_a_wrong_schema_is_not_corruption(tmp_path: Path) -> None:
    later = tvix_build.build_request(
        command_args=["a"], working_dir="build", schema="tvix.build.v1@2024"
    )
    path = tmp_path / "in.binpb"
    path.write_bytes(later)
    hint = "decodes as snix.build.v1 BuildRequest; use --schema snix.build.v1"
    assert f" ({hint})\n" in run("validate", path).stdout.decode()
    assert run("show", path).stdout.decode().endswith(f"\n{hint}\n")
    for result in (run("digest", path), run("canonicalize", path, tmp_path / "out.binpb")):
        assert f"tvix-build: {path}: {hint}\n" in result.stderr
    assert run("validate", path, "--schema", "snix.build.v1").status == 0
    other = "decodes as snix.build.v1 BuildRequest; use --kind build-request --schema snix.build.v1"
    assert other in run("validate", path, "--kind", "directory").stdout.decode()
    path.write_bytes(b"\xff")
    assert "decodes as" not in run("validate", path).stdout.decode()
    (tmp_path / "in.json").write_text('{"workingDir": "build"}')
    assert "decodes as" not in run("validate", tmp_path / "in.json").stdout.decode()


@pytest.mark.parametrize("suffix", [".binpbs", ".ndjson", ".ndjson.gz"])
def test_the_schema_is_chosen_for_each_file(tmp_path: Path, suffix: str) -> None:
    first = tvix_build.build_request(command_args=["a"], system="x")
    later = tvix_build.build_request(command_args=["a"], working_dir="b", schema="snix.build.v1")
    bad = tvix_build.convert(first, to="tvix.build.v1")
    bad.ClearField("command_args")
    files: dict[str, list[Message]] = {
        "first": [bad, first, first],
        "later": [later, later],
        "none": [bad],
    }
    paths = [tmp_path / f"{name}{suffix}" for name in files]
    for path, messages in zip(paths, files.values(), strict=True):
        lines = "".join(
            f"{json_format.MessageToJson(one, indent=None)}\n" for one in messages
        ).encode()
        data = delimited(one.SerializeToString() for one in messages)
        path.write_bytes(
            data if suffix == ".binpbs" else gzip.compress(lines) if ".gz" in suffix else lines
        )
    result = run("validate", "--schema", "auto", *paths, "--output", "-")
    assert (result.status, result.stderr) == (1, "")
    assert [line["digest"] and line["digest"][:8] for line in result.lines] == [
        None,
        *[tvix_build.digest(first).hex()[:8]] * 2,
        *[tvix_build.digest(later).hex()[:8]] * 2,
        None,
    ]
    printed = run("digest", "--schema", "auto", *paths).stdout.decode().splitlines()
    assert [line[:8] for line in printed] == [
        line["digest"][:8] for line in result.lines if line["digest"]
    ]


def test_the_schema_of_a_pipe_is_not_chosen() -> None:
    result = run("validate", "--schema", "auto", "--input-format", "binpb", "-", stdin=b"")
    assert result.status == 2
    assert "-: --schema auto requires a regular file" in result.stderr


def test_show_stops_at_damage(tmp_path: Path) -> None:
    data = delimited([encoded(request())]) * 2
    result = run("show", "--input-format", "binpbs", "-", stdin=data[:-1])
    assert result.status == 2
    assert b"-[0]  build-request  canonical" in result.stdout
    assert "[1] at byte" in result.stderr


def test_show_kinds(tmp_path: Path) -> None:
    output = Node(file=FileNode(name=b"0000-out", digest=bytes(32)))
    build = Build(build_request=request(), outputs=[output])
    path = tmp_path / "build.binpb"
    path.write_bytes(build.SerializeToString())
    text = run("show", "--kind", "build", path).stdout.decode()
    assert "build  canonical" in text
    assert "build_request\n  command_args (3)\n    /bin/sh\n" in text
    directory = Directory(symlinks=[SymlinkNode(name=b"s", target=b"t")])
    path.write_bytes(directory.SerializeToString())
    assert b"symlinks (1)\n  symlink    s -> t" in run("show", "--kind", "directory", path).stdout


def test_show_json(tmp_path: Path) -> None:
    path = tmp_path / "requests.ndjson"
    text = json_format.MessageToJson(request(), indent=None)
    path.write_text(f"{text}\n{{}}\n{{\n")
    result = run("show", "--json", path)
    assert (result.status, result.stderr) == (1, "")
    first, second, third = result.lines
    assert first == {
        "source": str(path),
        "index": 0,
        "valid": True,
        "canonical": True,
        "digest": digest(request()),
        "violations": [],
        "message": json.loads(text),
    }
    assert (second["index"], second["valid"], second["message"]) == (1, False, {})
    assert [one["code"] for one in second["violations"]] == ["required"]
    assert [one["code"] for one in third["violations"]] == ["malformed"]
    assert third["message"] is None
    assert run("show", "--json", f"{path}[0]").lines == [first]
    many = make(tmp_path, "many.binpb", [request(outputs=[""] * 200)])
    (found,) = run("show", "--json", many).lines
    assert found["violation_count"] > len(found["violations"])


def test_quiet_and_verbose(tmp_path: Path) -> None:
    path = make(tmp_path, "requests.binpbs.zst", [request(), invalid_request()])
    for option in ("-q", "--quiet"):
        result = run("validate", option, path)
        assert (result.status, result.stdout, result.stderr) == (1, b"", "")
    assert run("digest", "-q", path).stdout == run("digest", path).stdout
    for command in ("validate", "digest", "show"):
        for option in ("-v", "--verbose"):
            *_, reading, last = run(command, option, f"{path}[0]").stderr.splitlines()
            expected = f"tvix-build: {path}: reading binpbs, zst as tvix.build.v1 BuildRequest"
            assert reading == expected
            assert re.fullmatch(r"tvix-build: elapsed time: \d+\.\d\d s", last)
        assert run(command, f"{path}[0]").stderr == ""
    for command in ("canonicalize", "convert"):
        text = run(command, "-v", f"{path}[0]", tmp_path / "x.binpb").stderr
        assert "reading binpbs, zst as" in text


def test_misspelt_names(tmp_path: Path) -> None:
    make(tmp_path, "requests.binpbs", [request()])
    missing = "request.binpbs: No such file or directory; did you mean requests.binpbs?"
    for command in (("validate",), ("show",), ("digest",), ("diff", "requests.binpbs")):
        result = run(*command, "request.binpbs", cwd=tmp_path)
        assert (result.status, result.stderr) == (2, f"tvix-build: {missing}\n")
    result = run("validate", "x", cwd=tmp_path)
    assert result.stderr == "tvix-build: x: No such file or directory\n"
    assert result.stdout == b""  # no summary of no file
    result = run("validat")
    assert result.status == 2
    assert result.stderr.endswith("No such command 'validat'. Did you mean 'validate'?\n")
    assert run("nothing").stderr.endswith("No such command 'nothing'.\n")


def test_version_and_help() -> None:
    for option in ("--version", "-V"):
        result = run(option)
        expected = f"tvix-build {tvix_build.__version__}\n"
        assert (result.status, result.stdout.decode()) == (0, expected)
    assert b"--help" in run("--help").stdout
    for command in ("validate", "canonicalize", "digest", "show"):
        text = run(command, "--help").stdout.decode()
        assert f"  tvix-build {command} " in text, "an example"


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None\n"
    code += "from tvix_build.cli import main; sys.exit(main(['digest', 'a.binpb']))"
    done = run_python(code)
    assert (done.status, done.stdout) == (2, b"")
    expected = f"the command needs {missing}: pip install 'tvix-build[cli]'"
    assert done.stderr == f"tvix-build: {expected}\n"


def test_zstd_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "x.binpbs.zst", [request()])
    make(tmp_path, "x.binpbs", [request()])
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    monkeypatch.setitem(sys.modules, name, None)
    for command in (("validate", "x.binpbs.zst"), ("canonicalize", "x.binpbs", "y.binpbs.zst")):
        result = run(*command, cwd=tmp_path)
        expected = f"a file compressed with zstd needs {name}: pip install backports.zstd"
        assert (result.status, result.stdout) == (2, b"")
        assert result.stderr == f"Error: {expected}\n"
    assert sorted(os.listdir(tmp_path)) == ["x.binpbs", "x.binpbs.zst"]


def test_the_package_does_not_import_the_extra() -> None:
    code = "import sys, tvix_build\n"
    code += "print(sorted({'click', 'rich', 'backports.zstd'} & set(sys.modules)))"
    done = run_python(code)
    assert (done.status, done.stdout) == (0, b"[]\n")
