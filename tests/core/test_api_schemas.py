# SPDX-License-Identifier: MIT
"""The Python API on messages of several schemas: what is inferred, accepted and refused."""

from __future__ import annotations

import re
from typing import Any

import blake3
import pytest
from google.protobuf.message import Message

import tvix_build
from schema_2024 import BuildRequest as RequestOf2024
from snix.build.protos import build_pb2 as snix_build
from snix.castore.protos import castore_pb2 as snix_castore
from tvix.build.protos import build_pb2
from tvix.castore.protos import castore_pb2
from tvix_build import Schema
from tvix_build._core.report import KindLike, SchemaLike

DIGEST = bytes(range(32))
DIRECTORY = castore_pb2.Directory(
    directories=[castore_pb2.DirectoryNode(name=b"b", digest=DIGEST, size=1)],
    files=[castore_pb2.FileNode(name=b"a", digest=DIGEST, size=1)],
)
UNSORTED = castore_pb2.Directory(
    symlinks=[castore_pb2.SymlinkNode(name=name, target=b"t") for name in (b"b", b"a")]
)
SORTED = castore_pb2.Directory(symlinks=UNSORTED.symlinks[::-1])
SNIX_REQUEST = snix_build.BuildRequest(command_args=["a"], outputs=["nix/store/a"])
SNIX_DIRECTORY = snix_castore.Directory.FromString(DIRECTORY.SerializeToString())
NO_MODULE = " as bytes, as the schema has no Python module"
YEARS: list[SchemaLike] = ["tvix.build.v1@2024", Schema.TVIX_BUILD_V1_2024]


def digest_of(message: Message) -> bytes:
    """The digest of a canonical message."""
    return blake3.blake3(message.SerializeToString()).digest()


@pytest.mark.parametrize("schema", [None, "tvix.build.v1", *YEARS])
def test_one_directory_of_two_schemas(schema: Any) -> None:
    for kind in (None, "directory"):
        report = tvix_build.check(DIRECTORY, kind=kind, schema=schema)
        assert (report.canonical, report.digest) == (True, digest_of(DIRECTORY))
        assert tvix_build.digest(UNSORTED, kind=kind, schema=schema) == digest_of(SORTED)
        encoding = tvix_build.canonicalize(UNSORTED, kind=kind, schema=schema)
        assert encoding == SORTED.SerializeToString()
        with pytest.raises(tvix_build.ValidationError, match=r"symlinks\[1\]: not_sorted"):
            tvix_build.validate(UNSORTED, kind=kind, schema=schema)
        some: list[Message | bytes] = [DIRECTORY, SORTED.SerializeToString(), UNSORTED]
        reports = tvix_build.check_batch(some, kind=kind, schema=schema)
        assert list(reports.valid) == [True, True, False]
        assert bytes(reports.digests) == digest_of(DIRECTORY) + 2 * digest_of(SORTED)
        batch = tvix_build.canonicalize_batch(some, kind=kind, schema=schema)
        assert batch[2] == SORTED.SerializeToString()


@pytest.mark.parametrize(
    ("message", "schema"),
    [
        (SNIX_REQUEST, "snix.build.v1"),
        (SNIX_DIRECTORY, Schema.SNIX_BUILD_V1),
        (build_pb2.BuildRequest(command_args=["a"]), "tvix.build.v1"),
    ],
)
def test_a_message_says_its_schema(message: Message, schema: SchemaLike) -> None:
    for said in (None, schema):
        assert tvix_build.check(message, schema=said).canonical
        assert tvix_build.digest(message, schema=said) == digest_of(message)
        (report,) = tvix_build.check_batch([message], schema=said)
        assert (report.canonical, report.digest) == (True, digest_of(message))


