# SPDX-License-Identifier: MIT
"""ReapiBuilder and an engine whose calls fail as the tests say."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from reapi.protos import remote_execution_pb2 as reapi
from reapi_server import Engine, FailedCallError, missing_blobs, serve
from snix.build.protos.build_pb2 import BuildRequest
from tvix_build import Report, blake3_many, build_request, check
from tvix_build.builders import BuildFailedError, RefusedError, UnavailableError
from tvix_build.builders.reapi import DigestFunction, EngineError, Property, ReapiBuilder
from tvix_build.castore import CastoreStore

LIMIT = 5
MEBIBYTE = 1 << 20
LARGE = bytes(range(256)) * (5 << 12)  # 5 MiB: more than a batch
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
BOTH = pytest.mark.parametrize("engine", list(DigestFunction), indirect=True, ids=lambda f: f.name)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Engine:
    engine = Engine(getattr(request, "param", DigestFunction.SHA256))
    engine.execute = lambda _: reapi.ExecuteResponse(result=result_of(engine))
    return engine


@pytest.fixture
def castore(tmp_path: Path) -> Iterator[CastoreStore]:
    with CastoreStore(tmp_path / "castore") as store:
        yield store


Build = Callable[..., Any]


@pytest.fixture
def build(engine: Engine, castore: CastoreStore) -> Iterator[Build]:
    """Build a request with the engine."""
    with serve(engine) as target:

        def run(request: Any, *, on_log: Any = None, **options: Any) -> Any:
            address = f"reapi+grpc://{target}/main/1"
            with ReapiBuilder(address, castore, delays=(0.0, 0.0), **options) as builder:
                return builder.build(request, on_log=on_log)

        yield run


def result_of(engine: Engine) -> reapi.ActionResult:
    """The result with an output that refers to its input."""
    result = reapi.ActionResult(stdout_raw=b"out\n", stderr_digest=engine.put(b"err\n"))
    tree = reapi.Tree()
    tree.root.files.add(name="large", digest=engine.put(LARGE))
    tree.root.files.add(name="a", digest=engine.put(b"see 1-input"), is_executable=True)
    tree.root.symlinks.add(name="link", target="/nix/store/1-input")
    result.output_directories.add(
        path="../nix/store/2-out", tree_digest=engine.put(tree.SerializeToString())
    )
    result.execution_metadata.execution_start_timestamp.seconds = 1
    result.execution_metadata.execution_completed_timestamp.seconds = 3
    return result


@pytest.fixture
def request_(castore: CastoreStore, tmp_path: Path) -> BuildRequest:
    source = tmp_path / "source"
    source.mkdir()
    (source / "large").write_bytes(LARGE[1:] + b"!")
    (source / "small").write_bytes(b"small")
    request = BuildRequest(
        command_args=["/nix/store/1-input/small"],
        working_dir="build",
        inputs_dir="nix/store",
        scratch_paths=["build", "nix/store"],
        outputs=["nix/store/2-out"],
        refscan_needles=["1-input", "3-other", "large"],
    )
    request.inputs.add().ParseFromString(castore.ingest(source, name="1-input").SerializeToString())
    return request


@BOTH
def test_uploads_what_is_missing_and_fetches_the_outputs(
    engine: Engine, build: Build, castore: CastoreStore, request_: BuildRequest
) -> None:
    log: list[bytes] = []
    stages: list[str] = []
    done = build(request_, on_log=log.append, on_stage=stages.append)
    (output,) = done.response.outputs
    assert list(output.needles) == [0, 2]
    directory = castore.directory(output.output.directory.digest)
    assert [(one.name, one.executable) for one in directory.files] == [
        (b"a", True),
        (b"large", False),
    ]
    with castore.open_blob(directory.files[1].digest) as file:
        assert file.read() == LARGE
    assert b"".join(log) == b"out\nerr\n"
    with castore.open_blob(done.record.log_digest) as file:
        assert file.read() == b"out\nerr\n"
    assert (done.record.finished - done.record.started).total_seconds() == 2
    assert done.record.builder.startswith("reapi+grpc://127.0.0.1:")
    assert stages == ["EXECUTING", "COMPLETED"]
    (execution,) = engine.requests
    assert execution.instance_name == "main/1"
    assert execution.digest_function == engine.function.value
    prefix = "blobs/blake3/" if engine.function is DigestFunction.BLAKE3 else "blobs/"
    (written,) = engine.written
    assert written.startswith("main/1/uploads/")
    assert f"/{prefix}" in written

    assert build(request_).response == done.response
    assert engine.calls["BatchUpdateBlobs"] == engine.calls["Write"] == 1
    assert engine.calls["Read"] == 1  # The castore has the outputs.


@BOTH
def test_a_cached_result_needs_one_call(
    engine: Engine, build: Build, castore: CastoreStore, request_: BuildRequest
) -> None:
    first = build(request_)
    engine.results[engine.requests[0].action_digest.hash] = result_of(engine)
    engine.calls.clear()
    log: list[bytes] = []
    assert build(request_, on_log=log.append).response == first.response
    assert b"".join(log) == b"out\nerr\n"
    assert engine.calls == {"GetCapabilities": 1, "GetActionResult": 1}
    # What the castore lacks is fetched.
    directory = castore.directory(first.response.outputs[0].output.directory.digest)
    castore.collect_garbage([], grace_seconds=-3600)
    castore.ingest(Path(castore.path).parent / "source")
    assert build(request_).response == first.response
    assert castore.has_blob(directory.files[0].digest)
    assert engine.calls["Execute"] == 0
    build(request_, cache=False)
    assert engine.calls["Execute"] == 1
    assert engine.requests[-1].skip_cache_lookup


def test_a_cached_result_whose_blobs_are_lost_is_executed_again(
    engine: Engine, build: Build, request_: BuildRequest
) -> None:
    build(request_)
    lost = result_of(engine)
    lost.stderr_digest.hash = "0" * 64
    engine.results[engine.requests[0].action_digest.hash] = lost
    build(request_)
    assert engine.calls["Execute"] == 2
    assert engine.requests[-1].skip_cache_lookup


def test_a_result_whose_blobs_are_lost_is_an_error(
    engine: Engine, build: Build, request_: BuildRequest
) -> None:
    lost = result_of(engine)
    lost.stderr_digest.hash = "0" * 64
    engine.execute = lambda _: reapi.ExecuteResponse(result=lost)
    with pytest.raises(EngineError, match="NOT_FOUND"):
        build(request_)


def test_a_directory_with_many_names_is_checked_once(
    engine: Engine, build: Build, request_: BuildRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = reapi.Tree(children=[reapi.Directory()])
    digest = engine.function.digest(b"")
    for number in range(20):
        tree.root.directories.add(name=f"{number:02}", digest=digest)
    result = result_of(engine)
    result.output_directories[0].tree_digest.CopyFrom(engine.put(tree.SerializeToString()))
    engine.execute = lambda _: reapi.ExecuteResponse(result=result)
    checked = []

    def count_checks(*args: Any, **kwargs: Any) -> Report:
        checked.append(args)
        return check(*args, **kwargs)

    monkeypatch.setattr("tvix_build.builders.reapi.raising.check", count_checks)
    build(request_)
    assert len(checked) == 2


def test_unknown_stages_are_ignored(engine: Engine, build: Build, request_: BuildRequest) -> None:
    result = result_of(engine)
    engine.execute = lambda _: reapi.ExecuteResponse(result=result)
    engine.stages = ["QUEUED", 99]
    stages: list[str] = []
    build(request_, on_stage=stages.append)
    assert stages == ["QUEUED", "COMPLETED"]


@pytest.mark.parametrize("part", ["file", "file of a tree", "tree", "log"])
def test_a_digest_that_is_no_name_is_an_error(
    engine: Engine, build: Build, request_: BuildRequest, castore: CastoreStore, part: str
) -> None:
    result = result_of(engine)
    name = f"../../{'0' * 58}"
    engine.blobs[name] = b"data"
    wrong = reapi.Digest(hash=name, size_bytes=4)
    if part == "file":
        result.output_files.add(path="../nix/store/3-out", digest=wrong)
    elif part == "file of a tree":
        tree = reapi.Tree()
        tree.root.files.add(name="a", digest=wrong)
        result.output_directories[0].tree_digest.CopyFrom(engine.put(tree.SerializeToString()))
    elif part == "tree":
        result.output_directories[0].tree_digest.CopyFrom(wrong)
    else:
        result.stderr_digest.CopyFrom(wrong)
    engine.execute = lambda _: reapi.ExecuteResponse(result=result)
    with pytest.raises(EngineError, match="expected a digest of 64 hexadecimal digits, found"):
        build(request_)
    assert not list(Path(castore.path).parent.rglob("0" * 58))


def test_a_time_that_is_out_of_range_is_ignored(
    engine: Engine, build: Build, request_: BuildRequest
) -> None:
    result = result_of(engine)
    result.execution_metadata.execution_start_timestamp.seconds = (1 << 63) - 1
    result.execution_metadata.execution_completed_timestamp.seconds = -1 << 63
    engine.execute = lambda _: reapi.ExecuteResponse(result=result)
    assert build(request_).record.exit_status == 0


def test_requests_of_the_first_schema_get_their_response(
    engine: Engine, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = tmp_path / "busybox"
    shell.write_bytes(b"the shell")
    shell.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    name = "0" * 32 + "-out"
    result = reapi.ActionResult()
    result.output_symlinks.add(path=f"../nix/store/{name}", target="a")
    engine.execute = lambda _: reapi.ExecuteResponse(result=result)
    request = build_request(command_args=["/a"], outputs=[name], system="x86_64-linux")
    built = build(request).response
    assert built.build_request == request
    assert built.outputs[0].symlink.target == b"a"
    assert b"the shell" in engine.blobs.values()


def test_lost_connections_wait_for_the_same_execution(
    engine: Engine, build: Build, request_: BuildRequest
) -> None:
    engine.stages = ["QUEUED", UNAVAILABLE, "EXECUTING", UNAVAILABLE]
    stages: list[str] = []
    build(request_, on_stage=stages.append)
    assert (engine.calls["Execute"], engine.calls["WaitExecution"]) == (1, 2)
    assert stages == ["QUEUED", "EXECUTING", "COMPLETED"]


def test_forgotten_operations_are_executed_again(
    engine: Engine, build: Build, request_: BuildRequest
) -> None:
    engine.stages = ["QUEUED", UNAVAILABLE]
    engine.failures["WaitExecution"] = [FailedCallError(grpc.StatusCode.NOT_FOUND)]
    build(request_)
    assert (engine.calls["Execute"], engine.calls["WaitExecution"]) == (2, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        *("GetCapabilities", "GetActionResult", "FindMissingBlobs", "BatchUpdateBlobs", "Write"),
        *("Execute", "BatchReadBlobs", "Read"),
    ],
)
def test_unavailable_engines_are_called_again(
    engine: Engine, build: Build, request_: BuildRequest, method: str
) -> None:
    engine.failures[method] = [FailedCallError(UNAVAILABLE)] * 2
    expected = build(request_)
    assert not engine.failures[method]
    assert len(expected.response.outputs) == 1


@pytest.mark.parametrize("method", ["GetCapabilities", "FindMissingBlobs", "Execute", "Read"])
def test_unavailable_engines_are_an_error_at_last(
    engine: Engine, build: Build, request_: BuildRequest, method: str
) -> None:
    engine.failures[method] = [FailedCallError(UNAVAILABLE)] * 3
    with pytest.raises(UnavailableError, match=r"UNAVAILABLE: .*; check the address"):
        build(request_)


@pytest.mark.parametrize(
    ("code", "remedy"),
    [("PERMISSION_DENIED", "; check the credentials"), ("INTERNAL", "the test says so$")],
)
def test_other_errors_are_not_repeated(
    engine: Engine, build: Build, request_: BuildRequest, code: str, remedy: str
) -> None:
    engine.failures["FindMissingBlobs"] = [FailedCallError(grpc.StatusCode[code])]
    with pytest.raises(EngineError, match=rf"^reapi\+grpc://.*: {code}: .*{remedy}"):
        build(request_)
    assert engine.calls["FindMissingBlobs"] == 1


@pytest.mark.parametrize(("copies", "found"), [(0, "none"), (2, "several")])
def test_responses_that_are_missing_or_repeated_are_an_error(
    engine: Engine, build: Build, request_: BuildRequest, copies: int, found: str
) -> None:
    engine.copies["FindMissingBlobs"] = copies
    message = f"INTERNAL: expected one response of FindMissingBlobs, found {found}$"
    with pytest.raises(EngineError, match=message):
        build(request_)


def test_large_downloads_continue_where_the_connection_was_lost(
    engine: Engine, build: Build, request_: BuildRequest
) -> None:
    engine.read_pieces = 2
    build(request_)
    assert engine.calls["Read"] == 3


@pytest.mark.parametrize("within_call", [False, True])
def test_missing_blobs_are_uploaded_again(
    engine: Engine, build: Build, request_: BuildRequest, within_call: bool
) -> None:
    def lose(request: reapi.ExecuteRequest) -> reapi.ExecuteResponse:
        digest = request.action_digest
        engine.execute = lambda _: reapi.ExecuteResponse(result=result_of(engine))
        del engine.blobs[digest.hash]
        if within_call:
            raise FailedCallError(grpc.StatusCode.FAILED_PRECONDITION, missing_blobs(digest))
        return reapi.ExecuteResponse(status=missing_blobs(digest))

    engine.execute = lose
    build(request_)
    assert engine.calls["Execute"] == 2
    assert engine.requests[0].action_digest.hash in engine.blobs


def test_blobs_that_stay_missing_are_an_error(
    engine: Engine, build: Build, request_: BuildRequest
) -> None:
    engine.execute = lambda request: reapi.ExecuteResponse(
        status=missing_blobs(request.action_digest)
    )
    with pytest.raises(EngineError, match="FAILED_PRECONDITION: missing"):
        build(request_)
    assert engine.calls["Execute"] == 3


def test_a_command_that_fails_is_a_failed_build(
    engine: Engine, build: Build, request_: BuildRequest
) -> None:
    result = reapi.ActionResult(exit_code=3, stderr_raw=b"oops")
    engine.execute = lambda _: reapi.ExecuteResponse(result=result)
    log: list[bytes] = []
    with pytest.raises(BuildFailedError, match=r"^exit status 3$") as caught:
        build(request_, on_log=log.append)
    assert caught.value.record.exit_status == 3
    assert caught.value.record.log_size == 4
    assert log == [b"oops"]


@pytest.mark.parametrize("limit", [6, 4, 1])
def test_a_log_above_the_limit_is_a_failed_build(
    build: Build, castore: CastoreStore, request_: BuildRequest, limit: int
) -> None:
    log: list[bytes] = []
    failure = f"the limit of the size of the log, {limit} bytes, is exceeded"
    with pytest.raises(BuildFailedError, match=f"^{failure}$") as caught:
        build(request_, max_log_size=limit, on_log=log.append)
    record = caught.value.record
    assert (record.exit_status, record.log_size, record.failure) == (0, limit, failure)
    assert b"".join(log) == b"out\nerr\n"[:limit]
    with castore.open_blob(record.log_digest) as file:
        assert file.read() == b"out\nerr\n"[:limit]
    assert build(request_, max_log_size=8).record.log_size == 8


@BOTH
def test_stdout_and_stderr_that_are_the_same(
    engine: Engine, build: Build, request_: BuildRequest
) -> None:
    result = result_of(engine)
    result.stdout_digest.CopyFrom(engine.put(b"same\n"))
    result.stderr_digest.CopyFrom(result.stdout_digest)
    result.ClearField("stdout_raw")
    engine.execute = lambda _: reapi.ExecuteResponse(result=result)
    log: list[bytes] = []
    build(request_, on_log=log.append)
    assert b"".join(log) == b"same\nsame\n"


@pytest.mark.parametrize("size", [100, len(LARGE)])
def test_a_log_of_another_size_is_an_error(
    engine: Engine, build: Build, request_: BuildRequest, size: int
) -> None:
    """The engine says that the log is larger than the limit, and sends one that is smaller."""
    result = result_of(engine)
    result.stderr_digest.size_bytes = size
    engine.execute = lambda _: reapi.ExecuteResponse(result=result)
    with pytest.raises(EngineError, match="DATA_LOSS"):
        build(request_, max_log_size=50)


@pytest.mark.slow
@pytest.mark.parametrize("fits", [True, False])
def test_a_large_log_is_not_read_into_memory(
    engine: Engine, build: Build, request_: BuildRequest, fits: bool
) -> None:
    whole = bytes(range(256)) * (32 * MEBIBYTE // 256)
    result = reapi.ActionResult(exit_code=3, stdout_digest=engine.put(whole))
    engine.execute = lambda _: reapi.ExecuteResponse(result=result)
    limit = len(whole) - (not fits)
    digest = blake3_many([whole[:limit]])[0]
    tracemalloc.start()
    try:
        with pytest.raises(BuildFailedError, match="exit status" if fits else "limit") as caught:
            build(request_, max_log_size=limit)
        assert tracemalloc.get_traced_memory()[1] < len(whole) // 2
    finally:
        tracemalloc.stop()
    assert (caught.value.record.log_size, caught.value.record.log_digest) == (limit, digest)


def test_a_missing_output_is_a_failed_build(
    engine: Engine, build: Build, request_: BuildRequest
) -> None:
    engine.execute = lambda _: reapi.ExecuteResponse(result=reapi.ActionResult(stdout_raw=b"a"))
    with pytest.raises(BuildFailedError, match=r"^output nix/store/2-out is missing$") as caught:
        build(request_)
    assert caught.value.record.exit_status == 0


def test_a_time_limit_is_a_failed_build(
    engine: Engine, build: Build, request_: BuildRequest
) -> None:
    response = reapi.ExecuteResponse()
    response.status.code = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
    engine.execute = lambda _: response
    with pytest.raises(BuildFailedError, match="time limit") as caught:
        build(request_, timeout=LIMIT)
    assert caught.value.record.exit_status is None


@BOTH
@pytest.mark.parametrize("name", ["large", "a", "tree"])
def test_other_contents_are_an_error(
    engine: Engine, build: Build, request_: BuildRequest, name: str
) -> None:
    result = result_of(engine)
    tree_digest = result.output_directories[0].tree_digest
    files = {
        one.name: one.digest
        for one in reapi.Tree.FromString(engine.blobs[tree_digest.hash]).root.files
    }
    digest = files.get(name, tree_digest)
    data = bytearray(engine.blobs[digest.hash])
    data[-1] ^= 1
    engine.blobs[digest.hash] = bytes(data)
    engine.execute = lambda _: reapi.ExecuteResponse(result=result)
    with pytest.raises(EngineError, match=f"other contents for the blob {digest.hash}/"):
        build(request_)


def test_inputs_that_the_castore_lacks_are_refused(build: Build) -> None:
    request = BuildRequest(command_args=["a"])
    request.inputs.add().file.name = b"a"
    request.inputs[0].file.digest = bytes(32)
    with pytest.raises(RefusedError, match="inputs: "):
        build(request)


def test_properties_are_those_of_the_action(
    engine: Engine, build: Build, request_: BuildRequest
) -> None:
    build(request_, properties=[Property("pool", "small")])
    action = reapi.Action.FromString(engine.blobs[engine.requests[0].action_digest.hash])
    assert [(one.name, one.value) for one in action.platform.properties] == [("pool", "small")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.ClearField("execution_capabilities"), "executes nothing"),
        (
            lambda found: found.cache_capabilities.ClearField("digest_functions"),
            "expected an engine with the digest function SHA256 or BLAKE3, found none",
        ),
    ],
)
def test_engines_that_cannot_execute_are_unavailable(
    engine: Engine, build: Build, request_: BuildRequest, change: Any, message: str
) -> None:
    change(engine.capabilities)
    with pytest.raises(UnavailableError, match=message) as caught:
        build(request_)
    assert caught.value.permanent


def test_cancelling_cancels_the_operation(
    engine: Engine, castore: CastoreStore, request_: BuildRequest
) -> None:
    engine.hanging = True

    async def run(target: str) -> None:
        started = asyncio.Event()
        loop = asyncio.get_running_loop()

        def note(_: str) -> None:
            loop.call_soon_threadsafe(started.set)

        with ReapiBuilder(f"reapi+grpc://{target}", castore, on_stage=note) as builder:
            task = asyncio.create_task(builder.build_async(request_))
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with serve(engine) as target:
        asyncio.run(run(target))
    assert engine.cancelled == ["operation"]


def test_threads_share_a_builder(
    engine: Engine, castore: CastoreStore, request_: BuildRequest
) -> None:
    found: list[Any] = []
    with serve(engine) as target, ReapiBuilder(f"reapi+grpc://{target}", castore) as builder:
        threads = [
            threading.Thread(target=lambda: found.append(builder.build(request_).response))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 4
    assert found.count(found[0]) == 4


@pytest.mark.parametrize(
    "address",
    [
        *("", "grpc+http://a:1", "reapi+grpc://a", "reapi+grpc://a:65536", "reapi+grpc://a:1?b"),
        *("reapi+grpc://a b:1", "reapi+http://a:1"),
    ],
)
def test_other_addresses_are_an_error(address: str, castore: CastoreStore) -> None:
    with pytest.raises(ValueError, match=r"expected reapi\+grpc://HOST:PORT/INSTANCE"):
        ReapiBuilder(address, castore)


def test_credentials_need_tls(castore: CastoreStore) -> None:
    credentials = grpc.ssl_channel_credentials()
    with pytest.raises(ValueError, match=r"expected a reapi\+grpcs:// address"):
        ReapiBuilder("reapi+grpc://a:1", castore, credentials=credentials)
    ReapiBuilder("reapi+grpcs://[::1]:1/a/b", castore, credentials=credentials).close()
