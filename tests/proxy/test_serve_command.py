# SPDX-License-Identifier: MIT
"""`tvix-build serve` and `tvix-build build` as processes: from a real derivation to the
response, TLS, signals, errors."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import IO, Any

import grpc
import pytest
import trustme
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as Any_
from google.rpc.status_pb2 import Status

import tvix_build
from cli_support import run, run_python
from proxy_process import metric, running_proxy
from serving import EXAMPLES, FREE_METRICS, FREE_PORT, nodes, response_to, socket_directory
from threaded_builder import Builder, building
from tvix.build.protos.build_pb2 import Build, BuildRequest
from tvix_build import cli, nix
from tvix_build.castore import CastoreStore
from tvix_build.castore.client import CastoreClient
from tvix_build.nix import DerivationDirectory
from tvix_build.proxy.client import BuildService
from tvix_build.proxy.shared.addresses import parse
from tvix_build.store import RequestStore
from waiting import LIMIT, wait_until

pytestmark = pytest.mark.slow


def test_from_a_derivation_to_the_response(tmp_path: Path) -> None:
    directory = DerivationDirectory(EXAMPLES / "derivations")
    builder, known = Builder(), nodes()
    requests = [
        nix.to_build_request(one, nodes=known, derivations=directory) for one in directory.values()
    ]
    with (
        socket_directory() as sockets,
        building(builder) as upstream,
        running_proxy("--listen", f"grpc+unix:{sockets}/proxy", "--upstream", upstream) as proxy,
    ):
        with BuildService(proxy.address) as client:
            for request in requests:
                assert client.do_build(request) == response_to(request)
        (tmp_path / "request.json").write_text(json_format.MessageToJson(requests[0]))
        command = ("build", tmp_path / "request.json", "--builder", proxy.address)
        shown = run(*command)
        assert (shown.status, shown.stderr) == (0, "")
        assert requests[0].outputs[0] in shown.stdout.decode()
        assert run(*command, "-o", tmp_path / "response.binpb").status == 0
        response = Build.FromString((tmp_path / "response.binpb").read_bytes())
        assert response == response_to(requests[0])
        assert proxy.end(signal.SIGTERM) == 0
    assert builder.requests == [*requests, requests[0], requests[0]]
    assert [one["event"] for one in proxy.lines] == [
        *["call"] * len(builder.requests),
        "draining",
        "stopped",
    ]
    digests = [one["digest"] for one in proxy.lines if one["event"] == "call"]
    assert digests == [tvix_build.digest(one).hex() for one in builder.requests]


def test_an_invalid_request_is_not_sent(tmp_path: Path) -> None:
    bad = BuildRequest(command_args=["a\0", "b\0"], outputs=["b", "a"])
    (tmp_path / "bad.binpb").write_bytes(bad.SerializeToString())
    done = run("build", tmp_path / "bad.binpb", "--builder", "grpc+unix:/no/such/socket")
    assert done.status == 1
    codes = [line.split(": ")[3] for line in done.stderr.splitlines()]
    assert codes == ["invalid_arg", "invalid_arg", "not_sorted"]


def test_castore_services(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with running_proxy("--listen", FREE_PORT, "--check-only", "--castore", store) as proxy:
        for schema in ("tvix.build.v1", "snix.build.v1"):
            with CastoreClient(proxy.address, schema=schema) as client:
                digest = client.put_blob(schema.encode())
                assert client.get_blob(digest) == schema.encode()
        assert proxy.end(signal.SIGTERM) == 0
    with CastoreStore(store) as castore:
        assert castore.has_blob(digest)
    found = run("serve", "--check-only", "--castore", tmp_path)
    assert found.status == 2
    assert "expected a castore store or an empty directory" in found.stderr


def test_failed_calls(tmp_path: Path) -> None:
    request = tvix_build.build_request(command_args=["a"])
    (tmp_path / "request.binpb").write_bytes(request.SerializeToString())
    with running_proxy("--listen", FREE_PORT, "--check-only") as proxy:
        done = run("build", tmp_path / "request.binpb", "--builder", proxy.address)
    assert done.status == 1
    assert "UNIMPLEMENTED: the request is valid" in done.stderr
    gone = run("build", tmp_path / "request.binpb", "--builder", proxy.address)
    assert gone.status == 1
    assert "UNAVAILABLE" in gone.stderr


class Odd(Builder):
    """A builder that fails with details of its own making."""

    def __init__(self, details: bytes) -> None:
        super().__init__()
        self._details = details

    def DoBuild(self, request: BuildRequest, context: Any) -> Build:  # noqa: N802 - gRPC's
        context.set_trailing_metadata((("grpc-status-details-bin", self._details),))
        context.abort(grpc.StatusCode.INTERNAL, "odd")
        raise AssertionError("abort raises")


@pytest.mark.parametrize(
    "details",
    [
        b"\xff",
        Status(code=grpc.StatusCode.NOT_FOUND.value[0], message="odd").SerializeToString(),
        Status(
            code=grpc.StatusCode.INTERNAL.value[0],
            message="odd",
            details=[Any_(type_url="type.googleapis.com/google.rpc.BadRequest", value=b"\xff")],
        ).SerializeToString(),
    ],
)
def test_malformed_status_details(details: bytes, tmp_path: Path) -> None:
    request = tvix_build.build_request(command_args=["a"])
    (tmp_path / "request.binpb").write_bytes(request.SerializeToString())
    with building(Odd(details)) as upstream:
        done = run("build", tmp_path / "request.binpb", "--builder", upstream)
    lines = [line.removeprefix(f"tvix-build: {upstream}: ") for line in done.stderr.splitlines()]
    assert (done.status, lines[0]) == (1, "INTERNAL: odd")
    assert lines[1].startswith("malformed details of the status: ")
    assert len(lines) == 2


def test_an_unwritable_output_fails_before_the_build(tmp_path: Path) -> None:
    request = tvix_build.build_request(command_args=["a"])
    (tmp_path / "request.binpb").write_bytes(request.SerializeToString())
    builder = Builder()
    with building(builder) as upstream:
        command = ("build", tmp_path / "request.binpb", "--builder", upstream, "-o")
        done = run(*command, tmp_path / "none" / "response.binpb")
        assert (done.status, builder.requests) == (2, [])
        assert "response.binpb: No such file or directory" in done.stderr
    (tmp_path / "old.binpb").write_bytes(b"old")
    assert run(*command, tmp_path / "old.binpb").status == 1  # The builder is gone.
    assert (tmp_path / "old.binpb").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("seconds", ["inf", "nan", "1e300", "-1"])
def test_invalid_seconds(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--check-only", "--listen", FREE_PORT, "--grace", seconds]) == 2
    assert "--grace" in capsys.readouterr().err
    build = ["build", __file__, "--builder", "grpc+unix:/a", "--timeout", seconds]
    assert cli.main(build) == 2
    assert "--timeout" in capsys.readouterr().err


def test_running_calls_end_after_a_signal() -> None:
    builder = Builder()
    builder.gate.clear()
    request = tvix_build.build_request(command_args=["a"], outputs=["b"])
    with (
        building(builder) as upstream,
        running_proxy(
            "--listen", FREE_PORT, "--upstream", upstream, "--grace", str(LIMIT)
        ) as proxy,
        ThreadPoolExecutor() as threads,
        BuildService(proxy.address) as client,
    ):
        calls = [threads.submit(client.do_build, request) for _ in range(3)]
        assert all(builder.arrived.acquire(timeout=LIMIT) for _ in calls)
        proxy.process.send_signal(signal.SIGTERM)
        assert proxy.line()["event"] == "draining"
        builder.gate.set()
        assert [call.result(LIMIT) for call in calls] == [response_to(request)] * 3
        assert proxy.end() == 0
    assert [one.get("code") for one in proxy.lines] == ["OK", "OK", "OK", None]


def test_options_are_read_again_after_a_signal(tmp_path: Path) -> None:
    first, second = Certificates(tmp_path / "first"), Certificates(tmp_path / "second")
    request = tvix_build.build_request(command_args=["a"], outputs=["b"])
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    config = tmp_path / "serve.toml"

    def write(certificates: Certificates, limit: str) -> None:
        certificate.write_bytes(certificates.certificate.read_bytes())
        key.write_bytes(certificates.key.read_bytes())
        config.write_text(f"max-builds = {limit}")

    write(first, "2")
    tls = ("--tls-certificate", certificate, "--tls-key", key, "--config", config)
    listen = ("--listen", "grpc+https://localhost:0")
    with (
        building(Builder()) as upstream,
        running_proxy(*listen, *tls, "--upstream", upstream) as proxy,
    ):
        assert _build(proxy.address, request, first.channel(False)) == response_to(request)
        assert proxy.line()["code"] == "OK"
        write(second, "none")
        proxy.process.send_signal(signal.SIGHUP)
        line = proxy.line()
        assert line["event"] == "not reloaded"
        assert "'none' is not a valid integer" in line["reason"] or "TOML" in line["reason"]
        write(second, "3")
        proxy.process.send_signal(signal.SIGHUP)
        assert proxy.line()["event"] == "reloaded"
        assert _build(proxy.address, request, second.channel(False)) == response_to(request)
        assert proxy.line()["code"] == "OK"
        assert proxy.end(signal.SIGTERM) == 0


def test_systemd_is_told_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        socket_directory() as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
    ):
        systemd.bind(f"{directory}/notify")
        systemd.settimeout(LIMIT)
        monkeypatch.setenv("NOTIFY_SOCKET", f"{directory}/notify")
        with running_proxy("--listen", FREE_PORT, "--check-only") as proxy:
            assert systemd.recv(100) == b"READY=1"
            assert proxy.end(signal.SIGTERM) == 0
            assert systemd.recv(100) == b"STOPPING=1"


def test_sockets_of_systemd_are_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["serve", "--check-only", "--check-config"]
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", "1")
    assert cli.main(options) == 0  # They are for another process.
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    assert cli.main(options) == 2
    assert "expected no sockets from systemd" in capsys.readouterr().err


def test_a_reader_of_the_log_that_stalls() -> None:
    request = tvix_build.build_request(command_args=["a"] * 1000, outputs=["b"])
    builder = Builder()
    with (
        building(builder) as upstream,
        running_proxy("--listen", FREE_PORT, "--upstream", upstream) as proxy,
        BuildService(proxy.address) as client,
    ):
        # More lines than a pipe holds.
        for _ in range(400):
            assert client.do_build(request, timeout=LIMIT) == response_to(request)
        proxy.process.send_signal(signal.SIGTERM)
        assert proxy.process.wait(LIMIT) == 0


def test_a_second_signal_cancels_calls() -> None:
    builder = Builder()
    builder.gate.clear()
    request = tvix_build.build_request(command_args=["a"], outputs=["b"])
    with (
        building(builder) as upstream,
        running_proxy(
            "--listen", FREE_PORT, "--upstream", upstream, "--grace", str(LIMIT)
        ) as proxy,
        ThreadPoolExecutor() as threads,
        BuildService(proxy.address) as client,
    ):
        call = threads.submit(client.do_build, request)
        assert builder.arrived.acquire(timeout=LIMIT)
        proxy.process.send_signal(signal.SIGTERM)
        assert proxy.line()["event"] == "draining"
        assert proxy.end(signal.SIGINT) == 0
        assert isinstance(call.exception(LIMIT), grpc.RpcError)
        builder.gate.set()


def test_a_locked_store_does_not_delay_the_shutdown(tmp_path: Path) -> None:
    request = tvix_build.build_request(command_args=["a"], outputs=["b"])
    RequestStore(tmp_path / "store").close()
    options = ("--store", tmp_path / "store", *FREE_METRICS, "--grace", "0")
    with (
        closing(sqlite3.connect(tmp_path / "store", isolation_level=None)) as other,
        running_proxy("--listen", FREE_PORT, "--check-only", *FIRST, *options) as proxy,
        ThreadPoolExecutor() as threads,
        BuildService(proxy.address) as client,
    ):
        other.execute("BEGIN IMMEDIATE")
        call = threads.submit(client.do_build, request)
        wait_until(lambda: metric(proxy.metrics_port, "tvix_build_open_calls") == 1)
        assert proxy.end(signal.SIGTERM) == 0
        assert isinstance(call.exception(LIMIT), grpc.RpcError)
    assert proxy.lines[-1]["reason"] == "a store is locked, or a server does not respond"


def is_awaited(lock: IO[str]) -> bool:
    """Return whether a process waits for the lock of a file."""
    end = f":{os.fstat(lock.fileno()).st_ino} 0 EOF"
    lines = Path("/proc/locks").read_text().splitlines()
    return any("-> FLOCK" in line and line.endswith(end) for line in lines)


def test_a_locked_castore_does_not_delay_the_shutdown(tmp_path: Path) -> None:
    store = tmp_path / "store"
    CastoreStore(store).close()
    options = ("--castore", store, *FREE_METRICS, "--grace", "0")
    with (
        open(store / "lock") as lock,
        running_proxy("--listen", FREE_PORT, "--check-only", *options) as proxy,
        ThreadPoolExecutor() as threads,
        CastoreClient(proxy.address) as client,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        call = threads.submit(client.put_blob, b"blob")
        wait_until(lambda: is_awaited(lock))
        assert metric(proxy.metrics_port, "tvix_build_open_castore_calls") == 1
        assert proxy.end(signal.SIGTERM) == 0
        assert isinstance(call.exception(LIMIT), grpc.RpcError)
    assert proxy.lines[-1]["reason"] == "a store is locked, or a server does not respond"


class Certificates:
    """A certificate authority and a certificate, as files."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        authority = trustme.CA()
        self.ca = directory / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca))
        self.certificate, self.key = directory / "certificate.pem", directory / "key.pem"
        issued = authority.issue_cert("localhost", "client@example.org")
        issued.cert_chain_pems[0].write_to_path(str(self.certificate))
        issued.private_key_pem.write_to_path(str(self.key))

    def channel(self, with_certificate: bool) -> grpc.ChannelCredentials:
        """Return the credentials of a client."""
        mine = (self.key.read_bytes(), self.certificate.read_bytes())
        return grpc.ssl_channel_credentials(
            self.ca.read_bytes(), *(mine if with_certificate else (None, None))
        )

    def server(self) -> grpc.ServerCredentials:
        """Return the credentials of a server that requires client certificates."""
        pair = (self.key.read_bytes(), self.certificate.read_bytes())
        return grpc.ssl_server_credentials([pair], self.ca.read_bytes(), True)


