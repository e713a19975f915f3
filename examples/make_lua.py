# SPDX-License-Identifier: MIT
"""Makes two derivations and their sources, without Nix. The first one compiles Lua, the second one
runs a program with it.

usage: make_lua.py DIRECTORY

Downloads the compiler, `zig cc`, from PyPI's ziglang, and the sources of Lua from Debian's archive.
Both are verified. The directory then has the names of a Nix store:

    tvix-build build DIRECTORY/*-primes.txt.drv --builder sandbox: --castore store

Needs Debian, pip, and tvix_build.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from store_paths import Store

HERE = Path(__file__).absolute().parent
LUA_FILES = HERE / "lua"
LOCK = HERE.parent / "requirements" / "wheels.txt"
SYSTEM = "x86_64-linux"
ZIGLANG = "ziglang-0.17.1"
LUA = "lua-5.4.4"
LUA_SHA256 = "164c7849653b80ae67bec4b7473b884bf5cc8d2dca05653475ec2ed27b9ebf61"

# The parts of ziglang that compile C for Linux on x86-64 with musl.
KEPT = re.compile(
    r"zig|lib/([^/]*\.(zig|h)|(c|compiler|compiler_rt|include|libc/musl|std)/.*"
    r"|libc/include/(any-linux-any|generic-musl|x86-linux-any|x86_64-linux-musl)/.*)"
)


def main() -> None:
    """Make the directory that is the argument."""
    os.chdir(os.environ.get("BUILD_WORKING_DIRECTORY", "."))  # set by `bazel run`
    target = Path(sys.argv[1]).absolute()
    with TemporaryDirectory(dir=target.parent) as name:
        temporary = Path(name)
        made = temporary / "store"
        made.mkdir()
        store = Store(made)
        ziglang = store.add(fetch_ziglang(temporary), ZIGLANG)
        source = store.add(fetch_lua(temporary), f"{LUA}-source")
        write_derivations(store, ziglang, source)
        made.rename(target)


def fetch_ziglang(temporary: Path) -> Path:
    """Download the compiler, and return its directory."""
    (locked,) = re.findall(r"^ziglang==.*(?:\n +--hash.*)*", LOCK.read_text(), re.MULTILINE)
    if locked.split()[0].replace("==", "-") != ZIGLANG:
        sys.exit(f"{LOCK}: expected {ZIGLANG}, found {locked.split()[0]}")
    requirements = temporary / "requirements.txt"
    requirements.write_text(locked)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet")
    platform = ("--only-binary=:all:", "--platform=manylinux_2_12_x86_64")
    options = ("--no-deps", "--require-hashes", *platform, "--requirement", requirements)
    subprocess.run([*pip, *options, "--dest", temporary], check=True)
    (wheel,) = temporary.glob("*.whl")
    target = temporary / ZIGLANG
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            path = PurePosixPath(member.filename)
            name = path.relative_to("ziglang") if path.parts[0] == "ziglang" else path
            if KEPT.fullmatch(str(name)):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                (target / name).write_bytes(archive.read(member))
    (target / "zig").chmod(0o755)
    return target


def fetch_lua(temporary: Path) -> Path:
    """Download the sources of Lua, and return their directory."""
    state = temporary / "apt"
    (state / "lists" / "partial").mkdir(parents=True)
    fields = ("--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)")
    filters = ("Created-By: Packages", "Label: Debian", "Component: main")
    archives = run("apt-get", "indextargets", *fields, *filters).splitlines()
    (state / "sources.list").write_text("".join(f"deb-src {one}\n" for one in archives))
    settings = {
        "Dir::Etc::SourceList": state / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": state / "lists",
        "Dir::Cache": state,
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in settings.items())]
    run(*apt, "update")
    run(*apt, "source", "--download-only", "--tar-only", "lua5.4", cwd=temporary)
    (archive,) = temporary.glob("*.orig.tar.gz")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != LUA_SHA256:
        sys.exit(f"{archive.name}: expected SHA-256 {LUA_SHA256}, found {digest}")
    with tarfile.open(archive) as tar:
        tar.extractall(temporary)
    return temporary / LUA


def run(*command: str, cwd: Path | None = None) -> str:
    """Return the output of a command."""
    return subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, text=True, check=True).stdout


def write_derivations(store: Store, ziglang: str, source: str) -> None:
    """Write both derivations, with the store paths of the compiler and of the sources of Lua."""
    lua = store.derive(
        LUA,
        SYSTEM,
        "/bin/sh",
        ("-euc", (LUA_FILES / "compile.sh").read_text()),
        {"src": source, "ziglang": ziglang},
        sources=(source, ziglang),
    )
    script = (LUA_FILES / "primes.lua").read_text()
    store.derive("primes.txt", SYSTEM, store.output(lua), ("-e", script), {}, inputs=[lua])


if __name__ == "__main__":
    main()
