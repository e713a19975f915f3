# SPDX-License-Identifier: MIT
"""Graphs of plans, their shape, and why plans differ."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import tvix_build
from cli_support import compressed, run
from tvix_build.plan import PlanGraph, compare_plans
from tvix_build.plan.differences import describe
from tvix_build.plan.v1.plan_pb2 import InputRef, Plan, Step

Graph = dict[str, tuple[str, ...]]

DIAMOND: Graph = {"base": (), "left": ("base",), "right": ("base",), "last": ("left", "right")}


def hash_of(text: str) -> str:
    """Return a hash as in store paths."""
    return hashlib.sha256(text.encode()).hexdigest()[:32].replace("e", "z")


def make(
    graph: Graph, *roots: str, schema: str = "tvix.build.v1", **changes: dict[str, object]
) -> Plan:
    """Make a plan as Nix does: the hash of an output depends on all that its step needs. The
    requests contain the paths of their inputs."""
    paths: dict[str, str] = {}
    steps: dict[str, Step] = {}
    digests: dict[str, bytes] = {}
    prefix = "" if schema == "tvix.build.v1" else "nix/store/"
    for name, needs in graph.items():
        own = changes.get(name, {})
        source = str(own.get("source", "text"))
        source_name = f"{hash_of(f'{name}{source}')}-{name}.c"
        seed = "".join([name, json.dumps(own, default=str), *(paths[one] for one in needs)])
        paths[name] = f"{hash_of(seed)}-{name}-1.0"
        variables = {
            "out": f"/nix/store/{paths[name]}",
            "src": f"/nix/store/{source_name}",
            "buildInputs": " ".join(f"/nix/store/{paths[one]}" for one in needs),
            "flags": str(own.get("flags", "-O2")),
        }
        node = tvix_build.file_node(name=source_name, digest=bytes(32), size=len(source))
        options: dict[str, Any] = {"schema": schema, "outputs": [prefix + paths[name]]}
        if prefix:
            options["inputs_dir"] = "nix/store"
        request: Any = tvix_build.build_request(
            command_args=[str(own.get("builder", "/bin/sh")), "-c", str(own.get("script", "make"))],
            environment_vars=variables,
            inputs=[node],
            **options,
        )
        refs = [
            InputRef(step=digests[one], output=prefix + paths[one])
            for one in sorted(needs, key=paths.__getitem__)
        ]
        data = request if isinstance(request, bytes) else request.SerializeToString()
        steps[name] = Step(request=data, input_refs=refs, schema=schema)
        digests[name] = tvix_build.digest(steps[name])
    order = sorted(steps, key=digests.__getitem__)
    return Plan(
        steps=[steps[name] for name in order],
        roots=sorted(digests[root] for root in roots or tuple(graph)[-1:]),
    )


def causes(old: Plan, new: Plan) -> list[tuple[str, tuple[str, ...], int]]:
    found = compare_plans(PlanGraph(old), PlanGraph(new))
    return [(cause.name, cause.changes, cause.cascade) for cause in found.causes]


# ---- graphs


def test_a_graph() -> None:
    graph = PlanGraph(make(DIAMOND))
    assert len(graph) == 4
    names = [graph.name(i) for i in graph.order]
    assert names[0] == "base-1.0"
    assert names[-1] == "last-1.0"
    assert sorted(graph.name(i) for i in graph.needs[graph.roots[0]]) == ["left-1.0", "right-1.0"]
    assert [tvix_build.digest(graph.step(i)) for i in range(4)] == graph.digests
    found = graph.statistics()
    assert (found.steps, found.refs, found.roots, found.depth, found.width) == (4, 4, 1, 3, 2)
    path = [graph.name(i) for i in found.critical_path]
    assert path[0] == "base-1.0"
    assert path[1] in ("left-1.0", "right-1.0")
    assert path[2] == "last-1.0"


def test_an_invalid_plan_has_no_graph() -> None:
    plan = make(DIAMOND)
    plan.roots[0] = bytes(32)
    with pytest.raises(tvix_build.ValidationError, match="unreachable_step"):
        PlanGraph(plan)


def test_random_graphs() -> None:
    rng = random.Random(1)
    for size in (1, 2, 10, 40):
        graph = random_graph(rng, size)
        found = PlanGraph(make(graph, *graph))
        assert found.order == order_of(found)
        place = {i: at for at, i in enumerate(found.order)}
        assert sorted(place) == list(range(size))
        for i in range(size):
            assert all(place[one] < place[i] for one in found.needs[i])
            expected = 1 + max((found.levels[one] for one in found.needs[i]), default=-1)
            assert found.levels[i] == expected
        path = found.statistics().critical_path
        assert len(path) == max(found.levels) + 1
        assert all(one in found.needs[other] for one, other in itertools.pairwise(path))


def order_of(graph: PlanGraph) -> list[int]:
    """Return the steps, each after those that it needs, by a walk from the roots."""
    order: dict[int, None] = {}

    def visit(i: int) -> None:
        if i not in order:
            for one in graph.needs[i]:
                visit(one)
            order[i] = None

    for root in graph.roots:
        visit(root)
    return [*order]


# ---- differences


@pytest.mark.parametrize("schema", tvix_build.Schema)
@pytest.mark.parametrize(
    ("changed", "change"),
    [
        ({"flags": "-O3"}, ("variable flags",)),
        ({"script": "make all"}, ("argument 2",)),
        ({"builder": "/bin/bash"}, ("builder",)),
        ({"source": "other text"}, ("source base.c",)),
        ({"source": "o", "flags": ""}, ("source base.c", "variable flags")),
    ],
)
def test_causes(schema: str, changed: dict[str, object], change: tuple[str, ...]) -> None:
    old = make(DIAMOND, schema=schema)
    new = make(DIAMOND, schema=schema, base=changed)
    assert causes(old, new) == [("base-1.0", change, 3)]
    found = compare_plans(PlanGraph(old), PlanGraph(new))
    assert (found.same, len(found.changed), found.added, found.removed) == (0, 4, [], [])


def test_several_causes() -> None:
    old = make(DIAMOND)
    new = make(DIAMOND, base={"flags": "-O3"}, right={"script": "true"})
    assert causes(old, new) == [
        ("base-1.0", ("variable flags",), 3),
        ("right-1.0", ("argument 2",), 1),
    ]


def test_a_part_of_a_plan() -> None:
    found = compare_plans(PlanGraph(make(DIAMOND)), PlanGraph(make(DIAMOND, left={"flags": ""})))
    assert found.same == 2
    assert len(found.changed) == 2
    assert [cause.cascade for cause in found.causes] == [1]


def test_equal_plans() -> None:
    graph = PlanGraph(make(DIAMOND))
    found = compare_plans(graph, graph)
    assert (found.same, found.changed, found.causes) == (4, [], [])


def test_another_input() -> None:
    new = {"base": (), "extra": (), **DIAMOND, "left": ("base", "extra")}
    found = compare_plans(PlanGraph(make(DIAMOND)), PlanGraph(make(new)))
    assert len(found.added) == 1
    assert found.removed == []
    (cause,) = found.causes
    assert cause.name == "left-1.0"
    assert set(cause.changes) == {"variable buildInputs", "input extra-1.0"}


def test_the_name_of_another_input_is_complete() -> None:
    """A name that is longer than the hash of a store path need not begin with one."""
    name = "a-long-name-of-an-output-without-any-hash"
    request = tvix_build.build_request(command_args=["/bin/sh"], outputs=["out"])
    old = Step(request=request.SerializeToString(), schema="tvix.build.v1")
    new = Step.FromString(old.SerializeToString())
    new.input_refs.add(step=bytes(32), output=name)
    assert list(describe(old, new)) == [f"input {name}"]


def test_a_source_whose_name_is_not_utf8() -> None:
    old, new = (
        make_steps(
            [
                tvix_build.build_request(
                    command_args=["/bin/sh"],
                    outputs=["out"],
                    inputs=[tvix_build.file_node(name=b"\xff", digest=bytes(32), size=size)],
                )
            ]
        )
        for size in (1, 2)
    )
    assert causes(old, new) == [("out", ("source \\xff",), 0)]


def make_steps(requests: Iterable[Any]) -> Plan:
    """Make a plan of steps that need nothing."""
    steps = [
        Step(request=request.SerializeToString(), schema="tvix.build.v1") for request in requests
    ]
    digests = {tvix_build.digest(step): step for step in steps}
    return Plan(steps=[digests[one] for one in sorted(digests)], roots=sorted(digests))


def make_sources(count: int, script: str, seed: str) -> Plan:
    """Make a plan of steps of the same name, whose hashes depend on the seed."""
    names = [f"{hash_of(f'{seed}{i}')}-source" for i in range(count)]
    return make_steps(
        tvix_build.build_request(
            command_args=["/bin/sh", f"{script} {i:03}"],
            environment_vars={"out": f"/nix/store/{name}"},
            outputs=[name],
        )
        for i, name in enumerate(names)
    )


def test_many_steps_of_the_same_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of checks is proportional to that of steps."""
    count = 100
    checked = []

    def count_checks(*args: Any, **kwargs: Any) -> tvix_build.Report:
        checked.append(args)
        return tvix_build.check(*args, **kwargs)

    monkeypatch.setattr("tvix_build.plan.differences.check", count_checks)
    old, new = make_sources(count, "get", "old"), make_sources(count, "curl", "new")
    assert causes(old, new) == count * [("source", ("argument 1",), 0)]
    assert len(checked) <= 4 * count


