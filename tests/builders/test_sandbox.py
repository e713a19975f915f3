# SPDX-License-Identifier: MIT
"""Builds in the sandbox: outputs, references, failures, limits, and what stays behind."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from shutil import which
from typing import Any

import pytest

import tvix_build
from builders_support import (
    BUSYBOX,
    PYTHON,
    busybox_input,
    needs_sandbox,
    python_paths,
    request,
    tvix_entry,
)
from tvix.build.protos.build_pb2 import Build
from tvix.castore.protos import castore_pb2
from tvix_build.builders import (
    BuildFailedError,
    Limits,
    RefusedError,
    SandboxBuilder,
    UnavailableError,
)
from tvix_build.builders.sandbox import _Build
from tvix_build.castore import CastoreStore
from waiting import LIMIT, wait_until

pytestmark = needs_sandbox

HASHES = [letter * 32 for letter in "abcd"]
MEGABYTE = 1 << 20
SYSTEM = f"{os.uname().machine}-linux"


@pytest.fixture
def castore(tmp_path: Path) -> Iterator[CastoreStore]:
    with CastoreStore(tmp_path / "castore") as store:
        yield store


@pytest.fixture
def busybox(castore: CastoreStore, tmp_path: Path) -> Any:
    return busybox_input(castore, tmp_path / "sources")


def build(castore: CastoreStore, script: str, **changes: Any) -> Any:
    """Run a script, and return the response and the record."""
    return SandboxBuilder(castore).build(request(script, **changes))


def fail(castore: CastoreStore, script: str, limits: Limits | None = None, **changes: Any) -> str:
    """Run a script that fails. Return the reason, after checking that nothing stays behind."""
    builder = SandboxBuilder(castore, limits=limits or Limits())
    with pytest.raises(BuildFailedError) as caught:
        builder.build(request(script, **changes))
    assert caught.value.record.failure == caught.value.reason
    assert caught.value.kept is None
    assert remains(castore) == []
    return caught.value.reason


def fail_in_python(castore: CastoreStore, code: str) -> str:
    """As `fail`, with code of Python that runs in the store."""
    return fail(
        castore,
        "",
        command_args=[PYTHON, "-c", f"import os, socket; os.chdir('/nix/store'); {code}"],
        available_ro_paths=python_paths(),
    )


def remains(castore: CastoreStore) -> list[str]:
    """Return the names of the files that builds left."""
    return os.listdir(Path(castore.path, "builds"))


def contents(castore: CastoreStore, response: Any, index: int = 0) -> bytes:
    with castore.open_blob(response.outputs[index].output.file.digest) as file:
        return bytes(file.read())


def processes_with(word: str) -> list[str]:
    """Return the processes of the host with a word in their arguments."""
    found = []
    for one in Path("/proc").iterdir():
        try:
            if one.name.isdigit() and word.encode() in (one / "cmdline").read_bytes():
                found.append(one.name)
        except OSError:
            pass
    return found


def test_several_outputs_and_their_references(castore: CastoreStore, tmp_path: Path) -> None:
    source = tmp_path / f"{HASHES[3]}-source"
    source.write_text("source")
    names = [f"{HASHES[i]}-{name}" for i, name in enumerate(("dev", "doc", "out"))]
    script = f"""
        cd /nix/store
        read line < {source.name} || true
        mkdir() {{ /nix/store/{BUSYBOX}/bin/mkdir "$@"; }}
        mkdir -p {names[0]}/include
        echo "$line" > {names[0]}/include/file
        /nix/store/{BUSYBOX}/bin/ln -s /nix/store/{source.name} {names[0]}/link
        echo none > {names[1]}
        mkdir {names[2]}
        echo "in a file {HASHES[0]}" > {names[2]}/a
        echo x > {names[2]}/is-{HASHES[2]}
        /nix/store/{BUSYBOX}/bin/chmod 700 {names[2]}/a
    """
    result = build(
        castore,
        script,
        outputs=names,
        inputs=[busybox_input(castore, tmp_path / "sources"), castore.ingest(source)],
        refscan_needles=[*HASHES, "0" * 32],
    )
    first, second, third = result.response.outputs
    assert [list(one.needles) for one in (first, second, third)] == [[3], [], [0, 2]]
    directory = castore.directory(third.output.directory.digest)
    assert [(one.name, one.executable) for one in directory.files] == [
        (b"a", True),
        (f"is-{HASHES[2]}".encode(), False),
    ]
    directory = castore.directory(first.output.directory.digest)
    assert directory.symlinks[0].target == f"/nix/store/{source.name}".encode()
    assert first.output.directory.name == b""
    assert tvix_build.check(result.response).canonical
    assert remains(castore) == []


def test_the_record_and_the_log(castore: CastoreStore) -> None:
    logs: list[bytes] = []
    made = request("echo one; echo two >&2; echo x > /nix/store/out")
    result = SandboxBuilder(castore).build(made, on_log=logs.append)
    record = result.record
    assert b"".join(logs) == b"one\ntwo\n"
    with castore.open_blob(record.log_digest) as file:
        assert file.read() == b"one\ntwo\n"
    assert (record.log_size, record.exit_status, record.failure) == (8, 0, None)
    assert record.request_digest == tvix_build.digest(made)
    assert record.started <= record.finished
    assert record.cpu_seconds > 0
    assert record.peak_memory > 0
    assert record.to_json()["request_digest"] == record.request_digest.hex()


@pytest.mark.parametrize(
    ("script", "reason", "status"),
    [
        ("exit 3", "exit status 3", 3),
        ("exit 139", "exit status 139 (SIGSEGV)", 139),
        ("true", "output nix/store/out is missing", 0),
        ("cat < /none", "exit status 1", 1),
        ("/no/command", "exit status 127", 127),
    ],
)
def test_failures(castore: CastoreStore, script: str, reason: str, status: int) -> None:
    with pytest.raises(BuildFailedError) as caught:
        build(castore, script)
    assert str(caught.value) == reason
    assert caught.value.record.exit_status == status


def test_the_environment_is_exactly_that_of_the_request(
    castore: CastoreStore, busybox: Any
) -> None:
    variables = {"ü x": b"1", "-i": "2", "A.B": b"\xff\n", "PWD": "here"}
    result = build(
        castore,
        "",
        command_args=[f"/nix/store/{BUSYBOX}/bin/env", "-0"],
        inputs=[busybox],
        outputs=[],
        environment_vars=variables,
    )
    with castore.open_blob(result.record.log_digest) as file:
        found = set(file.read().split(b"\0")) - {b""}
    assert found == {"ü x=1".encode(), b"-i=2", b"A.B=\xff\n", b"PWD=here"}


def test_requests_of_all_schemas(castore: CastoreStore) -> None:
    made = tvix_build.build_request(
        command_args=["/bin/sh", "-c", "echo $out > $out; echo $out > $dev"],
        outputs=[f"{HASHES[0]}-dev", f"{HASHES[1]}-out"],
        environment_vars={
            "dev": f"/nix/store/{HASHES[0]}-dev",
            "out": f"/nix/store/{HASHES[1]}-out",
        },
        system=SYSTEM,
    )
    builder = SandboxBuilder(castore)
    first = builder.build(made).response
    assert isinstance(first, Build)
    assert first.build_request == made
    assert [node.file.name for node in first.outputs] == [name.encode() for name in made.outputs]
    data = builder.build(made.SerializeToString()).response
    assert data == tvix_build.canonicalize(first)
    later = tvix_build.convert(made.SerializeToString(), to="tvix.build.v1@2024")
    data = builder.build(later, schema="tvix.build.v1@2024").response
    report = tvix_build.check(data, kind="build", schema="tvix.build.v1@2024")
    assert report.canonical
    assert data.endswith(bytes.fromhex("1a03 0a0101" * 2))  # needle 1 in both outputs
    snix = builder.build(later, schema="snix.build.v1").response
    assert tvix_build.check(snix, kind="build", schema="snix.build.v1", request=later).canonical


def test_files_and_directories_are_where_the_request_has_them(castore: CastoreStore) -> None:
    result = SandboxBuilder(castore).build(
        tvix_build.build_request(
            command_args=[
                "/bin/sh",
                "-euc",
                "echo work > file; cd /; show() { while read -r x; do echo $x; done < $1; };"
                "echo `show work/dir/file; show out/data; show etc/hosts; show a/b` > out/result;"
                "! echo x > a/b",
            ],
            outputs=["out/result"],
            system=SYSTEM,
            schema="snix.build.v1",
            working_dir="work/dir",
            scratch_paths=["out", "work/dir"],
            inputs_dir="in/puts",
            provide_bin_sh=True,
            additional_files=[("a/b", "B\n"), ("etc/hosts", "H\n"), ("out/data", "D\n")],
        )
    )
    assert contents(castore, result.response) == b"work D H B\n"


def test_inputs_beside_a_root_that_is_read_only(castore: CastoreStore, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("one")
    (tmp_path / "two").symlink_to("one")
    result = SandboxBuilder(castore).build(
        tvix_build.build_request(
            command_args=[
                "/bin/sh",
                "-c",
                "read -r x < /in/two; echo $x $? > out; ! echo x > /in/one",
            ],
            inputs=[tvix_entry(castore.ingest(tmp_path / name)) for name in ("one", "two")],
            outputs=["tmp/out"],
            system=SYSTEM,
            schema="snix.build.v1",
            working_dir="tmp",
            inputs_dir="in",
            provide_bin_sh=True,
        )
    )
    assert contents(castore, result.response) == b"one 1\n"


def test_the_network_is_absent_unless_the_request_needs_it(
    castore: CastoreStore, busybox: Any
) -> None:
    script = "cd /sys 2>/dev/null || ls /proc/self/net/ >/dev/null; cat /proc/net/dev > $out"
    lines = []
    for network_access in (False, True):
        result = build(
            castore,
            script.replace("$out", "/nix/store/out"),
            inputs=[busybox],
            network_access=network_access,
        )
        lines.append(contents(castore, result.response).count(b":"))
    assert lines[0] == 1
    assert lines[1] == Path("/proc/net/dev").read_text().count(":")


@pytest.fixture(params=[True, False], ids=["overlay", "no overlay"])
def overlay(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel can, the mount points of inputs are in an overlay."""
    if not request.param:
        monkeypatch.setattr(_Build, "_overlay", "")


