# SPDX-License-Identifier: MIT
"""Mutation testing: changes the code in one place at a time, and checks that a test fails.

`tools/mutants` applies generated mutants (c_mutants.py, python_mutants.py), each to a copy of the
tree. For a mutant of the C core, it compiles the changed files and runs the C tests at each CPU
level; for survivors, the same with AddressSanitizer and UndefinedBehaviorSanitizer, and then the
Python tests. For a mutant of a Python module, it runs the tests that `room_tests` returns.

Each line of output, and of the results file, has the outcome of a mutant:
  caught          a test failed; the line names it
  equivalent      the compiler generates the same code
  listed          it survived, and survivors.toml has the reason
  survived        a test is missing, or survivors.toml needs the mutant and a reason
  not compiled    the compiler rejects it
  not run         the changed code needs AVX-512, which this CPU lacks
  wrongly listed  a test caught it although survivors.toml lists it
The exit status is 1 if a mutant survived or is wrongly listed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
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
from fnmatch import fnmatch
from functools import cache, cached_property
from pathlib import Path

from mutation.mutant import Mutant
from mutation.tree import TREE, all_mutants, read_survivors

DIRECTORIES = ("examples", "native", "proto", "py", "tests")
TEST_PATHS = ("tests", "tests/generators", "tests/support")  # from which tests import

LEVELS = ("best", "avx2", "plain")  # TVIXB_CPU_LEVEL; the C core ignores "best"
# Fast tests first. The others run only for mutants that survive these.
C_TESTS = (
    *("vectors", "context", "schema", "utf8", "arrow", "files", "references", "sort", "hash"),
    *("bytes_avx512", "bytes_avx2", "bytes"),
)
C_TESTS_OF_HEADERS = ("bytes_avx512", "bytes_avx2", "bytes")  # which need only cpu.c
C_TESTS_WITHOUT_LEVELS = (
    *("schema", "utf8", "arrow", "files", "references", "hash"),
    *C_TESTS_OF_HEADERS,
)
# The Python tests of each room. The first pattern that matches a file applies.
TESTS_OF_ROOMS = (
    ("native/arrow*", ("test_arrow*",)),
    ("native/references*", ("test_references",)),
    ("native/*", ("test_vectors", "test_digests", "test_arrow", "test_differential")),
    ("py/tvix_build/records/*", ("test_cli*",)),
    ("py/tvix_build/cli/*", ("test_cli*", "test_serve*")),
    ("py/tvix_build/proxy/*", ("test_serve*",)),
    ("py/tvix_build/spark/*", ("test_spark*",)),
    ("py/tvix_build/nix/*", ("test_nix*",)),
    ("py/tvix_build/builders/reapi/*", ("test_reapi*",)),
    ("py/tvix_build/builders/caching.py", ("test_stored_builds",)),
    (
        "py/tvix_build/builders/*",
        ("test_sandbox*", "test_derivations", "test_layout", "test_limits"),
    ),
    ("py/tvix_build/plan/*", ("test_plan*",)),
    ("py/tvix_build/store/builds.py", ("test_stored_builds",)),
    ("py/tvix_build/store/*", ("test_store",)),
    ("py/tvix_build/castore/client.py", ("test_serve_castore*",)),
    ("py/tvix_build/castore/backed.py", ("test_serve_castore*",)),
    ("py/tvix_build/castore/transfers.py", ("test_serve_castore*",)),
    ("py/tvix_build/castore/tree_checks.py", ("test_castore*", "test_serve_castore*")),
    ("py/tvix_build/castore/*", ("test_castore*",)),
    ("py/tvix_build/_core/convert.py", ("test_translation",)),
    ("py/tvix_build/_core/file_hashing.py", ("test_castore*",)),
    ("py/tvix_build/_core/references.py", ("test_references",)),
    ("py/tvix_build/*", ("test_api*", "test_arrow", "test_vectors")),
)
FLAGS = ("-std=c11", "-w", "-fPIC", "-DTVIXB_TEST_BUILD", "-DPy_LIMITED_API=0x030A0000")
PLAIN = ("-O1",)
SANITIZED = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
SECONDS = 60  # CPU time after which a C test counts as hanging
PYTHON_SECONDS = 240
MEMORY = 8 << 30  # bytes that a test may allocate at most


@cache
def room_tests(tree: Path, file: str) -> tuple[str, ...]:
    """Return the Python tests of a file, relative to the tree: its own, then those of its room."""
    patterns = next((tests for pattern, tests in TESTS_OF_ROOMS if fnmatch(file, pattern)), ())
    tests = [str(path.relative_to(tree)) for path in sorted(tree.glob("tests/**/test_*.py"))]
    named = re.compile(rf"_{Path(file).stem.strip('_')}(_|$)")
    own = [test for test in tests if file.endswith(".py") and named.search(Path(test).stem)]
    own.sort(key=len)
    room = [test for pattern in patterns for test in tests if fnmatch(Path(test).stem, pattern)]
    return tuple(dict.fromkeys([*own, *room]))


class CommandError(Exception):
    """Raised if a command fails, with its name and output."""

    def __init__(self, name: str, output: str = "") -> None:
        super().__init__(name)
        self.output = output


def run(
    command: Iterable[object],
    name: str,
    seconds: int = SECONDS,
    options: Iterable[str] = (),
    **variables: str,
) -> None:
    """Run a command with options of prlimit. Raise CommandError if it fails or hangs."""
    limited = ["prlimit", f"--cpu={seconds}", *options, *(str(part) for part in command)]
    try:
        done = subprocess.run(
            limited,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=30 * seconds,  # A test that waits uses no CPU time; a busy machine is slow.
        )
    except subprocess.TimeoutExpired:
        raise CommandError(f"{name} (hangs)") from None
    if done.returncode == -signal.SIGXCPU:
        raise CommandError(f"{name} (hangs)")
    if done.returncode:
        raise CommandError(name, done.stdout.decode(errors="replace")[-5000:])


def official_code() -> Path:
    """Return the directory of BLAKE3's official C code: Bazel's or the one that setup.py made."""
    beside = [*TREE.parent.glob("*tvix_build_blake3/c"), TREE / "third_party" / "blake3"]
    return next(directory for directory in beside if directory.exists())


class Build:
    """The object files of the tree, and those of the files that a mutant changes."""

    def __init__(self, tree: Path, name: str, options: tuple[str, ...]) -> None:
        self.tree, self.options = tree, options
        self.objects, self.mutated = tree / name, tree / f"{name}-mutated"
        self.objects.mkdir()
        self.mutated.mkdir()
        official = official_code()
        machine = "*_unix.S" if os.uname().machine == "x86_64" else "*neon.c"
        self.core = [
            *sorted((tree / "native").rglob("*.c")),
            *(official / f"blake3{part}.c" for part in ("", "_dispatch", "_portable")),
            *sorted(official.glob(machine)),
        ]
        self.extension = tree / "native.c"
        tests = [self.test(name) for name in C_TESTS]
        self.sources = [*self.core, *tests, self.extension]
        include = ("native", official, "tests/native", sysconfig.get_path("include"))
        self.include = [f"-I{tree / directory}" for directory in include]
        self.compile(self.sources, self.objects)

    def test(self, name: str) -> Path:
        """Return the source file of a C test."""
        return self.tree / "tests" / "native" / f"{name}_test.c"

    def compile(self, sources: list[Path], directory: Path) -> None:
        """Compile files, in parallel."""

        def one(source: Path) -> None:
            output = directory / f"{source.name}.o"
            options = (*FLAGS, *self.options, *self.include)
            run(("gcc", *options, "-MMD", "-c", source, "-o", output), "the compiler")

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(one, sources))

    def forget(self) -> None:
        """Return to the object files of the tree."""
        shutil.rmtree(self.mutated)
        self.mutated.mkdir()

    def change(self, file: Path) -> None:
        """Compile the C files that include a file."""
        self.forget()
        made = [(source, self.objects / f"{source.name}.d") for source in self.sources]
        users = [source for source, d in made if d.exists() and str(file) in d.read_text().split()]
        if not users:
            raise CommandError("the compiler: nothing includes it")
        self.compile(users, self.mutated)

    def link(self, sources: Iterable[Path], output: Path, *options: object) -> None:
        """Link a program or a library from changed and unchanged object files."""
        names = [f"{source.name}.o" for source in sources]
        objects = [
            path if (path := self.mutated / name).exists() else self.objects / name
            for name in names
        ]
        run(("gcc", *self.options, *objects, *options, "-o", output), "the linker")

    def is_equivalent(self) -> bool:
        """Return whether the changed files compile to the same code as before."""
        return all(
            path.read_bytes() == (self.objects / path.name).read_bytes()
            for path in self.mutated.glob("*.o")
        )

    def run_c_tests(self, limits: Limits) -> None:
        """Run the C tests, each at each CPU level. Raise CommandError for the first that fails."""
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
                # A sanitizer reserves more address space than the limit.
                options = () if self.options == SANITIZED else (f"--data={MEMORY}",)
                command = (program, self.tree / "tests" / "vectors")
                limits.run(command, title, SECONDS, options, TVIXB_CPU_LEVEL=level)

    def link_extension(self) -> None:
        """Link the extension module in the copy."""
        self.link(
            [*self.core, self.extension],
            self.tree / "py" / "tvix_build" / "_native.abi3.so",
            "-shared",
            f"-Wl,--version-script={self.tree / 'py' / 'native.lds'}",
        )


class Limits:
    """Time limits for tests: a multiple of their time with the unchanged tree."""

    def __init__(self) -> None:
        self.seconds: dict[str, int] = {}

    def run(
        self,
        command: Iterable[object],
        title: str,
        seconds: int,
        options: Iterable[str],
        **variables: str,
    ) -> None:
        """Run a test. The first run with a title measures its time."""
        begin = _children_seconds()
        run(command, title, self.seconds.get(title, seconds), options, **variables)
        used = _children_seconds() - begin
        self.seconds.setdefault(title, min(seconds, 5 + int(10 * used)))


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_pytest(tree: Path, test: str, limits: Limits) -> None:
    """Run a file of tests in the copy. Raise CommandError if one fails."""
    # Keep other paths; the paths of the copy replace those of this project.
    path = [str(tree / "py"), *(str(tree / one) for one in TEST_PATHS), *filter(None, sys.path)]
    options = ("-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0")
    limits.run(
        (sys.executable, "-m", "pytest", *options, tree / test),
        Path(test).stem,
        PYTHON_SECONDS,
        (f"--data={MEMORY}",),
        PYTHONPATH=os.pathsep.join(path),
        PYTHONDONTWRITEBYTECODE="1",
    )


class Tests:
    """All tests that run for a mutant, in a copy of the tree."""

    def __init__(self, source: Path, tree: Path) -> None:
        self.tree = tree
        generated = shutil.ignore_patterns("*.so", "__pycache__", "consumers")
        for directory in DIRECTORIES:
            shutil.copytree(source / directory, tree / directory, ignore=generated)
        shutil.copy(source / "pyproject.toml", tree)
        run((sys.executable, tree / "py" / "build_native.py", tree / "native.c"), "cffi")
        self.plain = Build(tree, "plain", PLAIN)
        self.plain.link_extension()
        self.limits = Limits()
        self.sound: set[tuple[str, ...]] = set()

    @cached_property
    def sanitized(self) -> Build:
        """Return the same build with sanitizers. The first use must be with the unchanged tree."""
        return Build(self.tree, "sanitized", SANITIZED)

    def outcome(self, mutant: Mutant) -> tuple[str, str]:
        """Return the outcome of a mutant, and the test that caught it."""
        if mutant.avx512 and not has_avx512():
            return "not run", ""
        self.require_sound(mutant.file)
        file = self.tree / mutant.file
        text = file.read_text()
        file.write_text(mutant.apply(text))
        try:
            if file.suffix != ".py":
                try:
                    self.plain.change(file)
                except CommandError:
                    return "not compiled", ""
                if self.plain.is_equivalent():
                    return "equivalent", ""
            failure = self.first_failure(mutant.file)
            return ("caught", str(failure)) if failure else ("survived", "")
        finally:
            file.write_text(text)
            if file.suffix != ".py":
                self.plain.forget()
                self.sanitized.forget()

    def require_sound(self, file: str) -> None:
        """Run the tests of an unchanged file, once. Raise RuntimeError if one fails."""
        group = ("C" if not file.endswith(".py") else "", *room_tests(self.tree, file))
        if group not in self.sound:
            if failure := self.first_failure(file):
                raise RuntimeError(f"{failure} fails without a mutant: {failure.output}")
            self.sound.add(group)

    def first_failure(self, file: str) -> CommandError | None:
        """Return the first test that fails with the current file; None if all pass."""
        linked = False
        try:
            if not file.endswith(".py"):
                self.plain.run_c_tests(self.limits)
                self.sanitized.change(self.tree / file)
                self.sanitized.run_c_tests(self.limits)
                self.plain.link_extension()
                linked = True
            for test in room_tests(self.tree, file):
                run_pytest(self.tree, test, self.limits)
        except CommandError as failure:
            return failure
        finally:
            if linked:
                self.plain.forget()
                self.plain.link_extension()
        return None


def has_avx512() -> bool:
    """Return whether this CPU supports the code for AVX-512."""
    return "avx512bw" in Path("/proc/cpuinfo").read_text()


def outcomes(mutants: Iterable[Mutant], source: Path) -> Iterator[dict[str, str]]:
    """Yield the outcome of each mutant, as a line of a results file."""
    survivors = read_survivors(source)
    with tempfile.TemporaryDirectory() as directory:
        tests = Tests(source, Path(directory))
        for mutant in mutants:
            outcome, test = tests.outcome(mutant)
            if mutant.name in survivors:
                outcome = {"survived": "listed", "caught": "wrongly listed"}.get(outcome, outcome)
            yield {"mutant": mutant.name, "file": mutant.file, "outcome": outcome, "test": test}


def chosen(mutants: list[Mutant], words: list[str], sample: int | None, seed: int) -> list[Mutant]:
    """Return the mutants with one of the words in file or name, or a random sample of them."""
    found = [m for m in mutants if not words or any(w in f"{m.file}: {m.name}" for w in words)]
    if sample is None or sample >= len(found):
        return found
    places = random.Random(seed).sample(range(len(found)), sample)
    return [found[place] for place in sorted(places)]


def main(arguments: list[str]) -> int:
    """Run the mutants and print a line for each. Return the exit status."""
    parser = argparse.ArgumentParser(prog="tools/mutants", description=str(__doc__).split("\n")[0])
    parser.add_argument("words", nargs="*", help="only mutants with one of these in file or name")
    parser.add_argument("--list", action="store_true", help="print the mutants, run none")
    parser.add_argument("--sample", type=int, metavar="N", help="run a random sample of N mutants")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the sample (0)")
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FILE",
        help="append the results as JSON lines; skip mutants that the file has",
    )
    options = parser.parse_args(arguments)
    source = Path(os.environ.get("BUILD_WORKSPACE_DIRECTORY", TREE))
    mutants = chosen(all_mutants(source), options.words, options.sample, options.seed)
    if not mutants:
        parser.error(f"no mutant has one of {options.words} in its file or name")
    if options.list:
        for mutant in mutants:
            print(f"{mutant.file}:{mutant.line}: {mutant.name}")
        return 0
    results: list[dict[str, str]] = []
    if options.results and options.results.exists():
        lines = options.results.read_text().splitlines()
        names = {mutant.name for mutant in mutants}
        results = [result for line in lines if (result := json.loads(line))["mutant"] in names]
    known = {result["mutant"] for result in results}
    begin = time.monotonic()
    for result in outcomes([m for m in mutants if m.name not in known], source):
        results.append(result)
        if options.results:
            with options.results.open("a") as file:
                file.write(json.dumps(result) + "\n")
        by = f" by {result['test']}" if result["test"] else ""
        print(f"{result['file']}: {result['mutant']}: {result['outcome']}{by}", flush=True)
    return summarize(results, time.monotonic() - begin)


def summarize(results: list[dict[str, str]], seconds: float) -> int:
    """Print the number of mutants by test and by outcome. Return the exit status."""
    tests = Counter(result["test"] for result in results if result["outcome"] == "caught")
    print("\nCaught by", ", ".join(f"{test} ({n})" for test, n in tests.most_common()))
    counts = Counter(result["outcome"] for result in results)
    print(", ".join(f"{n} {outcome}" for outcome, n in counts.most_common()), end=", ")
    print(f"{seconds:.0f} seconds")
    return 1 if counts["survived"] or counts["wrongly listed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
