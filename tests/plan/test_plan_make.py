# SPDX-License-Identifier: MIT
"""Plans made from derivations, by `from_derivations` and by `plan make`."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

import tvix_build
from cli_support import run
from made_derivations import MadeStore, store_path
from tvix.castore.protos.castore_pb2 import Node
from tvix_build import Schema
from tvix_build._core.report import SchemaLike
from tvix_build.castore import node_from_path
from tvix_build.nix import DerivationDirectory, DerivationError
from tvix_build.nix.requests import RequestMaker, find_cycles, show_cycle
from tvix_build.plan import from_derivations
from tvix_build.plan.derivations import PlanMaker
from tvix_build.plan.v1.plan_pb2 import Plan, Step


@pytest.fixture
def store(tmp_path: Path) -> MadeStore:
    directory = tmp_path / "store"
    directory.mkdir()
    return MadeStore(directory)


@pytest.fixture
def diamond(store: MadeStore) -> str:
    """A derivation that needs two others, which need a fourth and a source."""
    source = store.source("source", "text")
    first = store.derivation("first", "make", sources=[source])
    left = store.derivation("left", "make", inputs=[first])
    right = store.derivation("right", "make", inputs=[first])
    return store.derivation("last", "make", inputs=[left, right], sources=[source])


def nodes_of(store: MadeStore, *names: str) -> dict[str, Node]:
    return {store_path(name): node_from_path(store.file(store_path(name))) for name in names}


def base(name: str) -> str:
    return store_path(name).removeprefix("/nix/store/")


def steps_by_output(plan: Plan, schema: Schema) -> dict[str, Step]:
    """Return the steps by the name of their first output."""
    found = {}
    for step in plan.steps:
        request = step.request
        if schema is Schema.TVIX_BUILD_V1:
            from tvix.build.protos.build_pb2 import BuildRequest

            name = BuildRequest.FromString(request).outputs[0]
        else:
            from snix.build.protos.build_pb2 import BuildRequest as LaterRequest

            name = LaterRequest.FromString(request).outputs[0]
        found[name.rpartition("/")[2]] = step
    return found


def names_of_refs(step: Step) -> list[str]:
    return [ref.output for ref in step.input_refs]


@pytest.mark.parametrize("schema", Schema)
def test_a_diamond(store: MadeStore, diamond: str, schema: Schema) -> None:
    nodes = nodes_of(store, "source")
    plan = from_derivations([store.file(diamond)], nodes=nodes, schema=schema)
    assert tvix_build.check(plan).canonical
    assert {step.schema for step in plan.steps} == {schema.value}
    steps = steps_by_output(plan, schema)
    assert steps.keys() == {base(name) for name in ("first", "left", "right", "last")}
    prefix = "" if schema is Schema.TVIX_BUILD_V1 else "nix/store/"
    last = steps[base("last")]
    assert names_of_refs(last) == sorted(prefix + base(name) for name in ("left", "right"))
    assert names_of_refs(steps[base("first")]) == []
    assert list(plan.roots) == [tvix_build.digest(last)]
    digests = {ref.step for ref in last.input_refs}
    assert digests == {tvix_build.digest(steps[base(name)]) for name in ("left", "right")}


def test_the_request_is_that_of_from_drv_without_the_refs(store: MadeStore, diamond: str) -> None:
    from tvix.build.protos.build_pb2 import BuildRequest

    names = ("source", "first", "left", "right", "last")
    for name in names[1:]:
        store.source(name, name)
    nodes = nodes_of(store, *names)
    plan = from_derivations([store.file(diamond)], nodes=nodes)
    done = run("from-drv", store.file(diamond), "--ingest", "-o", store.directory / "one.binpb")
    assert done.status == 0
    whole = BuildRequest.FromString((store.directory / "one.binpb").read_bytes())
    step = steps_by_output(plan, Schema.TVIX_BUILD_V1)[base("last")]
    request = BuildRequest.FromString(step.request)
    added = [nodes[f"/nix/store/{name}"] for name in names_of_refs(step)]
    request.inputs.extend(added)
    assert tvix_build.canonicalize(request) == whole.SerializeToString()


def test_equal_steps_are_one(store: MadeStore) -> None:
    first = store.derivation("a", "make")
    same = store.derivation("a", "make", drv_name="b.drv")
    plan = from_derivations([store.file(first), store.file(same)], nodes={})
    assert len(plan.steps) == len(plan.roots) == 1


def test_closure(store: MadeStore, diamond: str) -> None:
    nodes = nodes_of(store, "source")
    plan = from_derivations([store.file(diamond)], nodes=nodes, closure=True)
    step = steps_by_output(plan, Schema.TVIX_BUILD_V1)[base("last")]
    assert names_of_refs(step) == sorted(base(name) for name in ("first", "left", "right"))


def test_outputs_of_builders_of_nix_are_inputs(store: MadeStore) -> None:
    fetched = store.derivation("fetched", "", builder="builtin:fetchurl")
    last = store.derivation("last", "make", inputs=[fetched])
    store.source("fetched", "text")
    plan = from_derivations([store.file(last)], nodes=nodes_of(store, "fetched"))
    assert [names_of_refs(step) for step in plan.steps] == [[]]
    with pytest.raises(DerivationError, match="missing node for the input"):
        from_derivations([store.file(last)], nodes={})
    with pytest.raises(DerivationError, match="which is part of Nix"):
        from_derivations([store.file(fetched)], nodes={})


def made(store: MadeStore, paths: Iterable[str], schema: SchemaLike) -> Plan:
    return from_derivations([store.file(path) for path in paths], nodes={}, schema=schema)


def test_errors(store: MadeStore) -> None:
    with pytest.raises(ValueError, match="expected derivations, found none"):
        from_derivations([], nodes={})
    missing = store.derivation("missing", "make", inputs=[store_path("none.drv")])
    last = store.derivation("last", "make", inputs=[missing])
    with pytest.raises(DerivationError, match="missing input derivation") as caught:
        made(store, [last], "tvix.build.v1")
    assert missing in str(caught.value)
    one, two = store_path("one.drv"), store_path("two.drv")
    store.derivation("one", "make", inputs=[two])
    store.derivation("two", "make", inputs=[one])
    with pytest.raises(DerivationError, match="the inputs form a cycle"):
        made(store, [one], "snix.build.v1")


@pytest.mark.slow
def test_cycles_in_random_graphs(store: MadeStore) -> None:
    rng = random.Random(1)
    names = [f"s{i}" for i in range(8)]
    for _ in range(50):
        for name in names:
            inputs = rng.sample(names, rng.choice([0, 0, 1, 1, 2]))
            store.derivation(name, "make", inputs=[store_path(f"{one}.drv") for one in inputs])
        directory = DerivationDirectory(store.directory)
        expected = {
            path: [f"the inputs form a cycle: {show_cycle(cycle)}"]
            for path, cycle in find_cycles([*directory.values()], directory.get).items()
        }
        directory = DerivationDirectory(store.directory)
        plan = PlanMaker(RequestMaker({}, directory), directory, Schema.TVIX_BUILD_V1)
        plan.add(directory.values())
        assert plan.rejected == expected
        assert plan.made.keys() == set(directory) - expected.keys()


def test_commands_are_forgotten(store: MadeStore, diamond: str) -> None:
    """The memory for a step does not depend on the size of its derivation."""
    directory = DerivationDirectory(store.directory)
    maker = RequestMaker(nodes_of(store, "source"), directory, closure=True)
    plan = PlanMaker(maker, directory, Schema.TVIX_BUILD_V1)
    plan.add([directory[diamond]])
    assert len(plan.made) == 4
    assert all(not one.environment and not one.arguments for one in directory.values())


# ---- the command


def test_command(store: MadeStore, diamond: str, tmp_path: Path) -> None:
    file = tmp_path / "plan.binpb"
    done = run("plan", "make", store.file(diamond), "--ingest", "-o", file)
    assert done.status == 0
    assert done.stdout.decode().split() == [
        *("derivations", "1", "rejected", "0", "roots", "1", "steps", "4")
    ]
    nodes = nodes_of(store, "source")
    expected = from_derivations([store.file(diamond)], nodes=nodes)
    assert file.read_bytes() == expected.SerializeToString()
    assert (
        run("digest", "--kind", "plan", file).stdout.decode().split()[0]
        == tvix_build.digest(expected).hex()
    )


def test_directory_with_nodes_of_another_schema(
    store: MadeStore, diamond: str, tmp_path: Path
) -> None:
    nodes = tmp_path / "nodes.ndjson"
    assert run("ingest", store.file(store_path("source")), "-o", nodes).status == 0
    file = tmp_path / "plan.binpb.zst"
    schema = ("--schema", "snix.build.v1")
    done = run("plan", "make", store.directory, "--nodes", nodes, *schema, "-o", file)
    assert done.status == 0
    assert "roots" in done.stdout.decode()
    assert run("validate", "--kind", "plan", file).status == 0
    plan = from_derivations(
        [store.file(diamond)], nodes=nodes_of(store, "source"), schema="snix.build.v1"
    )
    assert len(plan.steps) == 4


def test_rejected_derivations(store: MadeStore, tmp_path: Path) -> None:
    fetched = store.derivation("fetched", "", builder="builtin:fetchurl")
    needed = store.derivation("needed", "make")
    store.derivation("bad", "make", inputs=[needed, fetched])
    store.derivation("good", "make")
    file, errors = tmp_path / "plan.binpb", tmp_path / "errors.ndjson"
    done = run("plan", "make", store.directory, "-o", file, "--errors", errors)
    assert done.status == 1
    assert "builders that are part of Nix: 1 in 1 derivation" in done.stderr
    reasons = [json.loads(line) for line in errors.read_text().splitlines()]
    assert {reason["kind"] for reason in reasons} == {"builtin", "missing_node"}
    report = tvix_build.check(file.read_bytes(), kind="plan")
    assert report.canonical
    assert len(Plan.FromString(file.read_bytes()).steps) == 2  # needed and good


def test_steps_that_only_rejected_derivations_need(store: MadeStore, tmp_path: Path) -> None:
    needed = store.derivation("needed", "make")
    bad = store.derivation("bad", "make", inputs=[needed, store_path("none.drv")])
    good = store.derivation("good", "make")
    file = tmp_path / "plan.binpb"
    done = run("plan", "make", store.file(bad), store.file(good), "-o", file)
    assert done.status == 1
    assert tvix_build.check(file.read_bytes(), kind="plan").canonical
    assert len(Plan.FromString(file.read_bytes()).steps) == 1


def test_no_plan_without_a_root(store: MadeStore, tmp_path: Path) -> None:
    bad = store.derivation("bad", "make", inputs=[store_path("none.drv")])
    file = tmp_path / "plan.binpb"
    assert run("plan", "make", store.file(bad), "-o", file).status == 1
    assert not file.exists()
    (tmp_path / "nodes.ndjson").write_text("{")
    done = run("plan", "make", store.file(bad), "--nodes", tmp_path / "nodes.ndjson", "-o", file)
    assert done.status == 2