def test_steps_of_the_same_name_that_differ_in_hashes_only() -> None:
    """Those that are equal otherwise correspond to each other, whatever the order of hashes."""
    old, new = make_sources(20, "get", "old"), make_sources(20, "get", "new")
    found = compare_plans(PlanGraph(old), PlanGraph(new))
    assert (len(found.changed), found.causes) == (20, [])


def test_a_cascade_of_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvix_build.plan.differences._BLOCK", 1)
    graph: Graph = {f"s{i}": tuple(f"s{j}" for j in range(max(i - 2, 0), i)) for i in range(10)}
    old, new = make(graph), make(graph, s0={"flags": "-O3"}, s4={"flags": "-O3"})
    assert causes(old, new) == [
        ("s0-1.0", ("variable flags",), 9),
        ("s4-1.0", ("variable flags",), 5),
    ]


def test_steps_that_swap_hashes() -> None:
    """Each hash is replaced once, although the new one is also the old one of another output."""
    old, new = (make_outputs([f"{one * 32}-a", f"{other * 32}-bb"]) for one, other in ("ab", "ba"))
    assert causes(old, new) == [("a", ("variable flags",), 1)]


def test_the_same_outputs_in_another_order() -> None:
    """The hashes of outputs decide their order, which is not a cause."""
    prefixes = ("b", "a"), ("c", "d")
    old, new = (
        make_outputs([f"{first * 32}-tool", f"{second * 32}-tool-dev"])
        for first, second in prefixes
    )
    assert tvix_build.digest(old) != tvix_build.digest(new)
    assert causes(old, new) == [("tool", ("variable flags",), 1)]


