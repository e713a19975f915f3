# SPDX-License-Identifier: MIT
"""Mutation testing: breaks the code in one place at a time, and sees whether a test notices.

`tools/mutants` applies generated mutants (c_mutants.py, python_mutants.py), each to a copy of the
tree. Of the C core it compiles what changed and runs the C tests as on each level of CPUs, for
survivors the same with AddressSanitizer and UndefinedBehaviorSanitizer, and for what survives that
the Python tests; of a Python module, the tests that `room_tests` names.

A line of output, and of the results file, says what became of a mutant:
  caught          a test failed: which
  equivalent      the compiler makes the same code of it
  listed          it survived, and survivors.toml says why
  survived        a missing test, or one to be added to survivors.toml with its reason
  not compiled    the compiler refuses it
  not run         this CPU has no AVX-512, which runs the changed code
  wrongly listed  a test caught it although survivors.toml lists it
The exit status is 1 if one survived or is wrongly listed.
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

FOLDERS = ("examples", "native", "proto", "py", "tests")
TEST_PATHS = ("tests", "tests/generators", "tests/support")  # where tests import from

LEVELS = ("best", "avx2", "plain")  # TVIXB_CPU_LEVEL; of "best" the C core knows nothing
# The quick ones first; the others run on what they leave.
C_TESTS = (
    *("vectors", "context", "schema", "utf8", "arrow", "files", "sort", "hash"),
    *("bytes_avx512", "bytes"),
)
C_TESTS_WITHOUT_LEVELS = ("schema", "utf8", "arrow", "files", "hash", "bytes_avx512", "bytes")
C_TESTS_OF_HEADERS = ("bytes_avx512", "bytes")  # which call nothing that is compiled elsewhere
# The Python tests of each room: the first pattern that matches a file counts.
TESTS_OF_ROOMS = (
    ("native/arrow*", ("test_arrow*",)),
    ("native/*", ("test_vectors", "test_digests", "test_arrow", "test_differential")),
    ("py/tvix_build/records/*", ("test_cli*",)),
    ("py/tvix_build/cli/*", ("test_cli*", "test_serve*")),
    ("py/tvix_build/proxy/*", ("test_serve*",)),
    ("py/tvix_build/spark/*", ("test_spark*",)),
    ("py/tvix_build/nix/*", ("test_nix*",)),
    ("py/tvix_build/castore/*", ("test_castore",)),
    ("py/tvix_build/_core/convert.py", ("test_translation",)),
    ("py/tvix_build/_core/file_hashing.py", ("test_castore",)),
    ("py/tvix_build/*", ("test_api*", "test_arrow", "test_vectors")),
)
FLAGS = ("-std=c11", "-w", "-fPIC", "-DTVIXB_TEST_BUILD", "-DPy_LIMITED_API=0x030A0000")
PLAIN = ("-O1",)
SANITIZED = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
SECONDS = 60  # of CPU that a C test may take before it counts as hanging
PYTHON_SECONDS = 240
MEMORY = 8 << 30  # bytes that a test may allocate


@cache
def room_tests(tree: Path, file: str) -> tuple[str, ...]:
    """The Python tests of a file, relative to the tree: those named after it, then its room's."""
    patterns = next((tests for pattern, tests in TESTS_OF_ROOMS if fnmatch(file, pattern)), ())
    tests = [str(path.relative_to(tree)) for path in sorted(tree.glob("tests/**/test_*.py"))]
    named = re.compile(rf"_{Path(file).stem.strip('_')}(_|$)")
    own = [test for test in tests if file.endswith(".py") and named.search(Path(test).stem)]
    own.sort(key=len)
    room = [test for pattern in patterns for test in tests if fnmatch(Path(test).stem, pattern)]
    return tuple(dict.fromkeys([*own, *room]))


class CommandError(Exception):
    """A command that failed: which, and its output."""

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
    """Runs a command with options of prlimit; CommandError if it fails or hangs."""
    limited = ["prlimit", f"--cpu={seconds}", *options, *(str(part) for part in command)]
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
        raise CommandError(name, done.stdout.decode(errors="replace")[-5000:])


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
            *sorted((tree / "native").rglob("*.c")),
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

    def is_equivalent(self) -> bool:
        """Whether what was compiled again is the same as before."""
        return all(
            path.read_bytes() == (self.objects / path.name).read_bytes()
            for path in self.mutated.glob("*.o")
        )

    def run_c_tests(self, limits: Limits) -> None:
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
                # A sanitizer reserves more memory than there is.
                options = () if self.options == SANITIZED else (f"--data={MEMORY}",)
                command = (program, self.tree / "tests" / "vectors")
                limits.run(command, title, SECONDS, options, TVIXB_CPU_LEVEL=level)

    def link_extension(self) -> None:
        """Links the extension module into the copy."""
        self.link(
            [*self.core, self.extension],
            self.tree / "py" / "tvix_build" / "_native.abi3.so",
            "-shared",
            f"-Wl,--version-script={self.tree / 'py' / 'native.lds'}",
        )


