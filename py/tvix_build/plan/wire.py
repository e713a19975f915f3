# SPDX-License-Identifier: MIT
"""Reads canonical plans and steps, and adds inputs to canonical requests, without parsing what they
contain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

from tvix_build._core.engine import DIGEST_SIZE, find_fields
from tvix_build._core.report import Schema
from tvix_build._core.varint import varint

Buffer: TypeAlias = "bytes | memoryview"
Input: TypeAlias = "tuple[bytes, bytes]"
"""The name of an input, and its element in the list of inputs: tag, length and node."""

_STEPS, _ROOTS = 0x0A, 0x12  # of a plan
_REFS = 0x12  # of a step
_DIGEST_FIELD = 2 + DIGEST_SIZE
"""The size of a digest with its tag and length."""
# The numbers of fields of requests.
_INPUTS = {Schema.TVIX_BUILD_V1: 4, Schema.TVIX_BUILD_V1_2024: 1, Schema.SNIX_BUILD_V1: 1}
_OUTPUTS = {Schema.TVIX_BUILD_V1: 2, Schema.TVIX_BUILD_V1_2024: 6, Schema.SNIX_BUILD_V1: 6}


class Ref(NamedTuple):
    """An input that another step makes."""

    step: bytes
    """The digest of the step."""
    name: bytes
    """The base name of the output."""


class Step(NamedTuple):
    """A step: a request without the inputs that other steps make."""

    request: bytes
    refs: tuple[Ref, ...]
    schema: Schema


def _fields(data: Buffer, start: int = 0) -> Iterator[tuple[int, int, int, int]]:
    """Yield the fields of a canonical message whose fields up to number 15 are length-delimited:
    the tag, where the field begins, and where its contents begin and end."""
    size = len(data)
    while start < size:
        tag = data[start]
        length = data[start + 1]
        content = start + 2
        if length > 0x7F:
            length &= 0x7F
            shift = 7
            while True:
                byte = data[content]
                content += 1
                length |= (byte & 0x7F) << shift
                if byte < 0x80:
                    break
                shift += 7
        end = content + length
        yield tag, start, content, end
        start = end


def read_roots(plan: Buffer) -> list[bytes]:
    """Return the roots of a canonical plan."""
    begin, end = find_fields(plan, _ROOTS >> 3)
    ends = range(begin + _DIGEST_FIELD, end + 1, _DIGEST_FIELD)
    return [bytes(plan[at - DIGEST_SIZE : at]) for at in ends]


def make_plan(steps: Iterable[bytes], roots: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the encoding of a plan in pieces. It is canonical if the steps are, and if steps and
    roots are ordered by digest."""
    for step in steps:
        yield bytes((_STEPS,)) + varint(len(step))
        yield step
    for root in roots:
        yield bytes((_ROOTS, len(root))) + root


def read_step(step: bytes) -> Step:
    """Return the parts of a canonical step."""
    (_, _, content, end), *_, (_, _, schema, _) = _fields(step)
    return Step(step[content:end], read_refs(step), Schema(step[schema:].decode()))


def read_refs(step: bytes) -> tuple[Ref, ...]:
    """Return the refs of a canonical step."""
    refs = []
    for tag, _, content, end in _fields(step):
        if tag == _REFS:
            output = content + _DIGEST_FIELD + 1  # after the tag
            while step[output] > 0x7F:
                output += 1
            name = base_name(step[output + 1 : end])
            refs.append(Ref(step[content + 2 : content + _DIGEST_FIELD], name))
    return tuple(refs)


def request_end(plan: Buffer, begin: int) -> int:
    """Return where the request of the canonical step at an offset of a plan ends."""
    (_, _, _, end) = next(_fields(plan, begin))
    return end


def base_name(path: bytes) -> bytes:
    """Return the last component of a path."""
    return path.rpartition(b"/")[2]


def read_outputs(request: bytes, schema: Schema) -> list[bytes]:
    """Return the base names of the outputs of a canonical request, in order."""
    begin, end = find_fields(request, _OUTPUTS[schema])
    outputs = request[begin:end]
    return [base_name(outputs[content:stop]) for _, _, content, stop in _fields(outputs)]


def make_input(schema: Schema, name: bytes, node: bytes) -> Input:
    """Return an input for `add_inputs`.

    Args:
        schema: the schema of the request.
        name: the name of the node.
        node: the canonical encoding of the node.
    """
    return name, bytes((_INPUTS[schema] << 3 | 2,)) + varint(len(node)) + node


def split_inputs(request: bytes, schema: Schema) -> tuple[bytes, bytes]:
    """Return the inputs of a canonical request, and the request without them."""
    begin, end = find_fields(request, _INPUTS[schema])
    return request[begin:end], request[:begin] + request[end:]


def add_inputs(request: bytes, schema: Schema, added: Iterable[Input]) -> bytes:
    """Return a canonical request with more inputs.

    Args:
        request: the canonical request.
        schema: its schema.
        added: the inputs, by name. No two inputs have the same name.
    """
    begin, end = find_fields(request, _INPUTS[schema])
    present = request[begin:end]
    inputs = [
        (_name(present, content, stop), present[start:stop])
        for _, start, content, stop in _fields(present)
    ]
    inputs += added
    inputs.sort()  # Two sorted lists, which are merged.
    return b"".join((request[:begin], *(element for _, element in inputs), request[end:]))


def _name(inputs: bytes, start: int, end: int) -> bytes:
    """Return the name of the node in a range. It is the first field of the node's only member."""
    (_, _, content, _) = next(_fields(inputs[start:end]))
    member = inputs[start + content : end]
    (_, _, begin, stop) = next(_fields(member))
    return member[begin:stop]
