# SPDX-License-Identifier: MIT
"""Mutation testing: breaks the code one line at a time, and sees whether a test notices.

mutants.txt and python_mutants.txt hold the mutants, each wrong in what it computes. A program as
well as a module: `tools/mutants` applies each to a copy of the tree. Of the C core it compiles what
changed and runs the C tests as on each level of CPUs, for survivors the same with AddressSanitizer
and UndefinedBehaviorSanitizer, and for what survives that the Python tests: those of the core, or
those that TESTS_OF names. The exit status is 1 if any mutant survived, or is no change of the
tree as it is now; a mutant of AVX-512 is not run where the CPU has none.

usage: tools/mutants [WORD ...]     (only mutants with one of the words in file or description)
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

TREE = Path(__file__).absolute().parents[1]
FILES = tuple(Path(__file__).with_name(name) for name in ("mutants.txt", "python_mutants.txt"))
FOLDERS = ("examples", "native", "proto", "py", "tests")

LEVELS = ("best", "avx2", "plain")  # TVIXB_CPU_LEVEL; of "best" the C core knows nothing
# The quick ones first; the others run on what they leave.
C_TESTS = (
    *("vectors", "context", "schema", "utf8", "arrow", "files", "sort", "hash"),
    *("bytes_avx512", "bytes"),
)
C_TESTS_WITHOUT_LEVELS = ("schema", "utf8", "arrow", "files", "hash", "bytes_avx512", "bytes")
C_TESTS_OF_HEADERS = ("bytes_avx512", "bytes")  # which call nothing that is compiled elsewhere
TESTS_OF_CORE = ("test_vectors", "test_digests", "test_arrow", "test_differential")
# Beginnings of files' names: the Python tests of what is not the core.
TESTS_OF = {
    "native/arrow": ("test_arrow", "test_arrow_tables"),
    "py/tvix_build/_aterm.py": ("test_nix",),
    "py/tvix_build/_files.py": ("test_castore",),
    "py/tvix_build/_nix_options.py": ("test_nix_options",),
    "py/tvix_build/_nix_requests.py": ("test_nix", "test_nix_builds", "test_nix_validation"),
    "py/tvix_build/_nix_validation.py": ("test_nix", "test_nix_validation"),
    "py/tvix_build/_translate.py": ("test_translation",),
    "py/tvix_build/_command_line/convert.py": ("test_cli_convert",),
    "py/tvix_build/_command_line/diff.py": ("test_cli_diff",),
    "py/tvix_build/_command_line/output.py": ("test_cli_output",),
    "py/tvix_build/_command_line/strict_json.py": ("test_cli",),
    "py/tvix_build/cli.py": ("test_cli_signals",),
    "py/tvix_build/castore.py": ("test_castore",),
    "py/tvix_build/nix.py": ("test_nix",),
    "py/tvix_build/store.py": ("test_store",),
    "py/tvix_build/_engine.py": ("test_api", "test_arrow", "test_vectors", "test_cli_streams"),
    "py/tvix_build/_arrow.py": ("test_arrow", "test_arrow_tables"),
    "py/": ("test_api", "test_arrow", "test_vectors"),
}
FLAGS = ("-std=c11", "-w", "-fPIC", "-DTVIXB_TEST_BUILD", "-DPy_LIMITED_API=0x030A0000")
PLAIN = ("-O1",)
SANITIZED = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
SECONDS = 60  # of CPU that a C test may take before it counts as hanging
PYTHON_SECONDS = 240


@dataclass(frozen=True)
class Mutant:
    """A change of one file."""

    file: str  # in the tree
    about: str
    old: str  # occurs exactly once
    new: str

    def apply(self, text: str) -> str:
        """The file's text with the change; ValueError if it does not apply exactly once."""
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.file}: {self.old!r} once expected, found {count} times")
        return text.replace(self.old, self.new)


def read_mutants(text: str) -> list[Mutant]:
    """The mutants of a text like mutants.txt."""
    mutants = []
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if not line.startswith("#")]
        if not lines:
            continue
        file, _, about = lines[0].partition(": ")
        old = "\n".join(line[1:] for line in lines[1:] if line.startswith("-"))
        new = "\n".join(line[1:] for line in lines[1:] if line.startswith("+"))
        if not about or not old or old == new or {line[:1] for line in lines[1:]} - {"-", "+"}:
            raise ValueError(f"expected FILE: ABOUT, then -OLD and +NEW, found {block!r}")
        mutants.append(Mutant(file, about, old, new))
    return mutants


class CommandError(Exception):
    """A command that failed: which."""