@pytest.mark.usefixtures("overlay")
def test_a_build_cannot_change_a_symbolic_link_among_its_inputs(
    castore: CastoreStore, busybox: Any, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to("/target")
    reason = fail(
        castore,
        "rm /nix/store/link; echo x > /nix/store/link; echo x > /nix/store/out",
        inputs=[busybox, castore.ingest(tmp_path / "link")],
    )
    assert reason == "the build changed its input nix/store/link"


@pytest.mark.usefixtures("overlay")
def test_a_working_directory_beside_the_inputs(castore: CastoreStore, tmp_path: Path) -> None:
    (tmp_path / "input").write_text("input\n")
    result = build(
        castore,
        "read x < input; echo $x > out; echo $PWD >> /nix/store/out",
        inputs=[castore.ingest(tmp_path / "input")],
        working_dir="nix/store",
    )
    assert contents(castore, result.response) == b"input\n/nix/store\n"


@pytest.mark.slow
@pytest.mark.usefixtures("overlay")
def test_many_inputs(castore: CastoreStore, tmp_path: Path) -> None:
    count = 100
    names = [f"{i:04} \udcff\n" for i in range(count)]
    for i, name in enumerate(names):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(f"{i}\n")
    (tmp_path / "link").symlink_to(f"{names[0]}/file")
    inputs = [castore.ingest(tmp_path / name) for name in [*names, "link"]]
    script = """
        for one in /nix/store/0*/file /nix/store/link; do read x < "$one"; echo $x; done > $out
        ! echo x > /nix/store/link
        ls /dev/shm >> $out
    """
    result = build(castore, script.replace("$out", "/nix/store/out"), inputs=inputs)
    expected = "".join(f"{i}\n" for i in [*range(count), 0])
    assert contents(castore, result.response) == expected.encode()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (
            "mkfifo /nix/store/out",
            "output nix/store/out: expected a file, directory or symbolic link, found a pipe",
        ),
        (
            "mkdir -p /nix/store/out/a; mkfifo /nix/store/out/a/b",
            "output nix/store/out/a/b: expected a file, directory or symbolic link, found a pipe",
        ),
        (
            "mkdir /nix/store/out; mkfifo /nix/store/out/$(printf '\\377')",
            "output nix/store/out/\\xff: expected a file, directory or symbolic link, found a pipe",
        ),
    ],
)
def test_special_files_in_outputs(
    castore: CastoreStore, busybox: Any, script: str, reason: str
) -> None:
    assert fail(castore, script, inputs=[busybox]).startswith(reason)


