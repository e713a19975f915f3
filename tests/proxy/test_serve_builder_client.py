# SPDX-License-Identifier: MIT
"""`ServerBuilder`: sends requests to a server with castore services, over real sockets."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from builders_support import needs_sandbox, request
from cli_support import run
from fake_builder import FakeBuilder, describe
from made_plans import output_name, write_greetings
from proxy_process import running_proxy
from serving import EXAMPLES, open_proxy, socket_directory
from tvix.build.protos.build_pb2 import Build
from tvix_build import Schema, blake3_many, build_request, digest
from tvix_build.builders import (
    BuilderError,
    BuildFailedError,
    BuildRecord,
    MissingInputsError,
    RefusedError,
    SandboxBuilder,
    UnavailableError,
)
from tvix_build.builders.interface import missing_output
from tvix_build.builders.log import Log
from tvix_build.builders.messages import Request
from tvix_build.builders.server import ServerBuilder
from tvix_build.castore import CastoreStore
from tvix_build.castore.client import AsyncCastoreClient
from tvix_build.castore.transfers import PIECE
from tvix_build.proxy.castore_builder import CastoreBuilder
from tvix_build.proxy.shared.services import SERVICES
from waiting import LIMIT

TVIX, SNIX = Schema.TVIX_BUILD_V1, Schema.SNIX_BUILD_V1


@asynccontextmanager
async def serving(
    directory: Path, contents: Callable[[Request], bytes] = describe, **options: Any
) -> AsyncIterator[tuple[ServerBuilder, CastoreStore, FakeBuilder]]:
    """Run a server with a castore of its own. Yield its client, and the castore of the client."""
    services = [SERVICES[TVIX], SERVICES[SNIX]]
    with CastoreStore(directory / "there") as there, CastoreStore(directory / "here") as here:
        fake = FakeBuilder(there, contents)
        builder = CastoreBuilder(fake)
        async with open_proxy(builder=builder, services=services, castore=there) as proxy:
            yield ServerBuilder(proxy.addresses[0], here, **options), here, fake


def test_a_request_of_snix(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("input")

    async def main() -> None:
        async with serving(tmp_path) as (builder, castore, fake):
            node = castore.ingest(source)
            wanted = request("", inputs=[node], outputs=["a", "b"])
            result = await builder.build_async(wanted)
            assert list(result.outputs) == ["nix/store/a", "nix/store/b"]
            assert [one.file.name for one in result.outputs.values()] == [b"a", b"b"]
            assert [one.output.file.name for one in result.response.outputs] == [b"", b""]
            with castore.open_blob(result.outputs["nix/store/a"].file.digest) as file:
                assert file.read() == digest(wanted).hex().encode()
            with CastoreStore(tmp_path / "there") as there:
                assert there.directory(node.directory.digest)
            record = result.record
            assert (record.request_digest, record.failure) == (digest(wanted), None)
            assert record.builder.startswith("grpc+http://127.0.0.1:")
            # The server has the input now, and the client does not need it.
            shutil.rmtree(tmp_path / "here")
            with CastoreStore(tmp_path / "here") as empty:
                other = ServerBuilder(record.builder, empty)
                assert (await other.build_async(wanted)).response == result.response
            assert fake.built == [digest(wanted)] * 2

    asyncio.run(main())


def test_a_request_of_tvix_in_bytes(tmp_path: Path) -> None:
    made = build_request(
        command_args=["/bin/sh"], outputs=[output_name("b"), output_name("a")], system="x"
    )

    async def main() -> None:
        async with serving(tmp_path) as (builder, _, _):
            result = await builder.build_async(made.SerializeToString(), schema=TVIX)
            assert isinstance(result.response, bytes)
            outputs = Build.FromString(result.response).outputs
            assert [one.file.name.decode() for one in outputs] == sorted(made.outputs)
            assert {path: node.file.name.decode() for path, node in result.outputs.items()} == {
                f"nix/store/{name}": name for name in made.outputs
            }

    asyncio.run(main())


def failing(error: Exception) -> Callable[[Request], bytes]:
    def contents(_: Request) -> bytes:
        raise error

    return contents


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (RefusedError(["no"]), RefusedError, "^no$"),
        (MissingInputsError(["inputs[0]: no"]), MissingInputsError, r"^inputs\[0\]: no$"),
        (UnavailableError("down"), UnavailableError, r"^grpc\+http://\S+: UNAVAILABLE: down$"),
        (BuilderError("lost"), BuilderError, r"^grpc\+http://\S+: INTERNAL: lost$"),
    ],
)
def test_errors(tmp_path: Path, error: Exception, expected: type[Exception], message: str) -> None:
    async def main() -> None:
        async with serving(tmp_path, failing(error)) as (builder, _, fake):
            with pytest.raises(expected, match=message) as caught:
                await builder.build_async(request(""))
            assert type(caught.value) is expected
            assert len(fake.built) == (2 if expected is MissingInputsError else 1)

    asyncio.run(main())


@needs_sandbox
def test_inputs_that_the_server_has_removed_are_uploaded_again(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_text("input")

    async def main() -> None:
        with CastoreStore(tmp_path / "there") as there, CastoreStore(tmp_path / "here") as here:
            services, builder = [SERVICES[SNIX]], CastoreBuilder(SandboxBuilder(there))
            inputs = [here.ingest(tmp_path / "source"), here.ingest(tmp_path / "source" / "file")]
            async with open_proxy(builder=builder, services=services, castore=there) as proxy:
                client = ServerBuilder(proxy.addresses[0], here)
                for number in range(2):
                    script = (
                        f"cat /nix/store/file /nix/store/source/file > /nix/store/out; : {number}"
                    )
                    result = await client.build_async(request(script, inputs=inputs))
                    output = result.outputs["nix/store/out"].file
                    with here.open_blob(output.digest) as file:
                        assert file.read() == b"inputinput"
                    there.collect_garbage([], grace_seconds=-LIMIT)
                    assert not there.has_directory(inputs[0].directory.digest)
                # The client has them no more, either.
                here.collect_garbage([], grace_seconds=-LIMIT)
                with pytest.raises(MissingInputsError, match=r"^inputs\[0\]: .*; inputs\[1\]: "):
                    await client.build_async(request("", inputs=inputs))

    asyncio.run(main())


def test_another_build_does_not_keep_lost_inputs_from_being_uploaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one uploads an input before the server loses it, and ends after that."""
    uploads: list[str] = []
    upload = AsyncCastoreClient.upload

    async def main() -> None:
        loop = asyncio.get_running_loop()
        uploaded, lost, built = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def upload_and_wait(
            client: AsyncCastoreClient, store: CastoreStore, node: Any
        ) -> None:
            await upload(client, store, node)
            uploads.append(node.file.name.decode())
            if uploads == ["b"]:
                uploaded.set()
                await lost.wait()
            elif uploads == ["b", "a", "b", "a"]:
                lost.set()
                await built.wait()

        def contents(request: Request) -> bytes:
            if len(request.message.inputs) == 1:
                loop.call_soon_threadsafe(built.set)
            elif not lost.is_set():
                raise MissingInputsError(["inputs[1]: lost"])
            return b""

        monkeypatch.setattr(AsyncCastoreClient, "upload", upload_and_wait)
        async with serving(tmp_path, contents) as (builder, castore, _):
            for name in ("a", "b"):
                (tmp_path / name).write_text(name)
            inputs = [castore.ingest(tmp_path / name) for name in ("a", "b")]
            other = asyncio.create_task(builder.build_async(request("", inputs=inputs[1:])))
            await uploaded.wait()
            await builder.build_async(request("", inputs=inputs))
            await other

    asyncio.run(main())
    assert uploads == ["b", "a", "b", "a", "b"]


