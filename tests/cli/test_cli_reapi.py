# SPDX-License-Identifier: MIT
"""`show --reapi` prints the digest of the action that ReapiBuilder executes; `build` runs it."""

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


def result_of_link() -> reapi.ExecuteResponse:
    result = reapi.ActionResult(stdout_raw=b"working\n")
    result.output_symlinks.add(path="out", target="/source")
    return reapi.ExecuteResponse(result=result)


def build(directory: Path, request: BuildRequest, target: str, *options: str) -> Result:
    (directory / "request.binpb").write_bytes(request.SerializeToString())
    arguments = ["--schema", "snix.build.v1", "--builder", f"reapi+grpc://{target}", *options]
    return run("build", *arguments, "request.binpb", cwd=directory)


def test_builds_on_an_engine(tmp_path: Path, request_: BuildRequest) -> None:
    engine = Engine()
    engine.execute = lambda _: result_of_link()
    options = ["--castore", "store", "--property", "network_access:network=on"]
    with serve(engine) as target:
        arguments = [
            *("--out-link", "result", "--no-cache"),
            *("--timeout", "1.5", "--output", "a.binpb"),
        ]
        result = build(tmp_path, request_, target, *options, *arguments)
        assert (result.status, result.stdout, result.stderr) == (0, b"", "working\n")
        assert (tmp_path / "result/out").readlink() == Path("/source")
        (execution,) = engine.requests
        assert execution.skip_cache_lookup
        action = reapi.Action.FromString(engine.blobs[execution.action_digest.hash])
        assert action.timeout.seconds == 2

        engine.execute = lambda _: reapi.ExecuteResponse(result=reapi.ActionResult(exit_code=9))
        result = build(tmp_path, request_, target, *options)
        assert (result.status, result.stderr) == (
            1,
            "tvix-build: request.binpb: exit status 9\n",
        )

        result = build(tmp_path, request_, target, "--castore", "store")
        assert result.status == 1
        assert "constraints.network_access: " in result.stderr


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("a", ["--castore", "store"], "expected reapi+grpc://HOST:PORT/INSTANCE"),
        ("a:1", [], "expected --castore with --builder reapi+grpc://"),
        ("a:1", ["--castore", "store", "--keep-failed"], "sandbox: with --keep-failed"),
    ],
)
def test_wrong_usage_of_build(
    tmp_path: Path, request_: BuildRequest, target: str, options: list[str], message: str
) -> None:
    result = build(tmp_path, request_, target, *options)
    assert result.status == 2
    assert message in result.stderr


def test_options_of_engines_need_an_engine(tmp_path: Path, request_: BuildRequest) -> None:
    (tmp_path / "request.binpb").write_bytes(request_.SerializeToString())
    options = ["--builder", "sandbox:", "--castore", str(tmp_path / "store"), "--no-cache"]
    result = run("build", *options, str(tmp_path / "request.binpb"))
    assert result.status == 2
    assert "with --property and --no-cache" in result.stderr
