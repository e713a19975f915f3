# SPDX-License-Identifier: MIT
"""Tests of the generated mutants: the operators, that mutants compile, and the survivors."""

from __future__ import annotations

import ast
import difflib
import json
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from mutation import c_mutants, python_mutants
from mutation.c_mutants import mutants_of_c
from mutation.mutant import Mutant, apply_all, number_repeated, rounds
from mutation.python_mutants import mutants_of_python
from mutation.run_mutants import TESTS_OF_ROOMS, chosen, official_code, room_tests, summarize
from mutation.tree import TREE, all_mutants, mutants_of, read_survivors, source_files

MUTANTS = all_mutants(TREE)
BY_FILE: dict[str, list[Mutant]] = defaultdict(list)
for one in MUTANTS:
    BY_FILE[one.file].append(one)
C_FILES = [file for file in source_files(TREE) if not file.endswith(".py")]
PYTHON_FILES = [file for file in BY_FILE if file.endswith(".py")]


def changed(mutants: list[Mutant], source: str, operator: str) -> list[str]:
    """Return the source with each mutant of an operator."""
    return [m.apply(source) for m in mutants if f" {operator}: " in f" {m.name}"]


C_EXAMPLES = [
    ("boundary", "int f(int a) { g(a < 1); }", ["g(a <= 1);"]),
    ("boundary", "int f(int a) { g(a >= b->c); }", ["g(a > b->c);"]),
    ("equality", "int f(int a) { return a == b; }", ["return a != b;"]),
    ("connective", "int f(int a) { return a && !b; }", ["return a || !b;"]),
    ("arithmetic", "int f(int* a) { return *a + -b; }", ["return *a - -b;"]),
    ("arithmetic", "int f(int* a) { return a & ~b; }", ["return a | ~b;"]),
    ("arithmetic", "void f(int* a) { const int* b = &a; }", []),
    ("arithmetic", "int f(int a) { x += a; }", ["x -= a;"]),
    ("negation", "int f(int a) { return !a; }", ["return a;"]),
    ("constant", "int f(int a) { return 0x7fu; }", ["return 0x7eu;", "return 0x80u;"]),
    ("constant", "int f(int a) { return 0; }", ["return 1;"]),
    ("constant", "int f(int a) { return '/'; }", ["return '0';"]),
    ("constant", "int f(int a) { return true; }", ["return false;"]),
    ("constant", "int f(int a) { switch (a) { case 1: g(); } }", []),
    ("constant", "int f(int a) { _Static_assert(sizeof(a) == 4, A); }", []),
    ("constant", "enum { A = 1 };", []),
    ("never", "int f(int a) { if (a) g(); }", ["if (0 && (a)) g();"]),
    ("always", "int f(int a) { if (a) g(); }", ["if (1 || (a)) g();"]),
    ("removed", "int f(int a) { if (a) g(b, {1}); }", ["if (a) ;"]),
    ("removed", "int f(int a) { x->y[1] |= a; }", [";"]),
    ("removed", "int f(int a) { int b = a; return b; }", []),
    ("removed", "int f(int a) { for (;;) break; }", ["for (;;) ;"]),
    ("member", "static const row rows[2] = {[A] = {.x = 1, .y = B}};", ["{ .y = B}", "{.x = 1, }"]),
    ("member", "static const row rows[2] = {ROW(a, .x = 1), {0}};", ["ROW(a, )"]),
]  # fmt: skip

