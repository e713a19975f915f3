# SPDX-License-Identifier: MIT
"""`tvix-build from-drv`: the requests are those that the examples and the real data carry, made
without this package."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

import pytest
import zstandard
from blake3 import blake3
from google.protobuf.proto import serialize_length_prefixed

import real_data
from bench.corpora import messages_of
from cli_support import Result, run
from derivations_support import EXAMPLES, ODD, odd, read
from snix.build.protos.build_pb2 import BuildRequest as SnixBuildRequest
from tvix.build.protos.build_pb2 import BuildRequest
from tvix.castore.protos.castore_pb2 import FileNode, Node, SymlinkNode
from tvix_build import convert, nix
from tvix_build._core.report import SchemaLike
from tvix_build.nix import Derivation, Output

HERE = EXAMPLES[0].parents[1]
NODES = HERE / "nodes.ndjson"
STORE = "/nix/store/"
HASH = "0" * 32 + "-"  # begins the name of a store path
LATER: Final = ("tvix.build.v1@2024", "snix.build.v1")


def line(file: Path | str, request: bytes) -> str:
    return f"{blake3(request).hexdigest()}  {file}\n"


def wanted(file: Path) -> bytes:
    """The request that the examples carry for a derivation."""
    return (HERE / "requests" / file.with_suffix(".binpb").name).read_bytes()


def delimited(nodes: Iterable[Node]) -> bytes:
    """A stream of size-delimited nodes."""
    stream = io.BytesIO()
    for node in nodes:
        serialize_length_prefixed(node, stream)
    return stream.getvalue()


def write(directory: Path, name: str, **changes: object) -> Path:
    """A small derivation of that name in a directory."""
    plain = read(next(file for file in EXAMPLES if "words" in file.name))
    fields = {**vars(plain), "input_sources": (), **changes}
    path = directory / f"{name}.drv"
    path.write_bytes(nix.unparse(Derivation(**fields)))
    return path


def test_digests_of_a_directory() -> None:
    result = run("from-drv", EXAMPLES[0].parent, "--nodes", NODES)
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout.decode() == "".join(line(file, wanted(file)) for file in EXAMPLES)


@pytest.mark.parametrize("order", [1, -1])
def test_requests_in_the_order_of_the_paths(order: int, tmp_path: Path) -> None:
    target = tmp_path / "requests.binpbs"
    result = run("from-drv", *EXAMPLES[::order], "--nodes", NODES, "-o", target)
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout.decode().split() == [
        *("derivations", "10", "requests", "10", "rejected", "0")
    ]
    assert list(messages_of(target.read_bytes())) == [wanted(file) for file in EXAMPLES[::order]]


@pytest.mark.parametrize("schema", LATER)
def test_requests_in_a_later_schema(schema: SchemaLike, tmp_path: Path) -> None:
    target = tmp_path / "requests.binpbs"
    command = ("from-drv", EXAMPLES[0].parent, "--nodes", NODES, "--schema", schema)
    result = run(*command, "-o", target)
    assert (result.status, result.stderr) == (0, "")
    made = list(messages_of(target.read_bytes()))
    assert network_access(made, [wanted(file) for file in EXAMPLES], schema) == 1
    lines = [line(file, request) for file, request in zip(EXAMPLES, made, strict=True)]
    assert run(*command).stdout.decode() == "".join(lines)


def network_access(made: Sequence[bytes], first: Sequence[bytes], schema: SchemaLike) -> int:
    """That requests are those of tvix.build.v1 converted; how many may use the network."""
    count = 0
    for later, data in zip(made, first, strict=True):
        access = SnixBuildRequest.FromString(later).constraints.network_access
        assert convert(data, to=schema, network_access=access) == later
        count += access
    return count


def test_formats_and_compression(tmp_path: Path) -> None:
    one, target = EXAMPLES[0], tmp_path / "one.binpb.zst"
    nodes = tmp_path / "nodes.binpbs.zst"
    inputs = BuildRequest.FromString(wanted(one)).inputs
    nodes.write_bytes(zstandard.compress(delimited(inputs)))
    assert run("from-drv", one, "--nodes", nodes, "-o", target).status == 0
    assert zstandard.decompress(target.read_bytes(), 1 << 20) == wanted(one)
    printed = run("from-drv", one, "--nodes", nodes, "-o", "-", "--output-format", "binpb")
    assert printed.stdout == wanted(one)


def test_input_derivations_and_inputs_lie_in_the_store(tmp_path: Path) -> None:
    store, directory = tmp_path / "store", tmp_path / "directory"
    store.mkdir()
    directory.mkdir()
    used = write(store, f"{HASH}used")
    output = read(used).outputs["out"].path
    (store / output.removeprefix(STORE)).write_text("words")
    (store / f"{HASH}source").symlink_to("elsewhere")
    path = write(
        directory,
        "user",
        input_derivations={f"{STORE}{HASH}used.drv": ("out",)},
        input_sources=(f"{STORE}{HASH}source",),
        outputs={"out": odd("escapes").outputs["out"]},
    )
    made = run(
        *("from-drv", path, "--store", store, "--ingest"),
        *("-o", "-", "--output-format", "binpb", "--cores", "3", "--system", "riscv64-linux"),
    )
    assert (made.status, made.stderr) == (0, "")
    request = BuildRequest.FromString(made.stdout)
    link, file = sorted(request.inputs, key=lambda one: one.WhichOneof("node") or "", reverse=True)
    assert (link.symlink.name, link.symlink.target) == (f"{HASH}source".encode(), b"elsewhere")
    assert file.file == FileNode(
        name=output.removeprefix(STORE).encode(), digest=blake3(b"words").digest(), size=5
    )
    assert request.constraints.system == "riscv64-linux"
    assert ("NIX_BUILD_CORES", b"3") in [(v.key, v.value) for v in request.environment_vars]


def test_what_cannot_be_ingested_is_a_reason(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / f"{HASH}pipe")
    path = write(tmp_path, "user", input_sources=(f"{STORE}{HASH}pipe", f"{STORE}{HASH}none"))
    result = run("from-drv", path, "--ingest")
    assert (result.status, result.stdout) == (1, b"")
    assert f"user.drv: input {STORE}{HASH}pipe: " in result.stderr
    assert f"missing node for the input {STORE}{HASH}none" in result.stderr


def test_a_bad_derivation_does_not_stop_the_others(tmp_path: Path) -> None:
    good = write(tmp_path, "a")
    (tmp_path / f"{HASH}b.drv").write_bytes(b"Derive(")
    write(tmp_path, "c", environment={"a=b": b""})
    used = {f"{STORE}{HASH}{name}.drv": ("out",) for name in "bx"}
    write(tmp_path, "d", input_derivations=used)
    write(tmp_path, "e", input_sources=(f"{STORE}{HASH}f", f"{STORE}{HASH}g"))
    last = write(tmp_path, "z")
    result = run("from-drv", tmp_path)
    assert result.status == 1
    names = [one.split("  ")[1] for one in result.stdout.decode().splitlines()]
    assert names == [str(good), str(last)]
    reasons = [one.partition(f"{tmp_path}/")[2] for one in result.stderr.splitlines()]
    reasons = [one for one in reasons if one]
    for reason in (
        f"{HASH}b.drv: expected a list of outputs, ",
        "c.drv: environment_vars[12].key: invalid_env_key: ",
        f"d.drv: input derivation {STORE}{HASH}b.drv: expected a list of outputs, ",
        f"d.drv: missing input derivation {STORE}{HASH}x.drv",
        f"e.drv: missing node for the input {STORE}{HASH}f",
        f"e.drv: missing node for the input {STORE}{HASH}g",
    ):
        assert sum(one.startswith(reason) for one in reasons) == 1, reason
    assert len(reasons) == 6


def errors(file: Path) -> list[dict[str, str]]:
    """The lines of --errors."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_refusals_are_grouped_with_examples_and_a_remedy(tmp_path: Path) -> None:
    directory, file = tmp_path / "store", tmp_path / "errors.ndjson"
    directory.mkdir()
    sources = tuple(f"{STORE}{HASH}{name}" for name in "ab")
    for i in range(5):
        write(directory, f"source-{i}", input_sources=sources)
        write(directory, f"structured-{i}", environment={"__json": b"{}"})
    good = write(directory, "good")
    text = good.read_bytes()
    (directory / "json.drv").write_bytes(b"{}")
    (directory / "line.drv").write_bytes(text + b"\n")
    (directory / "directory.drv").mkdir()
    write(directory, "fetch", builder="builtin:fetchurl")
    write(directory, "uids", environment={"requiredSystemFeatures": b"uid-range"})
    write(directory, "unknown", outputs={"out": Output("")})
    write(directory, "user", input_derivations={f"{STORE}{HASH}x.drv": ("out",)})
    write(directory, "key", environment={"a=b": b""})
    plain = run("from-drv", directory)
    result = run("from-drv", directory, "--errors", file)
    assert (plain.status, result.status) == (2, 2)
    assert plain.stdout == result.stdout
    assert result.stdout.decode().split()[1:] == [str(good)]
    assert plain.stderr.replace("--errors FILE writes all", f"{file} has all") == result.stderr
    heads = [one for one in plain.stderr.splitlines() if not one.startswith("tvix-build:   ")]
    assert [one.partition(": ")[2] for one in heads] == [
        "unreadable files: 1 in 1 derivation",
        "invalid derivations: 2 in 2 derivations",
        "missing or invalid input derivations: 1 in 1 derivation; pass their directory with "
        "--store DIR",
        "inputs without a node: 10 in 5 derivations; pass castore nodes with --nodes FILE, or "
        "make them from files in the store with --ingest",
        "paths that are unknown before the build: 1 in 1 derivation",
        "builders that are part of Nix: 1 in 1 derivation",
        "files that requests of this schema cannot contain: 5 in 5 derivations; make requests "
        "with --schema snix.build.v1",
        "derivations that a request cannot represent: 1 in 1 derivation",
        "violations in requests: 1 in 1 derivation",
    ]
    assert plain.stderr.count("missing node for the input") == 3
    assert "  and 7 more: --errors FILE writes all of them" in plain.stderr
    assert "which begins with Derive(, found a text that begins with {}" in plain.stderr
    assert (
        "line.drv: expected the end of the text after the derivation, found a line feed"
        in plain.stderr
    )
    found = errors(file)
    assert [one["source"] for one in found if one["kind"] == "missing_node"] == [
        str(directory / f"source-{i // 2}.drv") for i in range(10)
    ]
    assert {
        "source": str(directory / "user.drv"),
        "kind": "missing_derivation",
        "reason": f"missing input derivation {STORE}{HASH}x.drv",
    } in found
    later = run("from-drv", directory, "--schema", "snix.build.v1")
    assert len(later.stdout.splitlines()) == 6
    assert "--schema" not in later.stderr


