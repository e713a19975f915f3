# SPDX-License-Identifier: MIT
"""The proxy with snix.build.v1@2026, in which a response is a stream of updates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import grpc.aio
import pytest

import tvix_build
from builders_support import needs_sandbox, request
from cli_support import run
from proxy_process import running_proxy
from reapi.protos import remote_execution_pb2 as reapi
from reapi_server import Engine
from reapi_server import serve as serve_engine
from serving import FREE_PORT, details_of, error_of, method_of, open_proxy, running_server
from snix.build.protos.build_pb2 import BuildRequest, BuildUpdate
from snix.castore.protos.castore_pb2 import Entry, FileEntry, SymlinkEntry
from tvix_build.builders import Limits, SandboxBuilder
from tvix_build.castore import CastoreStore
from tvix_build.cli.commands.serve import serve
from tvix_build.proxy.castore_builder import CastoreBuilder
from tvix_build.proxy.server import Server
from tvix_build.proxy.shared.addresses import parse
from tvix_build.proxy.shared.services import SERVICES
from waiting import DEADLINES, LIMIT

STREAMING = SERVICES["snix.build.v1@2026"]
SNIX = SERVICES["snix.build.v1"]
REQUEST = BuildRequest(
    command_args=["a"], outputs=["nix/store/a", "nix/store/b"], refscan_needles=["n", "m"]
)
DATA = REQUEST.SerializeToString()
FILE = Entry(file=FileEntry(digest=bytes(32), size=1))
Send: TypeAlias = "Callable[[BuildUpdate], Awaitable[None]]"
Respond: TypeAlias = "Callable[[BuildRequest, Any], Awaitable[None]]"


def output(idx: int, *needles: int, entry: Entry | None = FILE) -> BuildUpdate:
    produced = BuildUpdate.ProducedOutput(entry=entry, idx=idx, needles=needles)
    return BuildUpdate(produced_output=produced)


def stdout(chunk: bytes) -> BuildUpdate:
    return BuildUpdate(produced_stdout=BuildUpdate.StdioChunk(chunk=chunk))


def failure(**kind: Any) -> BuildUpdate:
    return BuildUpdate(build_failure=BuildUpdate.BuildFailure(**kind))


def missing(path: str) -> BuildUpdate:
    return failure(missing_output=BuildUpdate.BuildFailure.MissingOutput(output=path))


OUTPUTS = [output(0, 0, 1), output(1)]
FAILURE = failure(nonzero_exit_code=BuildUpdate.BuildFailure.NonzeroExitCode())


@asynccontextmanager
async def builder_with(respond: Respond) -> AsyncIterator[str]:
    """Run the server of a builder; yields its address."""
    handler: Any = grpc.unary_stream_rpc_method_handler(
        respond,
        request_deserializer=BuildRequest.FromString,
        response_serializer=lambda update: (
            update if isinstance(update, bytes) else update.SerializeToString()
        ),
    )
    handlers = grpc.method_handlers_generic_handler(STREAMING.name, {"DoBuild": handler})
    async with running_server(lambda server: server.add_generic_rpc_handlers([handlers])) as found:
        yield found


def sending(updates: Sequence[BuildUpdate | bytes]) -> Respond:
    """Return a builder that sends these updates."""

    async def respond(_: BuildRequest, context: Any) -> None:
        for update in updates:
            await context.write(update)

    return respond


@asynccontextmanager
async def method_to(proxy: Server) -> AsyncIterator[Any]:
    """Yield DoBuild of a proxy, from bytes to messages."""
    async with grpc.aio.insecure_channel(parse(proxy.addresses[0]).target) as channel:
        yield channel.unary_stream(STREAMING.method, response_deserializer=BuildUpdate.FromString)


@asynccontextmanager
async def proxied(respond: Respond, **options: Any) -> AsyncIterator[Any]:
    """Yield DoBuild of a proxy in front of a builder."""
    async with (
        builder_with(respond) as upstream,
        open_proxy(upstream, services=[STREAMING], **options) as proxy,
        method_to(proxy) as do_build,
    ):
        yield do_build


async def received(call: Any) -> list[BuildUpdate]:
    updates = []
    while (update := await call.read()) is not grpc.aio.EOF:
        updates.append(update)
    return updates


def test_updates_are_forwarded() -> None:
    requests: list[BuildRequest] = []
    digests: list[str] = []

    async def respond(request: BuildRequest, context: Any) -> None:
        requests.append(request)
        digests.append(dict(context.invocation_metadata())["tvix-build-digest"])
        await context.send_initial_metadata((("first", "1"),))
        for update in (*reversed(OUTPUTS), stdout(b""), stdout(bytes(1 << 20))):
            await context.write(update)
        context.set_trailing_metadata((("last", "2"),))

    async def scenario() -> None:
        async with proxied(respond) as do_build:
            call = do_build(DATA)
            updates = [*reversed(OUTPUTS), stdout(b""), stdout(bytes(1 << 20))]
            assert await received(call) == updates
            assert dict(await call.initial_metadata())["first"] == "1"
            trailing = dict(await call.trailing_metadata())
            digest = tvix_build.digest(REQUEST).hex()
            assert (trailing["last"], trailing["tvix-build-digest"]) == ("2", digest)
            assert digests == [digest]

    asyncio.run(scenario())
    assert requests == [REQUEST]


@pytest.mark.parametrize(
    "updates",
    [
        [FAILURE],
        [OUTPUTS[1], missing("nix/store/a")],
        [stdout(b"x"), failure(other=BuildUpdate.BuildFailure.Other(message="no memory"))],
        [*OUTPUTS, stdout(b"late"), FAILURE],
    ],
    ids=["exit", "missing", "other", "all outputs"],
)
def test_failed_builds_are_forwarded(updates: list[BuildUpdate]) -> None:
    async def scenario() -> None:
        async with proxied(sending(updates)) as do_build:
            assert await received(do_build(DATA)) == updates

    asyncio.run(scenario())


def test_updates_arrive_before_the_end() -> None:
    async def scenario() -> None:
        goes_on = asyncio.Event()

        async def respond(_: BuildRequest, context: Any) -> None:
            await context.write(OUTPUTS[0])
            await goes_on.wait()
            await context.write(OUTPUTS[1])

        async with proxied(respond) as do_build:
            call = do_build(DATA, timeout=LIMIT)
            assert await call.read() == OUTPUTS[0]
            goes_on.set()
            assert await call.read() == OUTPUTS[1]
            assert await call.read() is grpc.aio.EOF

    asyncio.run(scenario())


def test_the_encoding_is_canonical() -> None:
    unpacked = b"\x0a" + bytes([len(FILE.SerializeToString()) + 8])
    unpacked += b"\x18\x00\x18\x01\x0a" + bytes([FILE.ByteSize()]) + FILE.SerializeToString()
    unpacked += b"\x10\x00"

    async def scenario() -> None:
        async with (
            builder_with(sending([unpacked, OUTPUTS[1]])) as upstream,
            open_proxy(upstream, services=[STREAMING]) as proxy,
            grpc.aio.insecure_channel(parse(proxy.addresses[0]).target) as channel,
        ):
            do_build: Any = channel.unary_stream(STREAMING.method)
            assert [one async for one in do_build(DATA)] == [
                one.SerializeToString() for one in OUTPUTS
            ]

    asyncio.run(scenario())


NAMED = Entry(file=FileEntry(name=b"a", digest=bytes(32)))
SHORT = Entry(file=FileEntry(digest=bytes(31)))
LINK = Entry(symlink=SymlinkEntry())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("updates", "code", "path"),
    [
        ([b"\x0a"], "malformed", "updates[0]"),
        ([b"\x2a\x00"], "unknown_field", "updates[0]"),
        ([b"\x0a\x02\x20\x01"], "unknown_field", "updates[0]"),
        ([b""], "required", "updates[0].kind"),
        ([output(0, entry=None)], "required", "updates[0].produced_output.entry"),
        ([output(0, entry=Entry())], "required", "updates[0].produced_output.entry"),
        ([output(0, entry=NAMED)], "invalid_name", "updates[0].produced_output.entry.file.name"),
        (
            [OUTPUTS[0], output(1, entry=SHORT)],
            "invalid_digest",
            "updates[1].produced_output.entry.file.digest",
        ),
        (
            [output(0, entry=LINK)],
            "invalid_symlink_target",
            "updates[0].produced_output.entry.symlink.target",
        ),
        ([output(0, 2)], "invalid_needle", "updates[0].produced_output.needles[0]"),
        ([output(0, 1, 0)], "not_sorted", "updates[0].produced_output.needles[1]"),
        ([output(0, 1, 1)], "duplicate", "updates[0].produced_output.needles[1]"),
        ([output(2)], "unexpected_output", "updates[0].produced_output.idx"),
        ([output(1 << 63)], "unexpected_output", "updates[0].produced_output.idx"),
        ([*OUTPUTS, OUTPUTS[0]], "duplicate", "updates[2].produced_output.idx"),
        ([failure()], "required", "updates[0].build_failure.kind"),
        (
            [missing("nix/store/c")],
            "unexpected_output",
            "updates[0].build_failure.missing_output.output",
        ),
        (
            [OUTPUTS[0], missing("nix/store/a")],
            "unexpected_output",
            "updates[1].build_failure.missing_output.output",
        ),
        ([], "missing_output", "outputs[0]"),
        ([OUTPUTS[0], stdout(b"x")], "missing_output", "outputs[1]"),
    ],
)
def test_invalid_updates(updates: list[BuildUpdate | bytes], code: str, path: str) -> None:
    async def scenario() -> None:
        async with proxied(sending(updates)) as do_build:
            error = await error_of(received(do_build(DATA)))
            assert error.code() is grpc.StatusCode.INTERNAL
            assert f"{path}: {code}: " in (error.details() or "")

    asyncio.run(scenario())


def test_the_valid_updates_before_an_invalid_one_arrive() -> None:
    cancelled = asyncio.Event()

    async def respond(_: BuildRequest, context: Any) -> None:
        for update in (OUTPUTS[0], FAILURE, stdout(b"after the end")):
            await context.write(update)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def scenario() -> None:
        async with proxied(respond) as do_build:
            call = do_build(DATA, timeout=LIMIT)
            assert [await call.read(), await call.read()] == [OUTPUTS[0], FAILURE]
            error = await error_of(call.read())
            assert error.code() is grpc.StatusCode.INTERNAL
            assert error.details() == (
                "invalid response from the builder: "
                "expected no update after build_failure, found updates[2]"
            )
            await asyncio.wait_for(cancelled.wait(), LIMIT)

    asyncio.run(scenario())


def test_a_status_of_the_builder() -> None:
    async def respond(_: BuildRequest, context: Any) -> None:
        await context.write(OUTPUTS[0])
        await context.abort(grpc.StatusCode.ABORTED, "disk full", (("where", "here"),))

    async def scenario() -> None:
        async with proxied(respond) as do_build:
            call = do_build(DATA)
            assert await call.read() == OUTPUTS[0]
            error = await error_of(call.read())
            assert (error.code(), error.details()) == (grpc.StatusCode.ABORTED, "disk full")
            assert dict(error.trailing_metadata())["where"] == "here"

    asyncio.run(scenario())


def test_an_invalid_request_and_no_builder() -> None:
    async def scenario() -> None:
        async with (
            open_proxy(services=[STREAMING]) as proxy,
            method_to(proxy) as do_build,
        ):
            twice = BuildRequest(command_args=["a"], outputs=["a", "a"]).SerializeToString()
            reason, violations = details_of(await error_of(received(do_build(twice))))
            assert (reason, violations[0][:2]) == ("INVALID_REQUEST", ("outputs[1]", "duplicate"))
            error = await error_of(received(do_build(DATA)))
            assert details_of(error)[0] == "CHECK_ONLY"

    asyncio.run(scenario())


def test_a_slow_reader_delays_the_builder() -> None:
    """Of 32 MiB, only what fits into the buffers of gRPC is sent before the caller reads."""
    count = 512

    async def scenario() -> None:
        sent = 0
        waits = asyncio.Event()

        async def respond(_: BuildRequest, context: Any) -> None:
            nonlocal sent
            for _i in range(count):
                await context.write(stdout(bytes(1 << 16)))
                sent += 1
                waits.set()
            for update in OUTPUTS:
                await context.write(update)

        async with (
            builder_with(respond) as upstream,
            open_proxy(upstream, services=[STREAMING]) as proxy,
            method_to(proxy) as do_build,
            method_of(proxy, SNIX.method.replace("DoBuild", "None")) as other,
        ):
            call = do_build(DATA)
            assert await call.read() == stdout(bytes(1 << 16))
            await asyncio.wait_for(waits.wait(), LIMIT)
            # Each of these calls passes through the event loop several times.
            for _ in range(200):
                await error_of(other(b""))
            assert sent < count // 2
            found = await received(call)
            assert (len(found), found[-2:]) == (count + 1, OUTPUTS)

    asyncio.run(scenario())


@pytest.mark.parametrize("reads", [False, True])
def test_cancellation_reaches_the_builder(reads: bool) -> None:
    """Also while the builder waits for a caller that does not read."""

    async def scenario() -> None:
        started, cancelled = asyncio.Event(), asyncio.Event()

        async def respond(_: BuildRequest, context: Any) -> None:
            try:
                while True:
                    await context.write(stdout(bytes(1 << 16)))
                    started.set()
                    if reads:
                        await asyncio.Event().wait()
            finally:
                cancelled.set()

        async with proxied(respond) as do_build:
            call = do_build(DATA)
            await asyncio.wait_for(started.wait(), LIMIT)
            if reads:
                await call.read()
            call.cancel()
            await asyncio.wait_for(cancelled.wait(), LIMIT)

    asyncio.run(scenario())


def test_limits_of_time_and_size() -> None:
    async def scenario() -> None:
        async def respond(_: BuildRequest, context: Any) -> None:
            await context.write(stdout(bytes(2000)))
            await asyncio.Event().wait()

        async with proxied(respond, upstream_timeout=0.1) as do_build:
            error = await error_of(received(do_build(DATA)))
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert details_of(error)[0] == "UPSTREAM_TIMEOUT"
        async with proxied(respond) as do_build:
            error = await error_of(received(do_build(DATA, timeout=DEADLINES[0])))
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        async with proxied(respond, max_message_size=1000) as do_build:
            error = await error_of(received(do_build(DATA)))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    asyncio.run(scenario())


def test_a_shutdown_ends_streams() -> None:
    async def scenario() -> None:
        async def respond(_: BuildRequest, context: Any) -> None:
            await context.write(OUTPUTS[0])
            await asyncio.Event().wait()

        async with (
            builder_with(respond) as upstream,
            open_proxy(upstream, services=[STREAMING]) as proxy,
            method_to(proxy) as do_build,
        ):
            call = do_build(DATA)
            assert await call.read() == OUTPUTS[0]
            await proxy.close(0)
            error = await error_of(call.read())
            assert details_of(error)[0] == "SHUTTING_DOWN"

    asyncio.run(scenario())


async def build_in_sandbox(
    directory: Path, script: str, limits: Limits | None = None
) -> list[BuildUpdate]:
    with CastoreStore(directory / "store") as castore:
        builder = CastoreBuilder(SandboxBuilder(castore, limits=limits or Limits()))
        async with (
            open_proxy(builder=builder, services=[STREAMING]) as proxy,
            method_to(proxy) as do_build,
        ):
            data = request(script, outputs=["out", "two"]).SerializeToString()
            return await received(do_build(data, timeout=LIMIT))


@needs_sandbox
def test_a_build_in_the_sandbox(tmp_path: Path) -> None:
    script = "echo hello; echo x > /nix/store/out; echo xyz > /nix/store/two"
    log, *outputs = asyncio.run(build_in_sandbox(tmp_path, script))
    assert log == stdout(b"hello\n")
    assert [one.produced_output.idx for one in outputs] == [0, 1]
    assert [one.produced_output.entry.file.size for one in outputs] == [2, 4]


@needs_sandbox
@pytest.mark.parametrize(
    ("script", "update"),
    [
        ("exit 3", FAILURE),
        ("echo x > /nix/store/out", missing("nix/store/two")),
    ],
)
def test_a_failed_build_in_the_sandbox(tmp_path: Path, script: str, update: BuildUpdate) -> None:
    assert asyncio.run(build_in_sandbox(tmp_path, script)) == [update]


@needs_sandbox
def test_the_log_of_a_build_is_limited(tmp_path: Path) -> None:
    script = "yes | head -c 3000000; exit 1"
    *log, last = asyncio.run(build_in_sandbox(tmp_path, script))
    assert last == FAILURE
    assert len(b"".join(one.produced_stdout.chunk for one in log)) == 1 << 20


@needs_sandbox
def test_a_build_that_exceeds_a_limit(tmp_path: Path) -> None:
    limits = Limits(log_size=10)
    *_, last = asyncio.run(build_in_sandbox(tmp_path, "yes", limits))
    message = last.build_failure.other.message
    expected = "the limit of the size of the log, 10 bytes, is exceeded; the log is the blob "
    assert message.startswith(expected)


def succeed(engine: Engine) -> reapi.ActionResult:
    digest = engine.put(b"made")
    files = [reapi.OutputFile(path="../nix/store/out", digest=digest)]
    return reapi.ActionResult(output_files=files, stdout_raw=b"hello")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("execute", "kinds"),
    [
        (succeed, ["produced_stdout", "produced_output"]),
        (lambda _: reapi.ActionResult(exit_code=3), ["nonzero_exit_code"]),
        (lambda _: reapi.ActionResult(stderr_raw=b"no"), ["produced_stdout", "missing_output"]),
        (
            lambda _: reapi.ActionResult(exit_code=3, stderr_raw=b"too large"),
            ["produced_stdout", "other"],
        ),
    ],
    ids=["success", "exit status", "no output", "log"],
)
def test_a_build_on_an_engine(
    tmp_path: Path, execute: Callable[[Engine], reapi.ActionResult], kinds: list[str]
) -> None:
    """By the command."""
    engine = Engine()
    engine.execute = lambda _: reapi.ExecuteResponse(result=execute(engine))
    with (
        serve_engine(engine) as target,
        running_proxy(
            *("--listen", FREE_PORT, "--upstream", f"reapi+grpc://{target}/main"),
            *("--castore", tmp_path / "store", "--schema", STREAMING.label),
            *("--max-log-size", "8"),
        ) as proxy,
        grpc.insecure_channel(parse(proxy.address).target) as channel,
    ):
        do_build: Any = channel.unary_stream(
            STREAMING.method, response_deserializer=BuildUpdate.FromString
        )
        data = request("", provide_bin_sh=False).SerializeToString()
        assert [
            update.build_failure.WhichOneof("kind") or update.WhichOneof("kind")
            for update in do_build(data, timeout=LIMIT)
        ] == kinds


def test_options() -> None:
    (schema,) = [one for one in serve.params if one.name == "services"]
    choice: Any = schema.type
    assert [*choice.choices] == [*SERVICES]
    options = ("serve", "--check-only", "--check-config", "--schema", "snix.build.v1@2026")
    assert run(*options).status == 0
    for more, message in (
        (("--deduplicate",), "calls do not share a stream of updates"),
        (("--store", "s"), "--store keeps requests of no other schema"),
        (("--schema", "snix.build.v1"), "expected one schema for snix.build.v1.BuildService"),
    ):
        done = run(*options, *more)
        assert done.status == 2
        assert message in " ".join(done.stderr.split())
