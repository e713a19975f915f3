# SPDX-License-Identifier: MIT
"""Pins the types of the public interface: mypy and pyright check this file, and it runs.

Every public name is in it. A change that needs one here changes the interface.
"""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import os
from array import array
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import duckdb
import grpc
import polars
import pytest
from typing_extensions import assert_type

import tvix_build
from snix.build.protos import build_pb2 as snix_build_pb2
from snix.castore.protos import castore_pb2 as snix_castore_pb2
from tvix.build.protos import build_pb2
from tvix.castore.protos import castore_pb2
from tvix_build import builders, castore, nix, plan, records
from tvix_build.builders import caching, derivations, reapi, server
from tvix_build.castore.backed import BackedStore
from tvix_build.castore.client import (
    AsyncCastoreClient,
    CastoreClient,
    UnexpectedContentError,
)
from tvix_build.duckdb import register
from tvix_build.nix import Derivation, DerivationDirectory, DerivationError, Lookup, Output
from tvix_build.plan import PlanState, Run, Status, StepResult, UnknownPlanError
from tvix_build.plan.client import PlanClient, Submitted
from tvix_build.plan.v1 import plan_pb2, rpc_plan_pb2
from tvix_build.polars import TvixNamespace
from tvix_build.proxy.client import (
    AsyncBuildService,
    BuildService,
    InvalidResponseError,
    bad_request,
)
from tvix_build.spark import check, distinct
from tvix_build.store import (
    AmbiguousDigestError,
    Damage,
    RequestStore,
    StoreError,
    UnknownDigestError,
)

if TYPE_CHECKING:
    from google.rpc.error_details_pb2 import BadRequest
    from pyspark.sql import DataFrame

DIGEST = bytes(32)


def request() -> build_pb2.BuildRequest:
    """With every argument, each in one of the types that it may have."""
    nodes = [
        assert_type(tvix_build.directory_node("a", digest=DIGEST, size=1), castore_pb2.Node),
        assert_type(
            tvix_build.file_node(b"b", digest=DIGEST, size=5, executable=True), castore_pb2.Node
        ),
        assert_type(tvix_build.symlink_node("c", target=b"a"), castore_pb2.Node),
    ]
    made = tvix_build.build_request(
        command_args=["/bin/sh", b"-c"],
        outputs=("out",),
        environment_vars={"key": b"value"},
        inputs=iter(nodes),
        system="x86_64-linux",
        min_memory=1,
        available_ro_paths=["/dev/kvm"],
    )
    return assert_type(made, build_pb2.BuildRequest)


def test_construction_in_later_schemas() -> None:
    later = tvix_build.build_request(
        command_args=["/bin/sh"],
        inputs=[
            snix_castore_pb2.Entry(symlink=snix_castore_pb2.SymlinkEntry(name=b"a", target=b"b"))
        ],
        system="x86_64-linux",
        schema="snix.build.v1",
        working_dir="build",
        scratch_paths=["build"],
        inputs_dir=b"inputs",
        network_access=True,
        provide_bin_sh=True,
        additional_files=[("a", "words"), ("b", b"bytes")],
        refscan_needles=["a"],
    )
    assert assert_type(later, snix_build_pb2.BuildRequest).working_dir == "build"
    data = tvix_build.build_request(command_args=["a"], schema="tvix.build.v1@2024")
    assert assert_type(data, bytes)
    first = tvix_build.build_request(command_args=["a"], schema=tvix_build.Schema.TVIX_BUILD_V1)
    assert assert_type(first, build_pb2.BuildRequest)


def test_construction() -> None:
    assert [node.WhichOneof("node") for node in request().inputs] == [
        "directory",
        "file",
        "symlink",
    ]
    pairs = tvix_build.build_request(command_args=["a"], environment_vars=[("key", "value")])
    assert pairs.environment_vars[0].value == b"value"


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
def test_one_message(form: type[bytes] | type[bytearray] | type[memoryview]) -> None:
    data = form(request().SerializeToString())
    report = assert_type(tvix_build.check(data), tvix_build.Report)
    assert assert_type(report.valid, bool)
    assert assert_type(report.canonical, bool)
    assert assert_type(report.violations, tuple[tvix_build.Violation, ...]) == ()
    assert assert_type(report.violation_count, int) == 0
    assert assert_type(report.digest, bytes | None) == assert_type(tvix_build.digest(data), bytes)
    assert assert_type(tvix_build.canonicalize(data), bytes) == data
    tvix_build.validate(data, kind="build-request")


def test_messages_and_kinds() -> None:
    messages = {
        tvix_build.Kind.BUILD_REQUEST: request(),
        tvix_build.Kind.BUILD: build_pb2.Build(),
        tvix_build.Kind.DIRECTORY: castore_pb2.Directory(),
    }
    for kind, message in messages.items():
        assert assert_type(kind.full_name, str) == message.DESCRIPTOR.full_name
        assert tvix_build.check(message, kind=kind) == tvix_build.check(message, kind=kind.value)