@pytest.mark.skipif(which(PYTHON) is None, reason=f"{PYTHON} is not installed")
def test_a_socket_in_an_output(castore: CastoreStore) -> None:
    code = "os.mkdir('out'); socket.socket(socket.AF_UNIX).bind('out/socket')"
    assert fail_in_python(castore, code) == (
        "output nix/store/out/socket: expected a file, directory or symbolic link, found a socket"
    )


@pytest.mark.slow
@pytest.mark.skipif(which(PYTHON) is None, reason=f"{PYTHON} is not installed")
def test_an_output_that_is_too_deep(castore: CastoreStore) -> None:
    code = "os.mkdir('out'); os.chdir('out'); [(os.mkdir('d'), os.chdir('d')) for _ in range(2500)]"
    reason = fail_in_python(castore, code)
    assert reason.startswith("output nix/store/out/d/d/d/")
    assert reason.endswith("/d: expected a path of at most 4095 bytes")


def test_outputs_are_not_read_through_symbolic_links(castore: CastoreStore, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "out").write_text("secret")
    busybox = busybox_input(castore, tmp_path / "sources")
    made = request(f"ln -s {secret} /build/a", inputs=[busybox])
    made.outputs[:] = ["build/a/out"]
    with pytest.raises(BuildFailedError, match="output build/a/out is missing"):
        SandboxBuilder(castore).build(made)
    result = build(
        castore,
        f"mkdir /nix/store/out; ln -s {secret}/out /nix/store/out/link",
        inputs=[busybox],
    )
    directory = castore.directory(result.response.outputs[0].output.directory.digest)
    assert directory.symlinks[0].target == os.fsencode(f"{secret}/out")
    assert not directory.files
    result = build(castore, f"ln -s {secret}/out /nix/store/out", inputs=[busybox])
    assert result.response.outputs[0].output.symlink.target == os.fsencode(f"{secret}/out")