def run(command: Iterable[object], name: str, seconds: int = SECONDS, **variables: str) -> None:
    """Runs a command; CommandError if it fails or hangs."""
    limited = ["prlimit", f"--cpu={seconds}", *(str(part) for part in command)]
    try:
        done = subprocess.run(
            limited,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=30 * seconds,  # What waits takes no CPU; a busy machine takes long.
        )
    except subprocess.TimeoutExpired:
        raise CommandError(f"{name} (hangs)") from None
    if done.returncode == -signal.SIGXCPU:
        raise CommandError(f"{name} (hangs)")
    if done.returncode:
        raise CommandError(name) from RuntimeError(done.stdout.decode(errors="replace")[-5000:])


def official_code() -> Path:
    """The folder of BLAKE3's official C code: Bazel's, or what setup.py left."""
    beside = [*TREE.parent.glob("*tvix_build_blake3/c"), TREE / "third_party" / "blake3"]
    return next(folder for folder in beside if folder.exists())


class Build:
    """Objects of the tree, and again those that a mutant changes."""

    def __init__(self, tree: Path, name: str, options: tuple[str, ...]) -> None:
        self.tree, self.options = tree, options
        self.objects, self.mutated = tree / name, tree / f"{name}-mutated"
        self.objects.mkdir()
        self.mutated.mkdir()
        official = official_code()
        machine = "*_unix.S" if os.uname().machine == "x86_64" else "*neon.c"
        self.core = [
            *sorted((tree / "native").glob("*.c")),
            *(official / f"blake3{part}.c" for part in ("", "_dispatch", "_portable")),
            *sorted(official.glob(machine)),
        ]
        self.extension = tree / "native.c"
        tests = [self.test(name) for name in C_TESTS]
        self.sources = [*self.core, *tests, self.extension]
        include = ("native", official, "tests/native", sysconfig.get_path("include"))
        self.include = [f"-I{tree / folder}" for folder in include]
        self.compile(self.sources, self.objects)

    def test(self, name: str) -> Path:
        """The source of a C test."""
        return self.tree / "tests" / "native" / f"{name}_test.c"

    def compile(self, sources: list[Path], folder: Path) -> None:
        """Compiles files, on all CPUs."""

        def one(source: Path) -> None:
            output = folder / f"{source.name}.o"
            options = (*FLAGS, *self.options, *self.include)
            run(("gcc", *options, "-MMD", "-c", source, "-o", output), "the compiler")

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(one, sources))

    def forget(self) -> None:
        """Goes back to the objects of the tree."""
        shutil.rmtree(self.mutated)
        self.mutated.mkdir()

    def change(self, file: Path) -> None:
        """Compiles again what includes a file."""
        self.forget()
        made = [(source, self.objects / f"{source.name}.d") for source in self.sources]
        users = [source for source, d in made if d.exists() and str(file) in d.read_text().split()]
        if not users:
            raise CommandError("the compiler: nothing includes it")
        self.compile(users, self.mutated)

    def link(self, sources: Iterable[Path], output: Path, *options: object) -> None:
        """Links a program or a library, of what is changed and what is not."""
        names = [f"{source.name}.o" for source in sources]
        objects = [
            path if (path := self.mutated / name).exists() else self.objects / name
            for name in names
        ]
        run(("gcc", *self.options, *objects, *options, "-o", output), "the linker")

    def run_c_tests(self) -> None:
        """Runs the C tests, each as on each level of CPUs; CommandError says which did not pass."""
        for name in C_TESTS:
            changed = (self.mutated / f"{name}_test.c.o").exists()
            if name in C_TESTS_OF_HEADERS and not changed and any(self.mutated.iterdir()):
                continue
            program = self.tree / f"{name}_test"
            self.link([*self.core, self.test(name)], program, "-lpthread")
            levels = LEVELS[:1] if name in C_TESTS_WITHOUT_LEVELS else LEVELS
            for level in levels:
                title = f"{name}_test" + ("" if level == "best" else f"_{level}")
                if self.options == SANITIZED:
                    title += " with sanitizers"
                run((program, self.tree / "tests" / "vectors"), title, TVIXB_CPU_LEVEL=level)

    def run_python_tests(self, tests: Iterable[str]) -> None:
        """Runs Python tests with the extension; CommandError says which failed."""
        self.link(
            [*self.core, self.extension],
            self.tree / "py" / "tvix_build" / "_native.abi3.so",
            "-shared",
            f"-Wl,--version-script={self.tree / 'py' / 'native.lds'}",
        )
        for name in tests:
            run_pytest(self.tree, name)