class Limits:
    """How long tests may take: many times what they took with the tree as it is."""

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
        """Runs a test; the first run of a title measures."""
        begin = _children_seconds()
        run(command, title, self.seconds.get(title, seconds), options, **variables)
        used = _children_seconds() - begin
        self.seconds.setdefault(title, min(seconds, 5 + int(10 * used)))


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_pytest(tree: Path, test: str, limits: Limits) -> None:
    """Runs a file of tests in the copy; CommandError if one fails."""
    # What is not of this project stays; of it, the copy comes first.
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
    """Everything that is run on a mutant, in a copy of the tree."""

    def __init__(self, source: Path, tree: Path) -> None:
        self.tree = tree
        generated = shutil.ignore_patterns("*.so", "__pycache__", "consumers")
        for folder in FOLDERS:
            shutil.copytree(source / folder, tree / folder, ignore=generated)
        shutil.copy(source / "pyproject.toml", tree)
        run((sys.executable, tree / "py" / "build_native.py", tree / "native.c"), "cffi")
        self.plain = Build(tree, "plain", PLAIN)
        self.plain.link_extension()
        self.limits = Limits()
        self.sound: set[tuple[str, ...]] = set()

    @cached_property
    def sanitized(self) -> Build:
        """The same with sanitizers; first used while the tree is as it is."""
        return Build(self.tree, "sanitized", SANITIZED)

    def outcome(self, mutant: Mutant) -> tuple[str, str]:
        """What became of a mutant, and the test that caught it."""
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
        """Runs the tests of a file as it is, once; RuntimeError if one fails."""
        group = ("C" if not file.endswith(".py") else "", *room_tests(self.tree, file))
        if group not in self.sound:
            if failure := self.first_failure(file):
                raise RuntimeError(f"{failure} fails without a mutant: {failure.output}")
            self.sound.add(group)

    def first_failure(self, file: str) -> CommandError | None:
        """The first test that fails with the file as it is now."""
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
    """Whether this CPU has what code for AVX-512 needs."""
    return "avx512bw" in Path("/proc/cpuinfo").read_text()


def outcomes(mutants: Iterable[Mutant], source: Path) -> Iterator[dict[str, str]]:
    """Of each mutant what became of it, as a line of a results file."""
    survivors = read_survivors(source)
    with tempfile.TemporaryDirectory() as folder:
        tests = Tests(source, Path(folder))
        for mutant in mutants:
            outcome, test = tests.outcome(mutant)
            if mutant.name in survivors:
                outcome = {"survived": "listed", "caught": "wrongly listed"}.get(outcome, outcome)
            yield {"mutant": mutant.name, "file": mutant.file, "outcome": outcome, "test": test}


def chosen(mutants: list[Mutant], words: list[str], sample: int | None, seed: int) -> list[Mutant]:
    """The mutants with one of the words in file or name; of these a random sample, in order."""
    found = [m for m in mutants if not words or any(w in f"{m.file}: {m.name}" for w in words)]
    if sample is None or sample >= len(found):
        return found
    places = random.Random(seed).sample(range(len(found)), sample)
    return [found[place] for place in sorted(places)]


def main(arguments: list[str]) -> int:
    """Runs the mutants, a line each; the exit status."""
    parser = argparse.ArgumentParser(prog="tools/mutants", description=str(__doc__).split("\n")[0])
    parser.add_argument("words", nargs="*", help="only mutants with one of these in file or name")
    parser.add_argument("--list", action="store_true", help="print the mutants, and run none")
    parser.add_argument("--sample", type=int, metavar="N", help="run N of them, chosen at random")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the sample (0)")
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FILE",
        help="append the results as JSON lines; mutants that are in the file are not run again",
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
    """Prints how many mutants each test caught and what became of all; the exit status."""
    tests = Counter(result["test"] for result in results if result["outcome"] == "caught")
    print("\nCaught by", ", ".join(f"{test} ({n})" for test, n in tests.most_common()))
    counts = Counter(result["outcome"] for result in results)
    print(", ".join(f"{n} {outcome}" for outcome, n in counts.most_common()), end=", ")
    print(f"{seconds:.0f} seconds")
    return 1 if counts["survived"] or counts["wrongly listed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
