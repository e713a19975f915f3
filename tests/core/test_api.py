# SPDX-License-Identifier: MIT
"""The Python API: what it accepts, returns and raises. What is valid is tested elsewhere."""

from __future__ import annotations

import copy
import ctypes
import gc
import hashlib
import io
import mmap
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import tracemalloc
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import accumulate
from pathlib import Path
from threading import Event, Thread, get_ident
from typing import Any, cast

import blake3
import pytest

import tvix_build
import wire
from tvix.build.protos import build_pb2
from tvix.castore.protos import castore_pb2
from tvix_build import Digests, Kind, Schema, ValidationError, ViolationCode
from tvix_build._core import batch
from tvix_build._core.pieces import _Workers
from tvix_build._core.ranges import messages_of
from tvix_build._native import ffi
from tvix_build.store import RequestStore
from waiting import LIMIT

DIGEST = bytes(range(32))


def request(**values: Any) -> build_pb2.BuildRequest:
    """A valid request with every field set, in canonical order."""
    defaults: dict[str, Any] = {
        "command_args": ["/bin/sh", "-c", "true"],
        "outputs": ["b-out", "a-out"],
        "environment_vars": {"Z": "last", "A": b"\xff"},
        "inputs": [
            tvix_build.symlink_node("link", target="a/target"),
            tvix_build.directory_node(b"dir\xff", digest=DIGEST, size=3),
            tvix_build.file_node("file", digest=DIGEST, size=5, executable=True),
        ],
        "system": "x86_64-linux",
        "min_memory": 1 << 40,
        "available_ro_paths": ["/dev/kvm", "/dev/fuse"],
    }
    made: build_pb2.BuildRequest = tvix_build.build_request(**(defaults | values))
    return made


def test_build_request_is_sorted_and_canonical() -> None:
    made = request()
    assert list(made.outputs) == ["a-out", "b-out"]
    assert [(v.key, v.value) for v in made.environment_vars] == [("A", b"\xff"), ("Z", b"last")]
    names = [node.WhichOneof("node") for node in made.inputs]
    assert names == ["directory", "file", "symlink"]
    assert made.constraints.min_memory == 1 << 40
    assert list(made.constraints.available_ro_paths) == ["/dev/fuse", "/dev/kvm"]
    report = tvix_build.check(made)
    assert report.valid
    assert report.canonical
    assert report.digest == blake3.blake3(made.SerializeToString()).digest()
    tvix_build.validate(made)


def test_build_request_without_constraints() -> None:
    made = tvix_build.build_request(command_args=[b"true"])
    assert not made.HasField("constraints")
    assert made == build_pb2.BuildRequest(command_args=["true"])


def test_a_system_alone_makes_constraints() -> None:
    made = tvix_build.build_request(command_args=["true"], system="x")
    assert made.constraints == build_pb2.BuildRequest.BuildConstraints(system="x")


@pytest.mark.parametrize(
    "values", [{"system": ""}, {"min_memory": 1}, {"available_ro_paths": ["/a"]}]
)
def test_constraints_of_anything_need_a_system(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"constraints\.system"):
        tvix_build.build_request(command_args=["true"], **values)


ITERABLE = "expected an iterable of values"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"outputs": "ab"}, f"outputs: {ITERABLE}, found str"),
        ({"outputs": b"ab"}, f"outputs: {ITERABLE}, found bytes"),
        ({"outputs": None}, f"outputs: {ITERABLE}, found NoneType"),
        ({"outputs": [1]}, "outputs[0]: expected str or bytes, found int"),
        ({"command_args": "true"}, f"command_args: {ITERABLE}, found str"),
        ({"command_args": ["true", 1]}, "command_args[1]: expected str or bytes, found int"),
        ({"available_ro_paths": "/a"}, f"available_ro_paths: {ITERABLE}, found str"),
        ({"available_ro_paths": [1]}, "available_ro_paths[0]: expected str or bytes, found int"),
        ({"environment_vars": {"a": 1}}, "environment_vars['a']: expected str or bytes, found int"),
        (
            {"environment_vars": {"A": None}},
            "environment_vars['A']: expected str or bytes, found NoneType",
        ),
        (
            {"environment_vars": {"A": "", 5: ""}},
            "environment_vars[1]: expected str or bytes, found int",
        ),
        ({"environment_vars": ["ab"]}, "environment_vars[0]: expected a pair, found str"),
        ({"environment_vars": [("a", "b"), 1]}, "environment_vars[1]: expected a pair, found int"),
        ({"environment_vars": 1}, f"environment_vars: {ITERABLE}, found int"),
        ({"inputs": [1]}, "inputs[0]: expected a tvix.castore.v1.Node, found int"),
        (
            {"inputs": [castore_pb2.Directory()]},
            "inputs[0]: expected a tvix.castore.v1.Node, found a message tvix.castore.v1.Directory",
        ),
        ({"system": 1}, "system: expected str or bytes, found int"),
        ({"min_memory": 0.5}, "min_memory: expected an integer, found float"),
    ],
)
def test_an_error_names_the_argument(values: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        tvix_build.build_request(**({"command_args": ["true"]} | values))


FILE: Any = tvix_build.file_node
DIRECTORY: Any = tvix_build.directory_node
SYMLINK: Any = tvix_build.symlink_node


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: FILE(1, digest=DIGEST, size=1), TypeError, "name: expected str or bytes"),
        (lambda: FILE("a", digest="b", size=1), TypeError, "digest: expected bytes, found str"),
        (lambda: FILE("a", digest=DIGEST, size="1"), TypeError, "size: expected an integer"),
        (lambda: FILE("a", digest=DIGEST, size=-1), ValueError, "size: expected an integer"),
        (lambda: DIRECTORY("a", digest=None, size=1), TypeError, "digest: expected bytes"),
        (lambda: SYMLINK("a", target=None), TypeError, "target: expected str or bytes"),
        (lambda: FILE("s", digest=b"abc", size=3), ValidationError, "digest: invalid_digest: "),
        (lambda: DIRECTORY("s", digest=b"", size=3), ValidationError, "digest: invalid_digest"),
        (lambda: FILE("a/b", digest=DIGEST, size=3), ValidationError, "name: invalid_name: "),
        (lambda: DIRECTORY("", digest=DIGEST, size=3), ValidationError, "name: invalid_name: "),
        (lambda: SYMLINK("a" * 256, target="b"), ValidationError, "name: invalid_name: "),
        (
            lambda: SYMLINK("a", target=""),
            ValidationError,
            "target: invalid_symlink_target: ",
        ),
    ],
)
def test_a_node_that_cannot_be_valid_fails(
    make: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}") as caught:
        make()
    assert type(caught.value) is error