def test_errors_are_written_where_there_is_no_request(tmp_path: Path) -> None:
    (tmp_path / "a.drv").write_bytes(b"")
    file, target = tmp_path / "errors.ndjson.zst", tmp_path / "request.json"
    result = run("from-drv", tmp_path / "a.drv", "-o", target, "--errors", file)
    assert result.status == 1
    assert not target.exists()
    (line,) = (
        zstandard.ZstdDecompressor().decompressobj().decompress(file.read_bytes()).splitlines()
    )
    assert json.loads(line)["kind"] == "invalid_derivation"
    result = run("from-drv", tmp_path / "a.drv", "--errors", "-")
    assert (result.status, result.stdout) == (2, b"")
    assert "--errors - requires -o FILE" in result.stderr
    printed = run("from-drv", tmp_path, "--errors", "-", "-o", tmp_path / "all.binpbs")
    assert json.loads(printed.stdout.splitlines()[0])["source"] == str(tmp_path / "a.drv")


def test_what_requests_leave_out_is_noted(tmp_path: Path) -> None:
    for i in range(3):
        environment = {"allowedReferences": b"", "preferLocalBuild": b"1"}
        write(tmp_path, str(i), environment=environment)
    write(tmp_path, "x", environment={"requiredSystemFeatures": b"kvm"})
    result = run("from-drv", tmp_path, "-o", tmp_path / "requests.binpbs")
    assert result.status == 0
    assert result.stderr == (
        "tvix-build: note: allowedReferences of 3 derivations is not part of the request: "
        "it does not change the outputs\n"
    )
    *_, last = messages_of((tmp_path / "requests.binpbs").read_bytes())
    constraints = BuildRequest.FromString(last).constraints
    assert list(constraints.available_ro_paths) == ["/dev/kvm"]


