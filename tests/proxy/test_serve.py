# SPDX-License-Identifier: MIT
"""The proxy, with real clients and builders over loopback and unix sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import text_format
from google.rpc.error_details_pb2 import ErrorInfo, PreconditionFailure
from grpc_status import rpc_status

import tvix_build
from serving import (
    Builder,
    details_of,
    error_of,
    method_of,
    open_proxy,
    proxy_to,
    response_to,
    running,
    socket_directory,
)
from tvix.build.protos.build_pb2 import Build, BuildRequest
from tvix_build.proxy.client import AsyncBuildService, bad_request
from tvix_build.proxy.shared.addresses import parse

REQUEST = tvix_build.build_request(command_args=["/bin/sh"], outputs=["b", "a"])
DATA = REQUEST.SerializeToString()
DIGEST = tvix_build.digest(REQUEST).hex()
# The same, not canonical: its fields are in another order.
ODD = BuildRequest(outputs=["a", "b"]).SerializeToString() + b"\x0a\x07/bin/sh"


def test_request_reaches_builder_and_response_reaches_client() -> None:
    builder = Builder()

    async def scenario() -> None:
        async with proxy_to(builder) as proxy, AsyncBuildService(proxy.addresses[0]) as client:
            assert await client.do_build(REQUEST) == response_to(REQUEST)
            assert await client.do_build(DATA) == response_to(REQUEST).SerializeToString()

    asyncio.run(scenario())
    assert builder.requests == [REQUEST, REQUEST]


def test_forwarded_requests_are_canonical() -> None:
    seen = []

    async def scenario() -> None:
        async def keep(request: bytes, context: Any) -> bytes:
            seen.append(request)
            return response_to(REQUEST).SerializeToString()

        server = grpc.aio.server()
        handler: Any = grpc.unary_unary_rpc_method_handler(keep)
        server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(
                    "tvix.build.v1.BuildService", {"DoBuild": handler}
                )
            ]
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with (
            open_proxy(f"grpc+http://127.0.0.1:{port}") as proxy,
            method_of(proxy) as do_build,
        ):
            call = do_build(ODD)
            assert Build.FromString(await call) == response_to(REQUEST)
            assert dict(iter(await call.trailing_metadata()))["tvix-build-digest"] == DIGEST
        await server.stop(None)

    asyncio.run(scenario())
    assert tvix_build.check(ODD).valid
    assert not tvix_build.check(ODD).canonical
    assert seen == [DATA]


def test_metadata_and_deadline_are_forwarded() -> None:
    async def respond(request: BuildRequest, context: Any) -> Build:
        await context.send_initial_metadata((("before", "1"),))
        context.set_trailing_metadata((("after-bin", b"\0\xff"),))
        return response_to(request)

    builder = Builder(respond)

    async def scenario() -> None:
        async with proxy_to(builder) as proxy, method_of(proxy) as do_build:
            mine = (("key", "value"), ("key-bin", b"\xff\0"), ("traceparent", "00-1-2-03"))
            call = do_build(DATA, metadata=mine, timeout=1000)
            await call
            assert dict(iter(await call.initial_metadata())) == {"before": "1"}
            after = dict(iter(await call.trailing_metadata()))
            assert after == {"after-bin": b"\0\xff", "tvix-build-digest": DIGEST}
            await do_build(DATA)

    asyncio.run(scenario())
    first = builder.metadata[0]
    assert first.pop("user-agent")
    assert first == {
        "key": "value",
        "key-bin": b"\xff\0",
        "traceparent": "00-1-2-03",
        "tvix-build-digest": DIGEST,
    }
    with_deadline, without = builder.remaining
    assert with_deadline is not None
    assert 900 < with_deadline < 1100  # gRPC rounds it
    assert without is None


def _read(file: Path) -> bytes:
    if file.suffix == ".binpb":
        return file.read_bytes()
    return text_format.Parse(file.read_text(), BuildRequest()).SerializeToString()


def test_invalid_requests_are_rejected_with_their_violations() -> None:
    builder = Builder()
    bad = BuildRequest(command_args=["a\0b"], outputs=["b", "a", "a/b"])
    files = Path("examples/broken/requests").iterdir()
    messages = [bad.SerializeToString(), b"\xff", DATA + b"\xf8\x01\0", b"", *map(_read, files)]

    async def scenario() -> None:
        async with proxy_to(builder) as proxy, method_of(proxy) as do_build:
            for data in messages:
                error = await error_of(do_build(data))
                assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
                report = tvix_build.check(data)
                assert details_of(error) == (
                    "INVALID_REQUEST",
                    [(one.path, one.code.value, one.message) for one in report.violations],
                )
                with pytest.raises(tvix_build.ValidationError) as local:
                    tvix_build.validate(data)
                assert bad_request(error) == local.value.to_bad_request()

    asyncio.run(scenario())
    assert builder.requests == []


def test_other_statuses_have_no_violations() -> None:
    async def scenario() -> None:
        async with open_proxy() as proxy, method_of(proxy) as do_build:
            assert not bad_request(await error_of(do_build(DATA))).field_violations
        async with AsyncBuildService("grpc+unix:/no/such/socket") as client:
            assert not bad_request(await error_of(client.do_build(DATA))).field_violations

    asyncio.run(scenario())


def test_unsorted_requests_are_rejected() -> None:
    unsorted = BuildRequest(command_args=["a"], outputs=["b", "a"])

    async def scenario() -> None:
        async with open_proxy() as proxy, method_of(proxy) as do_build:
            error = await error_of(do_build(unsorted.SerializeToString()))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            _, violations = details_of(error)
            assert [one[:2] for one in violations] == [("outputs[1]", "not_sorted")]

    asyncio.run(scenario())


def test_status_details_have_as_many_violations_as_fit() -> None:
    bad = BuildRequest(command_args=["é\0" * 1000] * 500)
    count = tvix_build.check(bad).violation_count

    async def scenario() -> None:
        async with open_proxy() as proxy, method_of(proxy) as do_build:
            error = await error_of(do_build(bad.SerializeToString()))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            _, violations = details_of(error)
            assert 5 < len(violations) < count
            assert violations[1][0] == "command_args[1]"
            info = ErrorInfo()
            status: Any = rpc_status.from_call(error)  # type: ignore[arg-type]
            assert status.details[0].Unpack(info)
            assert info.metadata["violation_count"] == str(count)

    asyncio.run(scenario())


def test_without_a_builder_valid_requests_are_unimplemented() -> None:
    async def scenario() -> None:
        async with open_proxy() as proxy, method_of(proxy) as do_build:
            error = await error_of(do_build(DATA))
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED
            assert details_of(error) == ("CHECK_ONLY", [])
            assert dict(iter(error.trailing_metadata()))["tvix-build-digest"] == DIGEST

    asyncio.run(scenario())


def test_digest_mismatch() -> None:
    async def scenario() -> None:
        async with open_proxy() as proxy, method_of(proxy) as do_build:
            call = do_build(DATA, metadata=(("tvix-build-digest", "00"),))
            error = await error_of(call)
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert details_of(error) == ("DIGEST_MISMATCH", [])

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("response", "code", "path"),
    [
        (Build(), "required", "build_request"),
        (Build(build_request=REQUEST), "missing_output", "build_request.outputs[0]"),
        (Build(build_request=tvix_build.build_request(command_args=["x"])), None, None),
    ],
)
def test_invalid_responses_are_internal(
    response: Build, code: str | None, path: str | None
) -> None:
    async def wrong(request: BuildRequest, context: Any) -> Build:
        return response

    async def scenario() -> None:
        async with proxy_to(Builder(wrong)) as proxy, method_of(proxy) as do_build:
            error = await error_of(do_build(DATA))
            assert error.code() is grpc.StatusCode.INTERNAL
            status: Any = rpc_status.from_call(error)  # type: ignore[arg-type]
            info, failure = ErrorInfo(), PreconditionFailure()
            assert status.details[0].Unpack(info)
            assert info.reason == "INVALID_RESPONSE"
            assert status.details[1].Unpack(failure)
            found = [(one.type, one.subject) for one in failure.violations]
            assert found[:1] == ([] if code is None else [(code, path)])

    asyncio.run(scenario())


def test_errors_of_the_builder_are_forwarded() -> None:
    async def fail(request: BuildRequest, context: Any) -> Build:
        await context.abort(
            grpc.StatusCode.FAILED_PRECONDITION,
            "no disk left: é",
            (("grpc-status-details-bin", b"\x08\x09"), ("more", "1")),
        )
        raise AssertionError

    async def scenario() -> None:
        async with proxy_to(Builder(fail)) as proxy, method_of(proxy) as do_build:
            error = await error_of(do_build(DATA))
            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert error.details() == "no disk left: é"
            assert dict(iter(error.trailing_metadata())) == {
                "grpc-status-details-bin": b"\x08\x09",
                "more": "1",
                "tvix-build-digest": DIGEST,
            }

    asyncio.run(scenario())


@pytest.mark.parametrize("code", [one for one in grpc.StatusCode if one is not grpc.StatusCode.OK])
def test_every_status_is_forwarded(code: grpc.StatusCode) -> None:
    async def fail(request: BuildRequest, context: Any) -> Build:
        await context.abort(code, "why")
        raise AssertionError

    async def scenario() -> None:
        async with proxy_to(Builder(fail)) as proxy, method_of(proxy) as do_build:
            error = await error_of(do_build(DATA))
            assert (error.code(), error.details()) == (code, "why")

    asyncio.run(scenario())


def test_unreachable_builder() -> None:
    async def scenario() -> None:
        async with running(Builder()) as address:
            pass
        async with open_proxy(address) as proxy, method_of(proxy) as do_build:
            error = await error_of(do_build(DATA))
            assert error.code() is grpc.StatusCode.UNAVAILABLE

    asyncio.run(scenario())


@pytest.mark.parametrize("slashes", ["", "//"])
def test_unix_sockets(slashes: str) -> None:
    builder = Builder()

    async def scenario(directory: str) -> None:
        place, upstream = f"grpc+unix:{slashes}{directory}/proxy", f"grpc+unix:{directory}/builder"
        async with (
            running(builder, f"unix:{directory}/builder"),
            open_proxy(upstream, listen=[parse(place)]) as proxy,
            AsyncBuildService(place) as client,
        ):
            assert proxy.addresses == [place]
            assert await client.do_build(REQUEST) == response_to(REQUEST)

    with socket_directory() as directory:
        asyncio.run(scenario(directory))
    assert builder.requests == [REQUEST]
