# SPDX-License-Identifier: MIT
"""`serve --upstream sandbox:`: calls run in the sandbox of this machine."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import grpc
import pytest

from builders_support import needs_sandbox, request
from cli_support import run
from serving import open_proxy
from snix.build.protos.build_pb2 import BuildResponse
from tvix_build import Schema
from tvix_build.builders import SandboxBuilder
from tvix_build.castore import CastoreStore
from tvix_build.proxy.castore_builder import CastoreBuilder
from tvix_build.proxy.client import AsyncBuildService
from tvix_build.proxy.shared.services import SERVICES
from waiting import LIMIT, until, wait_until

SNIX = Schema.SNIX_BUILD_V1
SYSTEM = f"{os.uname().machine}-linux"


async def call(directory: Path, script: str, *, system: str = SYSTEM) -> BuildResponse:
    """Send a request to a proxy with a sandbox, and return the response."""
    with CastoreStore(directory / "store") as castore:
        builder = CastoreBuilder(SandboxBuilder(castore))
        async with (
            open_proxy(builder=builder, services=[SERVICES[SNIX]]) as proxy,
            AsyncBuildService(proxy.addresses[0], schema=SNIX) as client,
        ):
            return await client.do_build(request(script, system=system), timeout=LIMIT)


@needs_sandbox
def test_a_call_runs_in_the_sandbox(tmp_path: Path) -> None:
    response = asyncio.run(call(tmp_path, "echo x > /nix/store/out"))
    assert response.outputs[0].output.file.size == 2


@needs_sandbox
@pytest.mark.parametrize(
    ("script", "system", "code", "message"),
    [
        ("exit 3", SYSTEM, grpc.StatusCode.ABORTED, "exit status 3; the log is the blob af1349b9"),
        ("", "m68k", grpc.StatusCode.FAILED_PRECONDITION, "constraints.system: this"),
    ],
)
def test_failed_calls(
    tmp_path: Path, script: str, system: str, code: grpc.StatusCode, message: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        asyncio.run(call(tmp_path, script, system=system))
    assert caught.value.code() is code
    assert (caught.value.details() or "").startswith(message)


@needs_sandbox
def test_a_cancelled_call_ends_the_build(tmp_path: Path) -> None:
    builds = tmp_path / "store" / "builds"

    async def cancel() -> None:
        task = asyncio.create_task(call(tmp_path, "while :; do :; done"))
        await until(lambda: builds.exists() and any(builds.glob("*/root/build")))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    wait_until(lambda: os.listdir(builds) == [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--upstream", "sandbox:"), "expected --castore with --upstream sandbox:"),
        (("--check-only", "--max-memory", "9"), "expected --upstream sandbox: with limits"),
        (("--check-only", "--castore", "s", "--max-memory", "9"), "expected --upstream sandbox:"),
    ],
)
def test_usage(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    found = run("serve", *options, cwd=tmp_path)
    assert found.status == 2
    assert message in " ".join(found.stderr.split())