@pytest.mark.parametrize(
    "outputs", ["!out", "^out", "^*", "!*", "!out,dev", "^dev,out"], ids=lambda one: one
)
def test_outputs_of_a_derivation(outputs: str, tmp_path: Path) -> None:
    plain = read(next(file for file in EXAMPLES if "words" in file.name))
    path = plain.outputs["out"].path
    both = {"dev": Output(f"{path}-dev"), "out": Output(path)}
    file = write(tmp_path, "a", outputs=both)
    wanted = run("from-drv", file)
    assert wanted.status == 0
    result = run("from-drv", f"{file}{outputs}")
    assert (result.status, result.stdout, result.stderr) == (0, wanted.stdout, "")
    # As Nix prints one line for each output.
    again = run("from-drv", f"{file}!dev", f"{file}!out")
    assert again.stdout == wanted.stdout
    # A file of that name is the file.
    other = tmp_path / "a.drv!x.drv"
    other.write_bytes(file.read_bytes())
    assert str(other) in run("from-drv", other).stdout.decode()


def test_outputs_that_a_derivation_has_not(tmp_path: Path) -> None:
    file = write(tmp_path, "a")
    result = run("from-drv", f"{file}^out,dev,doc")
    assert (result.status, result.stdout) == (1, b"")
    assert f"{file}: expected outputs among out, found dev, doc" in result.stderr
    for outputs in ("^", "!", "^out,", "^,out", "^out^dev", "!out/a", "^*,out"):
        result = run("from-drv", f"{file}{outputs}")
        assert (result.status, result.stdout) == (2, b"")
        assert (
            "expected a .drv file, its outputs such as x.drv^out, or a directory" in result.stderr
        )
    result = run("from-drv", f"{tmp_path}/none.drv^out")
    assert "found no such file" in result.stderr


