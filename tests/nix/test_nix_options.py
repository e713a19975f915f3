# SPDX-License-Identifier: MIT
"""The options of Nix that a derivation sets are translated, rejected or reported, by the table that
the documentation has, too."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

import tvix_build
from tvix.castore.protos.castore_pb2 import Node
from tvix_build import Schema, nix
from tvix_build._core.report import SchemaLike
from tvix_build.nix import Derivation, DerivationError, Output
from tvix_build.nix.options import FEATURES, OPTIONS

DOCS = Path(__file__).absolute().parents[2] / "docs" / "python.md"
PATH = "/nix/store/5qx5i5v9z2y0bqhs4p0d6wcgqm2vz5zq-out"
SCHEMAS: Final = ("tvix.build.v1", "snix.build.v1")


def node(path: str) -> Node:
    """A node for any path."""
    return tvix_build.file_node(path.removeprefix("/nix/store/"), digest=bytes(32), size=1)


def with_variables(variables: dict[str, str]) -> Derivation:
    environment = {name: value.encode() for name, value in variables.items()}
    return Derivation(
        {"out": Output(PATH)}, {}, (), "x86_64-linux", "/bin/sh", (), environment, "x.drv"
    )


def with_attributes(attributes: dict[str, Any]) -> Derivation:
    return with_variables({"__json": json.dumps(attributes), "out": PATH})


def request(one: Derivation, schema: SchemaLike = "snix.build.v1", **options: Any) -> Any:
    return nix.to_build_request(one, nodes=node, schema=schema, **options)


def refused(one: Derivation, schema: SchemaLike = "snix.build.v1") -> list[str]:
    with pytest.raises(DerivationError) as found:
        request(one, schema)
    return list(found.value.reasons)


REFUSED: dict[str, tuple[str, Any]] = {
    "__noChroot": ("1", True),
    "__impureHostDeps": ("/usr/bin/ditto", ["/usr/bin/ditto"]),
    "sandboxProfile": ("(allow file*)", "(allow file*)"),
    "__sandboxProfile": ("(allow file*)", "(allow file*)"),
    "__darwinAllowLocalNetworking": ("1", True),
    "__contentAddressed": ("1", True),
    "__impure": ("1", True),
    "exportReferencesGraph": (f"graph {PATH}", {"graph": [PATH]}),
    "requiredSystemFeatures": ("kvm uid-range", ["kvm", "uid-range"]),
}
REPORTED: dict[str, tuple[str, Any]] = {
    "allowedReferences": ("", []),
    "allowedRequisites": ("", []),
    "disallowedReferences": (PATH, [PATH]),
    "disallowedRequisites": (PATH, [PATH]),
}
REPORTED_ATTRIBUTES: dict[str, Any] = {
    "outputChecks": {"out": {"maxSize": 1}},
    "unsafeDiscardReferences": {"out": True},
}
IGNORED: dict[str, tuple[str, Any]] = {
    "preferLocalBuild": ("1", True),
    "impureEnvVars": ("http_proxy", ["http_proxy"]),
    "allowSubstitutes": ("", False),
    "requiredSystemFeatures": ("big-parallel\n\tbenchmark nixos-test", ["big-parallel"]),
    "__noChroot": ("", False),
    "__impureHostDeps": (" ", []),
    "__contentAddressed": ("0", False),
    "__impure": ("true", None),
    "exportReferencesGraph": ("", {}),
}


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("name", REFUSED)
def test_what_changes_the_build_is_refused(name: str, schema: SchemaLike) -> None:
    (reason,) = refused(with_variables({name: REFUSED[name][0]}), schema)
    assert reason.startswith(f"variable {name}: requests do not support ")


@pytest.mark.parametrize("name", REFUSED)
def test_what_changes_the_build_is_refused_as_an_attribute(name: str) -> None:
    (reason,) = refused(with_attributes({name: REFUSED[name][1]}))
    assert reason.startswith(f"attribute {name}: requests do not support ")


@pytest.mark.parametrize("name", REFUSED)
def test_a_variable_beside_attributes_asks_for_nothing(name: str) -> None:
    attributes = with_variables({"__json": "{}", name: REFUSED[name][0]})
    assert request(attributes).outputs


@pytest.mark.parametrize("name", REPORTED)
def test_what_cannot_change_the_outputs_is_reported(name: str) -> None:
    variable, attribute = REPORTED[name]
    for schema in SCHEMAS:
        one = with_variables({name: variable})
        plain = {one.key: one.value for one in request(one, schema).environment_vars}
        assert plain[name] == variable.encode()
        assert nix.omitted_options(one) == (name,)
    one = with_attributes({name: attribute})
    assert request(one).outputs
    assert nix.omitted_options(one) == (name,)


@pytest.mark.parametrize("name", REPORTED_ATTRIBUTES)
def test_what_only_attributes_ask_for(name: str) -> None:
    one = with_attributes({name: REPORTED_ATTRIBUTES[name]})
    assert request(one).outputs
    assert nix.omitted_options(one) == (name,)
    assert nix.omitted_options(with_variables({name: "1"})) == ()


@pytest.mark.parametrize("name", IGNORED)
def test_what_asks_for_nothing_is_ignored(name: str) -> None:
    variable, attribute = IGNORED[name]
    for one in (with_variables({name: variable}), with_attributes({name: attribute})):
        made = request(one)
        assert list(made.constraints.available_ro_paths) == []
        assert nix.omitted_options(one) == ()


def test_kvm_is_a_path_of_the_host() -> None:
    for schema in SCHEMAS:
        one = with_variables({"requiredSystemFeatures": "big-parallel kvm"})
        assert list(request(one, schema).constraints.available_ro_paths) == ["/dev/kvm"]
    one = with_attributes({"requiredSystemFeatures": ["kvm", "kvm"]})
    assert list(request(one).constraints.available_ro_paths) == ["/dev/kvm"]
    made = request(one, available_ro_paths=["/dev/urandom", "/dev/kvm", "/dev/a"])
    assert list(made.constraints.available_ro_paths) == ["/dev/a", "/dev/kvm", "/dev/urandom"]


def test_words_are_apart_as_nix_has_it() -> None:
    (reason,) = refused(with_variables({"requiredSystemFeatures": "kvm\u00a0\vbenchmark"}))
    assert "found 'kvm\\xa0\\x0bbenchmark'" in reason


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("__noChroot", "1", "expected a boolean, found '1'"),
        ("requiredSystemFeatures", "kvm", "expected a list of strings, found 'kvm'"),
        ("requiredSystemFeatures", ["kvm", 1], "expected a list of strings, found ['kvm', 1]"),
        ("__sandboxProfile", ["x"], "expected a string, found 'x'"),
    ],
)
def test_attributes_of_another_type(name: str, value: Any, reason: str) -> None:
    assert refused(with_attributes({name: value})) == [f"attribute {name}: {reason}"]


def test_files_are_refused_in_the_first_schema_alone() -> None:
    for variables in ({"passAsFile": "a", "a": "b"}, {"__json": "{}"}):
        (reason,) = refused(with_variables(variables), "tvix.build.v1")
        assert "do not support" in reason
        for schema in (Schema.TVIX_BUILD_V1_2024, Schema.SNIX_BUILD_V1):
            assert request(with_variables(variables), schema.value)


def test_an_attribute_of_a_variables_name_asks_for_nothing() -> None:
    assert request(with_attributes({"passAsFile": 1, "__json": 2})).outputs


def test_the_documentation_has_the_table() -> None:
    text = DOCS.read_text()
    table = text[text.index("| option |") :].partition("\n\n")[0]
    options = [name for row in table.splitlines() for name in re.findall("`(.*?)`", row[:200])]
    assert set(OPTIONS) <= set(options)
    assert all(f"`{feature}`" in table for feature in FEATURES)
    tested = {*REFUSED, *REPORTED, *REPORTED_ATTRIBUTES, *IGNORED, "__json", "passAsFile"}
    assert tested == set(OPTIONS)
