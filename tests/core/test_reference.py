# SPDX-License-Identifier: MIT
"""The reference holds to the vectors, to facts known beforehand, and to bytes made by hand."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto
from google.protobuf.message import Message
from google.protobuf.text_format import MessageToString

import decoder_versions
import make_vectors
import mutations
import reference
import schema_2024
import snix.build.protos.build_pb2
import strategies
import trees
from batches import SNIX, TVIX_2024, TYPES, run, smallest
from strategies import Batch
from vector_files import PATHS, ROWS, Row
from vector_sources.topic import Topic

#: Vectors that protobuf 6 and 7 decode differently.
OF_PROTOBUF_7 = {
    "decoding-length_in_6_bytes",
    "decoding-length_in_6_bytes_message",
    "decoding-length_0_in_6_bytes",
    "unknown_fields-group_field_0",
}
_OUTDATED = pytest.mark.xfail(decoder_versions.IS_OLD, reason=decoder_versions.REASON)


@pytest.mark.slow
@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=row.id, marks=[_OUTDATED] if row.id in OF_PROTOBUF_7 else [])
        for row in ROWS
    ],
)
def test_vector(row: Row) -> None:
    report = reference.check(row.data, row.kind, row.schema, row.request)
    assert report.violations == row.violations
    assert (report.valid, report.canonical, report.digest) == (row.valid, row.canonical, row.digest)
    if row.encoding is not None:
        assert reference.canonicalize(row.data, row.kind, row.schema) == row.encoding
    if row.encoding is not None or row.request is not None:
        return
    with pytest.raises(reference.RefusedError) as refusal:
        reference.canonicalize(row.data, row.kind, row.schema)
    forbidding = [found for found in row.violations if found[0] != "not_sorted"]
    assert refusal.value.violations == forbidding


def test_differences_of_decoders_are_found() -> None:
    """What is not compared with protobuf 6 is what it decodes differently, and nothing else."""
    found = {
        row.id
        for row in ROWS
        if decoder_versions.may_differ(row.data, reference.descriptor(row.kind, row.schema))
    }
    assert found == OF_PROTOBUF_7


# ---- the vectors' files


@pytest.mark.parametrize("topic", make_vectors.TOPICS, ids=lambda topic: topic.name)
def test_vectors_are_up_to_date(topic: Topic) -> None:
    path = make_vectors.VECTORS / f"{topic.name}.json"
    assert path.read_text("ascii") == make_vectors.to_json(topic), (
        "run tests/generators/make_vectors.py"
    )


def test_no_other_vectors() -> None:
    assert {path.stem for path in PATHS} == {topic.name for topic in make_vectors.TOPICS}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_vectors_have_a_line_each(path: Path) -> None:
    """What a reader may rely on that knows no JSON."""
    keys = ["name", "about", "kind", "schema", "hex", "request_hex", "valid", "canonical"]
    keys += ["digest", "canonical_hex", "violations"]
    optional = {"schema", "request_hex"}
    lines = path.read_text("ascii").splitlines()
    assert lines[0].startswith('{"origin": "')
    assert lines[1].startswith('"about": "')
    assert lines[2] == '"vectors": ['
    assert lines[-1] == "]}"
    rows = [json.loads(line.removesuffix(",")) for line in lines[3:-1]]
    assert len({row["name"] for row in rows}) == len(rows)
    for row in rows:
        assert list(row) == [key for key in keys if key in row or key not in optional]
        assert row.get("schema") != "tvix.build.v1"
    assert "\\" not in path.read_text("ascii")


def test_vectors_show_every_code() -> None:
    assert {code for row in ROWS for code, _ in row.violations} == set(reference.CODES)


@pytest.mark.parametrize(("kind", "schema"), TYPES)
def test_vectors_show_every_outcome(kind: str, schema: str) -> None:
    outcomes = {
        (row.valid, row.canonical, row.digest is None)
        for row in ROWS
        if (row.kind, row.schema) == (kind, schema)
    }
    canonical, valid, unsorted, refused = (
        (True, True, False),
        (True, False, False),
        (False, False, False),
        (False, False, True),
    )
    assert outcomes == {canonical, valid, unsorted, refused}


# ---- facts


def test_digest_of_the_empty_directory() -> None:
    """BLAKE3 of nothing, as the BLAKE3 paper's vectors and upstream's fixtures have it."""
    digest = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    report = reference.check(b"", "directory")
    assert report == reference.ReferenceReport(True, True, bytes.fromhex(digest), [])


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="expected a kind of the schema, found "):
        reference.check(b"", "request")
    with pytest.raises(ValueError, match="expected a kind of the schema, found "):
        reference.check(b"", "build", "tvix.build.v2")


# ---- the later schemas, with bytes made by hand

#: A file without name, as an entry of a BuildResponse.
ENTRY = b"\x0a\x24\x12\x22\x12\x20" + bytes(32)


@pytest.mark.parametrize("schema", [TVIX_2024, SNIX])
@pytest.mark.parametrize(
    ("data", "violations"),
    [
        (b"\x12\x02sh", []),
        (b"\x12\x02sh\x1a\x01a\x22\x01a\x2a\x01a\x32\x01b", []),
        (b"\x12\x02sh\x1a\x02a/", [("invalid_path", "working_dir")]),
        (b"\x12\x02sh\x22\x00", [("invalid_path", "scratch_paths[0]")]),
        (b"\x12\x02sh\x2a\x02..", [("invalid_path", "inputs_dir")]),
        (b"\x12\x02sh\x32\x01b\x32\x01a", [("not_sorted", "outputs[1]")]),
        (b"\x12\x02sh\x4a\x03\x0a\x01/", [("invalid_path", "additional_files[0].path")]),
        (b"\x12\x02sh\x2a\x01a\x4a\x05\x0a\x03a/b", [("invalid_path", "additional_files[0].path")]),
        (b"\x12\x02sh\x52\x00", [("invalid_needle", "refscan_needles[0]")]),
        (
            b"\x12\x02sh\x2a\x01a\x42\x09\x0a\x01x\x1a\x04/a/b",
            [("invalid_path", "constraints.available_ro_paths[0]")],
        ),
        (
            b"\x0a\x08\x1a\x06\x0a\x01n\x12\x01t\x12\x02sh\x2a\x01d\x32\x03d/n",
            [("output_is_input", "outputs[0]")],
        ),
    ],
)
def test_later_request(schema: str, data: bytes, violations: list[tuple[str, str]]) -> None:
    assert reference.check(data, "build-request", schema).violations == violations


@pytest.mark.parametrize(
    ("needles", "encoding"),
    [
        (b"", b""),
        (b"\x12\x00", b""),
        (b"\x10\x05", b"\x12\x01\x05"),
        (b"\x12\x02\x01\x05", b"\x12\x02\x01\x05"),
        (b"\x12\x02\x05\x01", b"\x12\x02\x01\x05"),
        (b"\x10\x05\x12\x02\x81\x00\x10\x02", b"\x12\x03\x01\x02\x05"),
    ],
)
def test_needles(needles: bytes, encoding: bytes) -> None:
    """Packed and sorted, whatever they were."""

    def response(output: bytes) -> bytes:
        return b"\x0a" + bytes([len(output)]) + output

    expected = response(ENTRY + encoding)
    assert reference.canonicalize(response(ENTRY + needles), "build", SNIX) == expected


def test_response() -> None:
    """With a request, the number of outputs and the range of needles are known."""
    two = b"\x12\x02sh\x32\x01a\x32\x01b\x52\x01x"
    output = b"\x0a\x29" + ENTRY + b"\x12\x01\x01"
    alone = reference.check(output, "build", SNIX)
    assert alone.canonical
    assert reference.check(output, "build", SNIX, two).violations == [
        ("invalid_needle", "outputs[0].needles[0]"),
        ("missing_output", "outputs[1]"),
    ]


def test_needles_move_with_outputs() -> None:
    request = b"\x0a\x10\x12\x02sh\x32\x01a\x32\x01b\x52\x01x\x52\x01y"
    a, b = (b"\x12\x08\x1a\x06\x0a\x01" + name + b"\x12\x01t" for name in (b"a", b"b"))
    first, second = b"\x1a\x03\x0a\x01\x00", b"\x1a\x00"
    encoding = reference.canonicalize(request + b + a + first + second, "build", TVIX_2024)
    assert encoding == request + a + b + second + first


def test_schemas_alike() -> None:
    """The requests of the later schemas have the same fields, but for the names of packages."""

    def fields(message: type[Message], package: str) -> str:
        text = MessageToString(_proto(message))
        castore = text.replace(f".{package}.castore.v1.", ".castore.")
        return castore.replace(f".{package}.build.v1.", ".").replace(".Entry", ".Node")

    first = fields(schema_2024.BuildRequest, "tvix")
    assert first == fields(snix.build.protos.build_pb2.BuildRequest, "snix")


def _proto(message: type[Message]) -> DescriptorProto:
    proto = DescriptorProto()
    message.DESCRIPTOR.CopyToProto(proto)
    for field in (*proto.field, *(field for nested in proto.nested_type for field in nested.field)):
        field.ClearField("json_name")
    return proto


# ---- protobuf's encoding against bytes made by hand


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "schema"), TYPES)
def test_hand_made_encoding_is_canonical(kind: str, schema: str) -> None:
    def check(batch: Batch) -> None:
        for data in batch:
            report = reference.check(data, kind, schema)
            assert report.violations == [], data.hex()
            assert report.canonical, data.hex()

    assert run(strategies.canonical_batches(kind, 5, schema), 4, check) >= 20


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "schema"), TYPES)
def test_canonical_encoding_is_a_fixed_point(kind: str, schema: str) -> None:
    encoded = 0

    def check(batch: Batch) -> None:
        nonlocal encoded
        for data in batch:
            report = reference.check(data, kind, schema)
            if report.digest is None:
                continue
            encoded += 1
            encoding = reference.canonicalize(data, kind, schema)
            expected = reference.ReferenceReport(True, True, report.digest, [])
            assert reference.check(encoding, kind, schema) == expected, data.hex()

    run(strategies.mutant_batches(kind, 100, schema), 4, check)
    assert encoded >= 130


# ---- the tools of the tests


def test_mutator_is_repeatable() -> None:
    base = [trees.Field(1, 2, b"sh"), trees.Field(2, 2, b"out")]

    def make() -> list[bytes]:
        rng = random.Random(1)
        return [mutations.mutant(rng, "build-request", base) for _ in range(50)]

    assert make() == make()
    assert trees.encode(base) == b"\x0a\x02sh\x12\x03out"


def test_smallest() -> None:
    assert smallest(b"abcxdefy" * 9, lambda data: {*b"xy"} <= {*data}) in (b"xy", b"yx")


def test_make_vectors_finds_a_wrong_expectation() -> None:
    topic = Topic("wrong", "build-request", "expectations that are wrong")
    topic.canonical("valid", "has no command", b"")
    topic.unsorted(
        "encoding", "is in order", b"\x0a\x00\x12\x01b\x12\x01a", b"\x0a\x00", "outputs[1]"
    )
    topic.malformed("malformed", "decodes", b"\x0a\x00")
    assert all(make_vectors.disagreement(vector) for vector in topic.vectors)