def test_modes_of_outputs(castore: CastoreStore, busybox: Any) -> None:
    script = """
        mkdir -p /nix/store/out/closed
        cd /nix/store/out
        echo a > closed/a; echo b > b; echo c > c; ln b d; echo e > "$(printf 'e\\n\\377')"
        chmod 0 b; chmod 4755 c; chmod 0 closed
    """
    result = build(castore, script, inputs=[busybox])
    directory = castore.directory(result.response.outputs[0].output.directory.digest)
    assert [(one.name, one.executable) for one in directory.files] == [
        (b"b", False),
        (b"c", True),
        (b"d", False),
        (b"e\n\xff", False),
    ]
    closed = castore.directory(directory.directories[0].digest)
    assert [one.name for one in closed.files] == [b"a"]


def test_processes_that_stay_behind_are_killed(castore: CastoreStore, busybox: Any) -> None:
    marker = f"marker{os.getpid()}"
    script = f"""
        cd /nix/store
        echo a > out
        (while :; do echo a > new; mv new out; done; : {marker}) &
        /bin/sh -c 'sleep 100000; : {marker}' &
        /bin/sh -c 'trap "" HUP TERM; while :; do sleep 9999; done; : {marker}' >/dev/null 2>&1 &
    """
    result = build(castore, script, inputs=[busybox])
    assert contents(castore, result.response) == b"a\n"
    assert processes_with(marker) == []
    assert remains(castore) == []