def test_the_largest_directory_may_be_an_input() -> None:
    node = tvix_build.directory_node("a", digest=DIGEST, size=(1 << 64) - 1)
    assert list(tvix_build.build_request(command_args=["a"], inputs=[node]).inputs) == [node]


@pytest.mark.parametrize("name", ["a" * 255, b"\xff" * 255])
def test_nodes_say_what_they_are_given(name: str | bytes) -> None:
    raw = name if isinstance(name, bytes) else name.encode()
    target = raw + b"/"
    assert tvix_build.directory_node(name, digest=DIGEST, size=1 << 40) == castore_pb2.Node(
        directory=castore_pb2.DirectoryNode(name=raw, digest=DIGEST, size=1 << 40)
    )
    for executable in (False, True):
        assert tvix_build.file_node(
            name, digest=DIGEST, size=2, executable=executable
        ) == castore_pb2.Node(
            file=castore_pb2.FileNode(name=raw, digest=DIGEST, size=2, executable=executable)
        )
    assert tvix_build.symlink_node(name, target=target) == castore_pb2.Node(
        symlink=castore_pb2.SymlinkNode(name=raw, target=target)
    )


def test_build_request_takes_pairs_and_bytes() -> None:
    made = request(
        command_args=[b"/bin/true"], outputs=[b"out"], environment_vars=[("B", "2"), ("A", "1")]
    )
    assert made.command_args == ["/bin/true"]
    assert [variable.key for variable in made.environment_vars] == ["A", "B"]


@pytest.mark.parametrize(
    ("values", "code", "path"),
    [
        ({"command_args": []}, ViolationCode.REQUIRED, "command_args"),
        ({"outputs": ["x", "a", "x"]}, ViolationCode.DUPLICATE, "outputs[2]"),
        (
            {"environment_vars": [("B", "1"), ("A", "1"), ("B", "2")]},
            ViolationCode.DUPLICATE,
            "environment_vars[2]",
        ),
        ({"system": None}, ViolationCode.REQUIRED, "constraints.system"),
        ({"system": ""}, ViolationCode.REQUIRED, "constraints.system"),
        ({"available_ro_paths": ["/nix/store"]}, ViolationCode.INVALID_PATH, None),
        (
            {"inputs": [castore_pb2.Node(file=castore_pb2.FileNode(name=b"a", digest=b"short"))]},
            ViolationCode.INVALID_DIGEST,
            "inputs[0].file.digest",
        ),
        ({"inputs": [castore_pb2.Node()]}, ViolationCode.REQUIRED, "inputs[0]"),
    ],
)
def test_build_request_refuses(
    values: dict[str, Any], code: ViolationCode, path: str | None
) -> None:
    with pytest.raises(ValidationError) as caught:
        request(**values)
    found = [violation for violation in caught.value.violations if violation.code == code]
    assert [violation.path for violation in found] == [path or "constraints.available_ro_paths[0]"]
    assert len(found) == caught.value.violation_count
    assert code.value in str(caught.value)


@pytest.mark.parametrize(
    ("paths", "rest"),
    [
        (["a"], ""),
        (["a", "b"], " (and 1 more violation)"),
        (["a", "b", "c"], " (and 2 more violations)"),
    ],
)
def test_a_refusal_says_how_many_violations_there_are(paths: list[str], rest: str) -> None:
    with pytest.raises(ValidationError) as caught:
        request(available_ro_paths=paths)
    first = caught.value.violations[0]
    assert str(caught.value) == f"{first.path}: {first.code.value}: {first.message}{rest}"