def test_misspelt_literals_are_errors_of_types() -> None:
    with pytest.raises(ValueError, match=r"'directory'.*; found 'directroy'"):
        tvix_build.check(b"", kind="directroy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'snix\.build\.v1'; found 'snix\.v1'"):
        tvix_build.check_batch([], schema="snix.v1")  # type: ignore[arg-type]


def test_later_schemas() -> None:
    later = snix_build_pb2.BuildRequest(command_args=["a"])
    response = snix_build_pb2.BuildResponse()
    directory = snix_castore_pb2.Directory()
    snix = tvix_build.Schema.SNIX_BUILD_V1
    assert assert_type(tvix_build.check(later), tvix_build.Report).canonical
    assert tvix_build.check(response, kind="build", schema=snix, request=later).valid
    assert tvix_build.check(bytearray(), kind="build", schema="snix.build.v1", request=b"").valid
    tvix_build.validate(response, request=later.SerializeToString())
    data = assert_type(tvix_build.canonicalize(later, schema="snix.build.v1"), bytes)
    digest = assert_type(tvix_build.digest(data, schema="tvix.build.v1@2024"), bytes)
    assert digest == tvix_build.digest(later, kind="build-request")
    assert tvix_build.check_batch([later, data], schema=snix).valid_count == 2
    assert list(tvix_build.canonicalize_batch(iter([directory]))) == [b""]


def test_violations() -> None:
    with pytest.raises(tvix_build.ValidationError) as caught:
        tvix_build.validate(b"", kind=tvix_build.Kind.BUILD)
    error = caught.value
    assert isinstance(error, tvix_build.Error)
    assert isinstance(error, ValueError)
    assert assert_type(error.index, int | None) is None
    assert assert_type(error.violation_count, int) == 1
    (violation,) = assert_type(error.violations, tuple[tvix_build.Violation, ...])
    code = assert_type(violation.code, tvix_build.ViolationCode)
    assert code == tvix_build.ViolationCode.REQUIRED
    assert assert_type(violation.path, str) == "build_request"
    assert assert_type(violation.message, str)


def test_translation() -> None:
    made = request()
    with pytest.raises(tvix_build.NotRepresentableError) as caught:
        tvix_build.convert(made, to="snix.build.v1")
    error = caught.value
    assert isinstance(error, tvix_build.Error)
    assert isinstance(error, ValueError)
    reasons = assert_type(error.reasons, tuple[tvix_build.Reason, ...])
    assert assert_type(reasons[0].path, str) == "outputs[0]"
    assert assert_type(reasons[0].message, str)
    del made.outputs[:], made.inputs[:]
    snix = tvix_build.Schema.SNIX_BUILD_V1
    later = tvix_build.convert(made, to=tvix_build.Schema.SNIX_BUILD_V1, network_access=True)
    assert_type(later, snix_build_pb2.BuildRequest)
    assert_type(tvix_build.convert(later, to="snix.build.v1"), snix_build_pb2.BuildRequest)
    first = tvix_build.convert(later, to="tvix.build.v1", schema=snix, network_access=True)
    assert assert_type(first, build_pb2.BuildRequest) == made
    data = made.SerializeToString()
    later_data = tvix_build.convert(data, to="tvix.build.v1@2024", network_access=True)
    assert assert_type(later_data, bytes) == later.SerializeToString()
    back = tvix_build.convert(later_data, to="tvix.build.v1", schema=snix, network_access=True)
    assert assert_type(back, bytes) == data


def test_a_batch() -> None:
    reports = tvix_build.check_batch([request(), b""], threads=1)
    assert_type(reports, tvix_build.BatchReport)
    assert assert_type(len(reports), int) == 2
    assert assert_type(reports[0], tvix_build.Report).valid
    assert assert_type(reports[:1], list[tvix_build.Report]) == [reports[0]]
    assert assert_type(next(iter(reports)), tvix_build.Report) == reports[0]
    assert assert_type(reports.valid, "memoryview[bool]").tolist() == [True, False]
    assert assert_type(reports.canonical, "memoryview[bool]").tolist() == [True, False]
    assert assert_type(reports.digests, tvix_build.Digests)[0] == reports[0].digest
    assert list(assert_type(reports.invalid, Sequence[int])) == [1]
    assert assert_type(reports.valid_count, int) == 1
    assert assert_type(reports.canonical_count, int) == 1


