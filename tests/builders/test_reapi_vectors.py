# SPDX-License-Identifier: MIT
"""Requests become the actions of tests/remote_execution, and results the castore nodes there.

make_remote_execution.py, which writes these files, is another implementation."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

import make_remote_execution
from reapi.protos import remote_execution_pb2 as reapi
from snix.build.protos.build_pb2 import BuildRequest
from tvix.castore.protos import castore_pb2
from tvix_build import validate
from tvix_build.builders import RefusedError
from tvix_build.builders.reapi import (
    DigestFunction,
    DigestTable,
    Property,
    ResultError,
    lower,
    raise_result,
)
from tvix_build.builders.reapi.lowering import blobs
from tvix_build.builders.reapi.raising import result_files

FILES = Path(__file__).parents[1] / "remote_execution"
LOWERING: list[dict[str, Any]] = json.loads((FILES / "lowering.json").read_text())
RAISING: list[dict[str, Any]] = json.loads((FILES / "raising.json").read_text())


class Castore:
    """The castore of a vector."""

    def __init__(self, vector: dict[str, Any]) -> None:
        self._vector = vector
        self.opened: list[str] = []

    def directory(self, digest: bytes) -> castore_pb2.Directory:
        """Return a Directory."""
        return castore_pb2.Directory.FromString(
            bytes.fromhex(self._vector["directories"][digest.hex()])
        )

    def open_blob(self, digest: bytes) -> BinaryIO:
        """Return an open blob."""
        self.opened.append(digest.hex())
        return io.BytesIO(bytes.fromhex(self._vector["blobs"][digest.hex()]))


def name_of(vector: dict[str, Any]) -> str:
    return f"{vector['about']}-{vector['function']}"


def request_of(vector: dict[str, Any]) -> BuildRequest:
    request = BuildRequest.FromString(bytes.fromhex(vector["request"]))
    validate(request)
    return request


@pytest.fixture
def table(vector: dict[str, Any]) -> Iterator[DigestTable]:
    """A new table for the digest function of a vector."""
    with DigestTable(DigestFunction[vector["function"]]) as table:
        yield table


def arguments_of(vector: dict[str, Any]) -> dict[str, Any]:
    shell = vector["shell"]
    return {
        "shell": shell and castore_pb2.FileNode.FromString(bytes.fromhex(shell)),
        "properties": [Property(*one) for one in vector["properties"]],
    }


@pytest.mark.parametrize("name", make_remote_execution.texts())
def test_files_are_up_to_date(name: str) -> None:
    text = (FILES / name).read_text()
    assert text == make_remote_execution.texts()[name], (
        "run tests/generators/make_remote_execution.py"
    )


@pytest.mark.parametrize("vector", [one for one in LOWERING if "action" in one], ids=name_of)
def test_lowers_to_the_action(vector: dict[str, Any], table: DigestTable) -> None:
    castore = Castore(vector)
    lowered = lower(request_of(vector), castore, table, **arguments_of(vector))
    assert lowered.action.SerializeToString().hex() == vector["action"]
    assert lowered.command.SerializeToString().hex() == vector["command"]
    assert f"{lowered.digest.hash}/{lowered.digest.size_bytes}" == vector["digest"]
    root = [bytes.fromhex(one) for one in vector["input_root"]]
    function = table.function
    needed = {function.digest(one).hash: one for one in root}
    assert function.digest(lowered.directories[0].SerializeToString()).hash in needed
    found = list(blobs(lowered, castore, table))
    assert len({digest.hash for digest, _ in found}) == len(found)
    for digest, source in found:
        if not isinstance(source, bytes):
            with castore.open_blob(source.digest) as file:
                source = file.read()
        assert digest == function.digest(source)
        needed.pop(digest.hash, None)
    assert not needed


@pytest.mark.parametrize("vector", [one for one in LOWERING if "action" in one], ids=name_of)
def test_content_is_hashed_once(vector: dict[str, Any], tmp_path: Path) -> None:
    function, path = DigestFunction[vector["function"]], tmp_path / "table"
    castore = Castore(vector)
    with DigestTable(function, path) as table:
        first = lower(request_of(vector), castore, table, **arguments_of(vector))
    assert len(set(castore.opened)) == len(castore.opened)
    if function is DigestFunction.BLAKE3:
        assert castore.opened == []
    empty = Castore({"directories": {}, "blobs": {}})
    with DigestTable(function, path) as table:
        assert lower(request_of(vector), empty, table, **arguments_of(vector)) == first


@pytest.mark.parametrize("vector", [one for one in LOWERING if "reasons" in one], ids=name_of)
def test_requests_without_an_action_are_refused(vector: dict[str, Any], table: DigestTable) -> None:
    with pytest.raises(RefusedError) as caught:
        lower(request_of(vector), Castore(vector), table, **arguments_of(vector))
    assert [one.partition(":")[0] for one in caught.value.reasons] == vector["reasons"]


@pytest.mark.parametrize("field", ["name", "target"])
def test_names_and_targets_are_utf8(field: str) -> None:
    link = castore_pb2.SymlinkNode(name=b"a", target=b"b")
    setattr(link, field, b"\xff")
    encoding = castore_pb2.Directory(symlinks=[link]).SerializeToString()
    vector: dict[str, Any] = {"directories": {"00" * 32: encoding.hex()}, "blobs": {}}
    request = BuildRequest(command_args=["a"])
    request.inputs.add().directory.name = b"input"
    request.inputs[0].directory.digest = bytes(32)
    with (
        DigestTable(DigestFunction.SHA256) as table,
        pytest.raises(RefusedError, match=rf"^inputs: .* the {field} b'\\xff'$"),
    ):
        lower(request, Castore(vector), table)


@pytest.mark.parametrize("vector", LOWERING[:1], ids=name_of)
def test_absolute_links_are_refused_where_the_engine_has_none(
    vector: dict[str, Any], table: DigestTable
) -> None:
    castore = Castore(vector)
    lowered = lower(request_of(vector), castore, table)
    with pytest.raises(RefusedError, match="3-link -> /nix/store/1-bash/bin/bash"):
        list(blobs(lowered, castore, table, absolute_symlinks=False))


@pytest.mark.parametrize("vector", LOWERING[:1], ids=name_of)
def test_timeout_is_part_of_the_action(vector: dict[str, Any], table: DigestTable) -> None:
    castore = Castore(vector)
    limit = 5
    lowered = lower(request_of(vector), castore, table, timeout=limit)
    assert lowered.action.timeout.seconds == limit


def raise_vector(vector: dict[str, Any], trees: list[bytes]) -> Any:
    function = DigestFunction[vector["function"]]
    result = reapi.ActionResult.FromString(bytes.fromhex(vector["result"]))
    by_hash = {function.digest(one).hash: reapi.Tree.FromString(one) for one in trees}
    files = {hash_: bytes.fromhex(digest) for hash_, digest in vector["files"].items()}
    assert {digest.hash for digest in result_files(result, by_hash)} == set(files)
    return raise_result(request_of(vector), result, function=function, trees=by_hash, files=files)


@pytest.mark.parametrize("vector", RAISING, ids=name_of)
def test_raises_to_the_nodes(vector: dict[str, Any]) -> None:
    raised = raise_vector(vector, [bytes.fromhex(one) for one in vector["trees"]])
    assert [node.SerializeToString().hex() for node in raised.nodes] == vector["nodes"]
    directories = {digest.hex(): one.hex() for digest, one in raised.directories.items()}
    assert [directories[one] for one in sorted(directories)] == vector["directories"]
    assert raised.missing == vector["missing"]


def test_incomplete_trees_are_an_error() -> None:
    vector = RAISING[0]
    tree = reapi.Tree.FromString(bytes.fromhex(vector["trees"][0]))
    function = DigestFunction[vector["function"]]
    result = reapi.ActionResult.FromString(bytes.fromhex(vector["result"]))
    files = {hash_: bytes.fromhex(digest) for hash_, digest in vector["files"].items()}
    lacking = reapi.Tree(root=tree.root)
    trees = {result.output_directories[0].tree_digest.hash: lacking}
    with pytest.raises(ResultError, match="the Tree of an output lacks the Directory"):
        raise_result(request_of(vector), result, function=function, trees=trees, files=files)


def test_names_that_no_node_can_have_are_an_error() -> None:
    request = BuildRequest(command_args=["a"], outputs=["a"])
    result = reapi.ActionResult()
    result.output_directories.add(path="a").tree_digest.hash = "tree"
    tree = reapi.Tree()
    tree.root.symlinks.add(name="..", target="a")
    with pytest.raises(ResultError, match=r"a Directory of an output is invalid: .*name"):
        raise_result(
            request,
            result,
            function=DigestFunction.SHA256,
            trees={"tree": tree},
            files={},
        )