def test_build_request_refuses_what_does_not_fit_a_field() -> None:
    with pytest.raises(ValueError, match=r"^command_args\[1\]: expected UTF-8, found b'\\xff'"):
        request(command_args=["a", b"\xff"])
    with pytest.raises(ValueError, match=r"^outputs\[0\]: expected UTF-8, found '\\udcff'"):
        request(outputs=["\udcff"])
    for number in (-1, 1 << 64):
        with pytest.raises(ValueError, match=rf"^min_memory: expected an integer .* {number}$"):
            request(min_memory=number)


def test_message_built_by_hand_is_not_sorted_silently() -> None:
    made = request()
    made.outputs.reverse()
    before = made.SerializeToString()
    report = tvix_build.check(made)
    assert [(v.code, v.path) for v in report.violations] == [
        (ViolationCode.NOT_SORTED, "outputs[1]")
    ]
    assert report.digest == tvix_build.digest(made) == tvix_build.digest(request())
    assert tvix_build.canonicalize(made) == request().SerializeToString()
    assert made.SerializeToString() == before
    with pytest.raises(ValidationError, match="not_sorted"):
        tvix_build.validate(made)


def mapped(data: bytes) -> mmap.mmap:
    memory = mmap.mmap(-1, len(data))
    memory[:] = data
    return memory


def ctypes_array(data: bytes) -> Any:
    return (ctypes.c_uint8 * len(data)).from_buffer_copy(data)


@pytest.mark.parametrize("size", [0, 100, 16383, 16384, 16385, 100_000])
def test_messages_of_any_size_have_the_same_results(size: int) -> None:
    """Small and large bytes objects, and other objects, are checked on different paths."""
    canonical = wire.blob(1, b"x" * size) + wire.blob(1, "y")
    for data in (canonical, canonical + wire.blob(2, "b") + wire.blob(2, "a"), canonical + b"\x0a"):
        report, other = tvix_build.check(data), tvix_build.check(bytearray(data))
        assert report == other == tvix_build.check_batch([data])[0]
        if report.digest:
            assert tvix_build.digest(data) == report.digest
            assert blake3.blake3(tvix_build.canonicalize(data)).digest() == report.digest


BYTES_LIKE: list[Callable[[bytes], Any]] = [
    bytes,
    bytearray,
    memoryview,
    lambda data: memoryview(data).cast("b"),
    lambda data: memoryview(data).cast("c"),
    lambda data: memoryview(data).cast("B", (1, len(data))),
    lambda data: memoryview(b"." + data)[1:],
    lambda data: array("B", data),
    lambda data: array("b", data),
    mapped,
    ctypes_array,
]
NOT_BYTES_LIKE = {
    "text": "found str",
    None: "found NoneType",
    (1, 2): "found tuple",
    "I": "(a C-contiguous buffer of bytes), found array: a buffer of format 'I' with 1 dimension",
    "gaps": "found memoryview: a buffer of format 'B' with 1 dimension that is not C-contiguous",
    "number": "found c_ubyte: a buffer of format '<B' with 0 dimensions",
}


def not_bytes_like(key: Any) -> Any:
    return {
        "I": array("I", [1, 2]),
        "gaps": memoryview(b"abcdef")[::2],
        "number": ctypes.c_uint8(5),
    }.get(key, key)


@pytest.mark.parametrize("wrap", BYTES_LIKE)
def test_bytes_like(wrap: Any, tmp_path: Path) -> None:
    data = request().SerializeToString()
    digest = blake3.blake3(data).digest()
    assert tvix_build.check(wrap(data)) == tvix_build.check(request())
    assert tvix_build.canonicalize(wrap(data)) == data
    assert tvix_build.digest(wrap(data)) == digest
    assert list(tvix_build.check_batch([data, wrap(data)])) == [tvix_build.check(data)] * 2
    assert list(tvix_build.check_batch(wrap(data), offsets=[0, len(data)])) == [
        tvix_build.check(data)
    ]
    assert list(tvix_build.canonicalize_batch([wrap(data)])) == [data]
    assert list(tvix_build.blake3_many([wrap(data)])) == [digest]
    assert list(tvix_build.blake3_many(wrap(data), offsets=[0, len(data)])) == [digest]
    later = tvix_build.convert(b"\x0a\x01a\x2a\x03\x0a\x01x", to="snix.build.v1")
    assert tvix_build.convert(wrap(later), to="tvix.build.v1", schema="snix.build.v1")
    assert tvix_build.check(b"", kind="build", schema="snix.build.v1", request=wrap(later)) == (
        tvix_build.check(b"", kind="build", schema="snix.build.v1", request=later)
    )
    with RequestStore(tmp_path / "store") as store:
        assert store.put(wrap(data)) == digest == store.put_many([wrap(data)])[0]
    made = tvix_build.build_request(
        command_args=[wrap(b"a")],
        environment_vars={"A": wrap(b"value")},
        inputs=[
            tvix_build.file_node(wrap(b"b"), digest=wrap(DIGEST), size=1),
            tvix_build.directory_node(wrap(b"c"), digest=wrap(DIGEST), size=1),
            tvix_build.symlink_node(wrap(b"d"), target=wrap(b"e")),
        ],
    )
    assert made.environment_vars[0].value == b"value"


