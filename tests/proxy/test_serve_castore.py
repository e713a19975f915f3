# SPDX-License-Identifier: MIT
"""`serve --castore`: BlobService and DirectoryService, called with gRPC's generated code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import snix.castore.protos.castore_pb2
import snix.castore.protos.rpc_castore_pb2
import snix.castore.protos.rpc_castore_pb2_grpc
import tvix.castore.protos.castore_pb2
import tvix.castore.protos.rpc_castore_pb2
import tvix.castore.protos.rpc_castore_pb2_grpc
from serving import details_of, error_of, open_proxy
from tvix.castore.protos.castore_pb2 import Directory
from tvix_build import Schema, digest
from tvix_build._core.blake3 import blake3_many
from tvix_build.castore import CastoreStore
from tvix_build.proxy.castore import PIECE, _Methods
from tvix_build.proxy.shared.addresses import parse
from tvix_build.proxy.shared.services import SERVICES
from waiting import until

SERVED = [SERVICES[Schema.TVIX_BUILD_V1], SERVICES[Schema.SNIX_BUILD_V1]]
NAMES = [
    f"{family}.castore.v1.{service}"
    for family in ("tvix", "snix")
    for service in ("BlobService", "DirectoryService")
]
LARGE = bytes(range(256)) * 4096 * 5 + b"end"  # more than five pieces
INVALID = grpc.StatusCode.INVALID_ARGUMENT


class Client(NamedTuple):
    """The stubs and messages of one package, and the server's store."""

    blobs: Any
    directories: Any
    rpc: Any
    messages: Any
    store: CastoreStore
    channel: grpc.aio.Channel


FAMILIES: dict[str, tuple[Any, Any, Any]] = {
    "tvix": (
        tvix.castore.protos.rpc_castore_pb2_grpc,
        tvix.castore.protos.rpc_castore_pb2,
        tvix.castore.protos.castore_pb2,
    ),
    "snix": (
        snix.castore.protos.rpc_castore_pb2_grpc,
        snix.castore.protos.rpc_castore_pb2,
        snix.castore.protos.castore_pb2,
    ),
}
Scenario = Callable[[Client], Awaitable[None]]
Run = Callable[[Scenario], None]


@asynccontextmanager
async def served(path: Path, family: str) -> AsyncIterator[Client]:
    """Yield a client of a proxy with a store."""
    stubs, rpc, messages = FAMILIES[family]
    with CastoreStore(path) as store:
        async with (
            open_proxy(services=SERVED, castore=store) as proxy,
            grpc.aio.insecure_channel(parse(proxy.addresses[0]).target) as channel,
        ):
            blobs, directories = stubs.BlobServiceStub(channel), stubs.DirectoryServiceStub(channel)
            yield Client(blobs, directories, rpc, messages, store, channel)


