# SPDX-License-Identifier: MIT
"""`build_derivation`, and `tvix-build build x.drv`."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builders_support import needs_sandbox
from cli_support import run
from made_derivations import MadeStore, store_path
from snix.build.protos.build_pb2 import BuildResponse
from tvix_build import nix
from tvix_build.builders import BuildFailedError, BuildResult, SandboxBuilder
from tvix_build.builders.derivations import (
    DerivationBuildError,
    DerivationResult,
    build_derivation,
)
from tvix_build.builders.output_hashes import output_hash
from tvix_build.castore import CastoreStore, node_from_path
from tvix_build.nix import DerivationError, Output
from waiting import LIMIT

EXAMPLE = Path(__file__).parents[2] / "examples" / "build"
GREETINGS = "wkfch64a0dq3lrp9r7dk6ak2y2hfkj2w-greetings.txt"

# Made by nix-hash from the tree that make_tree makes.
TREE_HASHES = {
    "r:md5": "452af6fcbdaa4070d92445415949c43b",
    "r:sha256": "3d54bb9850adf4e1961a282e37d92e468d51a16f8e835c7b120212d16fb357ed",
}


class CountingBuilder:
    """Counts the builds of another builder."""

    def __init__(self, castore: CastoreStore) -> None:
        self._builder = SandboxBuilder(castore)
        self.count = 0

    def build(self, request: Any, **options: Any) -> BuildResult[Any]:
        self.count += 1
        return self._builder.build(request, **options)

    async def build_async(self, request: Any, **options: Any) -> BuildResult[Any]:
        raise NotImplementedError


class NoBuilder(CountingBuilder):
    """Builds nothing."""

    def __init__(self) -> None:
        pass

    def build(self, request: Any, **options: Any) -> BuildResult[Any]:
        raise AssertionError("expected no build")


@pytest.fixture
def store(tmp_path: Path) -> MadeStore:
    (tmp_path / "store").mkdir()
    return MadeStore(tmp_path / "store")


@pytest.fixture
def castore(tmp_path: Path) -> Iterator[CastoreStore]:
    with CastoreStore(tmp_path / "castore") as opened:
        yield opened


def build(store: MadeStore, castore: CastoreStore, path: str) -> DerivationResult:
    return build_derivation(store.file(path), builder=SandboxBuilder(castore), castore=castore)


def refuse(store: MadeStore, castore: CastoreStore, path: str) -> DerivationBuildError:
    """Return the error of a derivation that is refused before the first build."""
    with pytest.raises(DerivationBuildError) as caught:
        build_derivation(store.file(path), builder=NoBuilder(), castore=castore)
    return caught.value


def contents(castore: CastoreStore, result: DerivationResult) -> bytes:
    with castore.open_blob(result.outputs["out"].file.digest) as file:
        return file.read()


@needs_sandbox
def test_a_chain(store: MadeStore, castore: CastoreStore) -> None:
    text = store.source("text", "hello\n")
    tool = store.source("tool", f"cat {text}\n")
    script = f"mkdir -p $out/bin; echo 'sh {tool}' > $out/bin/run"
    first = store.derivation("first", script, sources=[tool])
    script = f"echo sh {store_path('first')}/bin/run > $out"
    second = store.derivation("second", script, inputs=[first])
    script = f"sh {store_path('second')} > $out; echo {store_path('second')} $out >> $out"
    third = store.derivation("third", script, inputs=[second])
    started: list[str] = []
    result = build_derivation(
        store.file(third),
        builder=SandboxBuilder(castore),
        castore=castore,
        on_start=started.append,
    )
    out = store_path("third")
    assert contents(castore, result) == f"hello\n{store_path('second')} {out}\n".encode()
    assert started == list(result.results) == [first, second, third]
    assert {path: set(found) for path, found in result.references.items()} == {
        out: {out, store_path("second")},
        store_path("second"): {store_path("first")},
        store_path("first"): {tool},
        tool: {text},
        text: set(),
    }
    assert result.closure.keys() == result.references.keys()
    assert result.closure[out] == result.outputs["out"]
    assert result.closure[text] == node_from_path(store.file(text))
    assert all(isinstance(one.response, BuildResponse) for one in result.results.values())


@needs_sandbox
def test_unused_sources_are_not_inputs(store: MadeStore, castore: CastoreStore) -> None:
    used, other = store.source("used", "a"), store.source("other", "b")
    path = store.derivation("one", "cd /nix/store; set *; echo $* > $out", sources=[used])
    result = build(store, castore, path)
    assert os.path.basename(used) in contents(castore, result).decode()
    assert other not in result.closure
    assert os.path.basename(other) not in contents(castore, result).decode()


@needs_sandbox
def test_files_beside_sources(store: MadeStore, castore: CastoreStore) -> None:
    drv = store.derivation("other", "")
    text = store.source("text", drv)
    for path in (text, drv):
        (store.directory / f"{os.path.basename(path)}.lock").touch()
    script = f"cat $(cat {text}) > $out; echo {text} >> $out"
    path = store.derivation("one", script, sources=[text])
    result = build(store, castore, path)
    assert contents(castore, result).startswith(store.file(drv).read_bytes())
    # The output to which the derivation refers is not in the store.
    assert result.references[text] == [drv]
    assert list(result.references[drv]) == []


@needs_sandbox
def test_a_diamond(store: MadeStore, castore: CastoreStore) -> None:
    base = store.derivation("base", "echo base > $out")
    read = f"cat {store_path('base')} > $out"
    sides = [store.derivation(name, read, inputs=[base]) for name in ("left", "right")]
    script = f"cat {store_path('left')} {store_path('right')} > $out"
    top = store.derivation("top", script, inputs=[base, *sides])
    builder = CountingBuilder(castore)
    result = build_derivation(store.file(top), builder=builder, castore=castore)
    assert contents(castore, result) == b"base\nbase\n"
    assert builder.count == len(result.results) == 4


@needs_sandbox
def test_derivations_with_the_same_request_are_built_once(
    store: MadeStore, castore: CastoreStore
) -> None:
    same = [store.derivation("same", "echo > $out", drv_name=f"{name}.drv") for name in "ab"]
    top = store.derivation("top", "echo > $out", inputs=same)
    builder = CountingBuilder(castore)
    result = build_derivation(store.file(top), builder=builder, castore=castore)
    assert builder.count == 2
    assert result.results[same[0]] is result.results[same[1]]


@needs_sandbox
def test_outputs_that_refer_to_each_other(store: MadeStore, castore: CastoreStore) -> None:
    outputs = {name: Output(store_path(f"many-{name}")) for name in ("dev", "out")}
    many = store.derivation("many", "echo echo ran > $out; echo $out > $dev", outputs=outputs)
    script = f"sh $(cat {outputs['dev'].path}) > $out"
    user = store.derivation("user", script, inputs={many: ("dev",)})
    assert contents(castore, build(store, castore, user)) == b"ran\n"


@needs_sandbox
def test_an_input_that_fails(store: MadeStore, castore: CastoreStore) -> None:
    failing = store.derivation("failing", "exit 3")
    middle = store.derivation("middle", "echo > $out", inputs=[failing])
    top = store.derivation("top", "echo > $out", inputs=[middle])
    builder = CountingBuilder(castore)
    with pytest.raises(DerivationBuildError) as caught:
        build_derivation(store.file(top), builder=builder, castore=castore)
    error = caught.value
    assert str(error) == f"{failing}: exit status 3; needed by {middle}; needed by {top}"
    assert (error.derivation, error.reasons) == (failing, ("exit status 3",))
    assert error.needed_by == (middle, top)
    assert isinstance(error.__cause__, BuildFailedError)
    assert builder.count == 1


@needs_sandbox
@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha512"])
@pytest.mark.parametrize("right", [True, False])
def test_a_fixed_file(store: MadeStore, castore: CastoreStore, algorithm: str, right: bool) -> None:
    found = hashlib.new(algorithm, b"fixed\n").hexdigest()
    expected = found if right else "0" * len(found)
    outputs = {"out": Output(store_path("fixed"), algorithm, expected)}
    fixed = store.derivation("fixed", "echo fixed > $out", outputs=outputs)
    user = store.derivation("user", f"cat {store_path('fixed')} > $out", inputs=[fixed])
    if right:
        assert contents(castore, build(store, castore, user)) == b"fixed\n"
        return
    with pytest.raises(DerivationBuildError) as caught:
        build(store, castore, user)
    assert str(caught.value) == (
        f"{fixed}: output out: expected the {algorithm} hash {expected}, found {found}; "
        f"needed by {user}"
    )


@needs_sandbox
@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("mkdir $out", "directory"),
        ("ln -s x $out", "symlink"),
        ("echo > $out; chmod 755 $out", "executable file"),
    ],
)
def test_a_fixed_file_that_is_not_a_file(
    store: MadeStore, castore: CastoreStore, script: str, found: str
) -> None:
    outputs = {"out": Output(store_path("fixed"), "sha256", "0" * 64)}
    path = store.derivation("fixed", script, outputs=outputs)
    with pytest.raises(DerivationBuildError) as caught:
        build(store, castore, path)
    reason = f"output out: expected a file that is not executable, found {found}"
    assert caught.value.reasons == (reason,)


def make_tree(root: Path) -> None:
    """Make files with and without padding, and names in another order than that of their types."""
    (root / "b" / "empty").mkdir(parents=True)
    for size in (0, 1, 7, 8, 9, 1 << 20):
        (root / "b" / f"{size}").write_bytes(b"x" * size)
    (root / "a").write_text("#!/bin/sh\n")
    (root / "a").chmod(0o755)
    (root / "b.c").symlink_to("b/missing")
    (root / "\xe9").symlink_to("a")


@pytest.mark.parametrize("algorithm", TREE_HASHES)
def test_recursive_hashes(tmp_path: Path, castore: CastoreStore, algorithm: str) -> None:
    make_tree(tmp_path / "tree")
    node = castore.ingest(tmp_path / "tree")
    assert output_hash(castore, node, algorithm) == TREE_HASHES[algorithm]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nix-hash") is None, reason="needs nix-hash: apt install nix-bin")
@pytest.mark.parametrize("entry", [".", "a", "b", "b/0", "b/7", "b/8", "b.c", "b/empty"])
def test_recursive_hashes_are_those_of_nix(
    tmp_path: Path, castore: CastoreStore, entry: str
) -> None:
    make_tree(tmp_path / "tree")
    path = tmp_path / "tree" / entry
    for algorithm in ("md5", "sha1", "sha256", "sha512"):
        command = ["nix-hash", "--type", algorithm, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT)
        found = output_hash(castore, castore.ingest(path), f"r:{algorithm}")
        assert found == done.stdout.strip()


@needs_sandbox
def test_a_fixed_directory(store: MadeStore, castore: CastoreStore) -> None:
    expected = "0" * 64
    script = "mkdir $out; echo '#!/bin/sh' > $out/run; chmod 755 $out/run; ln -s run $out/link"
    outputs = {"out": Output(store_path("fixed"), "r:sha256", expected)}
    path = store.derivation("fixed", script, outputs=outputs)
    with pytest.raises(DerivationBuildError) as caught:
        build(store, castore, path)
    found = caught.value.reasons[0].rpartition(" ")[2]
    outputs = {"out": Output(store_path("fixed"), "r:sha256", found)}
    path = store.derivation("fixed", script, outputs=outputs)
    node = build(store, castore, path).outputs["out"]
    assert output_hash(castore, node, "r:sha256") == found


def test_a_builder_that_is_part_of_nix(store: MadeStore, castore: CastoreStore) -> None:
    path = store.derivation("fetched", "", builder="builtin:fetchurl")
    other = store.derivation("other", "echo > $out")
    user = store.derivation("user", "echo > $out", inputs=[other, path])
    error = refuse(store, castore, user)
    assert (error.derivation, error.needed_by) == (path, (user,))
    assert "'builtin:fetchurl', which is part of Nix" in str(error)


def test_a_missing_derivation(store: MadeStore, castore: CastoreStore) -> None:
    missing = store_path("missing.drv")
    middle = store.derivation("middle", "", inputs=[missing])
    top = store.derivation("top", "", inputs=[middle])
    error = refuse(store, castore, top)
    assert str(error) == f"{middle}: missing input derivation {missing}; needed by {top}"


def test_an_invalid_derivation(store: MadeStore, castore: CastoreStore) -> None:
    invalid = store_path("invalid.drv")
    store.file(invalid).write_text("Derive(")
    error = refuse(store, castore, store.derivation("top", "", inputs=[invalid]))
    assert f"input derivation {invalid}: " in str(error)
    with pytest.raises(DerivationError):
        build_derivation(store.file(invalid), builder=NoBuilder(), castore=castore)
    with pytest.raises(DerivationError) as caught:
        build_derivation(store.directory / "absent.drv", builder=NoBuilder(), castore=castore)
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_missing_sources(store: MadeStore, castore: CastoreStore) -> None:
    sources = [store_path("one"), store_path("two")]
    error = refuse(store, castore, store.derivation("top", "", sources=sources))
    assert error.reasons == tuple(
        f"input {path}: expected a file in {store.directory}, found none"
        for path in sorted(sources)
    )


def test_an_output_that_is_unknown(store: MadeStore, castore: CastoreStore) -> None:
    outputs = {"out": Output("", "r:sha256")}
    error = refuse(store, castore, store.derivation("floating", "", outputs=outputs))
    assert error.reasons == ("output out: the path is unknown before the build",)


def test_a_cycle(store: MadeStore, castore: CastoreStore) -> None:
    first = store.derivation("first", "", inputs=[store_path("second.drv")])
    second = store.derivation("second", "", inputs=[first])
    top = store.derivation("top", "", inputs=[first])
    error = refuse(store, castore, top)
    assert str(error) in (
        f"{first}: the inputs form a cycle: {first} <- {second} <- {first}; needed by {top}",
        f"{second}: the inputs form a cycle: {second} <- {first} <- {second}; "
        f"needed by {first}; needed by {top}",
    )


@needs_sandbox
def test_a_source_that_cannot_be_read(store: MadeStore, castore: CastoreStore) -> None:
    source = store_path("pipe")
    os.mkfifo(store.file(source))
    path = store.derivation("top", "echo > $out", sources=[source])
    with pytest.raises(DerivationBuildError) as caught:
        build(store, castore, path)
    assert caught.value.derivation == path
    assert os.path.basename(source) in str(caught.value)


@needs_sandbox
def test_the_example(tmp_path: Path) -> None:
    example = tmp_path / "example"
    # Bazel has links to the files, which would be ingested as links.
    shutil.copytree(EXAMPLE, example, copy_function=shutil.copyfile)
    arguments = ("--builder", "sandbox:", "--castore", "castore", "--out-link", "result")
    found = run("build", example / f"{GREETINGS}.drv", *arguments, "-o", "a.binpb", cwd=tmp_path)
    assert (found.status, found.stdout) == (0, b"")
    greet = "/nix/store/4vbsvk7cxzjq5gcrnhcfcw4cggqm7s0w-greet.drv"
    assert found.stderr == (
        f"tvix-build: building {greet}\n"
        f"tvix-build: building /nix/store/{GREETINGS}.drv\nrunning greet\n"
    )
    (output,) = (tmp_path / "result").iterdir()
    assert output.read_text() == "Hello, Ada!\nHello, Grace!\n"
    response = BuildResponse.FromString((tmp_path / "a.binpb").read_bytes())
    assert response.outputs[0].output.file.digest == node_from_path(output).file.digest


@pytest.mark.skipif(
    shutil.which("nix-instantiate") is None, reason="needs nix-instantiate: apt install nix-bin"
)
def test_nix_makes_the_example(tmp_path: Path) -> None:
    command = ["nix-instantiate", "--store", str(tmp_path), str(EXAMPLE / "greetings.nix")]
    environment = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run(command, check=True, capture_output=True, env=environment, timeout=LIMIT)
    files = (tmp_path / "nix/store").glob("[!.]*")
    made = {file.name: file.read_bytes() for file in files}
    examples = {file.name: file.read_bytes() for file in EXAMPLE.iterdir()}
    examples.pop("greetings.nix")
    assert made == examples


@needs_sandbox
def test_a_failure_on_the_command_line(tmp_path: Path, store: MadeStore) -> None:
    failing = store.derivation("failing", "echo reason; exit 3")
    top = store.derivation("top", "echo > $out", inputs=[failing])
    # The file of the derivation may be in another directory.
    shutil.move(store.file(top), tmp_path / os.path.basename(top))
    arguments = ("--builder", "sandbox:", "--castore", "castore", "--store", "store")
    file = os.path.basename(top)
    found = run("build", file, *arguments, "--keep-failed", "--out-link", "result", cwd=tmp_path)
    (kept,) = (tmp_path / "castore" / "builds").iterdir()
    assert (found.status, found.stdout) == (1, b"")
    assert found.stderr == (
        f"tvix-build: building {failing}\nreason\n"
        f"tvix-build: {failing}: exit status 3; needed by {top}\n"
        f"tvix-build: {kept}: kept; to enter the sandbox, run {kept}/enter\n"
    )
    assert not (tmp_path / "result").exists()


@pytest.mark.parametrize(
    ("file", "options", "status", "message"),
    [
        ("a.drv", ("--builder", "grpc+unix:/x"), 2, "expected --castore with a derivation"),
        ("a.json", ("--builder", "sandbox:", "--store", "."), 2, "expected a .drv file with"),
        ("a.drv", ("--builder", "sandbox:"), 2, "expected --castore with --builder sandbox:"),
    ],
)
def test_usage(
    tmp_path: Path, file: str, options: tuple[str, ...], status: int, message: str
) -> None:
    found = run("build", file, *options, cwd=tmp_path)
    assert found.status == status
    assert message in " ".join(found.stderr.split())


@needs_sandbox
@pytest.mark.parametrize(
    ("text", "status", "message"),
    [(None, 2, "No such file or directory"), ("Derive(", 1, "a.drv: ")],
)
def test_a_file_that_is_no_derivation(
    tmp_path: Path, text: str | None, status: int, message: str
) -> None:
    if text is not None:
        (tmp_path / "a.drv").write_text(text)
    found = run("build", "a.drv", "--builder", "sandbox:", "--castore", "castore", cwd=tmp_path)
    assert found.status == status
    assert found.stderr.startswith("tvix-build: a.drv: ")
    assert message in found.stderr


def test_made_derivations_are_valid(store: MadeStore) -> None:
    path = store.derivation("one", "", sources=[store.source("two", "")])
    assert nix.parse(store.file(path).read_bytes(), path=path).path == path