@pytest.mark.parametrize("flags", "abcd")
def test_a_step_that_needs_two_outputs_of_another_one(flags: str) -> None:
    """That step corresponds to the one that is needed in the other plan, although a third one has
    its name."""

    def make_three(flags: str) -> Plan:
        needed, other = (
            [f"{hash_of(f'{script}{flags}{name}')}-{name}" for name in ("tool", "tool-dev")]
            for script in ("needed", "other")
        )
        third = make_tool(other, flags, "make other")
        return make_outputs(needed, flags, third)

    expected = [("tool", ("variable flags",), 1), ("tool", ("variable flags",), 0)]
    assert causes(make_three("old"), make_three(flags)) == expected


def make_tool(outputs: list[str], flags: str, script: str) -> Step:
    return Step(
        request=tvix_build.build_request(
            command_args=["/bin/sh", script],
            environment_vars={"flags": flags},
            outputs=sorted(outputs),
        ).SerializeToString(),
        schema="tvix.build.v1",
    )


def make_outputs(outputs: list[str], flags: str = "", *others: Step) -> Plan:
    """Make a plan of a step with outputs, of one that needs them, and of others."""
    first = make_tool(outputs, flags or outputs[0][0], "make")
    digest = tvix_build.digest(first)
    last = Step(
        request=tvix_build.build_request(
            command_args=["/bin/sh"],
            environment_vars={"inputs": " ".join(f"/nix/store/{one}" for one in outputs)},
            outputs=["last"],
        ).SerializeToString(),
        input_refs=[InputRef(step=digest, output=one) for one in sorted(outputs)],
        schema="tvix.build.v1",
    )
    steps = {tvix_build.digest(one): one for one in (first, last, *others)}
    roots = sorted(steps.keys() - {digest})
    return Plan(steps=[steps[one] for one in sorted(steps)], roots=roots)


def test_an_unsorted_plan() -> None:
    plan = make(DIAMOND)
    expected = PlanGraph(plan)
    plan.steps.sort(key=lambda step: step.request)
    found = PlanGraph(plan)
    assert found.digests == expected.digests
    assert found.needs == expected.needs
    assert found.schema is tvix_build.Schema.TVIX_BUILD_V1


def random_graph(rng: random.Random, size: int) -> Graph:
    """Return a graph in which each step needs at most three others before it."""
    return {
        f"s{i}": tuple(f"s{j}" for j in sorted(rng.sample(range(i), min(i, rng.randrange(4)))))
        for i in range(size)
    }


