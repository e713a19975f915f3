# SPDX-License-Identifier: MIT
"""Plans made with protobuf."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from blake3 import blake3

import tvix_build
from tvix_build.plan.v1.plan_pb2 import InputRef, Plan, Step

SCHEMA = "tvix.build.v1"
SYSTEM = f"{os.uname().machine}-linux"


def output_name(name: str) -> str:
    """Return a name as in a store path, with a hash that depends on the name."""
    return f"{blake3(name.encode()).hexdigest()[:32].replace('e', 'z')}-{name}"


def make_step(
    name: str,
    needs: Mapping[bytes, Sequence[str]] | None = None,
    *,
    script: str = "",
    schema: str = SCHEMA,
    **fields: object,
) -> bytes:
    """Return the canonical encoding of a step.

    Args:
        name: the name of the only output.
        needs: outputs of other steps, by the digest of the step.
        script: the script of the shell that is the command.
        fields: other arguments of `build_request`.
    """
    output = output_name(name)
    outputs = [output if schema == SCHEMA else f"nix/store/{output}"]
    wanted: dict[str, Any] = {
        "command_args": ["/bin/sh", "-euc", script or name],
        "outputs": outputs,
        "system": "x86_64-linux",
        "schema": schema,
        **fields,
    }
    request = tvix_build.build_request(**wanted)
    refs = [
        InputRef(step=digest, output=one)
        for digest, found in (needs or {}).items()
        for one in found
    ]
    refs.sort(key=lambda ref: ref.output.rpartition("/")[2].encode())
    step = Step(request=tvix_build.canonicalize(request), input_refs=refs, schema=schema)
    return step.SerializeToString()


def digest_of(encoding: bytes) -> bytes:
    """Return the digest of a canonical encoding."""
    return blake3(encoding).digest()


def make_plan(steps: Iterable[bytes], roots: Iterable[bytes]) -> bytes:
    """Return the canonical encoding of a plan."""
    by_digest = {digest_of(step): step for step in steps}
    plan = Plan(
        steps=[Step.FromString(step) for _, step in sorted(by_digest.items())],
        roots=sorted(set(roots)),
    )
    return plan.SerializeToString()


def make_graph(needs: Sequence[Sequence[int]]) -> tuple[bytes, list[bytes]]:
    """Return a plan, and the digests of its steps: step i needs the outputs of earlier steps."""
    steps: list[bytes] = []
    digests: list[bytes] = []
    for number, needed in enumerate(needs):
        refs = {digests[one]: [output_name(f"step-{one}")] for one in needed}
        steps.append(make_step(f"step-{number}", refs))
        digests.append(digest_of(steps[-1]))
    used = {one for needed in needs for one in needed}
    return make_plan(steps, [digests[one] for one in range(len(needs)) if one not in used]), digests


def add_step(steps: dict[str, bytes], name: str, script: str, *needs: str) -> None:
    """Add a step whose script makes the file or directory $out, from outputs of other steps."""
    wanted = {digest_of(steps[one]): [output_name(one)] for one in needs}
    paths = {one: f"/nix/store/{output_name(one)}" for one in (*needs, name)}
    environment = {**{one: paths[one] for one in needs}, "out": paths[name]}
    steps[name] = make_step(
        name, wanted, script=script, environment_vars=environment, system=SYSTEM
    )


def write_plan(directory: Path, steps: dict[str, bytes], *roots: str) -> None:
    """Write a plan to plan.binpb."""
    plan = make_plan(steps.values(), [digest_of(steps[root]) for root in roots])
    (directory / "plan.binpb").write_bytes(plan)


def write_greetings(directory: Path) -> dict[str, bytes]:
    """Write a plan of four steps, and return them."""
    steps: dict[str, bytes] = {}
    add_step(steps, "hello", "echo made hello; echo hello > $out")
    add_step(steps, "world", "echo world > $out")
    script = "read a < $hello; read b < $world; echo $a, $b > $out"
    add_step(steps, "both", script, "hello", "world")
    add_step(steps, "run", "read text < $both; echo \"echo '$text!'\" > $out", "both")
    write_plan(directory, steps, "run")
    return steps
