# SPDX-License-Identifier: MIT
"""ReapiBuilder and a real engine. On each request, the sandbox of this machine has to agree."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli_support import run
from made_derivations import MadeStore
from made_plans import output_name, write_greetings
from snix.build.protos.build_pb2 import BuildRequest
from tvix_build.builders import BuildFailedError, SandboxBuilder, UnavailableError
from tvix_build.builders.derivations import DerivationBuildError, build_derivation
from tvix_build.castore import CastoreStore

grpc = pytest.importorskip("grpc")

from casd import needs_casd, running_casd  # noqa: E402
from tvix_build.builders.reapi import EngineError, ReapiBuilder  # noqa: E402

EXAMPLE = Path(__file__).parents[2] / "examples" / "build"
LARGE = 5 << 20  # more than a batch


ENGINE = os.environ.get("TVIX_BUILD_ENGINE")

pytestmark = needs_casd


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running casd, or the engine that TVIX_BUILD_ENGINE names."""
    if ENGINE is not None:
        yield ENGINE
        return
    with running_casd(tmp_path_factory.mktemp("casd")) as found:
        yield found


@pytest.fixture
def castore(tmp_path: Path) -> Iterator[CastoreStore]:
    with CastoreStore(tmp_path / "castore") as store:
        yield store


def request_of(castore: CastoreStore, source: Path, script: str, *outputs: str) -> BuildRequest:
    """A request that runs a script, with a source as its input."""
    request = BuildRequest(
        command_args=["/bin/sh", "-euc", script],
        working_dir="build",
        inputs_dir="nix/store",
        scratch_paths=["build", "nix/store"],
        outputs=outputs,
        refscan_needles=["1-source", "2-out", "absent"],
    )
    request.environment_vars.add(key="src", value=b"/nix/store/1-source")
    request.constraints.system = "x86_64-linux"
    request.constraints.provide_bin_sh = True
    request.inputs.add().ParseFromString(
        castore.ingest(source, name="1-source").SerializeToString()
    )
    return request


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "deep/empty").mkdir(parents=True)
    (source / "deep/run").write_text("#!/bin/sh\necho ran\n")
    (source / "deep/run").chmod(0o755)
    (source / "link").symlink_to("deep")
    if ENGINE is None:  # BuildGrid has no absolute links.
        (source / "absolute").symlink_to("/nix/store/1-source/deep")
    (source / "large").write_bytes(os.urandom(1024) * (LARGE >> 10))
    return source


SCRIPT = """
cd /nix/store
test -x $src/link/run
$src/deep/run
mkdir -p 2-out/a/b 3-copy
echo $src >2-out/a/file
cp 2-out/a/file 2-out/a/program
chmod 755 2-out/a/program
ln -s ../a 2-out/a/b/up
cp -r $src/large $src/deep 3-copy/
cat $src/large $src/large >5-large
echo warning >&2
"""
OUTPUTS = ["nix/store/2-out", "nix/store/3-copy", "nix/store/5-large"]


def build(address: str, castore: CastoreStore, request: BuildRequest, **options: Any) -> Any:
    with ReapiBuilder(address, castore, **options) as builder:
        return builder.build(request)


def test_builds_what_the_sandbox_builds(
    address: str, castore: CastoreStore, source: Path, tmp_path: Path
) -> None:
    request = request_of(castore, source, SCRIPT, *OUTPUTS)
    done = build(address, castore, request)
    assert [list(one.needles) for one in done.response.outputs] == [[0], [], []]
    with castore.open_blob(done.record.log_digest) as file:
        assert file.read() == b"ran\nwarning\n"
    again = build(address, castore, request)
    assert again == done  # with the times of the first build: a cached result
    with CastoreStore(tmp_path / "other") as other:
        request_of(other, source, "", *OUTPUTS)  # ingests the source
        try:
            expected = SandboxBuilder(other).build(request)
        except UnavailableError as error:
            pytest.skip(str(error))
        assert done.response == expected.response


