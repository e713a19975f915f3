# SPDX-License-Identifier: MIT
"""Real Nix and the sandbox build the same derivations, with the same results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from builders_support import needs_sandbox
from nix_support import NixStore, needs_nix_sandbox, nix_store
from tvix.castore.protos.castore_pb2 import Node
from tvix_build import nix
from tvix_build.builders import SandboxBuilder
from tvix_build.builders.derivations import build_derivation
from tvix_build.castore import CastoreStore, node_from_path
from tvix_build.nix import DerivationDirectory

EXPRESSION = Path(__file__).parents[1] / "derivations" / "sandbox.nix"
NAMES = (
    "fixed",
    "fixed-recursive",
    "modes",
    "outputs",
    "pass-as-file",
    "structured",
    "surroundings",
    "user",
)
WITH_CLOSURE = ("closure",)  # Its inputs are not only those of the derivation.
pytestmark = [
    needs_sandbox,
    needs_nix_sandbox,
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NixStore]:
    with nix_store(tmp_path_factory.mktemp("nix")) as found:
        found.run("nix-build", "--no-out-link", str(EXPRESSION))
        yield found


@pytest.mark.parametrize("name", NAMES)
def test_the_outputs_are_those_of_nix(store: NixStore, tmp_path: Path, name: str) -> None:
    directory = DerivationDirectory(store.path("/nix/store"))
    (file,) = store.path("/nix/store").glob(f"*-{name}.drv")
    with CastoreStore(tmp_path / "castore") as castore:

        def node(path: str) -> Node:
            return castore.ingest(store.path(path))

        derivation = directory[f"/nix/store/{file.name}"]
        request = nix.to_build_request(
            derivation, nodes=node, derivations=directory, schema="snix.build.v1"
        )
        result = SandboxBuilder(castore).build(request)
    assert sorted(result.outputs) == sorted(
        output.path.lstrip("/") for output in derivation.outputs.values()
    )
    names = [path.removeprefix("nix/store/") for path in request.outputs]
    names += [getattr(one, one.WhichOneof("entry")).name.decode() for one in request.inputs]
    for (path, found), response in zip(
        result.outputs.items(), result.response.outputs, strict=True
    ):
        assert found == node_from_path(store.path(path))
        references = store.run("nix-store", "--query", "--references", f"/{path}")
        assert {f"/nix/store/{names[i]}" for i in response.needles} == set(references)


@pytest.mark.parametrize("name", [*NAMES, *WITH_CLOSURE])
def test_all_is_built_as_by_nix(store: NixStore, tmp_path: Path, name: str) -> None:
    (file,) = store.path("/nix/store").glob(f"*-{name}.drv")
    # Without the outputs that Nix built.
    sources = tmp_path / "store"
    sources.mkdir()
    for one in store.path("/nix/store").glob("*"):
        if one.suffix == ".drv" or one.name.endswith("-source"):
            (sources / one.name).write_bytes(one.read_bytes())
    with CastoreStore(tmp_path / "castore") as castore:
        result = build_derivation(
            sources / file.name, builder=SandboxBuilder(castore), castore=castore
        )
    assert result.outputs
    for path, node in result.closure.items():
        assert node == node_from_path(store.path(path))
        references = store.run("nix-store", "--query", "--references", path)
        assert set(result.references[path]) == set(references)


def test_all_derivations_are_built(store: NixStore) -> None:
    found = {file.stem[33:] for file in store.path("/nix/store").glob("*.drv")}
    assert found == {*NAMES, *WITH_CLOSURE}