@pytest.mark.parametrize(("key", "found"), NOT_BYTES_LIKE.items())
def test_what_is_not_bytes_like(key: Any, found: str) -> None:
    x = not_bytes_like(key)
    good = b"\x0a\x01a"
    calls: list[tuple[str, Callable[[], Any]]] = [
        ("expected a message or a bytes-like object", lambda: tvix_build.check(x)),
        ("expected a message or a bytes-like object", lambda: tvix_build.digest(x)),
        ("message 1: expected a message or", lambda: tvix_build.check_batch([good, x])),
        ("message 0: expected a message or", lambda: tvix_build.canonicalize_batch([x])),
        ("expected a message or", lambda: tvix_build.check_batch(x, offsets=[0, 1])),
        ("buffer 1: expected a bytes-like object", lambda: tvix_build.blake3_many([good, x])),
        ("expected a bytes-like object", lambda: tvix_build.blake3_many(x, offsets=[0, 1])),
        (
            "expected a message or",
            lambda: tvix_build.convert(x, to="tvix.build.v1", schema="snix.build.v1"),
        ),
    ]
    for expected, call in calls:
        with pytest.raises(TypeError, match=f"^{expected}.*{re.escape(found)}$"):
            call()


@pytest.mark.parametrize("wrap", BYTES_LIKE)
def test_one_buffer_is_no_batch(wrap: Any) -> None:
    one = wrap(b"\x0a\x01a")
    if memoryview(one).ndim > 1:
        pytest.skip("rows of a matrix are several messages")
    with pytest.raises(TypeError, match="found one message"):
        tvix_build.check_batch(one)
    with pytest.raises(TypeError, match="found one buffer"):
        tvix_build.blake3_many(one)


def test_rows_of_a_matrix_are_several_buffers() -> None:
    digests = tvix_build.blake3_many([b"a", b"b"])
    hashed = [blake3.blake3(row).digest() for row in digests]
    assert list(tvix_build.blake3_many(digests)) == hashed
    assert len(tvix_build.check_batch(digests)) == 2


def test_digests_are_rows_of_bytes() -> None:
    buffers = [b"", b"a", b"bc"]
    expected = [blake3.blake3(one).digest() for one in buffers]
    for digests in (
        tvix_build.blake3_many(buffers),
        tvix_build.check_batch([b"\x0a\x00", b"\xff", b"\x0a\x01a"]).digests,
    ):
        expected = (
            expected
            if digests[0] == expected[0]
            else [
                blake3.blake3(b"\x0a\x00").digest(),
                bytes(32),
                blake3.blake3(b"\x0a\x01a").digest(),
            ]
        )
        assert list(digests) == expected
        assert all(type(row) is bytes for row in digests)
        assert [digests[i] for i in range(-3, 3)] == expected * 2
        assert digests[1:] == expected[1:]
        assert expected[2] in digests
        assert len(digests) == 3
        with pytest.raises(IndexError):
            digests[3]
        view = memoryview(digests)
        assert (view.shape, view.strides, view.format) == ((3, 32), (32, 1), "B")
        assert (view.readonly, view.c_contiguous, view.nbytes) == (True, True, 96)
        assert [bytes(row) for row in cast("Any", view.tolist())] == expected
        assert bytes(digests) == digests.tobytes() == b"".join(expected) == b"".join(digests)
        assert hashlib.sha256(digests).digest() == hashlib.sha256(bytes(digests)).digest()
        for again in (copy.copy(digests), copy.deepcopy(digests), pickled(digests)):
            assert type(again) is Digests
            assert again == digests
            assert hash(again) == hash(digests)
        assert digests != tvix_build.blake3_many(buffers[:2])
        assert digests != expected


def test_digests_of_nothing() -> None:
    for digests in (tvix_build.blake3_many([]), tvix_build.check_batch([]).digests, Digests(b"")):
        assert memoryview(digests).shape == (0, 32)
        assert (list(digests), bytes(digests), len(digests)) == ([], b"", 0)
        assert memoryview(pickled(digests)).shape == (0, 32)


def test_digests_keep_their_memory() -> None:
    view = memoryview(tvix_build.blake3_many([b""] * 1000))
    row = iter(tvix_build.blake3_many([b"a"] * 1000))
    gc.collect()
    tvix_build.blake3_many([b"b"] * 1000)
    assert view.tobytes() == blake3.blake3(b"").digest() * 1000
    assert set(row) == {blake3.blake3(b"a").digest()}


