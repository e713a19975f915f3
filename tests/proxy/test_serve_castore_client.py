# SPDX-License-Identifier: MIT
"""The clients of the castore services, with the proxy and with servers that lie."""

from __future__ import annotations

import asyncio
import inspect
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import grpc.aio
import pytest

from builders_support import needs_sandbox, request
from serving import open_proxy, socket_directory
from snix.castore.protos.castore_pb2 import Entry
from tvix.castore.protos import rpc_castore_pb2, rpc_castore_pb2_grpc
from tvix.castore.protos.castore_pb2 import Directory, Node
from tvix_build import Schema, digest
from tvix_build._core.blake3 import blake3_many
from tvix_build.builders import SandboxBuilder
from tvix_build.castore import CastoreStore, MissingError, SizeMismatchError, TreeError
from tvix_build.castore.client import AsyncCastoreClient, CastoreClient, UnexpectedContentError
from tvix_build.proxy.castore_builder import CastoreBuilder
from tvix_build.proxy.client import AsyncBuildService
from tvix_build.proxy.shared.addresses import parse
from tvix_build.proxy.shared.services import SERVICES
from waiting import LIMIT

SCHEMAS = (Schema.TVIX_BUILD_V1, Schema.SNIX_BUILD_V1)
SERVED = [SERVICES[schema] for schema in SCHEMAS]
LARGE = bytes(range(256)) * 4096 * 3 + b"end"
Call: TypeAlias = Callable[..., Awaitable[Any]]


def blake3(data: bytes) -> bytes:
    return blake3_many([data]).tobytes()


@asynccontextmanager
async def connected(kind: str, address: str, schema: Schema) -> AsyncIterator[Call]:
    """Yield a function that calls the method of that name of a client."""
    if kind == "async":
        async with AsyncCastoreClient(address, schema=schema) as client:

            async def call(name: str, *args: Any, **options: Any) -> Any:
                return await getattr(client, name)(*args, **options)

            yield call
        return
    with CastoreClient(address, schema=schema) as blocking:

        async def call_in_thread(name: str, *args: Any, **options: Any) -> Any:
            return await asyncio.to_thread(getattr(blocking, name), *args, **options)

        yield call_in_thread


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of the client."""
    return str(request.param)


@pytest.fixture(params=SCHEMAS)
def run(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> Any:
    """Runs a scenario with a client and the server's store."""

    def run_scenario(scenario: Callable[[Call, CastoreStore], Awaitable[None]]) -> None:
        async def main() -> None:
            with CastoreStore(tmp_path / "server") as store, socket_directory() as sockets:
                listen = [parse(f"grpc+unix:{sockets}/castore")]
                async with (
                    open_proxy(listen=listen, services=SERVED, castore=store) as proxy,
                    connected(kind, proxy.addresses[0], request.param) as call,
                ):
                    await scenario(call, store)

        asyncio.run(main())

    return run_scenario


def make_tree(path: Path) -> Path:
    """Make a directory with a large file, equal files and nested directories."""
    (path / "a" / "b" / "empty").mkdir(parents=True)
    (path / "a" / "large").write_bytes(LARGE)
    (path / "a" / "b" / "small").write_bytes(b"small")
    (path / "a" / "b" / "program").write_bytes(b"small")
    (path / "a" / "b" / "program").chmod(0o755)
    (path / "none").write_bytes(b"")
    (path / "link").symlink_to("a/large")
    (path / "c" / "empty").mkdir(parents=True)
    return path


def test_blobs(run: Any) -> None:
    async def scenario(call: Call, store: CastoreStore) -> None:
        for data in (b"", b"x", LARGE):
            assert not await call("has_blob", blake3(data))
            assert await call("put_blob", data) == blake3(data)
            assert await call("put_blob", io.BytesIO(data)) == blake3(data)
            assert await call("has_blob", blake3(data))
            assert await call("get_blob", blake3(data)) == data
            assert store.has_blob(blake3(data))
        with pytest.raises(MissingError) as caught:
            await call("get_blob", bytes(32))
        assert caught.value.digest == bytes(32)
        with pytest.raises(ValueError, match="expected a digest of 32 bytes, found 2"):
            await call("has_blob", b"ab")

    run(scenario)


def test_directories(run: Any) -> None:
    leaf, root = Directory(), Directory()
    root.directories.add(name=b"a", digest=digest(leaf), size=0)

    async def scenario(call: Call, _: CastoreStore) -> None:
        with pytest.raises(MissingError):
            await call("get_directories", digest(root))
        with pytest.raises(TreeError):
            await call("put_directories", [root, leaf])
        assert await call("put_directories", [leaf, root]) == digest(root)
        assert await call("get_directories", digest(root)) == {digest(root): root}
        found = await call("get_directories", digest(root), recursive=True)
        assert found == {digest(root): root, digest(leaf): leaf}

    run(scenario)


