# SPDX-License-Identifier: MIT
"""The examples are what they claim to be, to the reference and to tvix_build alike."""

from __future__ import annotations

import ast
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from blake3 import blake3
from google.protobuf import json_format, text_format
from google.protobuf.message import Message
from google.protobuf.proto import parse_length_prefixed

import reference
import tvix_build
from snix.build.protos.build_pb2 import BuildRequest as SnixBuildRequest
from tvix.build.protos.build_pb2 import Build, BuildRequest
from tvix.castore.protos.castore_pb2 import Directory, Node
from tvix_build.plan.v1.plan_pb2 import Plan
from waiting import LIMIT

EXAMPLES = Path(__file__).absolute().parents[2] / "examples"
FIRST = "tvix.build.v1"
EXPECTED = json.loads((EXAMPLES / "broken/expected.json").read_text("utf-8"))

KINDS: dict[str, tuple[str, type[Message]]] = {
    "requests": ("build-request", BuildRequest),
    "not-canonical": ("build-request", BuildRequest),
    "builds": ("build", Build),
    "directories": ("directory", Directory),
    "requests-snix": ("build-request", SnixBuildRequest),
    "builds-2024": ("build", Build),  # in bytes only
    "plans": ("plan", Plan),
}
SCHEMAS = {"requests-snix": "snix.build.v1", "builds-2024": "tvix.build.v1@2024"}

# What Nix sets in every build.
NIX_ENVIRONMENT = {
    "HOME": b"/homeless-shelter",
    "NIX_BUILD_CORES": b"0",
    "NIX_LOG_FD": b"2",
    "NIX_STORE": b"/nix/store",
    "PATH": b"/path-not-set",
    "TERM": b"xterm-256color",
    **dict.fromkeys(("NIX_BUILD_TOP", "PWD", "TEMP", "TEMPDIR", "TMP", "TMPDIR"), b"/build"),
}

# valid, canonical, digest, violations as (code, path)
Verdict = tuple[bool, bool, "bytes | None", list[tuple[str, str]]]
Checker = Callable[[bytes, str, str], Verdict]


def by_reference(data: bytes, kind: str, schema: str) -> Verdict:
    report = reference.check(data, kind, schema)
    return report.valid, report.canonical, report.digest, report.violations


def by_package(data: bytes, kind: str, schema: str) -> Verdict:
    report = tvix_build.check(data, kind=tvix_build.Kind(kind), schema=tvix_build.Schema(schema))
    violations = [(violation.code.value, violation.path) for violation in report.violations]
    assert report.violation_count == len(violations)
    return report.valid, report.canonical, report.digest, violations


CHECKERS = pytest.mark.parametrize("checker", [by_reference, by_package])


def wire_bytes(path: Path) -> bytes:
    """The message in `path`, as it is or from text format."""
    if path.suffix == ".binpb":
        return path.read_bytes()
    _, message = KINDS[path.parent.name]
    return text_format.Parse(path.read_text("utf-8"), message()).SerializeToString()


def paths(pattern: str) -> list[Path]:
    found = sorted(EXAMPLES.glob(pattern))
    assert found, pattern
    return found


def examples(*patterns: str) -> pytest.MarkDecorator:
    """Parametrizes a test by `path`, over the examples that match."""
    found = [path for pattern in patterns for path in paths(pattern)]
    ids = [path.relative_to(EXAMPLES).as_posix() for path in found]
    return pytest.mark.parametrize("path", found, ids=ids)


def requests() -> dict[str, BuildRequest]:
    """The requests by name, which is that of the derivation."""
    return {
        path.stem: BuildRequest.FromString(path.read_bytes()) for path in paths("requests/*.binpb")
    }


@CHECKERS
@examples("requests/*.binpb", "builds/*.binpb", "directories/*.binpb")
def test_canonical(path: Path, checker: Checker) -> None:
    data = path.read_bytes()
    kind, _ = KINDS[path.parent.name]
    assert checker(data, kind, FIRST) == (True, True, blake3(data).digest(), [])


@CHECKERS
@examples("not-canonical/*.binpb")
def test_not_canonical(path: Path, checker: Checker) -> None:
    data = path.read_bytes()
    message = BuildRequest.FromString(data)
    canonical = next(found for found in requests().values() if found == message).SerializeToString()
    assert checker(data, "build-request", FIRST) == (True, False, blake3(canonical).digest(), [])
    assert reference.canonicalize(data, "build-request") == canonical
    assert tvix_build.canonicalize(data) == canonical


@CHECKERS
@pytest.mark.parametrize("name", EXPECTED)
def test_broken(name: str, checker: Checker) -> None:
    path = EXAMPLES / "broken" / name
    kind, _ = KINDS[path.parent.name]
    schema = SCHEMAS.get(path.parent.name, FIRST)
    valid, canonical, digest, violations = checker(wire_bytes(path), kind, schema)
    assert violations == [
        (violation["code"], violation["path"]) for violation in EXPECTED[name]["violations"]
    ]
    assert not valid
    assert not canonical
    assert (digest is not None) == all(code == "not_sorted" for code, _ in violations)


def test_broken_of_every_code() -> None:
    codes = {violation["code"] for row in EXPECTED.values() for violation in row["violations"]}
    assert {code.value for code in tvix_build.ViolationCode} == set(reference.CODES)
    assert codes == set(reference.CODES)