def record_of(request: Request, log_digest: bytes) -> BuildRecord:
    now = datetime.now(timezone.utc)
    return BuildRecord("fake:", request.digest, now, now, 3, 0.0, 0, log_digest, 0)


def test_a_failed_build_has_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs: list[bytes] = []
    store = Log.store

    def store_in_thread(log: Log, castore: CastoreStore) -> bytes:
        assert threading.current_thread() is not threading.main_thread()
        return store(log, castore)

    monkeypatch.setattr(Log, "store", store_in_thread)

    async def main() -> None:
        def contents(request: Request) -> bytes:
            with CastoreStore(tmp_path / "there") as there:
                log = there.add_blob(b"oops\n")
            raise BuildFailedError("exit status 3", record_of(request, log))

        async with serving(tmp_path, contents) as (builder, castore, _):
            with pytest.raises(BuildFailedError, match=r"^exit status 3$") as caught:
                await builder.build_async(request(""), on_log=logs.append)
            found = caught.value.record
            assert (found.log_size, found.failure) == (5, "exit status 3")
            assert (found.exit_status, caught.value.missing_output) == (3, None)
            assert castore.has_blob(found.log_digest)

    asyncio.run(main())
    assert logs == [b"oops\n"]


def test_an_output_that_is_missing(tmp_path: Path) -> None:
    """The reason in words is longer than the message of a status."""
    path = "/".join(["nix", "store", *["a" * 200] * 3])

    def contents(request: Request) -> bytes:
        record = replace(record_of(request, blake3_many([b""])[0]), exit_status=0)
        raise BuildFailedError(missing_output(path), record, missing_output=path)

    async def main() -> None:
        async with serving(tmp_path, contents) as (builder, _, _):
            with pytest.raises(BuildFailedError, match=r"^output nix/store/[a/]+…$") as caught:
                await builder.build_async(request(""))
            assert caught.value.missing_output == path
            assert caught.value.record.exit_status == 0

    asyncio.run(main())


