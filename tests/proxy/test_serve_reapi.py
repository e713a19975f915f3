# SPDX-License-Identifier: MIT
"""`serve --upstream reapi+grpc://…`: calls run on a Remote Execution engine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from builders_support import request
from cli_support import run
from proxy_process import running_proxy
from reapi.protos import remote_execution_pb2 as reapi
from reapi_server import Engine, serve
from serving import FREE_PORT, details_of, open_proxy
from snix.build.protos.build_pb2 import BuildRequest
from tvix_build import Schema
from tvix_build.builders.reapi import ReapiBuilder
from tvix_build.castore import CastoreStore
from tvix_build.castore.client import CastoreClient
from tvix_build.proxy.castore_builder import CastoreBuilder
from tvix_build.proxy.client import AsyncBuildService, BuildService
from tvix_build.proxy.shared.services import SERVICES
from waiting import LIMIT, until

SNIX = Schema.SNIX_BUILD_V1
NETWORK = ("--property", "network_access:network=on")

pytestmark = pytest.mark.slow


def respond(
    directory: Path,
    execute: Callable[[Engine], reapi.ExecuteResponse],
    *options: str,
    make_request: Callable[..., BuildRequest] = request,
) -> bytes:
    """Upload an input, run a request with it through a proxy of an engine, and return the contents
    of the output. All files of the client are in a castore of its own."""
    engine = Engine()
    engine.execute = lambda _: execute(engine)
    (directory / "source").write_bytes(b"input")
    with (
        serve(engine) as target,
        running_proxy(
            *("--listen", FREE_PORT, "--upstream", f"reapi+grpc://{target}/main"),
            *("--castore", str(directory / "server"), *options),
        ) as proxy,
        CastoreStore(directory / "client") as local,
        CastoreClient(proxy.address, schema=SNIX) as castore,
        BuildService(proxy.address, schema=SNIX) as builder,
    ):
        node = local.ingest(directory / "source")
        castore.upload(local, node)
        made = make_request("", inputs=[node], provide_bin_sh=False)
        response = builder.do_build(made, timeout=LIMIT)
        assert engine.function.digest(b"input").hash in engine.blobs
        return castore.get_blob(response.outputs[0].output.file.digest)


def succeed(engine: Engine) -> reapi.ExecuteResponse:
    result = reapi.ActionResult()
    result.output_files.add(path="../nix/store/out", digest=engine.put(b"made"))
    return reapi.ExecuteResponse(result=result)


def test_a_call_runs_on_the_engine(tmp_path: Path) -> None:
    assert respond(tmp_path, succeed) == b"made"


def test_properties_of_constraints(tmp_path: Path) -> None:
    def with_network(script: str, **changes: Any) -> BuildRequest:
        return request(script, network_access=True, **changes)

    assert respond(tmp_path, succeed, *NETWORK, make_request=with_network) == b"made"


def fail(_: Engine) -> reapi.ExecuteResponse:
    return reapi.ExecuteResponse(result=reapi.ActionResult(exit_code=3))


def break_down(_: Engine) -> reapi.ExecuteResponse:
    response = reapi.ExecuteResponse()
    response.status.code = grpc.StatusCode.INTERNAL.value[0]
    return response


@pytest.mark.parametrize(
    ("execute", "code", "reason", "message"),
    [
        (fail, grpc.StatusCode.ABORTED, "BUILD_FAILED", "exit status 3; the log is the blob "),
        (break_down, grpc.StatusCode.INTERNAL, "BUILDER_FAILED", "reapi+grpc://127.0.0.1:"),
    ],
)
def test_failed_calls(
    tmp_path: Path,
    execute: Callable[[Engine], reapi.ExecuteResponse],
    code: grpc.StatusCode,
    reason: str,
    message: str,
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        respond(tmp_path, execute)
    error: Any = caught.value
    assert error.code() is code
    assert error.details().startswith(message)
    assert details_of(error)[0] == reason


def test_a_cancelled_call_cancels_the_execution(tmp_path: Path) -> None:
    engine = Engine()
    engine.hanging = True

    async def call(address: str) -> None:
        named = threading.Event()  # The builder knows the name of the operation to cancel.
        with (
            CastoreStore(tmp_path / "store") as castore,
            ReapiBuilder(address, castore, on_stage=lambda _: named.set()) as builder,
        ):
            async with (
                open_proxy(builder=CastoreBuilder(builder), services=[SERVICES[SNIX]]) as proxy,
                AsyncBuildService(proxy.addresses[0], schema=SNIX) as client,
            ):
                task = asyncio.create_task(client.do_build(request("", provide_bin_sh=False)))
                await until(named.is_set)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await until(lambda: engine.cancelled == ["operation"])

    with serve(engine) as target:
        asyncio.run(call(f"reapi+grpc://{target}"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--upstream", "reapi+grpc://h:1/m"), "expected --castore with --upstream reapi+grpc://h"),
        (("--upstream", "reapi+grpc://h"), "expected reapi+grpc://HOST:PORT/INSTANCE or"),
        (
            ("--upstream", "reapi+grpc://h:1", "--castore", "s", "--max-memory", "9"),
            "expected --upstream sandbox: with limits",
        ),
        (
            ("--upstream", "sandbox:", "--castore", "s", *NETWORK),
            "expected --upstream reapi+grpc://… with --property",
        ),
        (("--check-only", *NETWORK), "expected --upstream reapi+grpc://… with --property"),
        (
            ("--check-only", "--plans", "plans"),
            "expected --upstream sandbox: or reapi+grpc://… with --plans",
        ),
        (("--check-only", "--max-plan-builds", "1"), "expected --plans with --max-plan-builds"),
    ],
)
def test_usage(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    found = run("serve", *options, cwd=tmp_path)
    assert found.status == 2
    assert message in " ".join(found.stderr.split())