def test_one_buffer() -> None:
    data = request().SerializeToString()
    batch = tvix_build.canonicalize_batch(data, offsets=[0, len(data)])
    assert assert_type(batch, tvix_build.CanonicalBatch)[0] == data
    assert assert_type(batch[0], bytes) == data
    assert assert_type(batch[:1], list[bytes]) == [data]
    assert assert_type(batch.data, "memoryview[int]") == data
    assert list(assert_type(batch.offsets, "array[int]")) == [0, len(data)]
    ranges = array("Q", [0]), array("Q", [len(data)])
    assert list(tvix_build.canonicalize_batch(data, offsets=ranges)) == [data]
    assert list(tvix_build.check_batch(data, kind="build-request", offsets=ranges)) == [
        tvix_build.check(data)
    ]


def test_hashing() -> None:
    digests = assert_type(tvix_build.blake3_many([b"", bytearray()]), tvix_build.Digests)
    assert digests == tvix_build.blake3_many(b"", offsets=[0, 0, 0], threads=2)
    assert assert_type(digests[0], bytes) == digests.tobytes()[32:]
    assert assert_type(digests[:1], list[bytes]) == [assert_type(next(iter(digests)), bytes)]
    assert assert_type(len(digests), int) == 2
    assert memoryview(digests).shape == (2, 32)
    assert tvix_build.Digests(digests) == digests


def test_a_store(tmp_path: Path) -> None:
    with RequestStore(tmp_path / "store", create=True) as requests:
        assert_type(requests, RequestStore)
        digest = assert_type(requests.put(request()), bytes)
        assert assert_type(requests.put_many([request()]), list[bytes]) == [digest]
        encoding = assert_type(requests.get(digest.hex()[:3]), bytes)
        assert assert_type(requests.has(digest), bool)
        assert digest in requests
        assert assert_type(next(iter(requests)), tuple[bytes, bytes]) == (digest, encoding)
        assert assert_type(len(requests), int) == 1
        assert assert_type(requests.verify(), list[Damage]) == []
        with pytest.raises(UnknownDigestError) as caught:
            requests.get(DIGEST)
        assert isinstance(caught.value, KeyError)
        for error in (AmbiguousDigestError, StoreError, UnknownDigestError):
            assert issubclass(error, tvix_build.Error)
        found = requests.get_build(DIGEST, schema="snix.build.v1")
        assert assert_type(found, builders.BuildResult[bytes] | None) is None
        build = assert_type(
            next(requests.builds(), None),
            tuple[tvix_build.Schema, builders.BuildResult[bytes]] | None,
        )
        assert build is None
    damage = Damage(digest=None, message="")
    assert assert_type(damage.digest, bytes | None) is None
    assert assert_type(damage.message, str) == ""


def count_bytes(done: list[tuple[int, int | None]], read: int, total: int | None) -> None:
    """Called with the bytes read so far, and with all."""
    done.append((read, total))


def test_files_of_records(tmp_path: Path) -> None:
    path = tmp_path / "x.binpbs"
    done: list[tuple[int, int | None]] = []
    with records.open_writer(path, kind="build-request", schema="tvix.build.v1") as writer:
        assert_type(writer, records.Writer).write([request().SerializeToString()])
    with records.open_results(str(tmp_path / "x.ndjson")) as results:
        count = partial(count_bytes, done)
        for batch, report in records.check(path, threads=1, progress=count):
            assert_type(results, records.ResultWriter).write(batch, report)
            assert assert_type(report, tvix_build.BatchReport).valid_count == 1
    assert done == [(path.stat().st_size, path.stat().st_size)]
    with path.open("rb") as file:
        for batch in records.read(file, format="binpbs", column=None):
            assert_type(batch, records.Batch)
            assert assert_type(batch.kind, tvix_build.Kind) is tvix_build.Kind.BUILD_REQUEST
            assert assert_type(batch.schema, tvix_build.Schema).value == "tvix.build.v1"
            assert assert_type(batch.name(0), str) == f"{path}[0]"
            assert assert_type(batch.place(0), str) == f"{path}[0] at byte 0"
            assert assert_type(batch.offset(0), int | None) == 0
            assert [assert_type(message, bytes) for message in batch] == list(
                assert_type(batch.canonicalize(), tvix_build.CanonicalBatch)
            )
            assert assert_type(batch.check(threads=1), tvix_build.BatchReport)[0].valid
    path.write_bytes(b"\x05")
    with pytest.raises(records.InputError) as caught:
        list(records.read(path))
    found = caught.value.path, caught.value.index, caught.value.offset
    assert assert_type(found, tuple[str | None, int | None, int | None]) == (str(path), 0, 0)
    with pytest.raises(records.FormatError):
        records.open_writer(tmp_path / "x.unknown")
    with pytest.raises(records.OutputError), records.open_writer(tmp_path / "no" / "x.binpb"):
        pass
    assert issubclass(records.MissingPackageError, (ImportError, tvix_build.Error))