@pytest.mark.parametrize("form", ["ndjson", "binpbs"])
@pytest.mark.parametrize("with_store", [True, False])
def test_nodes_of_a_store_elsewhere(form: str, with_store: bool, tmp_path: Path) -> None:
    store = tmp_path / "root" / "nix" / "store"
    store.mkdir(parents=True)
    (store / f"{HASH}source").write_text("source")
    derivation = write(tmp_path, "a", input_sources=(f"{STORE}{HASH}source",))
    nodes = tmp_path / f"nodes.{form}"
    option = ("--store", store) if with_store else ()
    assert run("ingest", store / f"{HASH}source", "-o", nodes, *option).status == 0
    if form == "ndjson" and with_store:
        assert json.loads(nodes.read_text())["path"] == f"{STORE}{HASH}source"
    result = run("from-drv", derivation, "--nodes", nodes)
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout == run("from-drv", derivation, "--ingest", "--store", store).stdout


@pytest.mark.parametrize("closure", [False, True])
def test_cycles_are_reported_for_all_that_wait_for_them(closure: bool, tmp_path: Path) -> None:
    def input_of(*names: str) -> Mapping[str, Sequence[str]]:
        return {f"{STORE}{HASH}{name}.drv": ("out",) for name in names}

    write(tmp_path, f"{HASH}a", input_derivations=input_of("b"))
    write(tmp_path, f"{HASH}b", input_derivations=input_of("d", "c"))
    write(tmp_path, f"{HASH}c", input_derivations=input_of("b", "e"))
    write(tmp_path, f"{HASH}d")
    write(tmp_path, f"{HASH}e", input_derivations=input_of("e"))
    file = tmp_path / "errors.ndjson"
    result = run("from-drv", tmp_path, "--errors", file, *(["--closure"] if closure else []))
    assert result.status == 1
    cycles = [one for one in errors(file) if one["kind"] == "cycle"]
    assert [os.path.basename(one["source"]) for one in cycles] == [
        f"{HASH}{name}.drv" for name in "abce"
    ]
    assert f"{STORE}{HASH}e.drv <- {STORE}{HASH}e.drv" in cycles[3]["reason"]