LIMITS = {
    "time": (Limits(seconds=0.3), "sleep 100000", "the limit of time, 0.3 s, is exceeded"),
    "disk": (
        Limits(disk=4 * MEGABYTE),
        "dd if=/dev/zero of=/nix/store/out bs=64k",
        "the limit of disk space, 4194304 bytes, is exceeded",
    ),
    "many files": (
        Limits(disk=8 * MEGABYTE),
        "i=0; while :; do dd if=/dev/zero of=/tmp/$i bs=64k count=16; i=$((i+1)); done",
        "the limit of disk space, 8388608 bytes, is exceeded",
    ),
    "memory": (
        Limits(memory=32 * MEGABYTE),
        "dd if=/dev/zero of=/dev/null bs=48M",
        "the limit of memory, 33554432 bytes, is exceeded",
    ),
    "processes": (
        Limits(processes=20),
        "i=0; while [ $i -lt 30 ]; do sleep 100000 & i=$((i+1)); done; wait",
        "the limit of processes, 20, is exceeded",
    ),
    "output": (
        Limits(output_size=MEGABYTE),
        "dd if=/dev/zero of=/nix/store/out bs=64k count=20",
        "the limit of the size of outputs, 1048576 bytes, is exceeded",
    ),
    "log": (
        Limits(log_size=MEGABYTE),
        "yes",
        "the limit of the size of the log, 1048576 bytes, is exceeded",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LIMITS)
def test_limits(castore: CastoreStore, busybox: Any, name: str) -> None:
    limits, script, reason = LIMITS[name]
    assert fail(castore, script, limits, inputs=[busybox]).startswith(reason)


def test_one_process_cannot_take_much_more_memory_than_the_limit(
    castore: CastoreStore, busybox: Any
) -> None:
    limits = Limits(memory=64 * MEGABYTE)
    script = "dd if=/dev/zero of=/dev/null bs=256M count=1"
    assert fail(castore, script, limits, inputs=[busybox]) == "exit status 1"


@pytest.mark.slow
def test_a_log_of_100_megabytes(castore: CastoreStore, busybox: Any) -> None:
    size = 100 * MEGABYTE
    seen = 0

    def count(data: bytes) -> None:
        nonlocal seen
        seen += len(data)

    script = f"dd if=/dev/zero bs=64k count={size >> 16} 2>/dev/null; : > /nix/store/out"
    result = SandboxBuilder(castore).build(request(script, inputs=[busybox]), on_log=count)
    assert (seen, result.record.log_size) == (size, size)
    with castore.open_blob(result.record.log_digest) as file:
        assert file.seek(0, os.SEEK_END) == size


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"system": "m68k-linux"}, "constraints.system: this host runs .*, found 'm68k-linux'"),
        ({"min_memory": 1 << 60}, "constraints.min_memory: this host has .* bytes, found 115"),
        (
            {"available_ro_paths": ["/dev/none"]},
            r"constraints.available_ro_paths\[0\]: this host has no /dev/none",
        ),
        ({"scratch_paths": ["dev/x"]}, r"scratch_paths\[0\]: expected a path outside of /dev and"),
        ({"working_dir": "proc"}, "working_dir: expected a path outside of /dev and /proc"),
        (
            {"additional_files": [("bin/sh", "")]},
            r"additional_files\[0\].path: /bin/sh is also the path of constraints.provide_bin_sh",
        ),
        (
            {"additional_files": [("build/a", ""), ("build/a/b", "")]},
            r"additional_files\[1\].path: /build/a/b is below /build/a, the path of additional_fi",
        ),
        ({"command_args": ["/a=b"]}, r"command_args\[0\]: expected a command without '='"),
        ({"command_args": ["a" * 3_000_000]}, "command_args, environment_vars: too large"),
    ],
)
def test_requests_that_are_refused(
    castore: CastoreStore, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RefusedError, match=reason) as caught:
        build(castore, "", **changes)
    assert len(caught.value.reasons) == 1


