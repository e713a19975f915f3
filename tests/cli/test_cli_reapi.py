# SPDX-License-Identifier: MIT
"""`show --reapi` prints the digest of the action that ReapiBuilder executes."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli_support import Result, run
from reapi.protos import remote_execution_pb2 as reapi
from reapi_server import Engine, serve
from snix.build.protos.build_pb2 import BuildRequest
from tvix_build.builders import BuildFailedError
from tvix_build.builders.reapi import DigestFunction, Property, ReapiBuilder
from tvix_build.castore import CastoreStore


@pytest.fixture
def request_(tmp_path: Path) -> BuildRequest:
    (tmp_path / "source").write_bytes(b"source")
    request = BuildRequest(
        command_args=["/source"],
        scratch_paths=["build"],
        working_dir="build",
        outputs=["build/out"],
    )
    request.constraints.system = "x86_64-linux"
    request.constraints.network_access = True
    with CastoreStore(tmp_path / "store") as castore:
        node = castore.ingest(tmp_path / "source")
    request.inputs.add().ParseFromString(node.SerializeToString())
    return request


def show(directory: Path, request: BuildRequest, *options: str) -> Result:
    (directory / "request.binpb").write_bytes(request.SerializeToString())
    arguments = ["--schema", "snix.build.v1", "--castore", str(directory / "store")]
    return run("show", *arguments, *options, str(directory / "request.binpb"))


@pytest.mark.parametrize("function", list(DigestFunction), ids=lambda one: one.name)
def test_prints_the_digest_of_the_action(
    tmp_path: Path, request_: BuildRequest, function: DigestFunction
) -> None:
    engine = Engine(function)
    engine.execute = lambda _: reapi.ExecuteResponse(result=reapi.ActionResult(exit_code=1))
    properties = [Property("network", "on", "network_access"), Property("pool", "a=b")]
    with CastoreStore(tmp_path / "store") as castore, serve(engine) as target:
        address = f"reapi+grpc://{target}"
        builder = ReapiBuilder(address, castore, properties=properties)
        with builder, pytest.raises(BuildFailedError):
            builder.build(request_)
    digest = engine.requests[0].action_digest
    options = ["--property", "network_access:network=on", "--property", "pool=a=b"]
    result = show(tmp_path, request_, "--reapi", function.name.lower(), *options)
    line = f"{digest.hash}/{digest.size_bytes}  {tmp_path}/request.binpb\n"
    assert (result.status, result.stdout, result.stderr) == (0, line.encode(), "")


def test_prints_why_a_request_has_no_action(tmp_path: Path, request_: BuildRequest) -> None:
    result = show(tmp_path, request_, "--reapi", "sha256")
    assert (result.status, result.stdout) == (1, b"")
    assert "constraints.network_access: " in result.stderr
    request_.inputs[0].file.digest = bytes(32)
    properties = ["--property", "network_access:a=b"]
    result = show(tmp_path, request_, "--reapi", "sha256", *properties)
    assert (result.status, result.stdout) == (1, b"")
    assert "0" * 64 in result.stderr
    request_.ClearField("command_args")
    result = show(tmp_path, request_, "--reapi", "sha256")
    assert result.status == 1
    assert "command_args: required" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--reapi", "sha256", "--json"], "expected --reapi with --castore, and without"),
        (["--property", "a=b"], "expected --reapi with --castore and --property"),
        (["--reapi", "sha256", "--property", "a"], "expected [CONSTRAINT:]NAME=VALUE"),
        (["--reapi", "md5"], "'md5' is not one of"),
    ],
)
def test_wrong_usage(
    tmp_path: Path, request_: BuildRequest, options: list[str], message: str
) -> None:
    result = show(tmp_path, request_, *options)
    assert result.status == 2
    assert message in result.stderr
