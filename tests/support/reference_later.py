# SPDX-License-Identifier: MIT
"""The reference's rules of the later schemas: for their BuildRequest, which is the same in both,
the Build of tvix.build.v1@2024 and the BuildResponse of snix.build.v1."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from google.protobuf.message import Message

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
    is_clean_relative,
    node_name,
)
from snix.build.protos.build_pb2 import BuildRequest, BuildResponse

# ---- BuildRequest


def check_constraints(request: BuildRequest, path: Path, findings: Findings) -> None:
    constraints = request.constraints
    check_unknown_fields(constraints, path, findings)
    check_system(constraints, path, findings)
    for i, host_path in enumerate(constraints.available_ro_paths):
        hidden = request.inputs_dir and is_at_or_below(host_path, "/" + request.inputs_dir)
        place = path.field(constraints, "available_ro_paths", i)
        findings.add_if(bool(hidden) or not is_clean_absolute(host_path), "invalid_path", place)
    keys = [host_path.encode() for host_path in constraints.available_ro_paths]
    check_list(constraints, "available_ro_paths", keys, path, findings)


def check_paths(request: BuildRequest, path: Path, findings: Findings) -> None:
    """Check working_dir, inputs_dir, scratch_paths and outputs."""
    for name in ("working_dir", "inputs_dir"):
        directory = getattr(request, name)
        is_bad = directory != "" and not is_clean_relative(directory)
        findings.add_if(is_bad, "invalid_path", path.field(request, name))
    for name in ("scratch_paths", "outputs"):
        values = getattr(request, name)
        for i, value in enumerate(values):
            place = path.field(request, name, i)
            findings.add_if(not is_clean_relative(value), "invalid_path", place)
        check_list(request, name, [value.encode() for value in values], path, findings)


def check_additional_files(request: BuildRequest, path: Path, findings: Findings) -> None:
    for i, file in enumerate(request.additional_files):
        place = path.field(request, "additional_files", i)
        check_unknown_fields(file, place, findings)
        among_inputs = request.inputs_dir and is_at_or_below(file.path, request.inputs_dir)
        is_bad = bool(among_inputs) or not is_clean_relative(file.path)
        findings.add_if(is_bad, "invalid_path", place.field(file, "path"))
    keys = [file.path.encode() for file in request.additional_files]
    check_list(request, "additional_files", keys, path, findings)


def check_build_request(request: BuildRequest, path: Path, findings: Findings) -> None:
    check_unknown_fields(request, path, findings)
    check_inputs(request, path, findings)
    check_command_args(request, path, findings)
    check_paths(request, path, findings)
    check_environment_vars(request, path, findings)
    if request.HasField("constraints"):
        check_constraints(request, path.field(request, "constraints"), findings)
    check_additional_files(request, path, findings)
    for i, needle in enumerate(request.refscan_needles):
        place = path.field(request, "refscan_needles", i)
        findings.add_if(needle == "", "invalid_needle", place)

    prefix = request.inputs_dir.encode() + b"/" if request.inputs_dir else b""
    input_paths = {prefix + node_name(node) for node in request.inputs}
    for i, output in enumerate(request.outputs):
        place = path.field(request, "outputs", i)
        findings.add_if(output.encode() in input_paths, "output_is_input", place)


def sort_build_request(request: BuildRequest) -> None:
    request.inputs.sort(key=node_name)
    request.scratch_paths.sort(key=lambda path: path.encode())
    request.outputs.sort(key=lambda path: path.encode())
    request.environment_vars.sort(key=lambda variable: variable.key.encode())
    if request.HasField("constraints"):
        request.constraints.available_ro_paths.sort(key=lambda path: path.encode())
    request.additional_files.sort(key=lambda file: file.path.encode())


# ---- needles


def check_needles(
    holder: Message, needles: Sequence[int], count: int | None, path: Path, findings: Findings
) -> None:
    """Check the `needles` of `holder`, indices below `count`; any indices if `count` is None."""
    keys = [needle.to_bytes(8, "big") for needle in needles]
    check_list(holder, "needles", keys, path, findings)
    for i, needle in enumerate(needles):
        place = path.field(holder, "needles", i)
        findings.add_if(count is not None and needle >= count, "invalid_needle", place)


# ---- the Build of tvix.build.v1@2024


def check_build(build: Any, path: Path, findings: Findings) -> None:
    check_unknown_fields(build, path, findings)
    request_path = path.field(build, "build_request")
    if build.HasField("build_request"):
        check_build_request(build.build_request, request_path, findings)
    else:
        findings.add("required", request_path)
    check_produced(build, path, findings)

    count = len(build.outputs_needles)
    is_bad = count not in (0, len(build.outputs))
    findings.add_if(is_bad, "needles_mismatch", path.field(build, "outputs_needles"))
    requested = len(build.build_request.refscan_needles)
    for i, found in enumerate(build.outputs_needles):
        place = path.field(build, "outputs_needles", i)
        check_unknown_fields(found, place, findings)
        check_needles(found, found.needles, requested, place, findings)


def check_produced(build: Any, path: Path, findings: Findings) -> None:
    """Check the outputs of a Build, and whether they are those of its request."""
    request = build.build_request
    request_path = path.field(build, "build_request")
    produced = [node_name(node) for node in build.outputs]
    requested = [output.rpartition("/")[2].encode() for output in request.outputs]
    produced_names, requested_names = set(produced), set(requested)
    for i, name in enumerate(requested):
        place = request_path.field(request, "outputs", i)
        findings.add_if(name not in produced_names, "missing_output", place)
    for i, node in enumerate(build.outputs):
        place = path.field(build, "outputs", i)
        check_node(node, place, findings)
        findings.add_if(produced[i] not in requested_names, "unexpected_output", place)
    check_list(build, "outputs", produced, path, findings)


def sort_build(build: Any) -> None:
    """Sort all lists. The needles of an output move with the output."""
    if build.HasField("build_request"):
        sort_build_request(build.build_request)
    for found in build.outputs_needles:
        found.needles.sort()
    names = [node_name(node) for node in build.outputs]
    order = sorted(range(len(names)), key=names.__getitem__)
    if build.outputs_needles:
        moved = [deepcopy(build.outputs_needles[i]) for i in order]
        del build.outputs_needles[:]
        build.outputs_needles.extend(moved)
    build.outputs.sort(key=node_name)


# ---- the BuildResponse of snix.build.v1


def check_output(
    output: BuildResponse.Output, count: int | None, path: Path, findings: Findings
) -> None:
    """Check an output, with needles below `count`, or any needles if `count` is None."""
    check_unknown_fields(output, path, findings)
    place = path.field(output, "output")
    check_node(output.output, place, findings, is_right=lambda name: name == b"")
    check_needles(output, output.needles, count, path, findings)


def check_build_response(
    response: BuildResponse, path: Path, findings: Findings, request: BuildRequest | None = None
) -> None:
    """Check a BuildResponse, alone or with its request."""
    check_unknown_fields(response, path, findings)
    count = None if request is None else len(request.refscan_needles)
    for i, output in enumerate(response.outputs):
        check_output(output, count, path.field(response, "outputs", i), findings)
    if request is None:
        return
    requested, produced = len(request.outputs), len(response.outputs)
    for i in range(requested, produced):
        findings.add("unexpected_output", path.field(response, "outputs", i))
    for i in range(produced, requested):
        findings.add("missing_output", path.field(response, "outputs", i))


def sort_build_response(response: BuildResponse) -> None:
    for output in response.outputs:
        output.needles.sort()