def test_a_database() -> None:
    with duckdb.connect() as connection:
        assert_type(register(connection), None)
        assert_type(register(connection, kind=tvix_build.Kind.DIRECTORY, prefix="directory_"), None)
        register(connection, kind="build", prefix="build_", schema="snix.build.v1")
        register(connection, prefix="later_", schema=tvix_build.Schema.TVIX_BUILD_V1_2024)
        found = connection.execute("SELECT build_valid(''::BLOB), directory_valid(''::BLOB)")
        assert found.fetchall() == [(True, True)]


def test_expressions() -> None:
    frame = polars.DataFrame({"request": [b""]})
    namespace = TvixNamespace(polars.col("request"))
    assert_type(namespace.valid(kind="directory"), polars.Expr)
    assert_type(namespace.canonical(schema="tvix.build.v1@2024"), polars.Expr)
    assert_type(namespace.digest(kind="directory"), polars.Expr)
    assert_type(
        namespace.violations(kind="build", schema=tvix_build.Schema.SNIX_BUILD_V1), polars.Expr
    )
    assert_type(namespace.canonicalize(), polars.Expr)
    found = assert_type(namespace.check(kind=tvix_build.Kind.DIRECTORY), polars.Expr)
    assert frame.select(found).unnest("request")["valid"].to_list() == [True]


def test_files(tmp_path: Path) -> None:
    def on_directory(digest: bytes, encoding: bytes) -> None:
        assert tvix_build.digest(encoding, kind="directory") == digest

    def on_file(digest: bytes, path: bytes, size: int) -> None:
        assert tvix_build.blake3_many([Path(path.decode()).read_bytes()]).tobytes() == digest
        assert size == 5

    for path in (tmp_path, str(tmp_path), bytes(tmp_path)):
        assert_type(castore.node_from_path(path, name="a", threads=1), castore_pb2.Node)
    (tmp_path / "file").write_bytes(b"words")
    castore.node_from_path(tmp_path, name=b"a", on_directory=on_directory, on_file=on_file)
    assert assert_type(castore.directory_size(castore_pb2.Directory()), int) == 0
    with pytest.raises(castore.IngestError) as caught:
        castore.node_from_path("/dev/null")
    error = caught.value
    assert isinstance(error, tvix_build.Error)
    assert not isinstance(error, castore.ChangedError)
    assert assert_type(error.path, bytes) == b"/dev/null"
    assert assert_type(error.reason, str)