@examples("broken/*/*")
def test_broken_is_named_by_its_violation(path: Path) -> None:
    row = EXPECTED[path.relative_to(EXAMPLES / "broken").as_posix()]
    code = path.name.partition(".")[0]
    assert code == "several" or code in {violation["code"] for violation in row["violations"]}


def test_files_of_all_requests_hold_them_in_order() -> None:
    data = (EXAMPLES / "requests/all.binpbs").read_bytes()
    stream = io.BytesIO(data)
    messages = list(iter(lambda: parse_length_prefixed(BuildRequest, stream), None))
    assert messages == list(requests().values())
    compressed = (EXAMPLES / "requests/all.binpbs.zst").read_bytes()
    assert zstandard.decompress(compressed) == data
    lines = (EXAMPLES / "requests/all.ndjson").read_text("utf-8").splitlines()
    assert [json_format.Parse(line, BuildRequest()) for line in lines] == messages


@examples("requests/*.json", "requests/*.txtpb", "builds/*.txtpb")
def test_text_says_what_binary_says(path: Path) -> None:
    data = path.with_suffix(".binpb").read_bytes()
    if path.suffix == ".json":
        message = json_format.Parse(path.read_text("utf-8"), BuildRequest())
        assert message.SerializeToString() == data
    else:
        assert wire_bytes(path) == data


# --- Derivations and sources -------------------------------------------------------------------


def derivation_fields(name: str) -> tuple[list[tuple[str, ...]], ...]:
    """The fields of a .drv in their order; its strings have a character for each byte."""
    text = (EXAMPLES / "derivations" / name).read_text("latin-1")
    fields: tuple[list[tuple[str, ...]], ...] = ast.literal_eval(text.removeprefix("Derive"))
    return fields


def test_a_request_for_each_derivation() -> None:
    assert [path.stem for path in paths("derivations/*.drv")] == list(requests())


@examples("derivations/*.drv")
def test_request_fits_its_derivation(path: Path) -> None:
    request = requests()[path.stem]
    outputs, derivations, sources, system, builder, args, env = derivation_fields(path.name)

    assert [arg.encode() for arg in request.command_args] == [
        str(arg).encode("latin-1") for arg in [builder, *args]
    ]
    assert {f"/nix/store/{name}" for name in request.outputs} == {row[1] for row in outputs}
    assert request.constraints == BuildRequest.BuildConstraints(system=str(system))

    environment = {variable.key: variable.value for variable in request.environment_vars}
    own = {key: value.encode("latin-1") for key, value in env}
    assert environment == NIX_ENVIRONMENT | own

    used = {str(source) for source in sources}
    for derivation, names in derivations:
        rows = derivation_fields(Path(derivation).name)[0]
        used |= {row[1] for row in rows if row[0] in names}
    assert {f"/nix/store/{node_name(node)}" for node in request.inputs} == used


def node_name(node: Node) -> str:
    kind = node.WhichOneof("node")
    assert kind is not None
    name: bytes = getattr(node, kind).name
    return name.decode()


def source_nodes() -> dict[str, Node]:
    table = json.loads((EXAMPLES / "sources.json").read_text("utf-8"))
    return {name: json_format.ParseDict(node, Node()) for name, node in table.items()}


def test_sources_are_inputs_with_their_node() -> None:
    sources = source_nodes()
    inputs = [node for request in requests().values() for node in request.inputs]
    for name, node in sources.items():
        assert name == node_name(node)
        assert node in inputs


def test_directories_are_those_of_the_sources() -> None:
    seen: set[str] = set()

    def size_below(digest: bytes) -> int:
        seen.add(digest.hex())
        data = (EXAMPLES / f"directories/{digest.hex()}.binpb").read_bytes()
        assert blake3(data).digest() == digest
        directory = Directory.FromString(data)
        for node in directory.directories:
            assert node.size == size_below(node.digest)
        below = sum(node.size + 1 for node in directory.directories)
        return below + len(directory.files) + len(directory.symlinks)

    for node in source_nodes().values():
        if node.HasField("directory"):
            assert node.directory.size == size_below(node.directory.digest)
    assert seen == {path.stem for path in paths("directories/*")}


def test_a_file_node_is_of_its_source() -> None:
    (node,) = (node for name, node in source_nodes().items() if name.endswith("-bundle.sh"))
    data = (EXAMPLES / "sources/bundle.sh").read_bytes()
    assert (node.file.digest, node.file.size) == (blake3(data).digest(), len(data))
    assert not node.file.executable


# --- The script --------------------------------------------------------------------------------


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONSAFEPATH": "",  # Bazel 7 sets it
    }
    return subprocess.run(
        [sys.executable, str(EXAMPLES / "make_examples.py"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


def test_script_makes_the_same_from_the_derivations() -> None:
    run = run_script("--check", "--no-nix")
    assert (run.returncode, run.stdout) == (0, ""), run.stderr


@pytest.mark.skipif(shutil.which("nix-instantiate") is None, reason="Nix is not installed")
def test_nix_makes_the_same_derivations() -> None:
    run = run_script("--check")
    assert (run.returncode, run.stdout) == (0, ""), run.stderr


def test_script_says_how_it_is_used() -> None:
    run = run_script("--no-such-option")
    assert run.returncode == 2
    assert "usage:" in run.stderr
