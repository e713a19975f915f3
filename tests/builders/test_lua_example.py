# SPDX-License-Identifier: MIT
"""The tutorial compiles Lua, in the sandbox and on an engine. Nix makes the same derivations."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
from pathlib import Path
from shutil import which

import pytest

from builders_support import needs_sandbox
from casd import needs_casd, running_casd
from nix_support import needs_nix_sandbox, nix_store
from pages import commands, link_checkout, shell
from tvix_build.builders import SandboxBuilder
from tvix_build.builders.derivations import build_derivation
from tvix_build.castore import CastoreStore, node_from_path
from waiting import LIMIT

ROOT = Path(__file__).absolute().parents[2]
EXAMPLES = ROOT / "examples"
PRIMES = "Lua 5.4 found the primes 2 3 5 7 11 13 17 19 23 29 31 37 41 43 47\n"
needs_x86 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="needs an x86-64 CPU")


@pytest.fixture(autouse=True)
def import_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let scripts of the examples import each other."""
    monkeypatch.syspath_prepend(EXAMPLES)


def test_the_compiler_is_the_locked_one() -> None:
    name = runpy.run_path(str(EXAMPLES / "make_lua.py"))["ZIGLANG"]
    assert f"\n{name.replace('-', '==')} " in (ROOT / "requirements/wheels.txt").read_text()
    assert f'"{name}"' in (EXAMPLES / "lua" / "lua.nix").read_text()


@pytest.mark.skipif(which("nix-instantiate") is None, reason="needs nix: apt install nix-bin")
def test_nix_makes_the_same_derivations(tmp_path: Path) -> None:
    sources = {}
    for name in ("ziglang", "source"):
        sources[name] = tmp_path / name
        (sources[name] / "src").mkdir(parents=True)
        (sources[name] / "src" / "file.c").write_text(f"/* {name} */\n")
        (sources[name] / "run").write_bytes(b"\x7fELF")
        (sources[name] / "run").chmod(0o755)
        (sources[name] / "link").symlink_to("src/file.c")
    made = tmp_path / "made"
    made.mkdir()
    example = runpy.run_path(str(EXAMPLES / "make_lua.py"))
    names = {"ziglang": example["ZIGLANG"], "source": f"{example['LUA']}-source"}
    store = example["Store"](made)
    paths = [store.add(copy(one), names[name]) for name, one in sources.items()]
    example["write_derivations"](store, *paths)
    arguments = [word for name, one in sources.items() for word in ("--argstr", name, str(one))]
    subprocess.run(
        ["nix-instantiate", EXAMPLES / "lua" / "lua.nix", *arguments, "--store", tmp_path / "nix"],
        env={**os.environ, "HOME": str(tmp_path), "NIX_CONF_DIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
        timeout=LIMIT,
    )
    expected = tmp_path / "nix" / "nix" / "store"
    assert len(os.listdir(made)) == 4
    for one in made.iterdir():
        assert node_from_path(one) == node_from_path(expected / one.name)


def copy(source: Path) -> Path:
    target = source.with_name(f"{source.name}-copy")
    subprocess.run(["cp", "-a", source, target], check=True)
    return target


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the derivations, for commands of the tutorial."""
    directory = tmp_path_factory.mktemp("lua")
    link_checkout(directory)
    (download, _) = commands("docs/tutorials.md", "Compile a C program")[0].splitlines()
    done = shell(download, directory)
    if done.returncode:
        pytest.skip(f"needs pip, apt-get and a network: {done.stderr.strip()[-200:]}")
    return directory


@needs_sandbox
@needs_x86
@pytest.mark.exhaustive
def test_the_tutorial(directory: Path) -> None:
    first, second = commands("docs/tutorials.md", "Compile a C program")[:2]
    done = shell(first.splitlines()[1] + "\n" + second, directory)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(PRIMES)
    assert PRIMES in done.stderr  # the log
    assert PRIMES in (ROOT / "docs/tutorials.md").read_text()


@needs_sandbox
@needs_nix_sandbox
@needs_x86
@pytest.mark.exhaustive
def test_nix_builds_the_same(directory: Path, tmp_path: Path) -> None:
    example = runpy.run_path(str(EXAMPLES / "make_lua.py"))
    (ziglang,) = (directory / "lua").glob(f"*-{example['ZIGLANG']}")
    (source,) = (directory / "lua").glob("*-source")
    (primes,) = (directory / "lua").glob("*-primes.txt.drv")
    with nix_store(tmp_path / "nix") as store:
        arguments = ("--argstr", "ziglang", str(ziglang), "--argstr", "source", str(source))
        (path,) = store.run(
            "nix-build", "--no-out-link", str(EXAMPLES / "lua" / "lua.nix"), *arguments
        )
        (lua,) = store.path("/nix/store").glob(f"*-{example['LUA']}")
        expected = {
            path: node_from_path(store.path(path)),
            f"/nix/store/{lua.name}": node_from_path(lua),
        }
    with CastoreStore(directory / "store") as castore:
        found = build_derivation(primes, builder=SandboxBuilder(castore), castore=castore)
    built = [node for one in found.results.values() for node in one.outputs.items()]
    assert {f"/{path}": node for path, node in built} == expected


@needs_casd
@pytest.mark.exhaustive
def test_the_tutorial_on_an_engine(directory: Path, tmp_path: Path) -> None:
    (build,) = [
        line
        for block in commands("docs/tutorials.md", "Compile a C program")
        for line in block.splitlines()
        if "reapi+grpc" in line
    ]
    with running_casd(tmp_path) as address:
        done = shell(re.sub(r"reapi\+grpc://\S+", address, build), directory)
    assert (done.returncode, PRIMES in done.stderr) == (0, True), done.stderr
    (output,) = (directory / "remote").iterdir()
    assert output.read_text() == PRIMES
