# SPDX-License-Identifier: MIT
"""`tvix-build build --builder sandbox:`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import tvix_build
from builders_support import needs_sandbox
from cli_support import Result, run
from tvix.build.protos.build_pb2 import Build
from tvix_build.castore import CastoreStore, node_from_path

NAME = "5qx5i5v9z2y0bqhs4p0d6wcgqm2vz5zq-hello"


def build(directory: Path, script: str, *options: str | Path) -> Result:
    request = tvix_build.build_request(
        command_args=["/bin/sh", "-euc", script],
        outputs=[NAME],
        environment_vars={"out": f"/nix/store/{NAME}"},
        system=f"{os.uname().machine}-linux",
    )
    (directory / "request.binpb").write_bytes(request.SerializeToString())
    return run("build", "request.binpb", "--builder", "sandbox:", *options, cwd=directory)


@needs_sandbox
def test_a_build(tmp_path: Path) -> None:
    found = build(
        tmp_path,
        "echo working >&2; mkdir $out; echo '#!/bin/sh' > $out/run; chmod 755 $out/run",
        *("--castore", "store", "--out-link", "result", "-o", "build.binpb"),
    )
    assert (found.status, found.stdout, found.stderr) == (0, b"", "working\n")
    output = tmp_path / "result" / NAME
    assert os.access(output / "run", os.X_OK)
    assert sorted(os.listdir(tmp_path)) == ["build.binpb", "request.binpb", "result", "store"]
    response = Build.FromString((tmp_path / "build.binpb").read_bytes())
    assert tvix_build.check(response).canonical
    assert list(response.outputs) == [node_from_path(output)]


@needs_sandbox
def test_the_response_is_printed(tmp_path: Path) -> None:
    found = build(tmp_path, "echo hidden; echo x > $out", "--castore", "store", "--quiet")
    assert found.status == 0
    assert found.stdout.startswith(b"sandbox:  build  canonical\n")
    assert found.stderr == ""
    found = build(tmp_path, "echo shown; echo x > $out", "--castore", "store", "--verbose")
    log = tvix_build.blake3_many([b"shown\n"])[0].hex()
    assert f"6 bytes of log in the blob {log}\n" in found.stderr


@needs_sandbox
@pytest.mark.parametrize(
    ("script", "options", "message"),
    [
        ("exit 3", (), "request.binpb: exit status 3"),
        ("true", (), f"request.binpb: output nix/store/{NAME} is missing"),
        ("sleep 100000", ("--timeout", "0.2"), "request.binpb: the limit of time, 0.2 s, is"),
        (
            "while :; do echo y; done",
            ("--max-log-size", "9", "-q"),
            "the log, 9 bytes, is exceeded",
        ),
    ],
)
def test_failures(tmp_path: Path, script: str, options: tuple[str, ...], message: str) -> None:
    found = build(tmp_path, script, "--castore", "store", "--out-link", "result", *options)
    assert (found.status, found.stdout) == (1, b"")
    assert message in found.stderr
    assert not (tmp_path / "result").exists()


@needs_sandbox
def test_an_error_begins_on_a_new_line(tmp_path: Path) -> None:
    found = build(tmp_path, "echo y; echo y", "--castore", "store", "--max-log-size", "3")
    assert found.stderr == (
        "y\ny\ntvix-build: request.binpb: the limit of the size of the log, 3 bytes, is exceeded\n"
    )
    found = build(tmp_path, "printf y; exit 3", "--castore", "store")
    assert found.stderr == "y\ntvix-build: request.binpb: exit status 3\n"


@needs_sandbox
def test_stored_builds(tmp_path: Path) -> None:
    options = ("--castore", "store", "--builds", "builds", "-o", "build.binpb")
    script = "echo working >&2; cat /proc/sys/kernel/random/uuid > $out"
    first = build(tmp_path, script, *options)
    assert (first.status, first.stderr) == (0, "working\n")
    response = (tmp_path / "build.binpb").read_bytes()
    again = build(tmp_path, script, *options, "--out-link", "result")
    assert (again.status, again.stderr) == (0, "")
    assert (tmp_path / "build.binpb").read_bytes() == response
    assert (tmp_path / "result" / NAME).is_file()
    rebuilt = build(tmp_path, script, *options, "--rebuild")
    assert (rebuilt.status, rebuilt.stderr) == (0, "working\n")
    assert (tmp_path / "build.binpb").read_bytes() != response


@needs_sandbox
def test_check(tmp_path: Path) -> None:
    found = build(tmp_path, "echo a > $out", "--castore", "store", "--check")
    assert found.status == 0
    assert "the outputs of a second build are equal" in found.stderr
    script = "mkdir $out; echo a > $out/a; cat /proc/sys/kernel/random/uuid > $out/b"
    found = build(tmp_path, script, "--castore", "store", "--builds", "builds", "--check")
    assert (found.status, found.stdout) == (1, b"")
    message = f"second build has other outputs: nix/store/{NAME}/b: contents differ: expected"
    assert message in found.stderr
    assert f"{NAME}/a" not in found.stderr


@needs_sandbox
def test_keep_failed(tmp_path: Path) -> None:
    found = build(tmp_path, "exit 1", "--castore", "store", "--keep-failed")
    (kept,) = (tmp_path / "store" / "builds").iterdir()
    assert found.stderr == (
        "tvix-build: request.binpb: exit status 1\n"
        f"tvix-build: {kept}: kept; to enter the sandbox, run {kept}/enter\n"
    )


@needs_sandbox
def test_a_request_that_is_refused(tmp_path: Path) -> None:
    request = tvix_build.build_request(command_args=["/x"], outputs=["no-hash"], system="m68k")
    (tmp_path / "a.binpb").write_bytes(request.SerializeToString())
    found = run("build", "a.binpb", "--builder", "sandbox:", "--castore", "s", cwd=tmp_path)
    assert found.status == 1
    assert "a.binpb: outputs[0]: expected a name as in a store path" in found.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "expected --castore with --builder sandbox:"),
        (("--castore", "s", "--ca", "request.binpb"), "expected grpc+https://"),
        (("--castore", "s", "--out-link", "."), "--out-link: '.' exists; expected a new directory"),
        (
            ("--castore", "s", "--builder", "grpc+unix:/x", "--keep-failed"),
            "expected --builder sandbox: with --keep-failed and limits other than --max-log-size",
        ),
        (
            ("--builder", "grpc+unix:/x", "--max-log-size", "9"),
            "expected --castore with --out-link, --builds, --check and --max-log-size",
        ),
        (("--castore", "s", "--rebuild"), "expected --builds with --rebuild"),
        (("--builder", "grpc+unix:/x", "--check"), "expected --castore with --out-link, --builds"),
        (("--builder", "box:"), "expected sandbox:, grpc+http://HOST:PORT"),
    ],
)
def test_usage(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    found = build(tmp_path, "true", *options)
    assert found.status == 2
    assert message in " ".join(found.stderr.split())


@needs_sandbox
def test_without_bubblewrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    found = build(tmp_path, "true", "--castore", "store")
    assert found.status == 1
    assert "apt-get install bubblewrap busybox-static" in " ".join(found.stderr.split())


@needs_sandbox
def test_the_log_is_in_the_castore(tmp_path: Path) -> None:
    build(tmp_path, "echo one; echo x > $out", "--castore", "store")
    with CastoreStore(tmp_path / "store") as castore:
        assert castore.has_blob(tvix_build.blake3_many([b"one\n"])[0])