def test_tls_on_both_sides(tmp_path: Path) -> None:
    mine, theirs = Certificates(tmp_path / "mine"), Certificates(tmp_path / "theirs")
    other = Certificates(tmp_path / "other")
    request = tvix_build.build_request(command_args=["a"], outputs=["b"])
    listen = ("--listen", "grpc+https://localhost:0")
    tls = ("--tls-certificate", mine.certificate, "--tls-key", mine.key)
    mutual = ("--tls-client-ca", mine.ca)
    with building(Builder(), theirs.server()) as upstream:
        builder = ("--upstream", upstream, "--upstream-ca", theirs.ca)
        client = ("--upstream-certificate", theirs.certificate, "--upstream-key", theirs.key)
        with running_proxy(*listen, *tls, *mutual, *builder, *client) as proxy:
            assert proxy.address.startswith("grpc+https://localhost:")
            assert _build(proxy.address, request, mine.channel(True)) == response_to(request)
            # Without a certificate; with one of another authority, and not trusting the proxy's.
            for credentials in (mine.channel(False), other.channel(True)):
                code = _build(proxy.address, request, credentials)
                assert code is grpc.StatusCode.UNAVAILABLE
            file = tmp_path / "request.binpb"
            file.write_bytes(request.SerializeToString())
            options = ("--ca", mine.ca, "--certificate", mine.certificate, "--key", mine.key)
            done = run("build", file, "--builder", proxy.address, *options, "-o", "-", *BINARY)
            assert Build.FromString(done.stdout) == response_to(request)
        with running_proxy(*listen, *tls, *builder) as proxy:
            # The proxy requires no client certificate, but the builder requires the proxy's.
            code = _build(proxy.address, request, mine.channel(False))
            assert code is grpc.StatusCode.UNAVAILABLE