def test_inputs_that_the_castore_lacks(castore: CastoreStore) -> None:
    nodes = [
        tvix_build.directory_node("a", digest=bytes(32), size=1),
        tvix_build.file_node("b", digest=bytes(32), size=1),
    ]
    with pytest.raises(RefusedError) as caught:
        build(castore, "", inputs=nodes)
    assert caught.value.reasons == (
        f"inputs[0]: {castore.path}: no Directory with the digest {'00' * 32}; "
        "add it with ingest or add_directory",
        f"inputs[1]: {castore.path}: no blob with the digest {'00' * 32}; "
        "add it with ingest or add_blob",
    )


def test_a_blob_that_the_castore_lacks(castore: CastoreStore) -> None:
    directory = castore_pb2.Directory()
    directory.files.add(name=b"a", digest=bytes(32), size=1)
    digest = castore.add_directory(directory, check_children=False)
    node = tvix_build.directory_node("b", digest=digest, size=1)
    with pytest.raises(RefusedError, match=r"inputs\[0\]: .*no blob with the digest 0000"):
        build(castore, "", inputs=[node])
    assert remains(castore) == []


def test_an_invalid_request_does_not_run(castore: CastoreStore) -> None:
    made = request("echo")
    made.command_args.clear()
    with pytest.raises(tvix_build.ValidationError, match="command_args"):
        SandboxBuilder(castore).build(made)


def test_host_paths_are_read_only(castore: CastoreStore, busybox: Any, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "file").write_text("host")
    path = str(tmp_path / "host")
    result = build(
        castore,
        f"cat {path}/file > /nix/store/out; ! echo > {path}/new; ! echo > {path}/file",
        inputs=[busybox],
        available_ro_paths=[path],
    )
    assert contents(castore, result.response) == b"host"
    assert os.listdir(path) == ["file"]


def test_keep_failed(castore: CastoreStore) -> None:
    builder = SandboxBuilder(castore, keep_failed=True)
    with pytest.raises(BuildFailedError) as caught:
        builder.build(request("echo x > /build/file; exit 1", environment={"A": "it's"}))
    kept = caught.value.kept
    assert kept
    assert (kept / "root" / "build" / "file").read_text() == "x\n"
    done = subprocess.run(
        [kept / "enter"],
        input=b'echo $PWD "$A"; read x < file; echo $x; exec 2>/dev/null; ! echo x > /new',
        stdout=subprocess.PIPE,
        check=True,
        timeout=LIMIT,
    )
    assert done.stdout == b"/build it's\nx\n"
    assert remains(castore) == [kept.name]


def test_cancelling_ends_the_build(castore: CastoreStore, busybox: Any) -> None:
    marker = f"cancelled{os.getpid()}"

    async def run() -> None:
        started = asyncio.Event()
        loop = asyncio.get_running_loop()
        build = SandboxBuilder(castore).build_async(
            request(f"echo started; sleep 100000; : {marker}", inputs=[busybox]),
            on_log=lambda _: loop.call_soon_threadsafe(started.set),
        )
        task = asyncio.create_task(build)
        await asyncio.wait_for(started.wait(), LIMIT)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert processes_with(marker) == []
    assert remains(castore) == []