PYTHON_EXAMPLES = [
    ("boundary", "x = 1 < a <= b", ["x = 1 <= a <= b", "x = 1 < a < b"]),
    ("equality", "x = a is not b", ["x = a is b"]),
    ("equality", "x = a in b", ["x = a not in b"]),
    ("connective", "x = (a) and (b or c)", ["x = (a) or (b or c)", "x = (a) and (b and c)"]),
    ("arithmetic", "x = (a +  # -\n b)", ["x = (a -  # -\n b)"]),
    ("arithmetic", "x = 'a' + b", []),
    ("arithmetic", "X = bytes | str", []),
    ("arithmetic", "x //= 2", ["x *= 2"]),
    ("negation", "x = not (a)", ["x =  (a)"]),
    ("constant", "x = f('ä', 7)", ["x = f('ä', 6)", "x = f('ä', 8)"]),
    ("constant", "x: Literal[1] = True", ["x: Literal[1] = False"]),
    ("constant", "x = f'{1}'", []),
    ("never", "if a:\n  b()", ["if (False and (a)):\n  b()"]),
    ("never", "x = a if b else c", ["x = a if (False and (b)) else c"]),
    ("never", "while a: b()", ["while (False and (a)): b()"]),
    ("never", "if TYPE_CHECKING:\n  import b", []),
    ("always", "x = [a for a in b if c]", ["x = [a for a in b if (True or (c))]"]),
    ("removed", "def f():\n  'text'\n  g()", ["def f():\n  'text'\n  pass"]),
    ("removed", "def f():\n  raise E from e", ["def f():\n  pass"]),
    ("removed", "self.a = 1", ["pass"]),
    ("removed", "a = 1", []),
    ("returned", "def f():\n  return (\n a)", ["def f():\n  return (\n None)"]),
    ("returned", "def f():\n  return None", []),
    ("extreme", "x = min(a, b)", ["x = max(a, b)"]),
    ("unsorted", "x = sorted(a, key=b)", ["x = list(a)"]),
    ("keyword", "f(a, b=b, c=d, e=e)", ["f(a,  c=d, e=e)", "f(a, b=b, c=d, )"]),
]


@pytest.mark.parametrize(("operator", "source", "expected"), C_EXAMPLES)
def test_operators_of_c(operator: str, source: str, expected: list[str]) -> None:
    found = changed(mutants_of_c("a.c", source), source, operator)
    assert len(found) == len(expected)
    for text, part in zip(found, expected, strict=True):
        assert part in text
        assert text != source


@pytest.mark.parametrize(("operator", "source", "expected"), PYTHON_EXAMPLES)
def test_operators_of_python(operator: str, source: str, expected: list[str]) -> None:
    assert changed(mutants_of_python("a.py", source), source, operator) == expected


def test_every_operator_has_an_example_and_mutants() -> None:
    for operators, examples, ending in (
        (c_mutants.OPERATORS, C_EXAMPLES, (".c", ".h")),
        (python_mutants.OPERATORS, PYTHON_EXAMPLES, (".py",)),
    ):
        assert {operator for operator, _, expected in examples if expected} == set(operators)
        used = {m.name.split(": ")[1] for m in MUTANTS if m.file.endswith(ending)}
        assert used == set(operators)


def test_names_say_where_and_what() -> None:
    table = "static const row rows[2] = {\n  [A] = {.size_max = 255},\n};\n"
    code = "int f(int* a, int b) {\n  if (g(a[0],\n        b < 1)) return 1;\n}\n"
    macro = "#define LIMIT 7\n#define G(x) \\\n  h(x + 1)\n"
    names = {m.name for m in mutants_of_c("a.c", table + code + macro)}
    assert "rows[A]: constant: .size_max = 255 -> .size_max = 256" in names
    assert "f: boundary: g(a[0], b < 1) -> g(a[0], b <= 1)" in names
    assert "LIMIT: constant: 7 -> 8" in names
    assert "G: arithmetic: h(x + 1) -> h(x - 1)" in names
    method = "class A:\n  def f(self, x):\n    return self.g(\n      x < 1)\n"
    names = {m.name for m in mutants_of_python("a.py", method)}
    assert "A.f: boundary: x < 1 -> x <= 1" in names


def test_code_for_avx512_is_marked() -> None:
    function = "int f(int a) { return a < 1; }\n"
    source = f"#ifdef HAVE_AVX512\n{function}#else\n{function}#endif\n{function}"
    marks = [m.avx512 for m in mutants_of_c("a.c", source) if "boundary" in m.name]
    assert marks == [True, False, False]


def test_names_are_unique_and_without_places() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    again = "a = 1 < b\na = 1 < b\n"
    names = [m.name for m in number_repeated(mutants_of_python("a.py", again))]
    moved = [m.name for m in number_repeated(mutants_of_python("b/c.py", f"\n\n{again}"))]
    assert ": boundary: 1 < b -> 1 <= b #2" in names
    assert names == moved


def test_all_rules_have_mutants() -> None:
    assert len(MUTANTS) > 5000
    assert set(BY_FILE) >= {file for file in source_files(TREE) if "rules" in file}