BINARY = ("--output-format", "binpb")


def _build(
    address: str, request: BuildRequest, credentials: grpc.ChannelCredentials
) -> Build | grpc.StatusCode:
    with BuildService(address, credentials=credentials) as client:
        try:
            return client.do_build(request, timeout=LIMIT)
        except grpc.RpcError as error:
            failed: Any = error
            code: grpc.StatusCode = failed.code()
            return code


FIRST, YEAR, LAST = (
    ("--schema", schema) for schema in ("tvix.build.v1", "tvix.build.v1@2024", "snix.build.v1")
)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "expected one of --upstream and --check-only"),
        (["--check-only", "--upstream", "grpc+unix:/a"], "expected one of"),
        (["--check-only", "--listen", "http://host:1"], "expected grpc+http://HOST:PORT"),
        (["--check-only", "--listen", "grpc+http://host:65536"], "expected grpc+http://HOST:PORT"),
        (["--check-only", "--listen", "grpc+unix:/" + "a" * 107], "at most 107 bytes"),
        (["--check-only", "--listen", "grpc+https://localhost:0"], "expected --tls-certificate"),
        (["--check-only", "--tls-key", __file__], "expected --listen grpc+https"),
        (["--upstream", "grpc+unix:/a", "--upstream-ca", __file__], "expected grpc+https"),
        (["--check-only", "--metrics", "here"], "expected HOST:PORT"),
        (["--check-only", "--listen", "grpc+unix:/no/such/directory/a"], "No such file"),
        (["--check-only", *FIRST, "--store", "/no/such/directory/a"], "unable to open"),
        (["--check-only", "--store", "/no/such/directory/a"], "tvix.build.v1 only"),
        (["--check-only", *FIRST, *LAST, "--store", "/no/such/directory/a"], "found snix.build.v1"),
        (["--check-only", *YEAR, "--store", "/no/such/directory/a"], "found tvix.build.v1@2024"),
    ],
)
def test_usage(options: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    listen = [] if "--listen" in options else ["--listen", FREE_PORT]
    assert cli.main(["serve", *listen, *options]) == 2
    assert expected in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("grpc+http://host:1", "host:1"),
        ("grpc+http://[::1]:65535/", "[::1]:65535"),
        ("grpc+https://a.example:443", "a.example:443"),
        ("grpc+unix:/a/b", "unix:/a/b"),
        ("grpc+unix:///a/b", "unix:/a/b"),
    ],
)
def test_addresses(address: str, target: str) -> None:
    assert parse(address).target == target
    assert parse(address).tls == address.startswith("grpc+https")