@pytest.mark.parametrize(
    ("message", "kind", "schema", "expected"),
    [
        (DIRECTORY, None, "snix.build.v1", "snix.castore.v1.Directory"),
        (DIRECTORY, "build", YEARS[0], f"tvix.build.v1@2024.Build{NO_MODULE}"),
        (SNIX_DIRECTORY, None, YEARS[0], "tvix.castore.v1.Directory"),
        (SNIX_REQUEST, None, "tvix.build.v1", "tvix.build.v1.BuildRequest"),
        (SNIX_REQUEST, "build", None, "snix.build.v1.BuildResponse"),
        # Its fields have other numbers there.
        (build_pb2.BuildRequest(), None, YEARS[0], f"tvix.build.v1@2024.BuildRequest{NO_MODULE}"),
    ],
)
def test_a_message_of_another_schema(
    message: Message, kind: KindLike | None, schema: SchemaLike | None, expected: str
) -> None:
    error = f"expected {expected}, found a message {message.DESCRIPTOR.full_name}"
    for call in (tvix_build.check, tvix_build.digest, tvix_build.canonicalize):
        with pytest.raises(TypeError) as caught:
            call(message, kind=kind, schema=schema)
        assert str(caught.value) == error
    with pytest.raises(TypeError) as caught:
        tvix_build.check_batch([b"", message], kind=kind or "directory", schema=schema or YEARS[0])
    assert str(caught.value).startswith("message 1: expected ")


def test_bytes_of_2024() -> None:
    request = RequestOf2024(command_args=["a"], working_dir="build")
    data = request.SerializeToString()
    for schema in (*YEARS, Schema.SNIX_BUILD_V1):  # They have one wire format.
        assert tvix_build.digest(data, schema=schema) == digest_of(request)
        assert tvix_build.check_batch([data], schema=schema)[0].canonical
    assert not tvix_build.check(data).valid


_Output = snix_build.BuildResponse.Output
_FILE = snix_castore.Entry(file=snix_castore.FileEntry(name=b"a", digest=DIGEST))


@pytest.mark.parametrize("schema", ["tvix.build.v1@2024", "snix.build.v1"])
@pytest.mark.parametrize(
    ("request_", "rest", "words"),
    [
        ({"refscan_needles": [""]}, b"", 'expected a non-empty needle, found ""'),
        (
            {"inputs_dir": "b", "inputs": [_FILE], "outputs": ["b/a"]},
            b"",
            'expected an output that is not an input, found "b/a"',
        ),
        ({}, b"\x78\0", "expected only fields of *, found field 15 with wire type 0"),
        (
            {},
            b"\x42\x05\x0a\x01a\x78\0",
            "expected only fields of this message, found field 15 with wire type 0",
        ),
    ],
)
def test_words_of_requests(
    schema: SchemaLike, request_: dict[str, Any], rest: bytes, words: str
) -> None:
    request = snix_build.BuildRequest(command_args=["a"], **request_)
    data = request.SerializeToString() + rest
    (found,) = tvix_build.check(data, schema=schema).violations
    assert found.message == words.replace("*", f"{schema}.BuildRequest")


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ([_Output()], "expected one of directory, file, symlink to be set, found none"),
        (
            [_Output(output=snix_castore.Entry())],
            "expected one of directory, file, symlink to be set, found none",
        ),
        (
            [_Output(output=_FILE)],
            'expected no name, because the request has the path, found "a"',
        ),
        ([], "expected as many outputs as the request has (1), found fewer"),
    ],
)
def test_words_of_responses(outputs: list[snix_build.BuildResponse.Output], words: str) -> None:
    response = snix_build.BuildResponse(outputs=outputs)
    (found,) = tvix_build.check(response, request=SNIX_REQUEST).violations
    assert found.message == words


@pytest.mark.parametrize("schema", ["", "tvix.build.v2", "tvix.build.v1@2023"])
def test_no_such_schema(schema: SchemaLike) -> None:
    choices = re.escape("'tvix.build.v1', 'tvix.build.v1@2024' or 'snix.build.v1'")
    for call in (
        lambda: tvix_build.check(b"", schema=schema),
        lambda: tvix_build.digest(DIRECTORY, schema=schema),
        lambda: tvix_build.check_batch([], schema=schema),
    ):
        with pytest.raises(ValueError, match=f"^expected a Schema: {choices}; found '"):
            call()


# --- Construction --------------------------------------------------------------------------------