def test_a_tree_is_uploaded_and_downloaded(run: Any, tmp_path: Path) -> None:
    async def scenario(call: Call, server: CastoreStore) -> None:
        with CastoreStore(tmp_path / "from") as source, CastoreStore(tmp_path / "to") as target:
            node = source.ingest(make_tree(tmp_path / "tree"))
            await call("upload", source, node)
            assert server.closure(node) == source.closure(node)
            await call("upload", source, node)  # nothing is missing
            entry = Entry.FromString(node.SerializeToString())
            await call("download", entry, target)
            assert target.closure(node) == source.closure(node)
            assert list(target.verify()) == []
            # Also of files and symbolic links.
            for name in ("none", "link", "a/large"):
                one = source.ingest(tmp_path / "tree" / name)
                await call("upload", source, one)
                await call("download", one, target)

    run(scenario)


def test_parts_of_a_tree(run: Any, tmp_path: Path) -> None:
    async def scenario(call: Call, server: CastoreStore) -> None:
        with CastoreStore(tmp_path / "from") as source, CastoreStore(tmp_path / "to") as target:
            node = source.ingest(make_tree(tmp_path / "tree"))
            root = node.directory.digest
            for _ in range(2):
                await call("upload_directories", source, root)
            await call("upload", source, source.ingest(tmp_path / "tree" / "a" / "large"))
            for _ in range(2):
                await call("download_directories", root, target)
                await call("download_blob", blake3(LARGE), target)
            (inner,) = (one for one in target.directory(root).directories if one.name == b"a")
            assert target.directory(inner.digest) == source.directory(inner.digest)
            assert target.blob_size(blake3(LARGE)) == len(LARGE)
            for store in (server, target):
                assert not store.has_blob(blake3(b"small"))
            for missing in (
                call("upload_directories", source, bytes(32)),
                call("download_directories", bytes(32), target),
                call("download_blob", bytes(32), target),
            ):
                with pytest.raises(MissingError):
                    await missing

    run(scenario)


