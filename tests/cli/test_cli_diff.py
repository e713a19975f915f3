# SPDX-License-Identifier: MIT
"""`tvix-build diff`: as a process, and what it compares with against canonical encodings."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings

import tvix_build
from cli_support import digest, encoded, invalid_request, make, request, run, unsorted_request
from snix.build.protos.build_pb2 import BuildRequest as SnixBuildRequest
from strategies import Batch, canonical_batches, mutant_batches
from tvix.build.protos.build_pb2 import Build, BuildRequest
from tvix.castore.protos.castore_pb2 import Directory, DirectoryNode, FileNode, Node, SymlinkNode
from tvix_build._core.report import KindLike
from tvix_build.cli.differences import Difference, differences

CLASSES: dict[str, type[Message]] = {
    "build-request": BuildRequest,
    "build": Build,
    "directory": Directory,
}
EnvVar = BuildRequest.EnvVar


@pytest.mark.slow
@pytest.mark.parametrize("kind", CLASSES)
def test_nothing_differs_if_and_only_if_canonical_encodings_are_equal(kind: KindLike) -> None:
    counts = {True: 0, False: 0}

    @settings(max_examples=20, database=None, deadline=None)
    @given(mutant_batches(kind, 30), canonical_batches(kind, 2))
    def compare(mutants: Batch, others: Batch) -> None:
        messages = [
            data for data in mutants if tvix_build.check(data, kind=kind).digest is not None
        ]
        messages += others
        for old, new in zip(messages, messages[1:] + messages[:1], strict=True):
            same = tvix_build.canonicalize(old, kind=kind) == tvix_build.canonicalize(
                new, kind=kind
            )
            pair = CLASSES[kind].FromString(old), CLASSES[kind].FromString(new)
            found = list(differences(*pair))
            assert (found == []) == same
            assert all(difference.old != difference.new for difference in found)
            back = [Difference(one.path, one.new, one.old) for one in differences(*pair[::-1])]
            assert {one.path for one in back} == {one.path for one in found}
            counts[same] += 1

    compare()
    assert min(counts.values()) > 20


def test_what_differs() -> None:
    old = request(
        command_args=["a", "b", "c"],
        outputs=["p", "q"],
        environment_vars=[EnvVar(key="A", value=b"1"), EnvVar(key="B")],
    )
    new = request(
        command_args=["a", "x", "c", "d"],
        outputs=["r", "q"],
        environment_vars=[EnvVar(key="C"), EnvVar(key="A", value=b"2")],
        inputs=[Node(symlink=SymlinkNode(name=b"0000-builder", target=b"t"))],
    )
    new.ClearField("constraints")
    assert list(differences(old, new)) == [
        Difference("command_args", "b", "x"),
        Difference("command_args", None, "d"),
        Difference("outputs", "p", None),
        Difference("outputs", None, "r"),
        Difference("environment_vars", old.environment_vars[0], new.environment_vars[1]),
        Difference("environment_vars", old.environment_vars[1], None),
        Difference("environment_vars", None, new.environment_vars[0]),
        Difference("inputs", old.inputs[0], new.inputs[0]),
        Difference("constraints", old.constraints, None),
        Difference("constraints.system", "x86_64-linux", None),
    ]


def test_lists_that_invalid_messages_have() -> None:
    old = request(outputs=["a", "a"], inputs=[Node(), Node(file=FileNode(name=b"a"))])
    new = request(outputs=["a"], inputs=[Node(file=FileNode(name=b"a"))])
    found = list(differences(old, new))
    assert found == [Difference("outputs", "a", None), Difference("inputs", Node(), None)]


def test_long_lists_take_no_quadratic_time() -> None:
    old = request(command_args=[f"a{i}" for i in range(30000)])
    new = request(command_args=[f"b{i}" for i in range(30001)])
    found = list(differences(old, new))
    assert len(found) == 30001
    assert found[-1] == Difference("command_args", None, "b30000")


def test_diff(tmp_path: Path) -> None:
    old = make(tmp_path, "old.json", [request(1, outputs=["a", "b"])])
    value = "v" * 5000
    nodes = [
        Node(directory=DirectoryNode(name=b"n", digest=b"\xab" * 32, size=3)),
        Node(symlink=SymlinkNode(name=b"o", target=b"/x")),
    ]
    variables = [EnvVar(key="HOME", value=b"/"), EnvVar(key="LONG", value=value.encode() + b"1")]
    first = request(1, outputs=["a", "b"], inputs=nodes, environment_vars=variables)
    nodes[0].directory.size = 4
    variables[1].value = (value + "22" + value).encode()
    second = request(1, outputs=["a", "c"], inputs=nodes[:1], environment_vars=variables)
    many = make(tmp_path, "many.binpbs.zst", [first, second])
    result = run("diff", f"{many}[0]", f"{many}[1]")
    assert (result.status, result.stderr) == (1, "")
    around = "v" * 20
    assert result.stdout.decode().splitlines() == [
        f"- {digest(first)}  {many}[0]",
        f"+ {digest(second)}  {many}[1]",
        "outputs",
        "- b",
        "+ c",
        "environment_vars",
        f"- LONG=…{around}1 (length 5,001)",
        f"+ LONG=…{around}22{'v' * 138}… (length 10,002)",
        "inputs",
        f"- directory  {'ab' * 32}            3 n",
        f"+ directory  {'ab' * 32}            4 n",
        "- symlink    o -> /x",
    ]
    full = run("diff", "--full", f"{many}[0]", f"{many}[1]").stdout.decode()
    assert f"\n- LONG={value}1\n+ LONG={value}22{value}\n" in full
    result = run("diff", old, f"{many}[0]")
    assert result.status == 1
    assert f"- {digest(request(1, outputs=['a', 'b']))}  {old}\n" in result.stdout.decode()


def test_the_same_message(tmp_path: Path) -> None:
    canonical = request(1, outputs=["a", "b"])
    old = make(tmp_path, "old.txtpb", [unsorted_request()])
    result = run("diff", old, "-", "--input-format", "txtpb", stdin=old.read_bytes())
    assert result.status == 0
    assert "different bytes" not in result.stdout.decode()
    new = make(tmp_path, "new.binpb", [canonical])
    result = run("diff", old, new)
    assert result.status == 0
    lines = result.stdout.decode().splitlines()
    assert lines[0] == f"- {digest(canonical)}  {old}"
    assert lines[1].startswith("  outputs[1]: not_sorted: ")
    assert lines[2] == f"+ {digest(canonical)}  {new}"
    assert lines[3:] == [f"same digest, different bytes; not canonical: {old}"]
    result = run("diff", new, new)
    assert result.status == 0
    assert result.stdout.decode().splitlines()[2:] == ["identical"]
    assert b"identical" not in run("diff", "--quiet", new, new).stdout


def test_texts_of_several_lines(tmp_path: Path) -> None:
    text = "".join(f"line {i}\n" for i in range(20))
    changed = text.replace("line 9\n", "line nine\n")
    scripts = zip((text, changed), ("a\x1b\nb", "a\x1b\nc"), strict=True)
    paths = [
        make(
            tmp_path,
            f"{i}.binpb",
            [
                request(
                    environment_vars=[EnvVar(key="A", value=value.encode())], command_args=[last]
                )
            ],
        )
        for i, (value, last) in enumerate(scripts)
    ]
    result = run("diff", *paths)
    assert result.status == 1
    assert result.stdout.decode().splitlines()[2:] == [
        "command_args",
        "@@ -1,2 +1,2 @@",
        "  a\\x1b",
        "- b",
        "+ c",
        "environment_vars",
        "  A=",
        "@@ -8,5 +8,5 @@",
        "  line 7",
        "  line 8",
        "- line 9",
        "+ line nine",
        "  line 10",
        "  line 11",
    ]
    long = make(
        tmp_path, "long.binpb", [request(environment_vars=[EnvVar(key="A", value=b"x\n" * 1000)])]
    )
    result = run("diff", paths[0], long)
    assert result.stdout.decode().count("\n") < 200
    result = run("diff", "--full", paths[0], long)
    assert result.stdout.decode().splitlines().count("+ x") == 1000


def test_json(tmp_path: Path) -> None:
    constraints = BuildRequest.BuildConstraints(system="s", min_memory=1 << 60)
    variable = EnvVar(key="A", value=b"\xff")
    first = request(1, outputs=["a"], constraints=constraints, environment_vars=[variable])
    many = make(tmp_path, "many.binpbs", [first, request(1, outputs=["b", "a"])])
    result = run("diff", "--json", f"{many}[0]", f"{many}[1]")
    assert (result.status, result.stderr) == (1, "")
    (found,) = result.lines
    (violation,) = found["b"].pop("violations")
    assert violation["code"] == "not_sorted"
    assert found == {
        "a": {
            "source": str(many),
            "index": 0,
            "valid": True,
            "canonical": True,
            "digest": digest(first),
            "violations": [],
        },
        "b": {
            "source": str(many),
            "index": 1,
            "valid": False,
            "canonical": False,
            "digest": digest(request(1, outputs=["a", "b"])),
        },
        "same_bytes": False,
        "same_digest": False,
        "differences": [
            {"path": "outputs", "a": None, "b": "b"},
            {"path": "environment_vars", "a": {"key": "A", "value": "/w=="}, "b": None},
            {"path": "environment_vars", "a": None, "b": {"key": "HOME", "value": "Lw=="}},
            {"path": "constraints.system", "a": "s", "b": "x86_64-linux"},
            {"path": "constraints.min_memory", "a": str(1 << 60), "b": None},
        ],
    }
    (found,) = run("diff", "--json", f"{many}[0]", f"{many}[0]").lines
    assert (found["same_bytes"], found["same_digest"], found["differences"]) == (True, True, [])
    (tmp_path / "bad.binpb").write_bytes(b"\xff")
    result = run("diff", "--json", f"{many}[0]", tmp_path / "bad.binpb")
    assert (result.status, result.lines[0]["differences"]) == (2, [])


def test_truth_values_in_json(tmp_path: Path) -> None:
    paths = []
    for i, network in enumerate((False, True)):
        message = SnixBuildRequest(command_args=["a"])
        message.constraints.network_access = network
        message.constraints.system = "s"
        paths.append(tmp_path / f"{i}.binpb")
        paths[-1].write_bytes(message.SerializeToString())
    result = run("diff", "--schema", "snix.build.v1", *paths)
    assert result.stdout.endswith(b"\nconstraints.network_access\n+ true\n")
    (found,) = run("diff", "--schema", "snix.build.v1", "--json", *paths).lines
    path = "constraints.network_access"
    assert found["differences"] == [{"path": path, "a": None, "b": True}]
    text = run("show", "--schema", "snix.build.v1", paths[1]).stdout
    assert b"\n  network_access true\n" in text


def test_formats_of_each_side(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(make(tmp_path, "a.json", [request(1)]).read_bytes())
    data = encoded(request(1))
    for options in (
        ("--input-format-a", "json", "--input-format-b", "binpb"),
        ("--input-format", "json", "--input-format-b", "binpb"),
        ("--input-format", "binpb", "--input-format-a", "json"),
    ):
        assert run("diff", *options, text, "-", stdin=data).status == 0
    assert run("diff", "--input-format-b", "binpb", text, "-", stdin=data).status == 2


def test_invalid_records(tmp_path: Path) -> None:
    good = make(tmp_path, "good.binpb", [request(2)])
    bad = make(tmp_path, "bad.binpb", [invalid_request()])
    result = run("diff", good, bad)
    assert result.status == 2
    text = result.stdout.decode()
    assert f"+ no digest  {bad}\n  command_args: required: " in text
    assert "\noutputs\n- 0002-out\n+ a/b\n" in text
    assert run("diff", bad, bad).status == 2
    bad.write_bytes(b"\xff")
    result = run("diff", good, bad)
    assert result.status == 2
    assert "malformed: " in result.stdout.decode()
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    assert "malformed: " in run("diff", good, bad).stdout.decode()


def test_records_of_another_schema(tmp_path: Path) -> None:
    message = SnixBuildRequest(command_args=["a"])
    message.constraints.system = "s"
    message.constraints.network_access = True
    later = tmp_path / "later.binpb"
    later.write_bytes(message.SerializeToString())
    result = run("diff", later, make(tmp_path, "first.binpb", [request()]))
    assert result.status == 2
    hint = "  decodes as snix.build.v1 BuildRequest; use --schema snix.build.v1\n"
    assert hint in result.stdout.decode()


def test_values_that_look_alike(tmp_path: Path) -> None:
    values = (b"\xff", b"\\xff")
    paths = [
        make(tmp_path, f"{i}.binpb", [request(environment_vars=[EnvVar(key="A", value=value)])])
        for i, value in enumerate(values)
    ]
    result = run("diff", *paths)
    assert result.status == 1
    old, new = result.stdout.decode().splitlines()[-2:]
    assert old[1:] != new[1:]


def test_names_of_records(tmp_path: Path) -> None:
    make(tmp_path, "many.binpbs", [request(number) for number in range(3)])
    make(tmp_path, "empty.binpbs", [])
    make(tmp_path, "one.binpbs", [request(1)])
    odd = tmp_path / "one.binpbs[2]"
    odd.write_bytes((tmp_path / "many.binpbs").read_bytes())
    for names, status, said in (
        (("many.binpbs[1]", "one.binpbs"), 0, ""),
        (("many.binpbs[1]", "one.binpbs[0]"), 0, ""),
        (("many.binpbs[2]", "one.binpbs"), 1, ""),
        (("many.binpbs", "one.binpbs"), 2, "expected one record, found several"),
        (("many.binpbs[3]", "one.binpbs"), 2, "expected record 3, found only 3 records"),
        (("empty.binpbs", "one.binpbs"), 2, "expected one record, found none"),
        (("many.binpbs[-1]", "one.binpbs"), 2, "many.binpbs[-1]: No such file or directory"),
        (("one.binpbs[2]", "one.binpbs"), 2, "is unknown: pass --input-format"),
        (("one.binpbs[2][1]", "one.binpbs", "--input-format", "binpbs"), 0, ""),
        (("missing.binpbs[1]", "one.binpbs"), 2, "missing.binpbs: No such file"),
        ((".", "one.binpbs"), 2, "found the directory"),
        (("-", "-", "--input-format", "binpbs"), 2, "expected '-' at most once"),
    ):
        result = run("diff", *names, cwd=tmp_path)
        assert (names, result.status) == (names, status)
        assert said in result.stderr


def test_kinds(tmp_path: Path) -> None:
    paths = []
    for name, link in (("a", b"t"), ("b", b"u")):
        paths.append(tmp_path / f"{name}.binpb")
        directory = Directory(symlinks=[SymlinkNode(name=b"s", target=link)])
        paths[-1].write_bytes(directory.SerializeToString())
    result = run("diff", "--kind", "directory", *paths)
    assert result.status == 1
    assert result.stdout.endswith(b"\nsymlinks\n- symlink    s -> t\n+ symlink    s -> u\n")
    for path, number in zip(paths, (1, 2), strict=True):
        output = Node(file=FileNode(name=f"{number:04}-out".encode(), digest=bytes(32)))
        build = Build(build_request=request(number), outputs=[output])
        path.write_bytes(build.SerializeToString())
    result = run("diff", "--kind", "build", *paths)
    assert result.status == 1
    assert b"\nbuild_request.command_args\n- build 1\n+ build 2\n" in result.stdout


def test_constraints_and_variables_of_a_later_schema(tmp_path: Path) -> None:
    paths = []
    for i, last in enumerate("xy"):
        variable = SnixBuildRequest.EnvVar(key="k", value=300 * b"v" + last.encode())
        message = SnixBuildRequest(command_args=["a"], environment_vars=[variable])
        if i:
            message.constraints.system = "s"
        paths.append(tmp_path / f"{i}.binpb")
        paths[-1].write_bytes(message.SerializeToString())
    result = run("diff", "--schema", "snix.build.v1", *paths)
    assert (result.status, result.stderr) == (1, "")
    shown = result.stdout.decode().splitlines()[2:]
    assert shown[1].startswith("- k=…")
    assert shown[3:] == ["constraints", "+ present", "constraints.system", "+ s"]


def test_help() -> None:
    text = run("diff", "--help").stdout.decode()
    assert "  tvix-build diff " in text, "an example"