@pytest.fixture(params=FAMILIES)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Runs a scenario with a client of each package."""

    def run_scenario(scenario: Scenario) -> None:
        async def main() -> None:
            async with served(tmp_path / "store", request.param) as client:
                await scenario(client)

        asyncio.run(main())

    return run_scenario


def chunks(client: Client, data: bytes, size: int) -> Iterable[Any]:
    """Cut data into messages."""
    pieces = (data[i : i + size] for i in range(0, len(data), size))
    return [client.rpc.BlobChunk(data=piece) for piece in pieces]


def blake3(data: bytes) -> bytes:
    return blake3_many([data]).tobytes()


def with_children(*children: Directory, size: int | None = None) -> Directory:
    """Return a Directory with the given ones and a file below it."""
    made = Directory()
    made.files.add(name=b"file", digest=bytes(32), size=1)
    for i, child in enumerate(children):
        found = len(child.files) + sum(1 + node.size for node in child.directories)
        made.directories.add(
            name=b"%d" % i, digest=digest(child), size=found if size is None else size
        )
    return made


LEAF = Directory()
MIDDLE = with_children(LEAF)
# LEAF is in it and in MIDDLE.
ROOT = with_children(LEAF, MIDDLE)


@pytest.mark.parametrize("data", [b"", b"x", LARGE], ids=["empty", "small", "large"])
def test_a_blob_is_stored_and_read(run: Run, data: bytes) -> None:
    async def scenario(client: Client) -> None:
        sent = chunks(client, data, 300_000)
        assert (await client.blobs.Put(iter(sent))).digest == blake3(data)
        with client.store.open_blob(blake3(data)) as file:
            assert file.read() == data
        await client.blobs.Stat(client.rpc.StatBlobRequest(digest=blake3(data)))
        request = client.rpc.ReadBlobRequest(digest=blake3(data))
        pieces = [chunk.data async for chunk in client.blobs.Read(request)]
        assert b"".join(pieces) == data
        assert all(0 < len(piece) <= PIECE for piece in pieces)

    run(scenario)


def test_many_blobs_at_once(run: Run) -> None:
    async def scenario(client: Client) -> None:
        contents = [b"%d" % i * 50_000 for i in range(40)]
        calls = [client.blobs.Put(iter(chunks(client, data, 4096))) for data in contents]
        responses = await asyncio.gather(*calls)
        assert [one.digest for one in responses] == [blake3(data) for data in contents]

    run(scenario)


def test_missing_objects(run: Run) -> None:
    async def scenario(client: Client) -> None:
        rpc, name = client.rpc, bytes(32)
        for call, reason in (
            (client.blobs.Stat(rpc.StatBlobRequest(digest=name)), "MISSING_BLOB"),
            (client.blobs.Read(rpc.ReadBlobRequest(digest=name)).read(), "MISSING_BLOB"),
            (
                client.directories.Get(rpc.GetDirectoryRequest(digest=name)).read(),
                "MISSING_DIRECTORY",
            ),
        ):
            error = await error_of(call)
            assert error.code() is grpc.StatusCode.NOT_FOUND
            assert details_of(error)[0] == reason
            assert (error.details() or "").endswith(f"with the digest {name.hex()}")

    run(scenario)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_digests_of_another_length(run: Run, length: int) -> None:
    async def scenario(client: Client) -> None:
        rpc, name = client.rpc, bytes(length)
        for call in (
            client.blobs.Stat(rpc.StatBlobRequest(digest=name)),
            client.blobs.Read(rpc.ReadBlobRequest(digest=name)).read(),
            client.directories.Get(rpc.GetDirectoryRequest(digest=name)).read(),
            client.directories.Get(rpc.GetDirectoryRequest()).read(),
        ):
            error = await error_of(call)
            assert error.code() is INVALID
            assert (error.details() or "").startswith("expected a digest of 32 bytes, found ")

    run(scenario)


def test_messages_that_do_not_decode(run: Run) -> None:
    async def scenario(client: Client) -> None:
        package = client.rpc.DESCRIPTOR.package
        stat: Any = client.channel.unary_unary(f"/{package}.BlobService/Stat")
        error = await error_of(stat(b"\xff"))
        assert error.code() is INVALID
        message = "expected a serialized StatBlobRequest, found bytes that do not decode"
        assert error.details() == message
        put: Any = client.channel.stream_unary(f"/{package}.DirectoryService/Put")
        error = await error_of(put(iter([b"\xff"])))
        assert error.code() is INVALID
        assert (error.details() or "").startswith("Directory 0: expected a valid Directory, found ")

    run(scenario)


def convert(client: Client, directories: Iterable[Directory]) -> Any:
    return iter(
        client.messages.Directory.FromString(one.SerializeToString()) for one in directories
    )


def test_directories_are_stored_and_returned(run: Run) -> None:
    async def get(client: Client, **fields: Any) -> list[bytes]:
        request = client.rpc.GetDirectoryRequest(**fields)
        return [one.SerializeToString() async for one in client.directories.Get(request)]

    async def scenario(client: Client) -> None:
        sent = convert(client, [LEAF, LEAF, MIDDLE, ROOT])
        root = (await client.directories.Put(sent)).root_digest
        assert root == digest(ROOT)
        assert await get(client, digest=root) == [ROOT.SerializeToString()]
        found = await get(client, digest=root, recursive=True)
        # Each after one that refers to it, each once.
        assert found == [one.SerializeToString() for one in (ROOT, LEAF, MIDDLE)]
        assert await get(client, digest=digest(LEAF), recursive=True) == [b""]

    run(scenario)


UNSORTED = Directory()
for _name in (b"b", b"a"):
    UNSORTED.symlinks.add(name=_name, target=b"x")


@pytest.mark.parametrize(
    ("directories", "message"),
    [
        ([], "expected at least one Directory, found none"),
        ([MIDDLE], "Directory 0: 0: refers to af1349b9"),
        ([MIDDLE, LEAF], "Directory 0: 0: refers to af1349b9"),
        ([LEAF, with_children(LEAF, size=7)], "Directory 1: 0: expected size 0, as the Directory"),
        ([LEAF, with_children()], "Directory 0: expected a tree, found that the last Directory"),
        ([LEAF, MIDDLE, LEAF], "Directory 1: expected a tree, found that the last Directory"),
        ([UNSORTED], "Directory 0: expected a valid Directory, found symlinks[1]: not_sorted"),
    ],
)
def test_directories_that_are_no_tree(run: Run, directories: list[Directory], message: str) -> None:
    async def scenario(client: Client) -> None:
        error = await error_of(client.directories.Put(convert(client, directories)))
        assert error.code() is INVALID
        assert details_of(error)[0] == "INVALID_DIRECTORIES"
        assert (error.details() or "").startswith(message)
        for one in directories:
            assert one is UNSORTED or not client.store.has_directory(digest(one))

    run(scenario)


def test_trees_larger_than_memory_for_an_upload(run: Run) -> None:
    async def scenario(client: Client) -> None:
        leaves = []
        for i in range(300):
            leaf = Directory()
            leaf.symlinks.add(name=b"a", target=b"%d" % i + b"x" * 4000)
            leaves.append(leaf)
        root = Directory()
        for i, leaf in enumerate(leaves):
            root.directories.add(name=b"%03d" % i, digest=digest(leaf), size=1)
        found = await client.directories.Put(convert(client, [*leaves, root]))
        assert found.root_digest == digest(root)
        assert client.store.directory(digest(leaves[-1])) == leaves[-1]

    run(scenario)


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> list[IO[bytes]]:
    """The files of all uploads."""
    found: list[IO[bytes]] = []
    make = _Methods._upload

    def upload(methods: _Methods) -> IO[bytes]:
        found.append(make(methods))
        return found[-1]

    monkeypatch.setattr(_Methods, "_upload", upload)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cancelled_upload_leaves_nothing(
    tmp_path: Path, family: str, uploads: list[IO[bytes]]
) -> None:
    path = tmp_path / "store"

    def more_than(count: int) -> bool:
        return len(uploads) > count

    async def scenario() -> None:
        async with served(path, family) as client:
            for put, message in (
                (client.blobs.Put, client.rpc.BlobChunk(data=b"x" * PIECE)),
                (client.directories.Put, client.messages.Directory()),
            ):
                for count in [*range(6)] * 5:
                    before = len(uploads)
                    call = put()
                    for _ in range(count):
                        await call.write(message)
                    if count:
                        await until(partial(more_than, before))
                    call.cancel()
        await until(lambda: all(file.closed for file in uploads))

    asyncio.run(scenario())
    files = {one.name for one in path.rglob("*") if one.is_file()}
    assert files == {"castore.version", "lock"}


def test_damage_in_the_store(run: Run) -> None:
    async def scenario(client: Client) -> None:
        client.store.add_directory(b"")
        name = digest(LEAF).hex()
        file = Path(client.store.path, "directories", name[:2], name[2:])
        file.chmod(0o644)
        file.write_bytes(b"damage")
        request = client.rpc.GetDirectoryRequest(digest=digest(LEAF))
        error = await error_of(client.directories.Get(request).read())
        assert error.code() is grpc.StatusCode.DATA_LOSS
        assert client.store.path not in (error.details() or "")

    run(scenario)


def test_a_failure_of_the_store(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    async def scenario(client: Client) -> None:
        monkeypatch.setattr(CastoreStore, "add_blob", fail)
        error = await error_of(client.blobs.Put(iter(chunks(client, b"x", 1))))
        assert error.code() is grpc.StatusCode.INTERNAL
        assert details_of(error)[0] == "INTERNAL_ERROR"

    run(scenario)


def test_a_shutdown_waits_for_an_upload(tmp_path: Path, uploads: list[IO[bytes]]) -> None:
    stubs, rpc, _ = FAMILIES["tvix"]

    async def scenario() -> None:
        with CastoreStore(tmp_path / "store") as store:
            async with (
                open_proxy(services=SERVED, castore=store) as proxy,
                grpc.aio.insecure_channel(parse(proxy.addresses[0]).target) as channel,
            ):
                health: Any = health_pb2_grpc.HealthStub
                watch = health(channel).Watch(health_pb2.HealthCheckRequest(service=NAMES[0]))
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
                call = stubs.BlobServiceStub(channel).Put()
                await call.write(rpc.BlobChunk(data=b"x"))
                await until(lambda: bool(uploads))
                closing = asyncio.create_task(proxy.close(1000))
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
                await call.done_writing()
                assert (await call).digest == blake3(b"x")
                await closing

    asyncio.run(scenario())


def test_health_and_reflection(run: Run) -> None:
    async def scenario(client: Client) -> None:
        health: Any = health_pb2_grpc.HealthStub
        for name in NAMES:
            found = await health(client.channel).Check(health_pb2.HealthCheckRequest(service=name))
            assert found.status == health_pb2.HealthCheckResponse.SERVING
        stub: Any = reflection_pb2_grpc.ServerReflectionStub
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            *(reflection_pb2.ServerReflectionRequest(file_containing_symbol=one) for one in NAMES),
        ]
        call = stub(client.channel).ServerReflectionInfo(iter(requests))
        responses = [one async for one in call]
        names = {one.name for one in responses[0].list_services_response.service}
        assert set(NAMES) < names
        for response in responses[1:]:
            assert response.file_descriptor_response.file_descriptor_proto

    run(scenario)


def test_only_the_packages_of_the_schemas_are_served(tmp_path: Path) -> None:
    async def scenario() -> None:
        with CastoreStore(tmp_path / "store") as store:
            async with (
                open_proxy(castore=store) as proxy,
                grpc.aio.insecure_channel(parse(proxy.addresses[0]).target) as channel,
            ):
                stub = FAMILIES["snix"][0].BlobServiceStub(channel)
                error = await error_of(stub.Stat(FAMILIES["snix"][1].StatBlobRequest()))
                assert error.code() is grpc.StatusCode.UNIMPLEMENTED

    asyncio.run(scenario())