def run_pytest(tree: Path, name: str) -> None:
    """Runs a file of tests in the copy; CommandError if one fails."""
    # What is not of this project stays; of it, the copy comes first.
    path = [str(tree / "py"), str(tree / "tests"), *filter(None, sys.path)]
    options = ("-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0")
    run(
        (sys.executable, "-m", "pytest", *options, tree / "tests" / f"{name}.py"),
        name,
        PYTHON_SECONDS,
        PYTHONPATH=os.pathsep.join(path),
        PYTHONDONTWRITEBYTECODE="1",
    )


class Tests:
    """Everything that is run on a mutant, in a copy of the tree."""

    def __init__(self, source: Path, tree: Path) -> None:
        self.tree = tree
        generated = shutil.ignore_patterns("*.so", "__pycache__", "consumers")
        for folder in FOLDERS:
            shutil.copytree(source / folder, tree / folder, ignore=generated)
        shutil.copy(source / "pyproject.toml", tree)
        run((sys.executable, tree / "py" / "build_native.py", tree / "native.c"), "cffi")
        self.plain = Build(tree, "plain", PLAIN)
        self.sound: set[str] = set()

    @cached_property
    def sanitized(self) -> Build:
        """The same with sanitizers; first asked for while the tree is as it is."""
        return Build(self.tree, "sanitized", SANITIZED)

    def caught_by(self, mutant: Mutant) -> str | None:
        """The first test that notices a mutant, if any; ValueError if it does not apply."""
        self.require_sound(mutant.file)
        file = self.tree / mutant.file
        text = file.read_text()
        file.write_text(mutant.apply(text))
        try:
            if file.suffix != ".py":
                self.plain.change(file)
        except CommandError as failure:
            raise ValueError(f"{mutant.file}: {mutant.new!r}: {failure}") from None
        else:
            return self.first_failure(mutant.file)
        finally:
            file.write_text(text)
            self.plain.forget()

    def require_sound(self, file: str) -> None:
        """Runs the tests of a file as it is, once."""
        if (group := group_of(file)) in self.sound:
            return
        if failed := self.first_failure(file):
            raise RuntimeError(f"of the tree as it is, {failed} fails")
        self.sound.add(group)

    def first_failure(self, file: str) -> str | None:
        """The first test that fails with the file as it is now."""
        tests = TESTS_OF.get(group_of(file))
        try:
            if not file.endswith(".py"):
                self.plain.run_c_tests()
                self.sanitized.change(self.tree / file)
                self.sanitized.run_c_tests()
            self.plain.run_python_tests(tests or TESTS_OF_CORE)
        except CommandError as failure:
            return str(failure)
        return None


def group_of(file: str) -> str:
    """Which line of TESTS_OF is a file's; empty for the C core."""
    return next((begin for begin in TESTS_OF if file.startswith(begin)), "")


def has_avx512() -> bool:
    """Whether this CPU has what hash_avx512.c needs."""
    return "avx512bw" in Path("/proc/cpuinfo").read_text()


def outcomes(mutants: list[Mutant], source: Path) -> Iterator[tuple[str, str]]:
    """Of each mutant what became of it, and the test that noticed it."""
    with tempfile.TemporaryDirectory() as folder:
        tests = Tests(source, Path(folder))
        for mutant in mutants:
            if mutant.about.endswith(", AVX-512") and not has_avx512():
                yield "not run", "this CPU has no AVX-512"
                continue
            try:
                test = tests.caught_by(mutant)
            except ValueError as error:
                yield "does not apply", str(error)
            else:
                yield ("survived", "") if test is None else ("caught", test)


def main(words: list[str]) -> int:
    """Runs the mutants, a line each; the exit status."""
    source = Path(os.environ.get("BUILD_WORKSPACE_DIRECTORY", TREE))
    mutants = [
        mutant
        for file in FILES
        for mutant in read_mutants((source / "tests" / file.name).read_text())
        if not words or any(word in f"{mutant.file}: {mutant.about}" for word in words)
    ]
    if not mutants:
        print(f"no mutant has one of {words} in its file or description", file=sys.stderr)
        return 2
    counts, tests = Counter[str](), Counter[str]()
    begin = time.monotonic()
    for mutant, (outcome, test) in zip(mutants, outcomes(mutants, source), strict=True):
        counts[outcome] += 1
        tests[test] += outcome == "caught"
        by = f" by {test}" if outcome == "caught" else f": {test}" if test else ""
        print(f"{mutant.file}: {mutant.about}: {outcome}{by}", flush=True)
    print("\nCaught by", ", ".join(f"{test} ({n})" for test, n in tests.most_common() if n))
    print(", ".join(f"{n} {outcome}" for outcome, n in counts.items()), end=", ")
    print(f"{time.monotonic() - begin:.0f} seconds")
    return 0 if set(counts) <= {"caught", "not run"} else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
