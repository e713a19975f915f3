# SPDX-License-Identifier: MIT
"""Derivations in the later schemas: real Nix built those of derivations/builds.nix, and gave their
commands what their requests say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tvix_build
from derivations_support import BUILDS, EXAMPLES, ODD, odd, read
from snix.build.protos.build_pb2 import BuildRequest
from tvix.build.protos.build_pb2 import BuildRequest as FirstBuildRequest
from tvix.castore.protos.castore_pb2 import Node
from tvix_build import Schema, nix
from tvix_build.nix import Derivation, DerivationDirectory, DerivationError, Output

# What Nix 2.8 gives otherwise. The names of files are those outside its sandbox, which later
# ones mended; fetchers of before 2006 looked at the last variable.
OTHERWISE = {"NIX_ATTRS_JSON_FILE", "NIX_ATTRS_SH_FILE", "NIX_OUTPUT_CHECKED"}


def node(path: str) -> Node:
    """A node for any path."""
    return tvix_build.file_node(path.removeprefix("/nix/store/"), digest=bytes(32), size=1)


def derivation(**changes: object) -> Derivation:
    """A small derivation."""
    plain = {
        "outputs": {"out": Output("/nix/store/5qx5i5v9z2y0bqhs4p0d6wcgqm2vz5zq-out")},
        "input_derivations": {},
        "input_sources": (),
        "system": "x86_64-linux",
        "builder": "/bin/sh",
        "arguments": ("-c", "true"),
        "environment": {"name": b"small"},
        "path": "/nix/store/a.drv",
    }
    return Derivation(**{**plain, **changes})  # type: ignore[arg-type]


def environment(request: BuildRequest | FirstBuildRequest) -> dict[str, str]:
    variables = request.environment_vars
    return {one.key: one.value.decode("utf-8", "surrogateescape") for one in variables}


def files(request: BuildRequest) -> dict[str, str]:
    return {one.path: one.contents.decode() for one in request.additional_files}


def recorded(file: Path) -> dict[str, Any]:
    """What Nix gave to the command of a derivation."""
    found: dict[str, Any] = json.loads(file.with_name(f"{file.stem[33:]}.json").read_text("utf-8"))
    return found


@pytest.mark.parametrize("file", BUILDS, ids=lambda file: file.stem[33:])
def test_a_command_gets_what_nix_gives(file: Path) -> None:
    request = nix.to_build_request(read(file), nodes=node, schema="snix.build.v1")
    given = recorded(file)
    assert f"/{request.working_dir}" == given["working_dir"]
    # Nix says the base name of the command only.
    assert request.command_args[0].rsplit("/")[-1] == given["arguments"][0]
    assert request.command_args[1:] == given["arguments"][1:]
    assert files(request) == {f"build/{name}": text for name, text in given["files"].items()}
    found = environment(request)
    for name in OTHERWISE:
        value = given["environment"].pop(name, None)
        if name == "NIX_OUTPUT_CHECKED":
            assert (value == "1") == request.constraints.network_access
        elif value is not None:
            assert found.pop(name) == f"/build/{value.rsplit('/')[-1]}"
    assert found == given["environment"]


def test_all_that_is_odd_is_there() -> None:
    texts = [json.dumps(recorded(file)) for file in BUILDS]
    assert len(BUILDS) == 7
    for wanted in (".attrs.sh", "declare -A", "textPath", "NIX_OUTPUT_CHECKED", "1e+15"):
        assert any(wanted in text for text in texts)


@pytest.mark.parametrize("file", BUILDS + EXAMPLES, ids=lambda file: file.stem[33:])
def test_the_later_schemas_say_the_same(file: Path) -> None:
    one = read(file)
    directory = DerivationDirectory(file.parent)
    request = nix.to_build_request(
        one, nodes=node, derivations=directory, schema=Schema.SNIX_BUILD_V1
    )
    data = nix.to_build_request(
        one, nodes=node, derivations=directory, schema=Schema.TVIX_BUILD_V1_2024
    )
    assert data == request.SerializeToString()
    for names in (request.outputs, request.scratch_paths, files(request), environment(request)):
        assert list(names) == sorted(names)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem[33:])
def test_the_rest_is_that_of_the_first_schema(file: Path) -> None:
    one = read(file)
    directory = DerivationDirectory(file.parent)
    first = nix.to_build_request(one, nodes=node, derivations=directory)
    later = nix.to_build_request(one, nodes=node, derivations=directory, schema="snix.build.v1")
    assert later.command_args == first.command_args
    assert later.outputs == [f"nix/store/{name}" for name in first.outputs]
    assert environment(later) == environment(first)
    assert [entry.SerializeToString() for entry in later.inputs] == [
        node.SerializeToString() for node in first.inputs
    ]
    assert (later.inputs_dir, later.working_dir) == ("nix/store", "build")
    assert later.scratch_paths == ["build", "nix/store"]
    assert later.constraints.system == first.constraints.system
    assert later.constraints.provide_bin_sh
    fixed = any(output.hash for output in one.outputs.values())
    assert later.constraints.network_access == fixed
    assert not later.additional_files


@pytest.mark.parametrize(
    ("name", "network_access"),
    [("fixed-flat", True), ("fixed-recursive", True), ("many-outputs", False)],
)
def test_fixed_outputs_may_use_the_network(name: str, network_access: bool) -> None:
    directory = DerivationDirectory(ODD[0].parent)
    request = nix.to_build_request(
        odd(name), nodes=node, derivations=directory, schema="snix.build.v1"
    )
    assert request.constraints.network_access == network_access


def test_needles_are_the_hash_parts_of_outputs_and_inputs() -> None:
    directory = DerivationDirectory(ODD[0].parent)
    request = nix.to_build_request(
        odd("many-outputs"), nodes=node, derivations=directory, schema="snix.build.v1"
    )
    names = [path.removeprefix("nix/store/") for path in request.outputs]
    names += [entry.file.name.decode() for entry in request.inputs]
    assert request.refscan_needles == [name[:32] for name in names]
    assert len(names) == 8


def test_a_value_in_a_file_need_not_be_text() -> None:
    one = derivation(environment={"passAsFile": b"data", "data": b"gr\xfc\xdfe \xff"})
    request = nix.to_build_request(one, nodes=node, schema="snix.build.v1")
    assert [file.contents for file in request.additional_files] == [b"gr\xfc\xdfe \xff"]
    named = derivation(environment={"passAsFile": b"\xff", "\udcff": b"value"})
    with pytest.raises(DerivationError, match=r"variable b'\\xff': expected UTF-8"):
        nix.to_build_request(named, nodes=node, schema="snix.build.v1")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "found Expecting value: line 1 column 1 (char 0)"),
        (b"[1]", "found a value of type list"),
        (b"null", "found a value of type NoneType"),
        (b'{"a": NaN}', "found NaN"),
        (b'{"a": -Infinity}', "found -Infinity"),
        (b'{"a": 1e999}', "found a number that is too large, 1e999"),
        (b'{"a": %s}' % (b"9" * 400), "found a number that is too large, 99999999999999999999"),
        (b'{"a": "\xff"}', "found 'utf-8' codec can't decode byte 0xff"),
        (b'{"a": "\\ud800"}', "found 'utf-8' codec can't encode character"),
        (b'{"a": "\n"}', "found Invalid control character at"),
        (b'{"a": 1} x', "found Extra data"),
        (b'{"a":' * 100_000, "found values that are nested too deeply"),
    ],
)
def test_attributes_that_nix_would_not_read_are_an_error(text: bytes, reason: str) -> None:
    with pytest.raises(DerivationError) as found:
        nix.to_build_request(
            derivation(environment={"__json": text}), nodes=node, schema="snix.build.v1"
        )
    (said,) = found.value.reasons
    assert said.startswith(f"variable __json: expected a JSON object, {reason}")


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        (
            {"exportReferencesGraph": b"graph /nix/store/a"},
            "variable exportReferencesGraph: requests do not support files with "
            "the references of store paths, found 'graph /nix/store/a'",
        ),
        (
            {"__json": b'{"exportReferencesGraph": {"graph": ["/nix/store/a"]}}'},
            "attribute exportReferencesGraph: requests do not support files with "
            "the references of store paths, found {'graph': ['/nix/store/a']}",
        ),
    ],
)
def test_graphs_of_references_cannot_be_said(environment: dict[str, bytes], reason: str) -> None:
    with pytest.raises(DerivationError) as found:
        nix.to_build_request(
            derivation(environment=environment), nodes=node, schema="snix.build.v1"
        )
    assert found.value.reasons == (reason,)


def test_violations_are_reasons_in_each_schema() -> None:
    one = derivation(environment={"a=b": b"1", "c": b"\0"})
    for schema in Schema:
        with pytest.raises(DerivationError, match="invalid_env_key") as found:
            nix.to_build_request(one, nodes=node, schema=schema)
        assert len(found.value.reasons) == 2


def test_an_unknown_schema_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"snix\.build\.v2"):
        nix.to_build_request(derivation(), nodes=node, schema="snix.build.v2")  # type: ignore[call-overload]