def test_a_long_cycle_is_told_in_few_words(tmp_path: Path) -> None:
    names = [f"{HASH}{i:03}" for i in range(300)]
    for name, after in zip(names, [*names[1:], names[0]], strict=True):
        inputs = {f"{STORE}{one}.drv": ("out",) for one in (names[0], after)}
        write(tmp_path, name, input_derivations=inputs)
    file = tmp_path / "errors.ndjson"
    result = run("from-drv", tmp_path, "--errors", file)
    assert result.status == 1
    lines = [one["reason"] for one in errors(file) if one["kind"] == "cycle"]
    assert len(lines) == 300
    assert max(map(len, lines)) < 800 + len(str(tmp_path))


def test_files_of_one_name(tmp_path: Path) -> None:
    for directory, builder in (("a", "/bin/sh"), ("b", "/bin/bash"), ("c", "/bin/sh")):
        (tmp_path / directory).mkdir()
        write(tmp_path / directory, "x", builder=builder)
    result = run("from-drv", *(tmp_path / directory / "x.drv" for directory in "abc"))
    assert result.status == 1
    assert [one[66:].decode() for one in result.stdout.splitlines()] == [
        f"{tmp_path}/{directory}/x.drv" for directory in "ac"
    ]
    assert f"{tmp_path}/b/x.drv: another derivation with this name" in result.stderr


def test_a_system_that_is_not_utf8(tmp_path: Path) -> None:
    write(tmp_path, "a")
    result = run("from-drv", tmp_path, "--system", "\udcff")
    assert result.status == 1
    assert "a.drv: system: expected UTF-8, found b'\\xff'" in result.stderr


def test_odd_derivations_say_why() -> None:
    result = run("from-drv", ODD[0].parent)
    assert result.status == 1
    assert len(result.stdout.splitlines()) == 6
    for name in ("__json", "passAsFile", "exportReferencesGraph"):
        which = "requests" if name == "exportReferencesGraph" else "requests of tvix.build.v1"
        assert f"variable {name}: {which} do not support" in result.stderr


def test_one_file_for_one_derivation(tmp_path: Path) -> None:
    target = tmp_path / "request.json"
    many = run("from-drv", *EXAMPLES[:2], "--nodes", NODES, "-o", target)
    assert (many.status, many.stdout) == (2, b"")
    assert "expected one derivation" in many.stderr
    none = run("from-drv", EXAMPLES[0], "-o", target)
    assert (none.status, none.stdout) == (1, b"")
    assert list(tmp_path.iterdir()) == []