@pytest.mark.slow
@pytest.mark.parametrize("file", PYTHON_FILES)
def test_python_mutants_parse_and_differ(file: str) -> None:
    source = (TREE / file).read_text()
    tree = ast.dump(ast.parse(source))
    for mutants in rounds(BY_FILE[file]):
        assert ast.dump(ast.parse(apply_all(mutants, source))) != tree
    assert all(mutant.apply(source) != source for mutant in BY_FILE[file])


@pytest.mark.slow
@pytest.mark.parametrize("file", C_FILES)
def test_c_mutants_compile_and_differ(file: str, tmp_path: Path) -> None:
    """Compile all mutants of a file, in a few compilations with mutants that do not overlap."""
    source = (TREE / file).read_text()
    assert all(mutant.apply(source) != source for mutant in BY_FILE[file])
    shutil.copytree(TREE / "native", tmp_path / "native")
    directories = [official_code(), *sorted({(tmp_path / name).parent for name in C_FILES})]
    include = [f"-I{directory}" for directory in directories]
    command = ["gcc", "-std=c11", "-w", "-fsyntax-only", "-DTVIXB_TEST_BUILD", *include]
    errors: set[tuple[str, str]] = set()
    for mutants in rounds(BY_FILE[file]):
        (tmp_path / file).unlink()
        (tmp_path / file).write_text(apply_all(mutants, source))
        done = subprocess.run([*command, tmp_path / user_of(file)], capture_output=True, text=True)
        print(done.stderr)
        errors.update(re.findall(r"^[^:]+:(\d+:\d+): error: (.*)", done.stderr, re.MULTILINE))
    # Assertions find wrong schemas, once for each message.
    errors = {error for error in errors if not error[1].startswith("static assertion failed")}
    # Few mutants have type errors, for example a sum of two pointers.
    assert not [error for error in errors if error[1].startswith("expected")]
    assert len(errors) <= max(3, len(BY_FILE[file]) // 5)


def user_of(file: str) -> str:
    """Return a C file that includes a header, directly or not; a C file itself."""
    seen, waiting = set(), [file]
    while waiting:
        one = waiting.pop(0)
        if one.endswith(".c"):
            return one
        seen.add(one)
        line = f'#include "{Path(one).name}"'
        users = [other for other in C_FILES if line in (TREE / other).read_text()]
        waiting += sorted(set(users) - seen, key=lambda user: not user.endswith(".c"))
    raise AssertionError(f"no C file includes {file}")


def test_listed_survivors_are_mutants() -> None:
    names = [mutant.name for mutant in MUTANTS]
    for survivor, reason in read_survivors(TREE).items():
        close = difflib.get_close_matches(survivor, names, n=1)
        assert survivor in names, f"survivors.toml lists no mutant; do you mean {close}?"
        assert len(reason.split()) > 3


@pytest.mark.slow
def test_every_file_and_room_has_tests() -> None:
    files = source_files(TREE)
    for file in files:
        assert room_tests(TREE, file), file
    for pattern, _ in TESTS_OF_ROOMS:
        assert any(Path(file).match(pattern) for file in files), pattern
    assert room_tests(TREE, "py/tvix_build/store/database.py")[0].endswith("test_store.py")


def test_a_sample_is_the_same_each_time() -> None:
    words = ["native/rules"]
    sample = chosen(MUTANTS, words, 10, 1)
    assert len(sample) == 10
    assert sample == chosen(MUTANTS, words, 10, 1) != chosen(MUTANTS, words, 10, 2)
    assert {mutant.file for mutant in sample} <= {"native/rules.c", "native/rules.h"}
    everything = chosen(MUTANTS, [], None, 1)
    assert everything == MUTANTS


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        ("caught", 0),
        ("equivalent", 0),
        ("listed", 0),
        ("not run", 0),
        ("survived", 1),
        ("wrongly listed", 1),
    ],
)
def test_exit_status(outcome: str, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    result = {"mutant": "f: never: a", "file": "a.c", "outcome": outcome, "test": "test_a"}
    assert summarize([json.loads(json.dumps(result))], 0) == status
    assert f"1 {outcome}" in capsys.readouterr().out


def test_mutants_of_chooses_by_the_ending() -> None:
    assert mutants_of("a.py", "x = 1") == mutants_of_python("a.py", "x = 1")
    assert mutants_of("a.h", "#define A 1\n") == mutants_of_c("a.h", "#define A 1\n")
