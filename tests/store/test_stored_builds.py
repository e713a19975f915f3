# SPDX-License-Identifier: MIT
"""Builds in a store, CachingBuilder and CheckingBuilder, with a builder that runs no command."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tvix_build
from cli_support import run
from fake_builder import FakeBuilder
from snix.build.protos import build_pb2 as snix_build_pb2
from tvix.build.protos.build_pb2 import Build, BuildRequest
from tvix.castore.protos.castore_pb2 import Node
from tvix_build.builders import BuildFailedError, BuildResult
from tvix_build.builders.caching import CachingBuilder, CheckingBuilder, NotReproducibleError
from tvix_build.builders.messages import Request
from tvix_build.castore import CastoreStore
from tvix_build.store import RequestStore, StoreError

NAME = "5qx5i5v9z2y0bqhs4p0d6wcgqm2vz5zq-hello"
OUTPUT = f"nix/store/{NAME}"


def request(*arguments: str) -> BuildRequest:
    made = tvix_build.build_request(
        command_args=["/bin/sh", *arguments], outputs=[NAME], system="x86_64-linux"
    )
    assert isinstance(made, BuildRequest)
    return made


@pytest.fixture
def castore(tmp_path: Path) -> Iterator[CastoreStore]:
    with CastoreStore(tmp_path / "castore") as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RequestStore]:
    with RequestStore(tmp_path / "store") as opened:
        yield opened


def caching(castore: CastoreStore, store: RequestStore, **options: Any) -> CachingBuilder:
    return CachingBuilder(FakeBuilder(castore), store=store, castore=castore, **options)


def as_bytes(result: BuildResult[Any]) -> BuildResult[bytes]:
    return replace(result, response=result.response.SerializeToString())


def test_a_build_is_stored(castore: CastoreStore, store: RequestStore) -> None:
    result = FakeBuilder(castore).build(request())
    digest = tvix_build.digest(request())
    assert store.get_build(digest) is None
    store.put_build(result)
    assert store.get_build(digest) == as_bytes(result)
    assert store.get_build(digest, schema="snix.build.v1") is None
    assert list(store.builds()) == [(tvix_build.Schema.TVIX_BUILD_V1, as_bytes(result))]
    assert store.verify() == []
    assert len(store) == 0


def test_a_later_build_replaces_an_earlier_one(castore: CastoreStore, store: RequestStore) -> None:
    first, second = (FakeBuilder(castore).build(request()) for _ in range(2))
    store.put_build(first)
    store.put_build(second)
    assert list(store.builds()) == [(tvix_build.Schema.TVIX_BUILD_V1, as_bytes(second))]


def test_schemas_are_kept_apart(castore: CastoreStore, store: RequestStore) -> None:
    result = FakeBuilder(castore).build(request())
    digest = result.record.request_digest
    later = replace(result, response=snix_build_pb2.BuildResponse())
    store.put_build(later)
    assert store.get_build(digest) is None
    store.put_build(result)
    assert store.get_build(digest) == as_bytes(result)
    assert store.get_build(digest, schema="snix.build.v1") == as_bytes(later)
    assert [schema for schema, _ in store.builds()] == [
        tvix_build.Schema.SNIX_BUILD_V1,
        tvix_build.Schema.TVIX_BUILD_V1,
    ]


def test_a_build_of_snix(castore: CastoreStore, store: RequestStore) -> None:
    message = snix_build_pb2.BuildRequest.FromString(
        tvix_build.convert(request().SerializeToString(), to="snix.build.v1")
    )
    first = caching(castore, store).build(message)
    assert isinstance(first.response, snix_build_pb2.BuildResponse)
    assert caching(castore, store).build(message) == first
    data = message.SerializeToString()
    assert caching(castore, store).build(data, schema="snix.build.v1") == as_bytes(first)


def test_put_build_refuses_what_is_no_response(castore: CastoreStore, store: RequestStore) -> None:
    result = FakeBuilder(castore).build(request())
    with pytest.raises(tvix_build.ValidationError):
        store.put_build(replace(result, response=b"\xff"))
    with pytest.raises(TypeError):
        store.put_build(replace(result, response=request()))
    with pytest.raises(ValueError, match="expected a digest of 32 bytes"):
        store.get_build(b"short")
    assert list(store.builds()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("response = x'ff'", "expected a canonical response"),
        ("record = '{}'", "a damaged row"),
        ("record = 'x'", "a damaged row"),
        ('outputs = \'{"a": "ff"}\'', "a damaged row"),
        ("outputs = '[]'", "a damaged row"),
        ("schema = 'tvix.build.v0'", "a damaged row"),
        ("digest = zeroblob(32)", "expected a build of this request"),
    ],
)
def test_damage(
    castore: CastoreStore, store: RequestStore, tmp_path: Path, change: str, message: str
) -> None:
    store.put_build(FakeBuilder(castore).build(request()))
    with closing(sqlite3.connect(tmp_path / "store")) as connection, connection:
        connection.execute(f"UPDATE build SET {change}")
    with pytest.raises(StoreError, match=message):
        list(store.builds())
    (damage,) = store.verify()
    assert message in damage.message


@pytest.mark.parametrize("as_message", [True, False])
def test_a_stored_build_is_returned(
    castore: CastoreStore, store: RequestStore, as_message: bool
) -> None:
    wanted = request() if as_message else request().SerializeToString()
    inner = FakeBuilder(castore)
    builder = CachingBuilder(inner, store=store, castore=castore)
    first = builder.build(wanted)
    assert isinstance(first.response, Build if as_message else bytes)
    logs: list[bytes] = []
    assert builder.build(wanted, on_log=logs.append) == first
    assert asyncio.run(builder.build_async(wanted)) == first
    assert (len(inner.built), logs) == (1, [])
    builder.build(request("other"))
    assert len(inner.built) == 2


def test_an_asynchronous_build_is_stored(castore: CastoreStore, store: RequestStore) -> None:
    first = asyncio.run(caching(castore, store).build_async(request()))
    assert caching(castore, store).build(request()) == first


def test_invalid_requests_are_not_looked_up(castore: CastoreStore, store: RequestStore) -> None:
    wanted = request()
    wanted.outputs.append(f"{'0' * 32}-a")
    caching(castore, store).build(tvix_build.canonicalize(wanted))
    with pytest.raises(tvix_build.ValidationError):
        caching(castore, store).build(wanted)


def test_rebuild(castore: CastoreStore, store: RequestStore) -> None:
    first = caching(castore, store).build(request())
    second = caching(castore, store, rebuild=True).build(request())
    assert second.record != first.record
    assert caching(castore, store).build(request()) == second


def test_a_build_without_its_outputs_is_built_again(
    castore: CastoreStore, store: RequestStore
) -> None:
    builder = FakeBuilder(castore)
    caching_builder = CachingBuilder(builder, store=store, castore=castore)
    first = caching_builder.build(request())
    castore.collect_garbage([], grace_seconds=-1)
    assert caching_builder.build(request()).outputs == first.outputs
    assert len(builder.built) == 2
    castore.collect_garbage(first.outputs.values(), grace_seconds=-1)
    caching_builder.build(request())
    assert len(builder.built) == 2


def test_outputs_must_be_complete(
    castore: CastoreStore, store: RequestStore, tmp_path: Path
) -> None:
    (tmp_path / "tree/below").mkdir(parents=True)
    (tmp_path / "tree/below/file").write_bytes(b"contents")
    builder = FakeBuilder(castore)
    result = builder.build(request())
    node = castore.ingest(tmp_path / "tree")
    store.put_build(replace(result, outputs={OUTPUT: node}))
    caching_builder = CachingBuilder(builder, store=store, castore=castore)
    assert caching_builder.build(request()).outputs == {OUTPUT: node}
    # What a killed garbage collection may leave: the root, but not all below it.
    (blob,) = castore.closure(node).blobs
    kept = Node(directory=castore.directory(node.directory.digest).directories[0])
    castore.directory(kept.directory.digest)
    path = next((tmp_path / "castore").rglob(f"*{blob.hex()[4:]}*"))
    path.unlink()
    assert caching_builder.build(request()).outputs == result.outputs
    assert len(builder.built) == 2


def test_failures_are_not_stored(castore: CastoreStore, store: RequestStore) -> None:
    record = FakeBuilder(castore).build(request()).record

    def fail(_: Request) -> bytes:
        raise BuildFailedError("exit status 1", record)

    builder = CachingBuilder(FakeBuilder(castore, fail), store=store, castore=castore)
    with pytest.raises(BuildFailedError):
        builder.build(request())
    assert list(store.builds()) == []


def test_check(castore: CastoreStore, store: RequestStore) -> None:
    numbers = itertools.count()
    different = FakeBuilder(castore, lambda _: str(next(numbers)).encode())
    equal = FakeBuilder(castore)
    first = CheckingBuilder(equal, again=equal, castore=castore).build(request())
    assert first.outputs == equal.build(request()).outputs
    assert len(equal.built) == 3
    checking = CheckingBuilder(caching(castore, store), again=different, castore=castore)
    with pytest.raises(NotReproducibleError) as caught:
        checking.build(request())
    ((path, difference),) = caught.value.differences
    assert (path, difference.path) == (OUTPUT, b"")
    assert str(caught.value).startswith(
        f"a second build has other outputs: {OUTPUT}: contents differ: expected the blob "
    )
    with pytest.raises(NotReproducibleError):
        asyncio.run(checking.build_async(request()))


def test_commands(castore: CastoreStore, store: RequestStore, tmp_path: Path) -> None:
    result = caching(castore, store).build(request())
    found = run("store", "builds", "store", cwd=tmp_path)
    digest = tvix_build.digest(request()).hex()
    assert (found.status, found.stderr) == (0, "")
    assert found.stdout.decode().split()[:3] == [digest, "tvix.build.v1", "fake:"]
    found = run("store", "builds", "store", "--json", cwd=tmp_path)
    assert f'"digest": "{result.outputs[OUTPUT].file.digest.hex()}"' in found.stdout.decode()
    found = run("store", "verify", "store", cwd=tmp_path)
    assert found.stdout == b"0 requests, 1 builds, no damage\n"


def test_garbage_collection_keeps_the_outputs_of_builds(
    castore: CastoreStore, store: RequestStore, tmp_path: Path
) -> None:
    result = caching(castore, store).build(request())
    other = castore.add_blob(b"other")
    lost = FakeBuilder(castore).build(request("lost"))
    store.put_build(replace(lost, outputs={OUTPUT: Node(file={"digest": bytes(32)})}))
    collect = ("castore", "gc", "castore", "--grace", "0")
    found = run(*collect, "--builds", "store", cwd=tmp_path)
    assert (found.status, found.stderr) == (0, "")
    assert castore.has_blob(result.outputs[OUTPUT].file.digest)
    assert castore.has_blob(result.record.log_digest)
    assert not castore.has_blob(other)
    found = run(*collect, cwd=tmp_path)
    assert (found.status, "expected DIGEST or --builds" in found.stderr) == (2, True)
    assert run(*collect, "--builds", "none", cwd=tmp_path).status == 2