NODE_A = '{"path": "/nix/store/a", "node": {"symlink": {"name": "YQ==", "target": "eA=="}}}'
NODE_B = NODE_A.replace("eA==", "eQ==")
TWICE = [
    '{"path": "/nix/store/b", "path": "/nix/store/a", "node": {"file": {}}}',
    '{"path": "/nix/store/a", "node": {}, "node": {"file": {}}}',
    '{"path": "/nix/store/a", "node": {"file": {"size": 1, "size": 2}}}',
]


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ("[" * 100_000, "expected a tvix.castore.v1.Node"),
        ("{}", 'found no object with "path" and "node"'),
        ("\n[1]", 'found no object with "path" and "node"'),
        ('{"path": "/nix/store/a", "node": {"none": 1}}', "none"),
        ('{"path": "/nix/store/a", "node": 7}', "expected a tvix.castore.v1.Node"),
        ('{"path": "/nix/store/a"}', "expected a tvix.castore.v1.Node"),
        *((line, "duplicate name in an object: ") for line in TWICE),
        (f"{NODE_A}\n{NODE_A}\n{NODE_B}", "found a different node for '/nix/store/a' before"),
        ('{"path": "/nix/store/a", "node": {"file": {"size": "1_0"}}}', "expected an integer"),
        ('{"path": "/nix/store/a", "node": {"\\ud800": {}}}', "expected a field of Node"),
        ('{"path": 5, "node": {}}', 'found no object with "path" and "node"'),
        ("x", "[0] at byte 0"),
        ('{"path": "/nix/store/a", "node": {}}\n{', "[1] at byte 37"),
    ],
)
def test_damaged_nodes(nodes: str, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "nodes.ndjson"
    file.write_text(nodes)
    result = run("from-drv", EXAMPLES[0], "--nodes", file)
    assert (result.status, result.stdout) == (2, b"")
    assert result.stderr.startswith(f"tvix-build: {file}[")
    assert reason in result.stderr


def test_damaged_binary_nodes(tmp_path: Path) -> None:
    for name, data in {"a": b"\x02\x0a", "b": b"\x00", "c": b"\x01\xff"}.items():
        file = tmp_path / f"{name}.binpbs"
        file.write_bytes(data)
        result = run("from-drv", EXAMPLES[0], "--nodes", file)
        assert (result.status, result.stdout) == (2, b"")
        assert result.stderr.startswith(f"tvix-build: {file}[0] at byte 0: expected a ")


def test_binary_nodes_of_one_name(tmp_path: Path) -> None:
    nodes = [Node(symlink=SymlinkNode(name=b"a", target=target)) for target in (b"x", b"x", b"y")]
    file = tmp_path / "nodes.binpbs"
    file.write_bytes(delimited(nodes))
    result = run("from-drv", EXAMPLES[0], "--nodes", file)
    assert (result.status, result.stdout) == (2, b"")
    assert f"{file}[2] at byte " in result.stderr
    assert "found a different node for '/nix/store/a' before" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["none.drv"],
        [HERE / "requests"],
        [NODES],
        [EXAMPLES[0], "--nodes", NODES.with_name("sources.json")],
    ],
    ids=["nothing", "no derivations", "another name", "nodes as json"],
)
def test_usage(arguments: list[str | Path]) -> None:
    result = run("from-drv", *arguments)
    assert (result.status, result.stdout) == (2, b"")
    assert "expected" in result.stderr


def test_an_unreadable_derivation_is_a_failed_input(tmp_path: Path) -> None:
    (tmp_path / "a.drv").mkdir()
    write(tmp_path, "b")
    result = run("from-drv", tmp_path)
    assert result.status == 2
    assert "a.drv: Is a directory" in result.stderr
    assert len(result.stdout.splitlines()) == 1


# --- Real derivations ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def derivations(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A directory with 20,800 real derivations, and their names."""
    archive = io.BytesIO(real_data.read("drvs.tar"))
    directory = tmp_path_factory.mktemp("real") / "store"
    directory.mkdir()
    with tarfile.open(fileobj=archive) as tar:
        for member in tar:
            if member.name.endswith(".drv"):
                file = tar.extractfile(member)
                assert file is not None
                (directory / os.path.basename(member.name)).write_bytes(file.read())
    return directory, sorted(os.listdir(directory))


def write_nodes(file: Path, requests: Iterable[bytes]) -> None:
    """Write each input of the requests once."""
    nodes: dict[bytes, Node] = {}
    for request in requests:
        for node in BuildRequest.FromString(request).inputs:
            nodes[getattr(node, node.WhichOneof("node") or "").name] = node
    file.write_bytes(delimited(nodes.values()))


