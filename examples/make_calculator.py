# SPDX-License-Identifier: MIT
"""Makes twelve derivations and their sources, without Nix: they compile a calculator and a packer
of C, link programs with both, run them, and check the results.

usage: make_calculator.py DIRECTORY [SOURCES]

SOURCES are in the directory calculator beside this script, unless another directory is named. The
compiler is the GCC of this machine, whose programs, libraries and headers become a source, too.
DIRECTORY then has the names of a Nix store:

    tvix-build plan make DIRECTORY/*-check.txt.drv --ingest -o plan.binpb

Needs GCC, a C library for static programs, and tvix_build.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from store_paths import Store

HERE = Path(__file__).absolute().parent
SYSTEM = f"{os.uname().machine}-linux"
OBJECTS = {
    "calc": ("evaluate", "scan"),
    "pack": ("pack", "unpack"),
}
PROGRAMS = {"calc": ("calc",), "pack": ("pack",), "check": ("calc", "pack")}
RUNS = {
    "results.txt": '"$calc" < "$expressions" > "$out"',
    "results.pack": '"$pack" < "$results" > "$out"',
    "check.txt": '"$check" "$expressions" < "$packed" > "$out"',
}
"""Scripts, by the names of their outputs."""


def main() -> None:
    """Make the directory that is the first argument."""
    os.chdir(os.environ.get("BUILD_WORKING_DIRECTORY", "."))  # set by `bazel run`
    target = Path(sys.argv[1]).absolute()
    sources = Path(sys.argv[2]) if len(sys.argv) > 2 else HERE / "calculator"
    with TemporaryDirectory(dir=target.parent) as name:
        made = Path(name, "store")
        made.mkdir()
        copy = Path(name, "sources")
        shutil.copytree(sources, copy, copy_function=shutil.copyfile)
        Calculator(Store(made), copy).write_derivations()
        made.rename(target)


class Calculator:
    """The derivations.

    Args:
        store: where they are written.
        sources: the sources, which are moved to the store.
    """

    def __init__(self, store: Store, sources: Path) -> None:
        self._store = store
        self._scripts = {
            name: (sources / f"{name}.sh").read_text() for name in ("compile", "archive", "link")
        }
        files = sorted(str(path) for path in sources.glob("*/*.c"))
        self._toolchain = store.add(copy_toolchain(sources, files), "toolchain")
        self._sources = {
            name: store.add(sources / name, f"{name}-source") for name in (*OBJECTS, "programs")
        }
        self._expressions = store.add(sources / "expressions.txt", "expressions.txt")

    def write_derivations(self) -> None:
        """Write all derivations."""
        libraries = {name: self._library(name) for name in OBJECTS}
        programs = {
            name: self._program(name, [libraries[one] for one in needed], needed)
            for name, needed in PROGRAMS.items()
        }
        expressions = {"expressions": self._expressions}
        results = self._run("results.txt", expressions, calc=programs["calc"])
        packed = self._run("results.pack", {}, pack=programs["pack"], results=results)
        self._run("check.txt", expressions, check=programs["check"], packed=packed)

    def _library(self, name: str) -> str:
        objects = [self._compile("compile", f"{one}.o", name, one) for one in OBJECTS[name]]
        paths = " ".join(self._store.output(one) for one in objects)
        return self._derive(
            f"lib{name}.a", self._scripts["archive"], {"objects": paths}, inputs=objects
        )

    def _program(self, name: str, libraries: list[str], headers: Iterable[str]) -> str:
        return self._compile("link", name, "programs", name, headers, libraries)

    def _compile(
        self,
        script: str,
        output: str,
        directory: str,
        file: str,
        headers: Iterable[str] = (),
        libraries: Iterable[str] = (),
    ) -> str:
        """Write a derivation that compiles a file, with the headers of other directories."""
        needed = [self._sources[one] for one in headers]
        source = self._sources[directory]
        variables = {
            "file": f"{file}.c",
            "headers": " ".join(needed),
            "libraries": " ".join(self._store.output(one) for one in libraries),
            "src": source,
        }
        text = self._scripts[script]
        return self._derive(output, text, variables, sources=(source, *needed), inputs=libraries)

    def _derive(
        self,
        name: str,
        script: str,
        variables: dict[str, str],
        *,
        sources: Iterable[str] = (),
        inputs: Iterable[str] = (),
    ) -> str:
        """Write a derivation whose script uses the toolchain."""
        return self._store.derive(
            name,
            SYSTEM,
            "/bin/sh",
            ("-euc", script),
            {**variables, "toolchain": self._toolchain},
            sources=(*sources, self._toolchain),
            inputs=inputs,
        )

    def _run(self, name: str, sources: Mapping[str, str], **inputs: str) -> str:
        """Write a derivation that runs a program."""
        variables = {key: self._store.output(path) for key, path in inputs.items()}
        return self._store.derive(
            name,
            SYSTEM,
            "/bin/sh",
            ("-euc", RUNS[name]),
            {**variables, **sources},
            sources=sources.values(),
            inputs=inputs.values(),
        )


def copy_toolchain(sources: Path, files: Iterable[str]) -> Path:
    """Copy the parts of GCC that compile and link C files to a new directory beside the sources,
    and return it."""
    target = sources.parent / "toolchain"
    for name in ("bin", "include", "lib"):
        (target / name).mkdir(parents=True)
    shutil.copyfile(sources / "tools.sh", target / "tools.sh")
    for name in ("ar", "as", "cc1", "ld"):
        program = shutil.which(gcc(f"-print-prog-name={name}").strip())
        if program is None:
            sys.exit(f"{name}: not found; install GCC")
        copy_program(Path(program), target / "bin" / name)
        for library in re.findall(r"=> (/\S+)", run("ldd", program)):
            copy_program(Path(library), target / "lib" / os.path.basename(library))
        (loader,) = re.findall(r"^\s+(/\S+)", run("ldd", program), re.MULTILINE)
        copy_program(Path(loader), target / "lib" / "loader")
    for name in (
        *("crt1.o", "crti.o", "crtbeginT.o", "crtend.o", "crtn.o"),
        *("libc.a", "libgcc.a", "libgcc_eh.a"),
    ):
        path = gcc(f"-print-file-name={name}").strip()
        if not os.path.isabs(path):
            sys.exit(f"{name}: not found; install the development files of the C library")
        shutil.copyfile(path, target / "lib" / name)
    copy_headers(sources, files, target / "include")
    return target


def copy_program(source: Path, target: Path) -> None:
    """Copy a program or a library, with the contents only and executable."""
    shutil.copyfile(source, target)
    target.chmod(0o755)


def copy_headers(sources: Path, files: Iterable[str], target: Path) -> None:
    """Copy the headers of the C library and of GCC that C files include."""
    own = [f"-I{sources / name}" for name in OBJECTS]
    found = gcc("-E", "-v", "-xc", os.devnull)
    listed = found.partition("<...> search starts here:\n")[2].partition("End of search list")[0]
    directories = [Path(line.strip()) for line in listed.splitlines()]
    for word in gcc("-M", "-O1", *own, *files).split():
        for directory in directories:
            if word.startswith(f"{directory}/"):
                copied = target / Path(word).relative_to(directory)
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(word, copied)
                break


def gcc(*arguments: str) -> str:
    """Return the output of GCC."""
    return run("gcc", *arguments)


def run(*command: str) -> str:
    """Return the output of a command, with its errors."""
    done = subprocess.run(
        command,
        env={**os.environ, "LC_ALL": "C"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stdout}")
    return done.stdout


if __name__ == "__main__":
    main()
