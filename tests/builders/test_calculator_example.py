# SPDX-License-Identifier: MIT
"""A plan of twelve steps compiles two libraries and three programs of C, and runs them: the sandbox
and an engine make the same outputs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from builders_support import needs_sandbox
from casd import needs_casd, running_casd
from cli_support import environment
from tvix.castore.protos.castore_pb2 import Node
from tvix_build.builders import Builder, SandboxBuilder
from tvix_build.castore import CastoreStore
from tvix_build.plan import PlanGraph, PlanState, Status, from_derivations, run
from waiting import LIMIT

SCRIPT = Path(__file__).absolute().parents[2] / "examples" / "make_calculator.py"
STEPS = {
    *("evaluate.o", "scan.o", "pack.o", "unpack.o", "libcalc.a", "libpack.a"),
    *("calc", "pack", "check", "results.txt", "results.pack", "check.txt"),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the derivations and their sources."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    store = tmp_path_factory.mktemp("calculator") / "store"
    command = [sys.executable, str(SCRIPT), str(store)]
    subprocess.run(command, env=environment(), check=True, timeout=LIMIT)
    return store


def make_plan(store: Path, castore: CastoreStore) -> bytes:
    """Add the sources to a castore, and return the plan."""
    nodes = {
        f"/nix/store/{path.name}": castore.ingest(path)
        for path in store.iterdir()
        if path.suffix != ".drv"
    }
    (last,) = store.glob("*-check.txt.drv")
    return from_derivations([last], nodes=nodes).SerializeToString()


def build(plan: bytes, builder: Builder, castore: CastoreStore, state: Path) -> dict[str, bytes]:
    """Run the plan, and return the nodes of all outputs."""
    with PlanState(state) as opened:
        result = run(opened.put_plan(plan), [builder], opened, castore=castore)
        assert result.counts == {Status.BUILT: len(STEPS)}
        return {
            path: node.SerializeToString()
            for _, one in opened.builds.builds()
            for path, node in one.outputs.items()
        }


@pytest.mark.slow
def test_the_graph(store: Path, tmp_path: Path) -> None:
    with CastoreStore(tmp_path / "castore") as castore:
        graph = PlanGraph(make_plan(store, castore))
    names = {graph.name(i) for i in range(len(graph))}
    assert names == STEPS
    assert graph.statistics().depth == 6


@needs_sandbox
@pytest.mark.slow
def test_the_sandbox(store: Path, tmp_path: Path) -> None:
    with CastoreStore(tmp_path / "castore") as castore:
        plan = make_plan(store, castore)
        outputs = build(plan, SandboxBuilder(castore), castore, tmp_path / "state")
        (path,) = (path for path in outputs if path.endswith("-check.txt"))
        with castore.open_blob(Node.FromString(outputs[path]).file.digest) as file:
            assert file.read() == b"5 results are right\n"


@needs_sandbox
@needs_casd
@pytest.mark.slow
def test_an_engine_makes_the_same_outputs(store: Path, tmp_path: Path) -> None:
    from tvix_build.builders.reapi import ReapiBuilder

    with CastoreStore(tmp_path / "here") as castore:
        plan = make_plan(store, castore)
        expected = build(plan, SandboxBuilder(castore), castore, tmp_path / "state")
    with (
        CastoreStore(tmp_path / "there") as castore,
        running_casd(tmp_path) as address,
        ReapiBuilder(address, castore) as builder,
    ):
        assert make_plan(store, castore) == plan
        assert build(plan, builder, castore, tmp_path / "remote") == expected