def test_only_what_is_missing_is_downloaded(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[bytes] = []
    open_blob = CastoreStore.open_blob

    def spy(store: CastoreStore, digest: bytes) -> Any:
        opened.append(digest)
        return open_blob(store, digest)

    async def scenario(call: Call, server: CastoreStore) -> None:
        tree = make_tree(tmp_path / "tree")
        node = server.ingest(tree)
        with CastoreStore(tmp_path / "to") as target:
            target.ingest(tree / "a" / "large")
            # A Directory whose blobs are missing.
            inner = server.ingest(tree / "a" / "b").directory.digest
            target.add_directories([Directory(), server.directory(inner)])
            with monkeypatch.context() as patch:
                patch.setattr(CastoreStore, "open_blob", spy)
                await call("download", node, target)
            assert sorted(opened) == sorted([blake3(b"small"), blake3(b"")])
            assert target.closure(node) == server.closure(node)

    run(scenario)


def test_a_wrong_size_in_a_node(run: Any, tmp_path: Path) -> None:
    async def scenario(call: Call, server: CastoreStore) -> None:
        node = server.ingest(make_tree(tmp_path / "tree"))
        node.directory.size += 1
        with CastoreStore(tmp_path / "to") as target, pytest.raises(SizeMismatchError):
            await call("download", node, target)
        file = Node()
        file.file.digest, file.file.size = server.add_blob(b"xyz"), 2
        with (
            CastoreStore(tmp_path / "other") as target,
            pytest.raises(UnexpectedContentError, match="expected 2 bytes, found more"),
        ):
            await call("download", file, target)

    run(scenario)


class Liar:
    """A server that returns the same wrong content in each call."""

    def Stat(self, _request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's
        context.abort(grpc.StatusCode.NOT_FOUND, "")

    def Read(self, _request: Any, _context: Any) -> Iterator[Any]:  # noqa: N802 - gRPC's
        yield rpc_castore_pb2.BlobChunk(data=b"lies")

    def Put(self, requests: Any, _context: Any) -> Any:  # noqa: N802 - gRPC's
        for _ in requests:
            pass
        return rpc_castore_pb2.PutBlobResponse(digest=bytes(32))


class DirectoryLiar:
    """As `Liar`, for Directories."""

    def __init__(self, directories: list[Directory]) -> None:
        self.directories = directories

    def Get(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802 - gRPC's
        if not request.recursive:
            context.abort(grpc.StatusCode.NOT_FOUND, "")
        yield from self.directories

    def Put(self, requests: Any, _context: Any) -> Any:  # noqa: N802 - gRPC's
        for _ in requests:
            pass
        return rpc_castore_pb2.PutDirectoryResponse(root_digest=b"")


LEAF, PARENT = Directory(), Directory()
PARENT.directories.add(name=b"leaf", digest=digest(LEAF), size=0)
OTHER = Directory()
OTHER.symlinks.add(name=b"a", target=b"b")


@pytest.mark.parametrize(
    ("directories", "message"),
    [
        ([], "expected also the Directory"),
        ([OTHER], "expected a Directory that was requested, found "),
        ([PARENT], f"expected also the Directory {digest(LEAF).hex()}, found none"),
        ([PARENT, LEAF, LEAF], "expected a Directory that was requested, found af1349b9"),
        ([PARENT, OTHER], "expected a Directory that was requested, found "),
    ],
)
def test_servers_that_lie(
    kind: str, tmp_path: Path, directories: list[Directory], message: str
) -> None:
    async def scenario(call: Call, store: CastoreStore) -> None:
        with pytest.raises(UnexpectedContentError, match="found 000000"):
            await call("put_blob", b"x")
        with pytest.raises(UnexpectedContentError, match="expected the blob 000000"):
            await call("get_blob", bytes(32))
        with pytest.raises(UnexpectedContentError, match="found no digest"):
            await call("put_directories", [LEAF])
        with pytest.raises(UnexpectedContentError, match=message):
            await call("get_directories", digest(PARENT), recursive=True)
        for node in (
            Node(file={"digest": bytes(32), "size": 4}),
            Node(file={"digest": bytes(32), "size": 3}),
            Node(file={"digest": bytes(32), "size": 5 << 20}),
            Node(directory={"digest": digest(PARENT), "size": 1}),
        ):
            with pytest.raises(UnexpectedContentError):
                await call("download", node, store)
        assert [store.find(first) for first in "0123456789abcdef"] == [[]] * 16
        with CastoreStore(tmp_path / "from") as source:
            (tmp_path / "file").write_bytes(b"x")
            (tmp_path / "directory").mkdir()
            for name in ("file", "directory"):
                with pytest.raises(UnexpectedContentError):
                    await call("upload", source, source.ingest(tmp_path / name))

    async def main() -> None:
        with socket_directory() as sockets, CastoreStore(tmp_path / "to") as store:
            pool = ThreadPoolExecutor(8)
            server = grpc.server(pool)
            add: Any = rpc_castore_pb2_grpc
            add.add_BlobServiceServicer_to_server(Liar(), server)
            add.add_DirectoryServiceServicer_to_server(DirectoryLiar(directories), server)
            server.add_insecure_port(f"unix:{sockets}/liar")
            server.start()
            try:
                address = f"grpc+unix:{sockets}/liar"
                async with connected(kind, address, Schema.TVIX_BUILD_V1) as call:
                    await scenario(call, store)
            finally:
                await asyncio.to_thread(server.stop(None).wait)
                pool.shutdown()

    asyncio.run(main())


def test_both_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(member).parameters)
            for name, member in vars(kind).items()
            if not name.startswith("_")
        }

    assert methods(CastoreClient) == methods(AsyncCastoreClient)


def test_unreachable_server(kind: str) -> None:
    async def main() -> None:
        with socket_directory() as sockets:
            address = f"grpc+unix:{sockets}/none"
            async with connected(kind, address, Schema.TVIX_BUILD_V1) as call:
                for name in ("has_blob", "get_blob", "get_directories"):
                    with pytest.raises(grpc.RpcError):
                        await call(name, bytes(32))

    asyncio.run(main())


def test_credentials_need_tls() -> None:
    credentials = grpc.ssl_channel_credentials()
    with pytest.raises(ValueError, match=r"expected a grpc\+https:// address"):
        CastoreClient("grpc+http://127.0.0.1:1", credentials=credentials)


@needs_sandbox
def test_inputs_are_uploaded_and_outputs_fetched_through_one_address(
    kind: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "name").write_text("castore\n")
    script = (
        'read name < /nix/store/source/name; mkdir /nix/store/out; echo "$name" > /nix/store/out/x'
    )

    async def main() -> None:
        with (
            CastoreStore(tmp_path / "server") as castore,
            CastoreStore(tmp_path / "client") as local,
        ):
            sandbox = CastoreBuilder(SandboxBuilder(castore))
            async with open_proxy(builder=sandbox, services=SERVED, castore=castore) as proxy:
                address = proxy.addresses[0]
                async with (
                    connected(kind, address, Schema.SNIX_BUILD_V1) as call,
                    AsyncBuildService(address, schema=Schema.SNIX_BUILD_V1) as builder,
                ):
                    node = local.ingest(source)
                    await call("upload", local, node)
                    response = await builder.do_build(request(script, inputs=[node]), timeout=LIMIT)
                    output = response.outputs[0].output
                    await call("download", output, local)
                    local.materialize(output, tmp_path / "result")

    asyncio.run(main())
    assert (tmp_path / "result" / "x").read_text() == "castore\n"
