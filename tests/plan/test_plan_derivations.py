# SPDX-License-Identifier: MIT
"""Plans made from derivations give the outputs that `build_derivation` gives, in the sandbox."""

from __future__ import annotations

from pathlib import Path

import pytest

import tvix_build
from builders_support import needs_sandbox
from cli_support import run as run_command
from made_derivations import MadeStore, store_path
from tvix_build.builders import SandboxBuilder
from tvix_build.builders.derivations import build_derivation
from tvix_build.castore import CastoreStore
from tvix_build.plan import PlanState, Status, from_derivations, run

EXAMPLE = Path(__file__).parents[2] / "examples" / "build"


@pytest.fixture
def store(tmp_path: Path) -> MadeStore:
    (tmp_path / "store").mkdir()
    return MadeStore(tmp_path / "store")


def make_chain(store: MadeStore, length: int) -> list[str]:
    """Make derivations that each need the last two and run the program of the first."""
    text = store.source("text", "from a source\n")
    program = f"mkdir -p $out/bin; echo 'cat {text}; echo $1 >> $2' > $out/bin/run"
    made = [store.derivation("program", program, sources=[text])]
    for number in range(1, length):
        needed = list(dict.fromkeys([made[0], *made[-2:]]))
        names = ["program", *(f"number-{one}" for one in range(max(number - 2, 1), number))]
        paths = " ".join(store_path(name) for name in names[1:])
        script = (
            f"sh {store_path('program')}/bin/run {number} $out > log; read line < log; "
            f"echo $line {paths} >> $out"
        )
        made.append(store.derivation(f"number-{number}", script, inputs=needed))
    return made


@pytest.mark.slow
@needs_sandbox
@pytest.mark.parametrize("schema", list(tvix_build.Schema))
def test_a_graph(store: MadeStore, tmp_path: Path, schema: tvix_build.Schema) -> None:
    made = make_chain(store, 10)
    with (
        CastoreStore(tmp_path / "castore") as castore,
        PlanState(tmp_path / "state") as state,
    ):
        builder = SandboxBuilder(castore)
        expected = build_derivation(store.file(made[-1]), builder=builder, castore=castore)
        plan = from_derivations(
            [store.file(made[-1])],
            nodes=lambda path: castore.ingest(store.file(path)),
            closure=True,
            schema=schema,
        )
        digest = state.put_plan(plan.SerializeToString(deterministic=True))
        found = run(digest, [builder], state, castore=castore, max_builds=2)
        assert found.counts == {Status.BUILT: 10}
        outputs = [build.outputs for _, build in state.builds.builds()]
        wanted = [result.outputs for result in expected.results.values()]
        assert len(outputs) == len(wanted) == 10
        assert all(one in wanted for one in outputs)


@needs_sandbox
def test_the_example(tmp_path: Path) -> None:
    directory = tmp_path / "example"
    directory.mkdir()
    for file in EXAMPLE.iterdir():  # Copies, because they may be links.
        (directory / file.name).write_bytes(file.read_bytes())
    (root,) = directory.glob("*-greetings.txt.drv")
    (source,) = directory.glob("*-names.txt")
    made = run_command(
        *("plan", "make", root, "--ingest", "--closure", "-o", "plan.binpb"), cwd=tmp_path
    )
    assert made.status == 0
    assert run_command("castore", "add", "castore", source, cwd=tmp_path).status == 0
    where = ("--state", "state", "--castore", "castore", "--out-link", "result")
    found = run_command("plan", "run", "plan.binpb", "--builder", "sandbox:", *where, cwd=tmp_path)
    assert (found.status, found.stdout) == (0, b"2 built, 0 cached, 0 failed, 0 skipped\n")
    (output,) = (tmp_path / "result").iterdir()
    assert output.read_text() == "Hello, Ada!\nHello, Grace!\n"
