# SPDX-License-Identifier: MIT
"""Steps and requests are read and changed as protobuf and the engine do it."""

from __future__ import annotations

import random

import pytest

import tvix_build
from made_plans import digest_of, make_graph, make_step
from snix.castore.protos.castore_pb2 import Entry
from tvix.castore.protos.castore_pb2 import DirectoryNode, FileNode, Node, SymlinkNode
from tvix_build._core.report import SchemaLike
from tvix_build.plan.v1.plan_pb2 import Plan, Step
from tvix_build.plan.wire import Ref, add_inputs, make_input, read_outputs, read_roots, read_step

SCHEMAS = ("tvix.build.v1", "tvix.build.v1@2024", "snix.build.v1")


def random_node(random: random.Random, name: bytes) -> Node:
    digest = random.randbytes(32)
    return random.choice(
        (
            Node(file=FileNode(name=name, digest=digest, size=random.randrange(300))),
            Node(directory=DirectoryNode(name=name, digest=digest, size=random.randrange(300))),
            Node(symlink=SymlinkNode(name=name, target=bytes(random.randrange(1, 300) * b"t"))),
        )
    )


def make_request(schema: SchemaLike, nodes: list[Node], arguments: list[str]) -> bytes:
    """Return the canonical encoding of a request."""
    snix = schema == "snix.build.v1"
    request = tvix_build.build_request(
        command_args=arguments,
        inputs=[Entry.FromString(node.SerializeToString()) for node in nodes] if snix else nodes,
        outputs=["out"] if schema == "tvix.build.v1" else ["build/out"],
        system="x86_64-linux",
        schema=schema,
    )
    return tvix_build.canonicalize(request, kind="build-request", schema=schema)


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("seed", range(40))
def test_inputs_are_added_as_by_the_engine(schema: SchemaLike, seed: int) -> None:
    source = random.Random(seed)
    names = [
        b"%d-%s" % (i, b"n" * source.choice((1, 100, 200))) for i in range(source.randrange(30))
    ]
    nodes = [random_node(source, name) for name in sorted(names)]
    arguments = ["a" * source.choice((1, 127, 128, 20_000))] * source.randrange(1, 4)
    added = set(source.sample(names, source.randrange(len(names) + 1)))
    rest = [node for node in nodes if _name(node) not in added]
    before = make_request(schema, rest, arguments)
    inputs = [
        make_input(tvix_build.Schema(schema), _name(node), node.SerializeToString())
        for node in nodes
        if _name(node) in added
    ]
    found = add_inputs(before, tvix_build.Schema(schema), inputs)
    assert found == make_request(schema, nodes, arguments)
    report = tvix_build.check(found, kind="build-request", schema=schema)
    assert report.canonical
    outputs = read_outputs(found, tvix_build.Schema(schema))
    assert outputs == [b"out"]


def _name(node: Node) -> bytes:
    kind = node.WhichOneof("node")
    assert kind
    name: bytes = getattr(node, kind).name
    return name


def test_a_plan_is_read_as_by_protobuf() -> None:
    data, digests = make_graph([[], [], [0], [0, 1, 2], []])
    plan = Plan.FromString(data)
    assert read_roots(data) == plan.roots
    assert {digest_of(step.SerializeToString()) for step in plan.steps} == set(digests)
    for step in plan.steps:
        read = read_step(step.SerializeToString())
        assert read.request == step.request
        assert read.schema == step.schema
        assert [ref.step for ref in read.refs] == [ref.step for ref in step.input_refs]
        assert [ref.name.decode() for ref in read.refs] == [ref.output for ref in step.input_refs]


def test_the_name_of_an_output_is_that_of_its_input() -> None:
    step = make_step("x", {bytes(32): ["nix/store/out"]}, schema="snix.build.v1")
    assert read_step(step).refs == (Ref(bytes(32), b"out"),)
    assert Step.FromString(step).input_refs[0].output == "nix/store/out"