def test_digests_cannot_be_written() -> None:
    digests = Digests(bytearray(64))
    with pytest.raises(TypeError):
        io.BytesIO(bytes(64)).readinto(digests)
    with pytest.raises(TypeError):
        ctypes.c_uint8.from_buffer(digests)
    with pytest.raises(ValueError, match="expected a multiple of 32 bytes, found 31"):
        Digests(bytes(31))
    assert memoryview(Digests(digests)).shape == (2, 32)
    assert memoryview(object.__new__(Digests)).nbytes == 0


def test_columns_are_made_once() -> None:
    reports = tvix_build.check_batch(items())
    for name in ("valid", "canonical", "digests"):
        assert getattr(reports, name) is getattr(reports, name)
        assert memoryview(getattr(reports, name)).readonly


def pickled(x: Any) -> Any:
    return pickle.loads(pickle.dumps(x))


@pytest.mark.slow
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, pickled])
@pytest.mark.parametrize("schema", list(Schema))
@pytest.mark.parametrize("kind", list(Kind))
def test_a_report_is_copied(again: Callable[[Any], Any], kind: Kind, schema: Schema) -> None:
    some = [b"", b"\x0a", b"\x12\x00", b"\x0a\x01a", b"\x0a\x00\x12\x01b\x12\x01a"]
    for messages in (some, [], some * 20_000):
        reports = tvix_build.check_batch(messages, kind=kind, schema=schema)
        assert len(reports.valid) == len(reports.digests)  # What is kept must not matter.
        copied = again(reports)
        assert type(copied) is tvix_build.BatchReport
        assert repr(copied) == repr(reports)
        assert list(copied[:9]) == list(reports[:9])
        assert list(copied.invalid) == list(reports.invalid)
        assert copied.digests == reports.digests
        assert copied.valid == reports.valid


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, pickled])
def test_encodings_are_copied(again: Callable[[Any], Any]) -> None:
    batches: list[list[Any]] = [[], [request(), b"\x0a\x82\x00sh"]]
    for some in batches:
        batch = tvix_build.canonicalize_batch(some)
        copied = again(batch)
        assert type(copied) is tvix_build.CanonicalBatch
        assert list(copied) == list(batch)
        assert (copied.data, copied.offsets) == (batch.data, batch.offsets)
        assert copied.data.readonly


def test_a_report_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pickle.dumps(tvix_build.check_batch([b""]))
    monkeypatch.setattr(batch, "__version__", "99.0")
    with pytest.raises(ValueError, match=r"expected a report pickled by tvix_build 99\.0"):
        pickle.loads(data)


def test_a_process_pool_returns_reports() -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        reports = pool.submit(tvix_build.check_batch, [b"", b"\x0a\x01a"]).result()
        batch = pool.submit(tvix_build.canonicalize_batch, [b"\x0a\x01a"]).result()
    assert list(reports) == list(tvix_build.check_batch([b"", b"\x0a\x01a"]))
    assert list(batch) == [b"\x0a\x01a"]


def test_kind_is_inferred_or_checked() -> None:
    directory = castore_pb2.Directory()
    empty = blake3.blake3(b"").digest()
    assert tvix_build.digest(directory) == tvix_build.digest(b"", kind="directory") == empty
    assert tvix_build.digest(b"", kind=Kind.DIRECTORY) == empty
    assert not tvix_build.check(b"").valid
    with pytest.raises(TypeError, match=r"expected tvix\.build\.v1\.Build, found a message"):
        tvix_build.check(directory, kind="build")
    with pytest.raises(TypeError, match=r"expected snix\.build\.v1\.BuildRequest, found a message"):
        tvix_build.check(request(), schema="snix.build.v1")
    with pytest.raises(TypeError, match="found a message"):
        tvix_build.check(castore_pb2.Node())
    with pytest.raises(TypeError, match="found str"):
        tvix_build.check("text")  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"^expected a Kind: 'build-request', .*; found 'nonsense'$"
    ):
        tvix_build.check(b"", kind="nonsense")  # type: ignore[arg-type]


def test_errors_have_one_base() -> None:
    with pytest.raises(tvix_build.Error) as caught:
        tvix_build.digest(b"\x0a")
    assert isinstance(caught.value, ValidationError)
    assert caught.value.violation_count == 1
    assert [(v.code, v.path) for v in caught.value.violations] == [(ViolationCode.MALFORMED, "")]


def test_violations_are_capped_and_counted() -> None:
    message = build_pb2.BuildRequest(outputs=[""] * 1000)
    report = tvix_build.check(message)
    assert len(report.violations) == 100
    assert report.violation_count == 2000
    with pytest.raises(ValidationError, match="1999 more"):
        tvix_build.validate(message)


def items() -> list[Any]:
    """A batch with every verdict in it, bytes and messages mixed."""
    unsorted = request()
    unsorted.outputs.reverse()
    data = request().SerializeToString()
    long_tag = b"\x8a\x00" + data[1:]
    return [request(), data, unsorted, b"", b"\x0a", memoryview(data), bytearray(long_tag)]


