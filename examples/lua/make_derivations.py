# SPDX-License-Identifier: MIT
"""Makes two derivations and their sources, without Nix. The first one compiles Lua, the second one
runs a program with it.

usage: make_derivations.py DIRECTORY

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
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from tvix_build.nix import Derivation, Output, unparse

HERE = Path(__file__).absolute().parent
LOCK = HERE.parents[1] / "requirements" / "wheels.txt"
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
        ziglang = add(made, fetch_ziglang(temporary), ZIGLANG)
        source = add(made, fetch_lua(temporary), f"{LUA}-source")
        write_derivations(made, ziglang, source)
        made.rename(target)


def add(store: Path, source: Path, name: str) -> str:
    """Move a source to the directory of a store, and return its store path."""
    path = store_path("source", nar_hash(source), name)
    source.rename(store / os.path.basename(path))
    return path


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


def write_derivations(directory: Path, ziglang: str, source: str) -> None:
    """Write both derivations, with the store paths of the compiler and of the sources of Lua."""
    lua = Derivation(
        outputs={},
        input_derivations={},
        input_sources=tuple(sorted((source, ziglang))),
        system=SYSTEM,
        builder="/bin/sh",
        arguments=("-euc", (HERE / "compile.sh").read_text()),
        environment={"name": LUA.encode(), "src": source.encode(), "ziglang": ziglang.encode()},
    )
    lua = with_output(lua, {})
    path = write(directory, lua)
    program = lua.outputs["out"].path
    primes = Derivation(
        outputs={},
        input_derivations={path: ("out",)},
        input_sources=(),
        system=SYSTEM,
        builder=program,
        arguments=("-e", (HERE / "primes.lua").read_text()),
        environment={"name": b"primes.txt"},
    )
    write(directory, with_output(primes, {path: hashlib.sha256(unparse(lua)).hexdigest()}))


def with_output(derivation: Derivation, hashes: Mapping[str, str]) -> Derivation:
    """Return a derivation with the path of its output, which depends on all the rest.

    Args:
        hashes: the hash of each input derivation, in which each of its own is replaced by its hash.
    """
    made = replace(
        derivation,
        outputs={"out": Output("")},
        environment=dict(
            sorted(
                {
                    **derivation.environment,
                    "builder": derivation.builder.encode(),
                    "out": b"",
                    "system": derivation.system.encode(),
                }.items()
            )
        ),
    )
    inputs = {hashes[path]: names for path, names in made.input_derivations.items()}
    hashed = hashlib.sha256(unparse(replace(made, input_derivations=inputs))).hexdigest()
    output = store_path("output:out", hashed, made.environment["name"].decode())
    return replace(
        made,
        outputs={"out": Output(output)},
        environment={**made.environment, "out": output.encode()},
    )


def write(directory: Path, derivation: Derivation) -> str:
    """Write a derivation, and return its store path."""
    data = unparse(derivation)
    references = sorted((*derivation.input_sources, *derivation.input_derivations))
    name = derivation.environment["name"].decode() + ".drv"
    path = store_path(":".join(("text", *references)), hashlib.sha256(data).hexdigest(), name)
    (directory / os.path.basename(path)).write_bytes(data)
    return path


def store_path(kind: str, digest: str, name: str) -> str:
    """Return a store path: its hash is that of the kind, a SHA-256 digest in hexadecimal, and the
    name."""
    text = f"{kind}:sha256:{digest}:/nix/store:{name}"
    folded = bytearray(20)
    for i, byte in enumerate(hashlib.sha256(text.encode()).digest()):
        folded[i % 20] ^= byte
    number = int.from_bytes(folded, "little")
    digits = "0123456789abcdfghijklmnpqrsvwxyz"
    return f"/nix/store/{''.join(digits[number >> i & 31] for i in range(155, -1, -5))}-{name}"


def nar_hash(path: Path) -> str:
    """Return the SHA-256 digest of the archive (NAR) of a file or directory."""
    hasher = hashlib.sha256(string(b"nix-archive-1"))
    for piece in archived(path):
        hasher.update(piece)
    return hasher.hexdigest()


def archived(path: Path) -> Iterator[bytes]:
    """Yield the archive of a file system object."""
    yield string(b"(") + string(b"type")
    if path.is_symlink():
        yield string(b"symlink") + string(b"target") + string(os.fsencode(os.readlink(path)))
    elif path.is_dir():
        yield string(b"directory")
        for child in sorted(path.iterdir(), key=lambda child: os.fsencode(child.name)):
            yield from map(string, (b"entry", b"(", b"name", os.fsencode(child.name), b"node"))
            yield from archived(child)
            yield string(b")")
    else:
        yield string(b"regular")
        if os.access(path, os.X_OK):
            yield string(b"executable") + string(b"")
        yield string(b"contents") + string(path.read_bytes())
    yield string(b")")


def string(value: bytes) -> bytes:
    """Return a string with its length before it, padded to 8 bytes."""
    return len(value).to_bytes(8, "little") + value + bytes(-len(value) % 8)


if __name__ == "__main__":
    main()