LATER: dict[str, Any] = {
    "command_args": ["sh", "-c", "true"],
    "outputs": ["nix/store/b", "nix/store/a"],
    "environment_vars": {"b": "1", "a": b"\xff"},
    "inputs": [tvix_build.file_node("file", digest=DIGEST, size=1)],
    "system": "x86_64-linux",
    "min_memory": 1,
    "available_ro_paths": ["/dev/kvm", "/dev/fuse"],
    "working_dir": "build",
    "scratch_paths": ["nix/store", b"build"],
    "inputs_dir": "nix/store",
    "network_access": True,
    "provide_bin_sh": True,
    "additional_files": [("z", "words"), ("a", b"\xff")],
    "refscan_needles": ["z", "a"],
}


def later_request() -> snix_build.BuildRequest:
    """What LATER describes, in canonical order."""
    files = snix_build.BuildRequest.AdditionalFile
    variables = snix_build.BuildRequest.EnvVar
    return snix_build.BuildRequest(
        inputs=[snix_castore.Entry.FromString(LATER["inputs"][0].SerializeToString())],
        command_args=["sh", "-c", "true"],
        working_dir="build",
        scratch_paths=["build", "nix/store"],
        inputs_dir="nix/store",
        outputs=["nix/store/a", "nix/store/b"],
        environment_vars=[variables(key="a", value=b"\xff"), variables(key="b", value=b"1")],
        constraints=snix_build.BuildRequest.BuildConstraints(
            system="x86_64-linux",
            min_memory=1,
            available_ro_paths=["/dev/fuse", "/dev/kvm"],
            network_access=True,
            provide_bin_sh=True,
        ),
        additional_files=[files(path="a", contents=b"\xff"), files(path="z", contents=b"words")],
        refscan_needles=["z", "a"],
    )


def test_later_requests_are_made_of_every_field() -> None:
    made = tvix_build.build_request(schema="snix.build.v1", **LATER)
    assert made == later_request()
    assert {field.name for field in snix_build.BuildRequest.DESCRIPTOR.fields} == {
        field.name for field, _ in made.ListFields()
    }
    entries = {**LATER, "inputs": made.inputs, "additional_files": {"a": b"\xff", "z": "words"}}
    assert tvix_build.build_request(schema=Schema.SNIX_BUILD_V1, **entries) == made
    for schema in YEARS:
        data = tvix_build.build_request(schema=schema, **LATER)
        assert data == made.SerializeToString(deterministic=True)
    assert isinstance(tvix_build.build_request(schema=Schema(YEARS[0]), **LATER), bytes)


def test_a_later_request_with_little() -> None:
    made = tvix_build.build_request(command_args=["a"], schema="snix.build.v1")
    assert made == snix_build.BuildRequest(command_args=["a"])
    with pytest.raises(tvix_build.ValidationError, match=r"^constraints\.system: required: "):
        tvix_build.build_request(command_args=["a"], schema="snix.build.v1", network_access=True)


@pytest.mark.parametrize(
    ("values", "error", "text"),
    [
        ({"outputs": ["b", "/a"]}, tvix_build.ValidationError, "outputs[1]: invalid_path: "),
        ({"working_dir": 1}, TypeError, "working_dir: expected str or bytes, found int"),
        ({"scratch_paths": "a"}, TypeError, "scratch_paths: expected an iterable"),
        ({"refscan_needles": [b"\xff"]}, ValueError, "refscan_needles[0]: expected UTF-8"),
        ({"additional_files": [1]}, TypeError, "additional_files[0]: expected a pair, found int"),
        ({"additional_files": {"a": 1}}, TypeError, "additional_files['a']: expected str or "),
        ({"inputs": [later_request()]}, TypeError, "inputs[0]: expected a tvix.castore.v1.Node"),
    ],
)
def test_values_that_do_not_fit_a_later_request(
    values: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=f"^{re.escape(text)}"):
        tvix_build.build_request(**{**LATER, **values}, schema="snix.build.v1")


@pytest.mark.parametrize("name", list(LATER)[7:])
def test_fields_that_the_first_schema_lacks(name: str) -> None:
    reason = f"{name}: expected a schema with this field, such as snix.build.v1, found "
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}tvix.build.v1$"):
        tvix_build.build_request(command_args=["a"], **{name: LATER[name]})