def test_batch_equals_single_checks() -> None:
    reports = tvix_build.check_batch(items())
    assert list(reports) == [tvix_build.check(item) for item in items()]
    assert len(reports) == 7
    assert reports[-1] == reports[6] == tvix_build.check(items()[6])
    assert reports[2:4] == [reports[2], reports[3]]
    with pytest.raises(IndexError):
        reports[7]
    assert list(reports.valid) == [report.valid for report in reports]
    assert list(reports.canonical) == [True, True, False, False, False, True, False]
    assert list(reports.digests) == [report.digest or bytes(32) for report in reports]
    assert list(reports.invalid) == [2, 3, 4]
    assert (reports.valid_count, reports.canonical_count) == (4, 3)


def test_batch_of_many_pieces() -> None:
    many = items() * 3000
    reports = tvix_build.check_batch(iter(many))
    expected = list(tvix_build.check_batch(items()))
    for i in (0, 2, 3, 4, 10_000, 20_998, 20_999):
        assert reports[i] == expected[i % 7]
    assert reports.valid_count == 4 * 3000
    assert list(reports.invalid[-3:]) == [20_995, 20_996, 20_997]


def test_batch_of_a_buffer() -> None:
    pieces = [bytes(item) if not hasattr(item, "outputs") else b"" for item in items()]
    buffer = b"".join(pieces)
    offsets = [0]
    for piece in pieces:
        offsets.append(offsets[-1] + len(piece))
    expected = list(tvix_build.check_batch(pieces))
    begins, ends = offsets[:-1], offsets[1:]
    for given in (offsets, array("Q", offsets), (begins, ends), (array("Q", begins), ends)):
        assert list(tvix_build.check_batch(buffer, offsets=given)) == expected
    assert len(tvix_build.check_batch(b"", offsets=[0])) == 0
    assert list(tvix_build.check_batch(buffer, offsets=(0, offsets[1]))) == expected[:1]


def test_the_earliest_error_is_raised() -> None:
    """Also where a later piece fails first."""
    workers = _Workers(2)
    recorded = Event()

    class Errors(list[tuple[int, Exception]]):
        def append(self, error: tuple[int, Exception]) -> None:
            super().append(error)
            recorded.set()

    def earlier() -> None:
        assert recorded.wait(LIMIT)
        raise LookupError("earlier")

    def later() -> None:
        raise LookupError("later")

    workers._errors = Errors()
    workers.run(earlier)
    workers.run(later)
    with pytest.raises(LookupError, match="earlier"):
        workers.finish()


class Bytes(bytes):
    """Bytes, and yet not just bytes."""


def test_batch_of_any_bytes() -> None:
    data = request().SerializeToString()
    wrapped = [wrap(data) for wrap in (bytes, bytearray, memoryview, Bytes)]
    assert list(tvix_build.check_batch(wrapped)) == [tvix_build.check(data)] * 4
    assert list(tvix_build.canonicalize_batch(tuple(wrapped))) == [data] * 4
    assert tvix_build.blake3_many(wrapped).tobytes() == blake3.blake3(data).digest() * 4


@pytest.mark.parametrize("threads", [1, 2])
def test_batch_of_an_iterator(threads: int) -> None:
    """Items are taken in the thread of the caller, a limited number at a time, and released."""
    taken_by = set()

    def messages() -> Iterator[bytes]:
        for i in range(100):
            taken_by.add(get_ident())
            yield bytes([i]) * (1 << 20)

    tracemalloc.start()
    try:
        digests = tvix_build.blake3_many(messages(), threads=threads)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    assert digests.tobytes() == b"".join(blake3.blake3(data).digest() for data in messages())
    assert taken_by == {get_ident()}

    def failing() -> Iterator[bytes]:
        yield from messages()
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        tvix_build.check_batch(failing(), threads=threads)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_list_that_changes_meanwhile(threads: int) -> None:
    """There is a result for every item that was seen; nothing else is promised."""
    data = [bytes([i]) * 100_000 for i in range(40)]
    known = {blake3.blake3(one).digest() for one in data}
    buffers = list(data)
    done = Event()

    def change() -> None:
        while not done.is_set():
            buffers.clear()
            buffers.extend(bytes(bytearray(one)) for one in data * 3)

    thread = Thread(target=change)
    thread.start()
    try:
        for _ in range(20):
            digests = tvix_build.blake3_many(buffers, threads=threads)
            rows = digests.tobytes()
            assert {rows[i : i + 32] for i in range(0, len(rows), 32)} <= known
    finally:
        done.set()
        thread.join()


def test_empty_batch() -> None:
    reports = tvix_build.check_batch([])
    assert len(reports) == len(reports.valid) == len(reports.digests) == 0
    assert list(tvix_build.canonicalize_batch([])) == []


