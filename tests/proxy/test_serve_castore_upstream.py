# SPDX-License-Identifier: MIT
"""A castore store with a server behind it: in this process, and in `serve --castore-upstream`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from builders_support import needs_sandbox, request
from cli_support import run
from proxy_process import Proxy, running_proxy
from serving import FREE_PORT, details_of
from tvix.castore.protos import rpc_castore_pb2, rpc_castore_pb2_grpc
from tvix.castore.protos.castore_pb2 import Directory, Node
from tvix_build import Schema
from tvix_build._core.blake3 import blake3_many
from tvix_build.builders import SandboxBuilder
from tvix_build.castore import CastoreStore, MissingError
from tvix_build.castore.backed import BackedStore
from tvix_build.castore.client import CastoreClient, UnexpectedContentError
from tvix_build.proxy.client import BuildService
from waiting import LIMIT

SNIX = Schema.SNIX_BUILD_V1
LARGE = bytes(range(256)) * 4096 * 3 + b"end"

pytestmark = pytest.mark.slow


def blake3(data: bytes) -> bytes:
    return blake3_many([data]).tobytes()


def make_tree(path: Path) -> Path:
    (path / "a" / "b" / "empty").mkdir(parents=True)
    (path / "a" / "large").write_bytes(LARGE)
    (path / "a" / "b" / "small").write_bytes(b"small")
    (path / "again" / "empty").mkdir(parents=True)
    (path / "link").symlink_to("a/large")
    return path


def make_directory(**files: bytes) -> Directory:
    directory = Directory()
    for name, data in files.items():
        directory.files.add(name=name.encode(), digest=blake3(data), size=len(data))
    return directory


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Proxy]:
    """The server behind the store."""
    with running_proxy("--listen", FREE_PORT, "--check-only", "--castore", tmp_path / "server") as (
        proxy
    ):
        yield proxy


@pytest.fixture
def remote(server: Proxy, tmp_path: Path) -> Iterator[CastoreStore]:
    """The store of the server."""
    with CastoreStore(tmp_path / "server") as store:
        yield store


@pytest.fixture
def local(tmp_path: Path) -> Iterator[CastoreStore]:
    """The directory of the backed store, without the server."""
    with CastoreStore(tmp_path / "local") as store:
        yield store


@pytest.fixture
def backed(server: Proxy, local: CastoreStore) -> Iterator[CastoreStore]:
    with CastoreClient(server.address) as client, BackedStore(local.path, client) as store:
        yield store


def test_objects_are_read_through(
    backed: CastoreStore, local: CastoreStore, remote: CastoreStore, tmp_path: Path
) -> None:
    node = remote.ingest(make_tree(tmp_path / "tree"))
    root = node.directory.digest
    assert backed.has_directory(root)
    assert backed.has_blob(blake3(LARGE))
    assert not local.has_directory(root)
    assert backed.directory(root) == remote.directory(root)
    assert local.has_directory(backed.directory(root).directories[0].digest)
    assert not local.has_blob(blake3(LARGE))
    assert backed.blob_size(blake3(LARGE)) == len(LARGE)
    assert local.has_blob(blake3(LARGE))
    with backed.open_blob(blake3(b"small")) as file:
        assert file.read() == b"small"
    assert backed.closure(node) == remote.closure(node)
    assert not list(local.verify())


def test_trees_are_read_through(
    backed: CastoreStore, local: CastoreStore, remote: CastoreStore, tmp_path: Path
) -> None:
    node = remote.ingest(make_tree(tmp_path / "tree"))
    backed.materialize(node, tmp_path / "copy")
    assert (tmp_path / "copy" / "link").read_bytes() == LARGE
    assert local.closure(node) == remote.closure(node)
    file = Node()
    file.file.digest, file.file.size = remote.add_blob(b"alone"), 5
    assert backed.closure(file).blobs == {blake3(b"alone"): 5}


def test_new_objects_are_written_to_both(
    backed: CastoreStore, local: CastoreStore, remote: CastoreStore, tmp_path: Path
) -> None:
    node = backed.ingest(make_tree(tmp_path / "tree"))
    assert local.closure(node) == remote.closure(node)
    for data in (b"", b"blob"):
        assert backed.add_blob(data) == blake3(data)
        assert local.has_blob(blake3(data))
        assert remote.has_blob(blake3(data))
    remote.add_blob(b"theirs")
    digest = backed.add_directory(make_directory(x=b"theirs"))
    parent = make_directory(y=b"blob")
    parent.directories.add(name=b"d", digest=digest, size=1)
    root = backed.add_directories([make_directory(x=b"theirs"), parent])
    for store in (local, remote):
        assert store.directory(digest).files[0].size == 6
        assert store.directory(root) == parent
    link = Node()
    link.symlink.target = b"x"
    assert not backed.closure(link).blobs


def test_missing_objects(backed: CastoreStore, local: CastoreStore, tmp_path: Path) -> None:
    none = bytes(32)
    assert not backed.has_blob(none)
    assert not backed.has_directory(none)
    node = Node()
    node.directory.digest = none
    parent = Directory()
    parent.directories.add(name=b"child", digest=none)
    for call in (
        lambda: backed.open_blob(none),
        lambda: backed.blob_size(none),
        lambda: backed.directory(none),
        lambda: backed.closure(node),
        lambda: backed.materialize(node, tmp_path / "copy"),
        lambda: backed.add_directory(make_directory(x=b"nowhere")),
    ):
        with pytest.raises(MissingError):
            call()
    assert not (tmp_path / "copy").exists()
    assert not list(local.verify())
    with pytest.raises(MissingError):  # on the way to the server
        backed.add_directory(parent, check_children=False)


def test_garbage_of_the_directory_only(
    backed: CastoreStore, local: CastoreStore, remote: CastoreStore
) -> None:
    digest = backed.add_blob(b"x")
    assert backed.collect_garbage([], grace_seconds=-1000.0).blobs == 1
    assert not local.has_blob(digest)
    with backed.open_blob(digest) as file:
        assert file.read() == b"x"


def test_shared_objects_of_the_server(
    backed: CastoreStore, remote: CastoreStore, tmp_path: Path
) -> None:
    directory = remote.ingest(make_tree(tmp_path / "source"))
    file = remote.ingest(tmp_path / "source" / "a" / "large")
    with backed.shared([directory, file]) as (tree, blob):
        assert (tmp_path / "local" / tree / "a" / "large").read_bytes() == LARGE
        assert (tmp_path / "local" / blob).read_bytes() == LARGE
    directory.directory.digest = bytes(32)
    with pytest.raises(MissingError), backed.shared([directory]):
        pass


@needs_sandbox
def test_a_builder_with_inputs_of_the_server(
    backed: CastoreStore, remote: CastoreStore, tmp_path: Path
) -> None:
    node = remote.ingest(make_tree(tmp_path / "source"))
    made = request("cp -r /nix/store/source/a /nix/store/out", inputs=[node])
    (output,) = SandboxBuilder(backed).build(made).outputs.values()
    assert len(remote.closure(output).blobs) == 2


@needs_sandbox
def test_two_servers(server: Proxy, remote: CastoreStore, tmp_path: Path) -> None:
    """Inputs are uploaded to the second server, the build runs behind the first one, and its output
    is downloaded from the second one."""
    with (
        running_proxy(
            *("--listen", FREE_PORT, "--upstream", "sandbox:"),
            *("--castore", tmp_path / "first", "--castore-upstream", server.address),
        ) as first,
        BuildService(first.address, schema=SNIX) as builder,
        CastoreClient(first.address, schema=SNIX) as through,
        CastoreClient(server.address, schema=SNIX) as client,
        CastoreStore(tmp_path / "mine") as mine,
    ):
        node = mine.ingest(make_tree(tmp_path / "source"))
        client.upload(mine, node)
        made = request("cp -r /nix/store/source/a /nix/store/out", inputs=[node])
        output = builder.do_build(made, timeout=LIMIT).outputs[0].output
        client.download(output, mine)
        assert through.get_blob(blake3(LARGE)) == LARGE
        through.put_blob(b"put")
        assert remote.has_blob(blake3(b"put"))
        unknown = request("", inputs=[node]).inputs[0]
        unknown.directory.digest = bytes(32)
        server.process.kill()
        server.process.wait(LIMIT)
        for call in (
            lambda: through.get_blob(bytes(32)),
            lambda: builder.do_build(request("", inputs=[unknown]), timeout=LIMIT),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call()
            error: Any = caught.value
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert details_of(error)[0] == "CASTORE_UNAVAILABLE"
    with CastoreStore(tmp_path / "first") as store:
        assert not list(store.verify())


class Liar(rpc_castore_pb2_grpc.BlobServiceServicer):
    """A server that has each blob, with the same contents."""

    def Stat(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's
        return rpc_castore_pb2.StatBlobResponse()

    def Read(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's
        yield rpc_castore_pb2.BlobChunk(data=b"lie")


@contextmanager
def lying() -> Iterator[str]:
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        add: Any = rpc_castore_pb2_grpc.add_BlobServiceServicer_to_server
        add(Liar(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"grpc+http://127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


def test_wrong_content_is_not_stored(tmp_path: Path) -> None:
    with lying() as address:
        with (
            CastoreClient(address) as client,
            BackedStore(tmp_path / "store", client) as store,
            pytest.raises(UnexpectedContentError),
        ):
            store.open_blob(bytes(32))
        options = ("--check-only", "--schema", "tvix.build.v1")
        with (
            running_proxy(
                *("--listen", FREE_PORT, *options),
                *("--castore", tmp_path / "store", "--castore-upstream", address),
            ) as proxy,
            CastoreClient(proxy.address) as client,
            pytest.raises(grpc.RpcError) as caught,
        ):
            client.get_blob(bytes(32))
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.DATA_LOSS
    with CastoreStore(tmp_path / "store") as store:
        assert not list(store.verify())
        assert not store.has_blob(bytes(32))


def test_servers_that_count_entries_twice(tmp_path: Path) -> None:
    """A client, a server and the server behind it count in the same way."""
    sizes = ("--listen", FREE_PORT, "--check-only", "--directory-sizes", "snix-2024")
    with (
        running_proxy(*sizes, "--castore", tmp_path / "second") as second,
        running_proxy(
            *sizes, "--castore", tmp_path / "first", "--castore-upstream", second.address
        ) as first,
        CastoreStore(tmp_path / "mine", directory_sizes="snix-2024") as mine,
        CastoreStore(tmp_path / "other") as other,
        CastoreClient(first.address) as client,
    ):
        tree = make_tree(tmp_path / "tree")
        node = mine.ingest(tree)
        client.upload(mine, node)
        closure = mine.closure(node)
        directories = [mine.directory(one) for one in closure.directories]
        digest = client.put_directories(directories, directory_sizes="snix-2024")
        assert digest == node.directory.digest
        with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
            client.upload(other, other.ingest(tree))
    with CastoreStore(tmp_path / "second", directory_sizes="snix-2024") as store:
        assert store.closure(node) == closure


def test_usage(tmp_path: Path) -> None:
    options = ("--check-only", "--castore-upstream", "grpc+http://127.0.0.1:1")
    found = run("serve", *options, cwd=tmp_path)
    assert found.status == 2
    assert "expected --castore with --castore-upstream" in " ".join(found.stderr.split())