def test_castore_store(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with castore.CastoreStore(tmp_path / "store", create=True) as store:
        digest = assert_type(store.add_blob(b"words"), bytes)
        assert assert_type(store.has_blob(digest), bool)
        with assert_type(store.open_blob(digest), BinaryIO) as file:
            assert assert_type(store.add_blob(file, digest=digest), bytes) == digest
        with pytest.raises(castore.DigestMismatchError):
            store.add_blob(b"others", digest=digest)
        assert assert_type(store.blob_size(digest), int) == 5
        empty = assert_type(store.add_directory(b"", check_children=True), bytes)
        assert assert_type(store.has_directory(empty), bool)
        assert assert_type(store.add_directories([b"", castore_pb2.Directory()]), bytes) == empty
        with pytest.raises(castore.TreeError):
            store.add_directories([])
        assert_type(store.directory(empty), castore_pb2.Directory)
        with pytest.raises(castore.MissingError) as caught:
            store.directory(DIGEST)
        assert assert_type(caught.value.digest, bytes) == DIGEST
        node = assert_type(store.ingest(tmp_path / "in", name="a", threads=1), castore_pb2.Node)
        for name, method in (("a", "copy"), ("b", castore.LinkMethod.COPY)):
            store.materialize(node, tmp_path / name, method=method)
        closure = assert_type(store.closure(node), castore.Closure)
        assert_type(closure.blobs, dict[bytes, int])
        assert_type(closure.directories, dict[bytes, int])
        damages = assert_type(store.verify(), Iterator[castore.Damage])
        assert [(damage.path, damage.digest, damage.message) for damage in damages] == []
        garbage = assert_type(store.collect_garbage([node], grace_seconds=1.0), castore.Garbage)
        assert garbage.blobs + garbage.directories + garbage.size == 0 < garbage.kept
        store.close()
    with pytest.raises(castore.CastoreError):
        castore.CastoreStore(tmp_path, create=False)
    assert not issubclass(castore.SizeMismatchError, castore.CastoreError)


def test_castore_clients(tmp_path: Path) -> None:
    limit = 1.0
    credentials = grpc.ssl_channel_credentials()

    def call(store: castore.CastoreStore, node: castore_pb2.Node) -> None:
        with CastoreClient(
            "grpc+https://localhost:1",
            schema="snix.build.v1",
            credentials=credentials,
            timeout=limit,
        ) as client:
            assert_type(client.has_blob(DIGEST), bool)
            assert_type(client.put_blob(b"a"), bytes)
            assert_type(client.get_blob(DIGEST), bytes)
            assert_type(client.read_blob(DIGEST), Iterator[bytes])
            assert_type(client.put_directories([b"", castore_pb2.Directory()]), bytes)
            found = client.get_directories(DIGEST, recursive=True)
            assert_type(found, dict[bytes, castore_pb2.Directory])
            client.upload(store, node)
            client.download(snix_castore_pb2.Entry(), store)
            client.download_blob(DIGEST, store)
            client.download_directories(DIGEST, store)
            with BackedStore(tmp_path, client, create=True) as backed:
                assert_type(backed.ingest("a"), castore_pb2.Node)
            client.close()

    async def call_async(store: castore.CastoreStore, node: castore_pb2.Node) -> None:
        async with AsyncCastoreClient(
            "grpc+https://localhost:1",
            schema="snix.build.v1",
            credentials=credentials,
            timeout=limit,
        ) as client:
            assert_type(await client.has_blob(DIGEST), bool)
            assert_type(await client.put_blob(b"a"), bytes)
            assert_type(await client.get_blob(DIGEST), bytes)
            assert_type(client.read_blob(DIGEST), AsyncGenerator[bytes, None])
            assert_type(await client.put_directories([b"", castore_pb2.Directory()]), bytes)
            found = await client.get_directories(DIGEST, recursive=True)
            assert_type(found, dict[bytes, castore_pb2.Directory])
            await client.upload(store, node)
            await client.download(snix_castore_pb2.Entry(), store)
            await client.download_blob(DIGEST, store)
            await client.download_directories(DIGEST, store)
            await client.close()

    node = castore_pb2.Node(file=castore_pb2.FileNode(digest=DIGEST))
    with castore.CastoreStore(tmp_path / "store") as store:
        with pytest.raises(grpc.RpcError):
            call(store, node)
        with pytest.raises(grpc.RpcError):
            asyncio.run(call_async(store, node))
    assert not issubclass(UnexpectedContentError, castore.CastoreError)


def test_builders(tmp_path: Path) -> None:
    limits = builders.Limits(seconds=1.5, memory=1, disk=1, processes=1, output_size=1, log_size=1)
    assert assert_type(limits.memory_bytes, int) == 1
    now = datetime.now(timezone.utc)
    record = builders.BuildRecord(
        builder="sandbox:",
        request_digest=DIGEST,
        started=now,
        finished=now,
        exit_status=0,
        cpu_seconds=0.5,
        peak_memory=1,
        log_digest=DIGEST,
        log_size=0,
        failure=None,
    )
    assert record.to_json()["cpu_seconds"] == 0.5
    assert builders.BuildRecord.from_json(record.to_json()) == record
    result = builders.BuildResult(b"", {"out": castore_pb2.Node()}, record)
    with RequestStore(tmp_path / "builds") as stored, pytest.raises(tvix_build.ValidationError):
        stored.put_build(result, schema="tvix.build.v1")
    assert_type(result.response, bytes)
    assert_type(result.outputs, Mapping[str, castore_pb2.Node])
    error = builders.BuildFailedError("exit status 1", record, kept=None, missing_output=None)
    assert assert_type(error.reason, str) == str(error)
    assert_type(error.record, builders.BuildRecord)
    assert assert_type(error.kept, Path | None) is None
    assert assert_type(error.missing_output, str | None) is None
    assert issubclass(builders.MissingInputsError, builders.RefusedError)
    with castore.CastoreStore(tmp_path / "store") as store:
        try:
            sandbox = builders.SandboxBuilder(
                store, directory=tmp_path / "builds", limits=limits, keep_failed=True
            )
        except builders.UnavailableError as missing:
            pytest.skip(str(missing))
        builder: builders.Builder = sandbox
        with pytest.raises(builders.RefusedError) as caught:
            builder.build(request(), schema="tvix.build.v1", on_log=print)
        assert assert_type(caught.value.reasons, tuple[str, ...])
        with pytest.raises(builders.BuilderError):
            assert_type(sandbox.build(request()), builders.BuildResult[build_pb2.Build])
        with pytest.raises(builders.BuilderError):
            assert_type(sandbox.build(request().SerializeToString()), builders.BuildResult[bytes])
        with pytest.raises(builders.BuilderError):
            asyncio.run(sandbox.build_async(request()))


def test_reused_builds(tmp_path: Path) -> None:
    with (
        castore.CastoreStore(tmp_path / "castore") as store,
        RequestStore(tmp_path / "s") as stored,
    ):
        node = castore_pb2.Node(symlink=castore_pb2.SymlinkNode(target=b"x"))
        assert assert_type(caching.has_outputs(store, [node]), bool)
        found = assert_type(
            castore.compare_nodes(store, node, castore_pb2.Node()), Iterator[castore.Difference]
        )
        difference = next(found)
        assert_type(difference.path, bytes)
        assert_type(difference.message, str)
        error = caching.NotReproducibleError([("out", difference)])
        assert_type(error.differences, tuple[tuple[str, castore.Difference], ...])
        assert isinstance(error, builders.BuilderError)
        try:
            sandbox: builders.Builder = builders.SandboxBuilder(store)
        except builders.UnavailableError as missing:
            pytest.skip(str(missing))
        builder: builders.Builder = caching.CachingBuilder(
            sandbox, store=stored, castore=store, rebuild=False
        )
        checking: builders.Builder = caching.CheckingBuilder(builder, again=sandbox, castore=store)
        with pytest.raises(builders.RefusedError):
            checking.build(request())


def one_step() -> bytes:
    """Return a plan of one step."""
    data = request().SerializeToString()
    step = plan_pb2.Step(request=tvix_build.canonicalize(data), schema="tvix.build.v1")
    root = tvix_build.digest(step.SerializeToString(), kind="step")
    return plan_pb2.Plan(steps=[step], roots=[root]).SerializeToString()


class RefusingBuilder:
    """A builder without builds."""

    def build(
        self,
        request: Any,
        *,
        schema: Any = None,
        on_log: Any = None,
    ) -> builders.BuildResult[Any]:
        raise builders.RefusedError(["nothing is built"])

    async def build_async(
        self,
        request: Any,
        *,
        schema: Any = None,
        on_log: Any = None,
    ) -> builders.BuildResult[Any]:
        raise builders.RefusedError(["nothing is built"])


def test_plans(tmp_path: Path) -> None:
    events: list[plan.Event] = []
    with (
        castore.CastoreStore(tmp_path / "c") as store,
        RequestStore(tmp_path / "builds") as stored,
        PlanState(tmp_path / "state", builds=stored) as state,
    ):
        assert assert_type(state.builds, RequestStore) is stored
        digest = assert_type(state.put_plan(one_step()), bytes)
        result = assert_type(
            plan.run(
                digest,
                [RefusingBuilder()],
                state,
                castore=store,
                weights=None,
                max_builds=1,
                timeout=None,
                retries=1,
                backoff=float,
                fail_fast=True,
                on_event=events.append,
            ),
            plan.PlanResult,
        )
        assert_type(result.run, Run)
        assert_type(result.counts, Mapping[Status, int])
        assert not assert_type(result.succeeded, bool)
        assert len(assert_type(state.roots(digest), list[bytes])) == 1
        assert assert_type(state.runs(), list[Run]) == [result.run]
        assert assert_type(state.results(result.run), Iterator[StepResult])
        with state.lock(digest), pytest.raises(plan.PlanRunningError):
            plan.run(digest, [RefusingBuilder()], state, castore=store)
        with pytest.raises(UnknownPlanError):
            asyncio.run(plan.run_async(DIGEST, [RefusingBuilder()], state, castore=store))
    assert_type(result.run.number, int)
    assert assert_type(result.run.plan, bytes) == digest
    assert_type(result.run.started, datetime)
    assert_type(result.run.finished, datetime | None)
    found = StepResult(DIGEST, Status.SKIPPED, cause=DIGEST)
    assert_type(found.request, bytes | None)
    assert_type(found.builder, str | None)
    assert_type(found.started, datetime | None)
    assert_type(found.reason, str | None)
    assert assert_type(found.cause, bytes | None) == DIGEST
    assert not assert_type(found.succeeded, bool)
    wanted: plan.OnEvent = events.append
    wanted(plan.Queued(DIGEST, DIGEST))
    wanted(plan.Started(DIGEST, 0))
    wanted(plan.Logged(DIGEST, b""))
    wanted(plan.Finished(found))
    event = events[0]
    if isinstance(event, plan.Queued):
        assert_type(event.request, bytes)
    elif isinstance(event, plan.Started):
        assert_type(event.builder, int)
    elif isinstance(event, plan.Logged):
        assert_type(event.data, bytes)
    else:
        assert_type(event.result, StepResult)


def test_plan_client() -> None:
    def call() -> None:
        credentials = grpc.ssl_channel_credentials()
        with PlanClient("grpc+https://localhost:1", credentials=credentials) as client:
            found = assert_type(client.submit(b"", fail_fast=True, timeout=None), Submitted)
            assert_type(found.plan, bytes)
            assert_type(found.sent, int)
            client.watch(found.plan, first=1, kinds=[rpc_plan_pb2.Event.KIND_FINISHED])
            client.cancel(found.plan)
            client.plans()
            client.close()

    with pytest.raises(tvix_build.ValidationError):
        call()


def test_builds_of_derivations(tmp_path: Path) -> None:
    failing = tmp_path / "3sbbnza1j2wg8m6316gciz4azlafk2gk-failing.drv"
    failing.write_text(
        'Derive([("out","/nix/store/2jmxwzlcr9y4rqj1mzsk6mxpmq84yj2z-x","","")],[],[],'
        '"x86_64-linux","builtin:fetchurl",[],[])'
    )
    with castore.CastoreStore(tmp_path / "castore") as store:
        try:
            builder = builders.SandboxBuilder(store)
        except builders.UnavailableError as missing:
            pytest.skip(str(missing))
        with pytest.raises(builders.BuilderError) as caught:
            assert_type(
                derivations.build_derivation(
                    failing,
                    builder=builder,
                    castore=store,
                    store=tmp_path,
                    on_start=print,
                    on_log=print,
                ),
                derivations.DerivationResult,
            )
    error = caught.value
    assert isinstance(error, derivations.DerivationBuildError)
    assert assert_type(error.derivation, str) == f"/nix/store/{failing.name}"
    assert len(assert_type(error.reasons, tuple[str, ...])) == 1
    assert assert_type(error.needed_by, tuple[str, ...]) == ()
    result = derivations.DerivationResult(outputs={}, closure={}, references={}, results={})
    assert_type(result.outputs, Mapping[str, castore_pb2.Node])
    assert_type(result.closure, Mapping[str, castore_pb2.Node])
    assert_type(result.references, Mapping[str, Sequence[str]])
    assert_type(result.results, Mapping[str, builders.BuildResult[snix_build_pb2.BuildResponse]])


def test_remote_execution(tmp_path: Path) -> None:
    table = reapi.DigestTable(reapi.DigestFunction.SHA256, tmp_path / "table")
    assert assert_type(table.function, reapi.DigestFunction) is reapi.DigestFunction.SHA256
    limit = 1
    pool = reapi.Property("pool", "small", constraint=None)
    later = snix_build_pb2.BuildRequest(command_args=["a"], outputs=["a"])
    with castore.CastoreStore(tmp_path / "store") as store:
        lowered = reapi.lower(later, store, table, shell=None, properties=[pool], timeout=limit)
        assert assert_type(lowered, reapi.Lowered).action.timeout.seconds == 1
        assert lowered.digest.hash in lowered.messages
        assert len(lowered.directories) == len(lowered.nodes) + 1 == 1
        address = "reapi+grpc://127.0.0.1:1/main"
        with reapi.ReapiBuilder(
            address,
            store,
            credentials=None,
            properties=[pool],
            cache=True,
            timeout=limit,
            max_log_size=1,
            on_stage=print,
            delays=(),
        ) as builder:
            same: builders.Builder = builder
            with pytest.raises(builders.UnavailableError):
                same.build(later)
        local: builders.Builder = server.ServerBuilder(
            "grpc+http://127.0.0.1:1", store, credentials=None, timeout=limit, max_log_size=1
        )
        with pytest.raises(builders.UnavailableError) as caught:
            local.build(later)
        assert assert_type(caught.value.permanent, bool) is False
    assert issubclass(reapi.EngineError, builders.BuilderError)
    assert issubclass(reapi.ResultError, Exception)
    raised = reapi.Raised()
    assert assert_type(raised.missing, list[str]) == []
    assert assert_type(raised.nodes, list[castore_pb2.Node]) == []
    assert callable(reapi.raise_result)
    table.close()


def test_derivations(tmp_path: Path) -> None:
    store = f"/nix/store/{'0' * 32}-"
    text = (
        f'Derive([("out","{store}a","","")],[("{store}b.drv",["out"])],["{store}c"],'
        '"system","/bin/sh",["-c"],[("key","value")])'
    ).encode()
    (tmp_path / os.path.basename(f"{store}b.drv")).write_bytes(text)
    directory = DerivationDirectory(tmp_path)
    derivation = assert_type(directory[f"{store}b.drv"], Derivation)
    assert (
        assert_type(directory.read(tmp_path / os.path.basename(f"{store}b.drv")), Derivation)
        is derivation
    )
    assert assert_type(derivation.outputs, Mapping[str, Output])["out"] == Output(f"{store}a")
    output = Output(path="", hash_algorithm="r:sha256", hash="")
    assert [assert_type(one, str) for one in (output.path, output.hash_algorithm, output.hash)] == [
        "",
        "r:sha256",
        "",
    ]
    assert_type(derivation.input_derivations, Mapping[str, tuple[str, ...]])
    assert assert_type(derivation.input_sources, tuple[str, ...]) == (f"{store}c",)
    assert assert_type(derivation.system, str) == "system"
    assert assert_type(derivation.builder, str) == "/bin/sh"
    assert assert_type(derivation.arguments, tuple[str, ...]) == ("-c",)
    assert assert_type(derivation.environment, Mapping[str, bytes]) == {"key": b"value"}
    assert assert_type(derivation.path, str) == f"{store}b.drv" == derivation.name
    assert assert_type(nix.unparse(derivation), bytes) == text
    assert assert_type(nix.parse(text, path=f"{store}b.drv"), Derivation) == derivation

    nodes: Lookup[castore_pb2.Node] = {
        f"{store}a": tvix_build.symlink_node(os.path.basename(f"{store}a"), target="b"),
        f"{store}c": tvix_build.symlink_node(os.path.basename(f"{store}c"), target="b"),
    }
    other = dataclasses.replace(derivation, outputs={"out": Output(f"{store}d")})
    made = nix.to_build_request(
        other,
        nodes=nodes,
        derivations=directory.get,
        closure=False,
        cores=1,
        system="other",
        min_memory=1,
        available_ro_paths=["/dev/kvm"],
    )
    assert assert_type(made, build_pb2.BuildRequest).outputs == [os.path.basename(f"{store}d")]
    named = dataclasses.replace(
        derivation,
        outputs={"out": Output(f"/nix/store/{32 * '0'}-a")},
        input_derivations={},
        input_sources=(),
    )
    later = nix.to_build_request(named, nodes={}, schema=tvix_build.Schema.SNIX_BUILD_V1)
    assert assert_type(later, snix_build_pb2.BuildRequest).working_dir == "build"
    data = nix.to_build_request(named, nodes={}, schema="tvix.build.v1@2024")
    assert assert_type(data, bytes) == later.SerializeToString()
    with pytest.raises(DerivationError) as caught:
        nix.to_build_request(derivation, nodes=lambda path: None)
    assert issubclass(DerivationError, (tvix_build.Error, ValueError))
    assert assert_type(caught.value.derivation, str) == f"{store}b.drv"
    assert len(assert_type(caught.value.reasons, tuple[str, ...])) == 2


def test_clients() -> None:
    for address in ("grpc+http://a:1", "grpc+unix:/a", "grpc+unix:///a"):
        with BuildService(address, schema="tvix.build.v1", max_message_size=1) as client:
            assert_type(client, BuildService)
    credentials = grpc.ssl_channel_credentials()
    client = BuildService("grpc+https://[::1]:1", credentials=credentials)
    broken = build_pb2.BuildRequest()
    with pytest.raises(tvix_build.ValidationError):
        assert_type(client.do_build(broken, timeout=1.0, metadata=[("a", "b")]), build_pb2.Build)
    with pytest.raises(tvix_build.ValidationError):
        assert_type(client.do_build(b"", metadata=[("a-bin", b"b")]), bytes)
    client.close()
    broken_later = snix_build_pb2.BuildRequest()
    later = BuildService("grpc+unix:/a", schema=tvix_build.Schema.SNIX_BUILD_V1)
    with later, pytest.raises(tvix_build.ValidationError):
        assert_type(later.do_build(broken_later, timeout=1.0), snix_build_pb2.BuildResponse)

    async def scenario() -> None:
        async with AsyncBuildService("grpc+unix:/a") as client:
            with pytest.raises(tvix_build.ValidationError):
                assert_type(await client.do_build(broken), build_pb2.Build)
            with pytest.raises(tvix_build.ValidationError):
                assert_type(await client.do_build(b"", timeout=1), bytes)
        await client.close()
        async with AsyncBuildService("grpc+unix:/a", schema="snix.build.v1") as later:
            with pytest.raises(tvix_build.ValidationError):
                assert_type(await later.do_build(broken_later), snix_build_pb2.BuildResponse)

    asyncio.run(scenario())
    assert issubclass(InvalidResponseError, tvix_build.Error)
    error = InvalidResponseError("reason")
    assert assert_type(error.violations, tuple[tvix_build.Violation, ...]) == ()
    assert assert_type(error.violation_count, int) == 0


def in_grpc(error: tvix_build.ValidationError, failure: grpc.RpcError) -> None:
    """Needs grpcio-status, so it is checked only; test_serve.py calls the functions."""
    assert_type(error.to_bad_request(), BadRequest)
    assert_type(bad_request(failure), BadRequest)


def in_spark(df: DataFrame) -> None:
    """Needs Spark, so it is checked only; test_spark.py runs the functions."""
    kind, schema = tvix_build.Kind.DIRECTORY, tvix_build.Schema.SNIX_BUILD_V1
    assert_type(check(df, column="request", kind=kind, schema=schema), DataFrame)
    assert_type(check(df, kind="directory", schema="snix.build.v1"), DataFrame)
    assert_type(distinct(df, column="request", kind=kind, schema=schema), DataFrame)
    assert_type(distinct(df, kind="directory", schema="snix.build.v1"), DataFrame)


def test_every_public_name_is_in_this_file() -> None:
    assert assert_type(tvix_build.__version__, str)
    tree = ast.parse(Path(__file__).read_text())
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    names = {
        node.attr
        for node in attributes
        if isinstance(node.value, ast.Name) and node.value.id == "tvix_build"
    }
    assert names == {*tvix_build.__all__, "__all__"}