@pytest.mark.parametrize(
    ("offsets", "match"),
    [
        ([0, 5], "0 to 5"),
        ([3, 1], "3 to 1"),
        ([0, 0, 5], "message 1: .*0 to 5"),
        ([0, 2**64 - 1], "0 to 18446744073709551615"),
        ([], "n \\+ 1 offsets"),
        (([0, 1], [1]), "ends, one for each begin"),
        (([0], [1, 2]), "ends, one for each begin"),
        (memoryview(array("Q", range(4)))[::2], "unsigned 64-bit integers, back to back"),
        (array("I", [0, 1]), "unsigned 64-bit"),
        (array("q", [0, 1]), "unsigned 64-bit"),
        ([0, -1], "unsigned 64-bit"),
        ([0, 1 << 64], "unsigned 64-bit"),
        (([0], [-1]), "unsigned 64-bit"),
    ],
)
def test_batch_refuses_lying_offsets(offsets: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        tvix_build.check_batch(b"abcd", offsets=offsets)


@pytest.mark.parametrize("shift", range(9))
def test_offsets_need_not_be_aligned(shift: int) -> None:
    """They are copied then: what the engine gets is aligned."""
    messages = [request().SerializeToString(), b"a", b"", request().SerializeToString()]
    data = b"".join(messages)
    offsets = array("Q", accumulate(map(len, messages), initial=0))
    memory = bytearray(shift) + bytearray(offsets)
    shifted = memoryview(memory)[shift:].cast("Q")
    begins, ends = shifted[:-1], shifted[1:]
    for given in (shifted, (begins, ends), (list(begins), ends), (begins, list(ends))):
        found = messages_of(data, given)
        for pointer in (found.begins, found.ends):
            assert int(ffi.cast("uintptr_t", pointer)) % 8 == 0
        hashed = tvix_build.blake3_many(data, offsets=given)
        assert hashed.tobytes() == tvix_build.blake3_many(messages).tobytes()
        expected = [tvix_build.check(message) for message in messages]
        assert list(tvix_build.check_batch(data, offsets=given)) == expected
    good = [0, len(messages[0])]
    memory[shift:] = array("Q", good * 2).tobytes() + bytes(8)
    shifted = memoryview(memory)[shift : shift + 16].cast("Q")
    assert list(tvix_build.canonicalize_batch(data, offsets=shifted)) == messages[:1]


def test_batch_refuses_what_is_no_batch() -> None:
    with pytest.raises(TypeError, match="found one message"):
        tvix_build.check_batch(b"abcd")
    for good in (b"", request()):
        with pytest.raises(TypeError, match=r"^message 2: expected a message or .*, found int$"):
            tvix_build.check_batch([good, good, 1])  # type: ignore[list-item]
        with pytest.raises(TypeError, match=r"^message 1: .*found a message tvix\.castore"):
            tvix_build.check_batch([good, castore_pb2.Directory()])
    many = [b""] * 40_000
    with pytest.raises(TypeError, match=r"^message 40000: .*, found str$"):
        tvix_build.check_batch([*many, "text"], threads=2)  # type: ignore[list-item]


def test_canonicalize_batch() -> None:
    data = request().SerializeToString()
    good = [item for item in items() if tvix_build.check(item).digest]
    batch = tvix_build.canonicalize_batch(good)
    assert list(batch) == [data] * 5
    assert batch[-1] == data
    assert batch[1:3] == [data, data]
    assert list(batch.offsets) == [len(data) * i for i in range(6)]
    with pytest.raises(ValidationError, match=r"message 3: .*required") as caught:
        tvix_build.canonicalize_batch(items())
    assert caught.value.index == 3


def test_threads_get_the_same_results() -> None:
    expected = list(tvix_build.check_batch(items() * 50))
    found: list[Any] = []
    threads = [
        Thread(target=lambda: found.append(list(tvix_build.check_batch(items() * 50))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 8


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_number_of_threads_changes_nothing(threads: int) -> None:
    many = items() * 1500
    data = [bytes(tvix_build._core.batch.serialized(item)) for item in many]
    offsets = array("Q", [0])
    for item in data:
        offsets.append(offsets[-1] + len(item))
    expected = tvix_build.check_batch(many, threads=1)
    buffer = b"".join(data)
    for reports in (
        tvix_build.check_batch(many, threads=threads),
        tvix_build.check_batch(buffer, offsets=offsets, threads=threads),
    ):
        assert reports.valid == expected.valid
        assert reports.digests.tobytes() == expected.digests.tobytes()
        assert list(reports.invalid) == list(expected.invalid)
        assert [reports[i] for i in reports.invalid[-50:]] == [
            expected[i] for i in expected.invalid[-50:]
        ]
    good = [item for item in many if tvix_build.check(item).digest]
    encoded = tvix_build.canonicalize_batch(good, threads=threads)
    assert encoded.data == tvix_build.canonicalize_batch(good, threads=1).data


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("irregular", [False, True])
def test_encodings_lie_back_to_back(threads: int, irregular: bool) -> None:
    expected = [
        tvix_build.build_request(command_args=["x" * size]).SerializeToString()
        for size in (300_000, 1, 400_000) * 12
    ]
    messages = list(expected)
    if irregular:  # Encodings are shorter than messages.
        expected[1:1] = expected[20:20] = [b"\x0a\x02sh"] * 2
        messages[1:1] = messages[20:20] = [b"\x0a\x82\x00sh"] * 2
    offsets = array("Q", accumulate(map(len, messages), initial=0))
    for encoded in (
        tvix_build.canonicalize_batch(messages, threads=threads),
        tvix_build.canonicalize_batch(iter(messages), threads=threads),
        tvix_build.canonicalize_batch(b"".join(messages), offsets=offsets, threads=threads),
    ):
        assert encoded.data == b"".join(expected)
        assert encoded.data.readonly
        assert list(encoded.offsets) == list(accumulate(map(len, expected), initial=0))
        assert list(encoded) == expected


def test_threads_are_at_least_one() -> None:
    with pytest.raises(ValueError, match="at least 1 thread, found 0"):
        tvix_build.check_batch([], threads=0)


@pytest.mark.slow
def test_error_in_a_later_piece_names_the_message() -> None:
    offsets = array("Q", range(200_001))
    offsets[-1] = 1 << 40
    with pytest.raises(ValueError, match="message 199999: "):
        tvix_build.check_batch(bytes(200_000), offsets=offsets, threads=2)
    offsets[150_000] = 0
    for threads in (1, 2, 5):
        with pytest.raises(ValueError, match="message 149999: "):
            tvix_build.check_batch(bytes(200_000), offsets=offsets, threads=threads)
    with pytest.raises(ValidationError, match="message 100000: ") as caught:
        tvix_build.canonicalize_batch([request()] * 100_000 + [b""], threads=2)
    assert caught.value.index == 100_000


@pytest.mark.slow
def test_interrupt_stops_a_long_batch() -> None:
    """A signal that comes after the first of many pieces is handled before the next one."""
    code = (
        "import array, os, signal, threading, tvix_build\n"
        "from tvix_build._core.pieces import Batch\n"
        "add = Batch.add\n"
        "def add_first(*arguments):\n"
        "    Batch.add = add\n"
        "    threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT)).start()\n"
        "    return add(*arguments)\n"
        "Batch.add = add_first\n"
        "data = bytes([10, 126]) + b'a' * 126\n"
        "begins = array.array('Q', bytes(8 * 20_000_000))\n"
        "ends = array.array('Q', [128]) * 20_000_000\n"
        "try:\n"
        "    tvix_build.check_batch(data, offsets=(begins, ends), threads=THREADS)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    for threads in ("1", "2"):
        command = [sys.executable, "-c", code.replace("THREADS", threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == "interrupted\n"


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_blake3_many(threads: int | None) -> None:
    data = bytes(i * 7 % 251 for i in range(300_000))
    sizes = [*range(0, 1100, 7), 1023, 1024, 1025, 2048, 5000, 16_384, 65_536, 65_537, 299_999]
    buffers = [data[size % 13 : size % 13 + size] for size in sizes] * 7
    expected = b"".join(blake3.blake3(buffer).digest() for buffer in buffers)
    assert tvix_build.blake3_many(buffers, threads=threads).tobytes() == expected
    assert memoryview(tvix_build.blake3_many(iter(buffers), threads=threads)).shape == (
        len(buffers),
        32,
    )
    offsets = [0]
    for buffer in buffers:
        offsets.append(offsets[-1] + len(buffer))
    joined = b"".join(buffers)
    found = tvix_build.blake3_many(joined, offsets=offsets, threads=threads)
    assert found.tobytes() == expected


def test_blake3_many_refuses() -> None:
    assert len(tvix_build.blake3_many([])) == 0
    for buffer in (b"abc", bytearray(b"abc"), memoryview(b"abc")):
        with pytest.raises(TypeError, match="found one buffer"):
            tvix_build.blake3_many(buffer)
    with pytest.raises(TypeError, match=r"^buffer 1: expected a bytes-like object, found str$"):
        tvix_build.blake3_many([b"", "text"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"message 1: .*2 to 9"):
        tvix_build.blake3_many(b"abc", offsets=[0, 2, 9])


def test_import_brings_no_command_line() -> None:
    code = (
        "import sys, tvix_build\n"
        "assert not {'click', 'rich', 'backports.zstd', 'grpc'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_messages_use_upb() -> None:
    from google.protobuf.internal import api_implementation

    assert api_implementation.Type() == "upb"


def test_importing_is_quick() -> None:
    code = "import sys, google.protobuf.message\nknown = set(sys.modules)\n"
    code += "import tvix_build\ntvix_build.check\nprint(*set(sys.modules) - known)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    new = set(done.stdout.split())
    assert "tvix_build._core.engine" in new
    # What makes classes of messages takes longer than all the rest; the others are for few.
    slow = {"google.protobuf.descriptor_pool", "google.protobuf.json_format", "tvix"}
    assert new & {*slow, "click", "grpc", "pyarrow", "rich", "backports.zstd"} == set()