@pytest.fixture(scope="module")
def real(derivations: tuple[Path, list[str]]) -> tuple[Path, list[str]]:
    """The derivations, with all their inputs in nodes.binpbs beside the directory."""
    requests = (messages_of(real_data.read(f"{kind}.binpbs")) for kind in ("direct", "closure"))
    write_nodes(derivations[0].parent / "nodes.binpbs", chain.from_iterable(requests))
    return derivations


def make(real: tuple[Path, list[str]], target: Path, *arguments: str | Path) -> Result:
    return run("from-drv", "--nodes", real[0].parent / "nodes.binpbs", "-o", target, *arguments)


@pytest.mark.exhaustive
def test_real_derivations_are_written_as_they_were(real: tuple[Path, list[str]]) -> None:
    directory, names = real
    assert len(names) == 20_800
    for name in names:
        data = (directory / name).read_bytes()
        assert nix.unparse(nix.parse(data)) == data


def without_builtin(requests: Iterable[bytes]) -> list[bytes]:
    """The requests whose command is a program, not code inside Nix."""
    return [one for one in requests if not one.startswith(b"\n\x10builtin:fetchurl")]


def assert_builtin_refused(result: Result) -> None:
    lines = result.stderr.splitlines()
    assert result.status == 1
    assert lines[0] == (
        "tvix-build: note: allowedReferences of 12 derivations is not part of the request: "
        "it does not change the outputs"
    )
    assert "builders that are part of Nix: 6 in 6 derivations" in lines[1]
    assert all("found 'builtin:fetchurl', which is part of Nix" in line for line in lines[2:5])
    assert lines[5:] == ["tvix-build:   and 3 more: --errors FILE writes all of them"]


@pytest.mark.slow
def test_one_in_fifty_real_requests(derivations: tuple[Path, list[str]], tmp_path: Path) -> None:
    directory, names = derivations
    wanted = list(messages_of(real_data.read("direct.binpbs")))[::50]
    nodes, target = tmp_path / "nodes.binpbs", tmp_path / "direct.binpbs"
    write_nodes(nodes, wanted)
    run("from-drv", "--nodes", nodes, "-o", target, *(directory / name for name in names[::50]))
    assert list(messages_of(target.read_bytes())) == without_builtin(wanted)


@pytest.mark.exhaustive
def test_real_requests(real: tuple[Path, list[str]], tmp_path: Path) -> None:
    target = tmp_path / "direct.binpbs"
    result = make(real, target, real[0])
    assert_builtin_refused(result)
    wanted = without_builtin(messages_of(real_data.read("direct.binpbs")))
    assert list(messages_of(target.read_bytes())) == wanted


@pytest.mark.exhaustive
def test_real_requests_in_a_later_schema(real: tuple[Path, list[str]], tmp_path: Path) -> None:
    target = tmp_path / "direct.binpbs"
    result = make(real, target, real[0], "--schema", "snix.build.v1")
    assert_builtin_refused(result)
    made = list(messages_of(target.read_bytes()))
    first = without_builtin(messages_of(real_data.read("direct.binpbs")))
    assert network_access(made, first, "snix.build.v1") > 1_000


@pytest.mark.exhaustive
def test_real_closures(real: tuple[Path, list[str]], tmp_path: Path) -> None:
    target = tmp_path / "closure.binpbs"
    directory, names = real
    file = tmp_path / "errors.ndjson"
    paths = [directory / name for name in names[::5]]
    result = make(real, target, "--closure", "--errors", file, *paths)
    assert result.status == 1
    every = list(messages_of(real_data.read("closure.binpbs")))
    made = list(messages_of(target.read_bytes()))
    # Those whose output is in the closure of their inputs: test_real_requests.
    every = without_builtin(every)
    left_out = [one for one in every if one not in set(made)]
    assert made == [one for one in every if one in set(made)]
    assert len(left_out) == 25
    refused = [one for one in errors(file) if one["kind"] != "builtin"]
    assert all("output_is_input" in one["reason"] for one in refused)
    assert len(refused) == 25