def test_a_failure_has_its_status_and_log(
    address: str, castore: CastoreStore, source: Path
) -> None:
    request = request_of(castore, source, "echo oops >&2; exit 3", OUTPUTS[0])
    with pytest.raises(BuildFailedError, match=r"^exit status 3$") as caught:
        build(address, castore, request)
    with castore.open_blob(caught.value.record.log_digest) as file:
        assert file.read() == b"oops\n"


def test_a_missing_output_is_named(address: str, castore: CastoreStore, source: Path) -> None:
    request = request_of(castore, source, "mkdir /nix/store/2-out", *OUTPUTS[:2])
    with pytest.raises(BuildFailedError, match=r"^output nix/store/3-copy is missing$"):
        build(address, castore, request)


def test_an_output_that_is_a_link_is_an_error_of_buildbox(
    address: str, castore: CastoreStore, source: Path
) -> None:
    request = request_of(castore, source, "ln -s a /nix/store/4-link", "nix/store/4-link")
    with pytest.raises(EngineError, match=r"INTERNAL: .*4-link. is not a file or directory"):
        build(address, castore, request)


def test_inputs_stay_as_they_are(address: str, castore: CastoreStore, source: Path) -> None:
    """casd lets a command write to its copy of an input."""
    script = "echo changed >$src/deep/run || true; echo >/nix/store/2-out"
    build(address, castore, request_of(castore, source, script, OUTPUTS[0]))
    request = request_of(castore, source, "cp $src/deep/run /nix/store/2-out", OUTPUTS[0])
    (output,) = build(address, castore, request).response.outputs
    with castore.open_blob(output.output.file.digest) as file:
        assert file.read() == (source / "deep/run").read_bytes()
    assert not list(castore.verify())


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """Return the last derivation of the example, in copies: Bazel's files are links."""
    directory = tmp_path / "example"
    shutil.copytree(EXAMPLE, directory, copy_function=shutil.copyfile)
    (file,) = directory.glob("*-greetings.txt.drv")
    return file


def test_a_derivation_and_its_inputs(address: str, castore: CastoreStore, example: Path) -> None:
    with ReapiBuilder(address, castore) as builder:
        found = build_derivation(example, builder=builder, castore=castore)
    expected = build_derivation(example, builder=SandboxBuilder(castore), castore=castore)
    assert len(found.results) == 2
    assert found.outputs == expected.outputs
    assert (found.closure, found.references) == (expected.closure, expected.references)


def test_an_input_derivation_that_fails(
    address: str, castore: CastoreStore, tmp_path: Path
) -> None:
    store = MadeStore(tmp_path)
    failing = store.derivation("failing", "exit 3")
    top = store.derivation("top", "echo > $out", inputs=[failing])
    with ReapiBuilder(address, castore) as builder, pytest.raises(DerivationBuildError) as caught:
        build_derivation(store.file(top), builder=builder, castore=castore)
    assert str(caught.value) == f"{failing}: exit status 3; needed by {top}"


def test_a_derivation_on_the_command_line(address: str, tmp_path: Path, example: Path) -> None:
    options = ("--builder", address, "--castore", "castore", "--out-link", "result", "--quiet")
    found = run("build", example, *options, cwd=tmp_path)
    assert (found.status, found.stderr) == (0, "")
    (output,) = (tmp_path / "result").iterdir()
    assert output.read_text() == "Hello, Ada!\nHello, Grace!\n"


def test_a_plan_on_several_builders(tmp_path: Path, address: str) -> None:
    write_greetings(tmp_path)
    results = set()
    for number, builders in enumerate((["sandbox:"], [address], ["sandbox:", f"2:{address}"])):
        options = [word for builder in builders for word in ("--builder", builder)]
        where = ("--state", f"state-{number}", "--castore", "castore", "--out-link", f"{number}")
        found = run("plan", "run", "plan.binpb", *options, *where, cwd=tmp_path)
        assert (found.status, found.stdout) == (0, b"4 built, 0 cached, 0 failed, 0 skipped\n")
        results.add((tmp_path / str(number) / output_name("run")).read_bytes())
    assert results == {b"echo 'hello, world!'\n"}