@pytest.mark.parametrize(
    "address",
    [
        *("", "host:1", "grpc+http://:1", "grpc+http://a b:1"),
        *("grpc+http://host:1/path", "grpc+unix:a", "grpc+unix://a", "grpc+unix:/", "unix:/a"),
        *("grpc+ftp://host:1", "grpc+http://host:123456", "grpc+unix:/a\0b", "grpc+http://::1:1"),
    ],
)
def test_invalid_addresses(address: str) -> None:
    with pytest.raises(ValueError, match="expected grpc"):
        parse(address)


def test_without_the_packages_of_serve() -> None:
    code = (
        "import sys; sys.modules['grpc'] = None; sys.modules['grpc_health'] = None\n"
        "from tvix_build.cli import main; sys.exit(main(['serve', '--check-only']))"
    )
    done = run_python(code)
    assert done.status == 2
    assert "pip install 'tvix-build[cli,serve]'" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("installed", [True, False])
def test_the_event_loop(installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if installed:
        pytest.importorskip("uvloop")
    else:
        (tmp_path / "uvloop.py").touch()  # has no `run`
        monkeypatch.syspath_prepend(tmp_path)
    request = tvix_build.build_request(command_args=["a"], outputs=["b"])
    with (
        building(Builder()) as upstream,
        running_proxy("--listen", FREE_PORT, "--upstream", upstream) as proxy,
    ):
        with BuildService(proxy.address) as client:
            assert client.do_build(request) == response_to(request)
        libraries = Path(f"/proc/{proxy.process.pid}/maps").read_text()
        assert ("/uvloop/" in libraries) == installed
        assert proxy.end(signal.SIGTERM) == 0


def test_traces_without_the_exporter(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter", None)
    for name in [one for one in sys.modules if one.startswith("opentelemetry.exporter.")]:
        monkeypatch.delitem(sys.modules, name)
    options = ["--check-only", "--listen", FREE_PORT, "--traces", "http://localhost:1"]
    assert cli.main(["serve", *options]) == 2
    assert "pip install opentelemetry-exporter-otlp-proto-grpc" in capsys.readouterr().err
