# SPDX-License-Identifier: MIT
"""The reference's rules for plans and their steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from blake3 import blake3
from google.protobuf.message import DecodeError

import reference_first as first
import reference_later as later
import schema_2024
import snix.build.protos.build_pb2 as snix_build
import tvix.build.protos.build_pb2 as tvix_build
from reference_parts import (
    Findings,
    Path,
    check_list,
    check_unknown_fields,
    is_clean_relative,
    is_name,
    node_name,
)
from tvix_build.plan.v1.plan_pb2 import Plan, Step


def is_output_path(value: str) -> bool:
    """Return whether `value` is a clean relative path that ends in the name of an input."""
    return is_clean_relative(value) and len(base_name(value)) <= 255


#: The class of requests, the rule for outputs, and their code, by schema.
_SCHEMAS: dict[str, tuple[Any, Callable[[str], bool], str]] = {
    "tvix.build.v1": (
        tvix_build.BuildRequest,
        lambda output: is_name(output.encode()),
        "invalid_name",
    ),
    "tvix.build.v1@2024": (schema_2024.BuildRequest, is_output_path, "invalid_path"),
    "snix.build.v1": (snix_build.BuildRequest, is_output_path, "invalid_path"),
}


def base_name(output: str) -> bytes:
    """Return the name under which an output is visible to a step that refers to it."""
    return output.rpartition("/")[2].encode()


def request_of(step: Step) -> Any:
    """Return the request of a step with a known schema."""
    return _SCHEMAS[step.schema][0].FromString(step.request)


# ---- steps


def check_step(step: Step, path: Path, findings: Findings) -> None:
    """Check a step. No other rule is checked if its request does not decode."""
    try:
        request = request_of(step) if step.schema in _SCHEMAS else None
    except DecodeError:
        findings.add("malformed", path.field(step, "request"))
        return
    check_unknown_fields(step, path, findings)
    code = "invalid_name" if step.schema else "required"
    findings.add_if(step.schema not in _SCHEMAS, code, path.field(step, "schema"))
    check_input_refs(step, path, findings)
    # A request without any field is absent.
    if not (step.request if request is None else request.ByteSize()):
        findings.add("required", path.field(step, "request"))
    elif request is not None:
        check_request(step, request, path, findings)


def check_input_refs(step: Step, path: Path, findings: Findings) -> None:
    """Check each ref, and the order of all."""
    for i, ref in enumerate(step.input_refs):
        place = path.field(step, "input_refs", i)
        check_unknown_fields(ref, place, findings)
        findings.add_if(len(ref.step) != 32, "invalid_digest", place.field(ref, "step"))
        if step.schema in _SCHEMAS:
            _, is_output, code = _SCHEMAS[step.schema]
            findings.add_if(not is_output(ref.output), code, place.field(ref, "output"))
    names = [base_name(ref.output) for ref in step.input_refs]
    check_list(step, "input_refs", names, path, findings)


def check_request(step: Step, request: Any, path: Path, findings: Findings) -> None:
    """Check a request, and that its names and those of the refs differ."""
    place = path.field(step, "request")
    is_first = step.schema == "tvix.build.v1"
    check = first.check_build_request if is_first else later.check_build_request
    check(request, place, findings)

    inputs = {node_name(node) for node in request.inputs}
    earlier: set[bytes] = set()
    for i, ref in enumerate(step.input_refs):
        name = base_name(ref.output)
        # check_list reports a name that an earlier ref has.
        is_new_duplicate = name in inputs and name not in earlier
        findings.add_if(is_new_duplicate, "duplicate", path.field(step, "input_refs", i))
        earlier.add(name)

    prefix = b"" if is_first or not request.inputs_dir else request.inputs_dir.encode() + b"/"
    for i, output in enumerate(request.outputs):
        name = output.encode()
        is_input = name.startswith(prefix) and name[len(prefix) :] in earlier - inputs
        findings.add_if(is_input, "output_is_input", place.field(request, "outputs", i))


def sort_step(step: Step) -> None:
    """Sort the lists of a step and of its request."""
    request = request_of(step)
    is_first = step.schema == "tvix.build.v1"
    (first.sort_build_request if is_first else later.sort_build_request)(request)
    step.request = request.SerializeToString(deterministic=True)
    step.input_refs.sort(key=lambda ref: base_name(ref.output))


def digest_of(step: Step) -> bytes:
    """Return the digest of a step that has no violation other than not_sorted."""
    step = Step.FromString(step.SerializeToString())
    sort_step(step)
    return blake3(step.SerializeToString(deterministic=True)).digest()


# ---- plans


def check_plan(plan: Plan, path: Path, findings: Findings) -> None:
    """Check a plan. The rules for digests are checked only if each step has a digest."""
    check_unknown_fields(plan, path, findings)
    of_steps = Findings()
    for i, step in enumerate(plan.steps):
        check_step(step, path.field(plan, "steps", i), of_steps)
    findings.extend(of_steps)
    check_schemas(plan, path, findings)
    findings.add_if(not plan.roots, "required", path.field(plan, "roots"))
    for i, root in enumerate(plan.roots):
        findings.add_if(len(root) != 32, "invalid_digest", path.field(plan, "roots", i))
    check_list(plan, "roots", plan.roots, path, findings)
    if all(code == "not_sorted" for code, _ in of_steps.in_order()):
        check_digests(plan, path, findings)


def check_schemas(plan: Plan, path: Path, findings: Findings) -> None:
    """Check that all steps that can be read have the schema of the first one."""
    schemas = []
    for i, step in enumerate(plan.steps):
        if step.schema not in _SCHEMAS:
            continue
        schemas.append(step.schema)
        place = path.field(plan, "steps", i).field(step, "schema")
        findings.add_if(step.schema != schemas[0], "invalid_name", place)


def check_digests(plan: Plan, path: Path, findings: Findings) -> None:
    """Check the order of steps, and what refers to them."""
    digests = [digest_of(step) for step in plan.steps]
    check_list(plan, "steps", digests, path, findings)
    steps = dict(zip(digests, plan.steps, strict=True))
    for i, root in enumerate(plan.roots):
        findings.add_if(root not in steps, "unknown_step", path.field(plan, "roots", i))
    for i, step in enumerate(plan.steps):
        for j, ref in enumerate(step.input_refs):
            place = path.field(plan, "steps", i).field(step, "input_refs", j)
            if ref.step not in steps:
                findings.add("unknown_step", place.field(ref, "step"))
            elif ref.output not in request_of(steps[ref.step]).outputs:
                findings.add("unexpected_output", place.field(ref, "output"))

    reached: set[bytes] = set()
    waiting = list(plan.roots)
    while waiting:
        digest = waiting.pop()
        if digest in steps and digest not in reached:
            reached.add(digest)
            waiting += [ref.step for ref in steps[digest].input_refs]
    for i, digest in enumerate(digests):
        is_reached = digest in reached
        findings.add_if(not is_reached, "unreachable_step", path.field(plan, "steps", i))


def sort_plan(plan: Plan) -> None:
    """Sort all lists of a plan and of its steps."""
    for step in plan.steps:
        sort_step(step)
    plan.steps.sort(key=digest_of)
    plan.roots.sort()