def test_cancelling_twice_before_the_command_starts(castore: CastoreStore, busybox: Any) -> None:
    """The second cancellation ends the call, while the thread of the build goes on."""
    marker = f"twice{os.getpid()}"
    entered, leave = threading.Event(), threading.Event()
    taken: list[int] = []

    class SlowStore(CastoreStore):
        def shared(self, nodes: Any) -> Any:
            entered.set()
            assert leave.wait(LIMIT)
            return super().shared(nodes)

    async def run(slow: CastoreStore) -> None:
        call = request(f"while :; do :; done; : {marker}", inputs=[busybox])
        task = asyncio.create_task(SandboxBuilder(slow).build_async(call))
        assert await asyncio.to_thread(entered.wait, LIMIT)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # If the call closed a descriptor that the thread watches, one of these takes its number.
        taken.extend(os.eventfd(0) for _ in range(64))
        leave.set()

    with SlowStore(castore.path) as slow:
        asyncio.run(run(slow))
        wait_until(lambda: remains(castore) == [])
    assert processes_with(marker) == []
    for descriptor in taken:
        os.close(descriptor)


def test_async_builds_run_concurrently(castore: CastoreStore) -> None:
    async def run() -> list[Any]:
        builder = SandboxBuilder(castore)
        scripts = [f"echo {i} > /nix/store/out" for i in range(4)]
        return list(await asyncio.gather(*(builder.build_async(request(one)) for one in scripts)))

    results = asyncio.run(run())
    assert [contents(castore, one.response) for one in results] == [b"%d\n" % i for i in range(4)]


CALLER = """
import sys
import threading
from builders_support import request
from tvix_build.builders import SandboxBuilder
from tvix_build.castore import CastoreStore
with CastoreStore(sys.argv[1]) as castore:
    made = request(f"echo started; while :; do :; done; : {sys.argv[2]}")
    SandboxBuilder(castore).build(made, on_log=lambda data: print("started", flush=True))
"""


def test_a_killed_caller_leaves_nothing(castore: CastoreStore) -> None:
    marker = f"killed{os.getpid()}"
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER, castore.path, marker],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert caller.stdout
    assert caller.stdout.readline() == b"started\n"
    assert processes_with(marker)
    caller.send_signal(signal.SIGKILL)
    caller.wait(LIMIT)
    caller.stdout.close()
    wait_until(lambda: not processes_with(marker))
    assert len(remains(castore)) == 2
    build(castore, "echo x > /nix/store/out")  # The next build removes what it left.
    assert remains(castore) == []


def test_many_open_files(castore: CastoreStore) -> None:
    """A server has a file for each connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(2048, hard), hard))
    try:
        with ExitStack() as stack:
            for _ in range(1024):
                stack.enter_context(open(os.devnull, "rb"))
            assert contents(castore, build(castore, "echo x > /nix/store/out").response) == b"x\n"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_bubblewrap(castore: CastoreStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnavailableError, match=r"expected bwrap in the PATH.*apt-get install"):
        SandboxBuilder(castore)


def test_without_user_namespaces(
    castore: CastoreStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = tmp_path / "bin" / "bwrap"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho bwrap: No permissions to create new namespace >&2\nexit 1\n")
    fake.chmod(0o755)
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", f"{fake.parent}:{path}")
    message = r"No permissions to create.*user.max_user_names"
    with pytest.raises(UnavailableError, match=message) as caught:
        build(castore, "")
    assert caught.value.permanent
    assert remains(castore) == []
    # If a build worked before, the next one may work again.
    builder = SandboxBuilder(castore)
    fake.write_text("#!/bin/sh\nPATH=" + path + ' exec bwrap "$@"\n')
    builder.build(request("echo > $out", environment={"out": "/nix/store/out"}))
    fake.write_text("#!/bin/sh\necho bwrap: No memory >&2\nexit 1\n")
    with pytest.raises(UnavailableError, match="No memory") as caught:
        builder.build(request("echo > $out", environment={"out": "/nix/store/out"}))
    assert not caught.value.permanent