@pytest.mark.slow
@pytest.mark.parametrize("limit", [(32 << 20) - 1, PIECE])
def test_a_log_above_the_limit(tmp_path: Path, limit: int) -> None:
    logs: list[bytes] = []
    whole = bytes(range(256)) * (32 << 12)

    async def main() -> None:
        def contents(request: Request) -> bytes:
            with CastoreStore(tmp_path / "there") as there:
                raise BuildFailedError("exit status 3", record_of(request, there.add_blob(whole)))

        async with serving(tmp_path, contents, max_log_size=limit) as (builder, castore, _):
            failure = f"the limit of the size of the log, {limit} bytes, is exceeded"
            with pytest.raises(BuildFailedError, match=f"^{failure}$") as caught:
                await builder.build_async(request(""), on_log=logs.append)
            found = caught.value.record
            assert (found.log_size, found.failure) == (limit, failure)
            with castore.open_blob(found.log_digest) as file:
                assert file.read() == whole[:limit]

    asyncio.run(main())
    assert b"".join(logs) == whole[:limit]
    assert all(logs)
    assert max(map(len, logs)) < len(whole) // 2


@pytest.mark.parametrize("castore", [False, True])
def test_a_server_that_lacks_a_service(tmp_path: Path, castore: bool) -> None:
    async def main() -> None:
        with CastoreStore(tmp_path) as store:
            options: dict[str, Any] = {"castore": store} if castore else {}
            async with open_proxy(services=[SERVICES[SNIX]], **options) as proxy:
                builder = ServerBuilder(proxy.addresses[0], store)
                (tmp_path / "input").write_text("input")
                wanted = request("", inputs=[store.ingest(tmp_path / "input")])
                with pytest.raises(BuilderError, match="; use a server that has a builder and"):
                    await builder.build_async(wanted)

    asyncio.run(main())


def test_no_server(tmp_path: Path) -> None:
    with CastoreStore(tmp_path) as castore, pytest.raises(UnavailableError):
        ServerBuilder("grpc+unix:/none", castore).build(request(""))


@needs_sandbox
@pytest.mark.slow
def test_commands(tmp_path: Path) -> None:
    """The server has a castore of its own, of which the client knows nothing."""
    write_greetings(tmp_path)
    shutil.copytree(EXAMPLES / "build", tmp_path / "example", copy_function=shutil.copyfile)
    (derivation,) = (tmp_path / "example").glob("*-greetings.txt.drv")
    with (
        socket_directory() as sockets,
        running_proxy(
            *("--listen", f"grpc+unix:{sockets}/s", "--upstream", "sandbox:"),
            *("--schema", "tvix.build.v1", "--schema", "snix.build.v1"),
            *("--castore", tmp_path / "server"),
        ) as proxy,
    ):
        common: Any = ("--builder", proxy.address, "--castore", "client", "--out-link")
        plan = run("plan", "run", "plan.binpb", "--state", "s", *common, "result", cwd=tmp_path)
        assert (plan.status, plan.stdout) == (0, b"4 built, 0 cached, 0 failed, 0 skipped\n")
        output = tmp_path / "result" / output_name("run")
        assert output.read_text() == "echo 'hello, world!'\n"
        built = run("build", derivation, *common, "greetings", "--quiet", cwd=tmp_path)
        assert (built.status, built.stderr) == (0, "")
        (file,) = (tmp_path / "greetings").iterdir()
        assert file.read_text() == "Hello, Ada!\nHello, Grace!\n"