def test_differences_of_random_graphs() -> None:
    rng = random.Random(2)
    kinds = {"flags": "variable flags", "script": "argument 2", "source": "source {}.c"}
    for size in (1, 2, 5, 20, 40):
        for _ in range(5):
            graph = random_graph(rng, size)
            changed = {name: rng.choice([*kinds]) for name in rng.sample([*graph], min(size, 4))}
            # The changed steps that each step is or needs.
            below: dict[str, set[str]] = {}
            for name, needs in graph.items():
                below[name] = set().union(*map(below.__getitem__, needs)) | changed.keys() & {name}
            changes: dict[str, Any] = {name: {kind: "new"} for name, kind in changed.items()}
            new = make(graph, *graph, **changes)
            found = compare_plans(PlanGraph(make(graph, *graph)), PlanGraph(new))
            assert sorted((one.name, one.changes, one.cascade) for one in found.causes) == sorted(
                (
                    f"{name}-1.0",
                    (kinds[kind].format(name),),
                    sum(name in steps for steps in below.values()) - 1,
                )
                for name, kind in changed.items()
            )
            assert len(found.changed) == sum(map(bool, below.values()))
            assert found.same == size - len(found.changed)
            assert (found.added, found.removed) == ([], [])


# ---- the commands


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    old, new = tmp_path / "old.binpb", tmp_path / "new.binpb.zst"
    old.write_bytes(make(DIAMOND).SerializeToString())
    data = make(DIAMOND, base={"flags": "-O3"}).SerializeToString()
    new.write_bytes(compressed(data, ".zst"))
    return old, new


def test_diff(files: tuple[Path, Path]) -> None:
    done = run("plan", "diff", *files)
    assert done.status == 1
    assert "base-1.0: variable flags (needed by 3 other changed steps)" in done.stdout.decode()
    done = run("plan", "diff", "--json", *files)
    first, cause = done.lines
    assert first == {"same": 0, "changed": 4, "added": 0, "removed": 0, "causes": 1}
    assert cause["changes"] == ["variable flags"]
    assert cause["cascade"] == 3
    assert run("plan", "diff", files[0], files[0]).status == 0


@pytest.mark.parametrize("suffix", [".arrow", ".parquet"])
def test_a_table_of_causes(files: tuple[Path, Path], tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = tmp_path / f"causes{suffix}"
    done = run("plan", "diff", "--json", "-o", table, *files)
    assert done.status == 1
    read = pa.ipc.open_file(table).read_all() if suffix == ".arrow" else pq.read_table(table)
    assert read.to_pylist() == done.lines[1:]
    assert run("plan", "diff", "-o", table, files[0], files[0]).status == 0
    for name in ("causes.csv", "no/causes.arrow"):
        assert run("plan", "diff", "-o", tmp_path / name, *files).status == 2


def test_check(files: tuple[Path, Path], tmp_path: Path) -> None:
    plan = make(DIAMOND)
    done = run("plan", "check", files[0])
    assert done.status == 0
    assert done.stdout.decode() == f"{tvix_build.digest(plan).hex()}  {files[0]}\n"
    plan.roots.append(b"x")
    bad = tmp_path / "bad.binpb"
    bad.write_bytes(plan.SerializeToString())
    done = run("plan", "check", bad)
    assert done.status == 1
    assert "roots[1]: unknown_step" in done.stderr
    assert run("plan", "show", bad).status == 1
    assert run("plan", "graph", "--dot", bad).status == 1
    assert run("plan", "diff", files[0], bad).status == 1
    assert run("plan", "diff", bad, files[0]).status == 1
    assert run("plan", "check", tmp_path / "none.binpb").status == 2
    (tmp_path / "empty.binpbs").write_bytes(b"")
    assert run("plan", "show", tmp_path / "empty.binpbs").status == 2


def test_show(files: tuple[Path, Path]) -> None:
    text = run("plan", "show", files[0]).stdout.decode()
    assert "depth" in text
    assert "critical path:" in text
    assert "last-1.0" in text
    assert run("plan", "show", "--steps", files[0]).stdout.decode().count("-1.0") == 4
    first, *steps = run("plan", "show", "--steps", "--json", files[0]).lines
    assert (first["steps"], first["refs"], first["depth"], first["width"]) == (4, 4, 3, 2)
    assert [step["name"] for step in steps][::3] == ["base-1.0", "last-1.0"]
    assert [step["root"] for step in steps] == [False, False, False, True]
    assert len(steps[3]["needs"]) == 2


def test_graph(files: tuple[Path, Path], tmp_path: Path) -> None:
    dot = tmp_path / "plan.dot"
    assert run("plan", "graph", "--dot", files[1], "-o", dot).status == 0
    text = dot.read_text()
    assert text.startswith("digraph plan {\n")
    assert text.count(" -> ") == 4
    assert text.count("style=bold") == 1
    assert run("plan", "graph", "--dot", files[1]).stdout.decode() == text
