# SPDX-License-Identifier: MIT
"""The reference's rules for BuildRequest and Build of tvix.build.v1."""

from __future__ import annotations

from reference_parts import (
    Findings,
    Path,
    check_command_args,
    check_environment_vars,
    check_inputs,
    check_list,
    check_node,
    check_system,
    check_unknown_fields,
    is_at_or_below,
    is_clean_absolute,
    is_name,
    node_name,
)
from tvix.build.protos.build_pb2 import Build, BuildRequest


def is_host_path(value: str) -> bool:
    """Return whether `value` is a clean absolute path outside the store."""
    return is_clean_absolute(value) and not is_at_or_below(value, "/nix/store")


def check_constraints(
    constraints: BuildRequest.BuildConstraints, path: Path, findings: Findings
) -> None:
    check_unknown_fields(constraints, path, findings)
    check_system(constraints, path, findings)
    for i, host_path in enumerate(constraints.available_ro_paths):
        place = path.field(constraints, "available_ro_paths", i)
        findings.add_if(not is_host_path(host_path), "invalid_path", place)
    keys = [host_path.encode() for host_path in constraints.available_ro_paths]
    check_list(constraints, "available_ro_paths", keys, path, findings)


def check_build_request(request: BuildRequest, path: Path, findings: Findings) -> None:
    check_unknown_fields(request, path, findings)
    check_command_args(request, path, findings)
    check_environment_vars(request, path, findings)
    check_inputs(request, path, findings)

    input_names = {node_name(node) for node in request.inputs}
    outputs = [output.encode() for output in request.outputs]
    for i, output in enumerate(outputs):
        place = path.field(request, "outputs", i)
        findings.add_if(not is_name(output), "invalid_name", place)
        findings.add_if(output in input_names, "output_is_input", place)
    check_list(request, "outputs", outputs, path, findings)

    if request.HasField("constraints"):
        check_constraints(request.constraints, path.field(request, "constraints"), findings)


def check_build(build: Build, path: Path, findings: Findings) -> None:
    check_unknown_fields(build, path, findings)
    request_path = path.field(build, "build_request")
    if build.HasField("build_request"):
        check_build_request(build.build_request, request_path, findings)
    else:
        findings.add("required", request_path)

    produced = [node_name(node) for node in build.outputs]
    requested = [output.encode() for output in build.build_request.outputs]
    produced_names, requested_names = set(produced), set(requested)
    for i, name in enumerate(requested):
        place = request_path.field(build.build_request, "outputs", i)
        findings.add_if(name not in produced_names, "missing_output", place)
    for i, node in enumerate(build.outputs):
        place = path.field(build, "outputs", i)
        check_node(node, place, findings)
        findings.add_if(produced[i] not in requested_names, "unexpected_output", place)
    check_list(build, "outputs", produced, path, findings)


# ---- canonical order


def sort_build_request(request: BuildRequest) -> None:
    request.outputs.sort(key=lambda output: output.encode())
    request.environment_vars.sort(key=lambda variable: variable.key.encode())
    request.inputs.sort(key=node_name)
    if request.HasField("constraints"):
        request.constraints.available_ro_paths.sort(key=lambda host_path: host_path.encode())


def sort_build(build: Build) -> None:
    if build.HasField("build_request"):
        sort_build_request(build.build_request)
    build.outputs.sort(key=node_name)
