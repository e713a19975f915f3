# SPDX-License-Identifier: MIT
"""What running a plan costs beside its builds (bench/plans): the 20,800 requests of nixpkgs 14.04
as a plan, with a builder that responds immediately.

Writes the time for each step, the peak memory and the sizes of the files of the state to stdout.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import zstandard

from bench.corpora import SHARED_DATA, messages_of
from bench.plan_cluster import bound, durations, simulate
from tvix.build.protos.build_pb2 import Build, BuildRequest
from tvix.castore.protos.castore_pb2 import FileNode, Node
from tvix_build import blake3_many
from tvix_build.builders import BuildRecord, BuildResult
from tvix_build.castore import CastoreStore
from tvix_build.plan import PlanState, run
from tvix_build.plan.v1.plan_pb2 import InputRef, Plan, Step

DATA = SHARED_DATA / "nixpkgs-14.04.direct.binpbs.zst"


def make_plan(requests: Sequence[bytes]) -> bytes:
    """Return a plan of requests: inputs that are outputs of another request become refs."""
    found = [BuildRequest.FromString(data) for data in requests]
    makers: dict[str, int] = {}
    for number, request in enumerate(found):
        for output in request.outputs:
            makers.setdefault(output, number)
    digests: dict[int, bytes] = {}
    steps: dict[bytes, bytes] = {}

    def finish(number: int) -> None:
        request = found[number]
        refs, inputs = [], []
        for node in request.inputs:
            name = _name(node)
            maker = makers.get(name, -1)
            if maker in digests:
                refs.append(InputRef(step=digests[maker], output=name))
            else:
                inputs.append(node)
        del request.inputs[:]
        request.inputs.extend(inputs)
        step = Step(request=request.SerializeToString(), input_refs=refs, schema="tvix.build.v1")
        encoding = step.SerializeToString()
        digests[number] = blake3_many([encoding]).tobytes()
        steps[digests[number]] = encoding

    # Two fixed outputs have several makers, which would be a cycle: those inputs stay.
    entered: set[int] = set()
    stack = [(number, False) for number in range(len(found))]
    while stack:
        number, ready = stack.pop()
        if ready:
            finish(number)
        elif number not in entered:
            entered.add(number)
            stack.append((number, True))
            stack += [(makers.get(_name(node), number), False) for node in found[number].inputs]
    order = sorted(steps)
    plan = Plan(steps=[Step.FromString(steps[one]) for one in order], roots=order)
    return plan.SerializeToString()


def _name(node: Node) -> str:
    kind = node.WhichOneof("node")
    assert kind
    name: bytes = getattr(node, kind).name
    return name.decode()


class InstantBuilder:
    """Responds immediately: each output is the same file."""

    def __init__(self, castore: CastoreStore) -> None:
        self._digest = castore.add_blob(b"output")

    def build(self, request: Any, **_: Any) -> BuildResult[bytes]:
        message = BuildRequest.FromString(request)
        now = datetime.now(timezone.utc)
        nodes = [
            Node(file=FileNode(name=output.encode(), digest=self._digest, size=6))
            for output in message.outputs
        ]
        record = BuildRecord(
            builder="instant:",
            request_digest=blake3_many([request]).tobytes(),
            started=now,
            finished=now,
            exit_status=0,
            cpu_seconds=0.0,
            peak_memory=0,
            log_digest=self._digest,
            log_size=6,
        )
        response = Build(build_request=message, outputs=nodes).SerializeToString()
        return BuildResult(response, dict(zip(message.outputs, nodes, strict=True)), record)

    async def build_async(self, request: Any, **_: Any) -> BuildResult[bytes]:
        return self.build(request)


def simulate_clusters(file: Path) -> None:
    """Print the time that a plan takes on clusters of several sizes, and the bound."""
    with tempfile.TemporaryDirectory() as directory, PlanState(directory) as state:
        steps = state.plan_steps(state.put_plan(file.read_bytes()))
    numbers = {digest: number for number, (digest, _) in enumerate(steps)}
    needs = [[numbers[ref.step] for ref in refs] for _, refs in steps]
    print("builders  seed  hours  bound")
    for builders in (10, 100, 300, 1000):
        for seed in range(3):
            seconds = durations(len(needs), seed)
            lowest = bound(needs, seconds, builders)
            found = simulate(needs, seconds, builders)
            print(f"{builders:8}  {seed:4}  {found / 3600:5.1f}  {found / lowest:.3f} x")


def _peak_memory() -> int:
    """Return the peak memory of this process in bytes. Unlike that of getrusage, it does not
    include the program that started it."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="bench/plans", description=__doc__)
    parser.add_argument("--max-builds", type=int, default=32)
    parser.add_argument("--steps", type=int, help="use only this many requests")
    parser.add_argument("--directory", type=Path, help="on the file system to measure")
    parser.add_argument("--simulate", action="store_true", help="only simulate clusters")
    parser.add_argument("--plan", type=Path, help="the file of a plan, instead of nixpkgs 14.04")
    options = parser.parse_args()
    if options.plan is None:
        # Run the plan in another process, whose memory does not contain the requests.
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory, "plan.binpb")
            stream = zstandard.ZstdDecompressor().stream_reader(DATA.open("rb")).read()
            file.write_bytes(make_plan(list(messages_of(stream))[: options.steps]))
            command = [sys.executable, "-m", "bench.plans", "--plan", str(file), *sys.argv[1:]]
            subprocess.run(command, check=True)
        return
    if options.simulate:
        simulate_clusters(options.plan)
        return
    with (
        tempfile.TemporaryDirectory(dir=options.directory) as directory,
        CastoreStore(f"{directory}/castore") as castore,
        PlanState(f"{directory}/state") as state,
    ):
        builder = InstantBuilder(castore)
        begin = time.perf_counter()
        with options.plan.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as plan:
            digest = state.put_plan(plan)
            elapsed = time.perf_counter() - begin
            print(f"plan of {len(plan) / 1e6:.1f} MB stored: {elapsed:.1f} s")
        for name in ("built", "stored before"):
            begin, cpu = time.perf_counter(), time.process_time()
            found = run(digest, [builder], state, castore=castore, max_builds=options.max_builds)
            elapsed, cpu = time.perf_counter() - begin, time.process_time() - cpu
            count = sum(found.counts.values())
            print(
                f"{count:,} steps, {name}: {elapsed:.1f} s, {elapsed / count * 1e3:.3f} ms a step, "
                f"{cpu / count * 1e3:.3f} ms of CPU time"
            )
        print(f"peak memory: {_peak_memory() / 1e6:.0f} MB")
        for file in sorted(Path(directory, "state").iterdir()):
            print(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
