# SPDX-License-Identifier: MIT
"""The documentation is true: its examples run, its tables name what there is, its links lead on."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import tvix_build
from make_man_page import man_page
from pages import link_checkout, shell
from tvix.build.protos.build_pb2 import Build, BuildRequest
from tvix_build import Kind, Schema, ViolationCode, cli, records
from tvix_build._core import report
from waiting import LIMIT

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "bench/README.md",
    "bench/results/README.md",
    "examples/README.md",
    *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")),
]

OPTIONAL = {
    "duckdb": r"\bduckdb\b",
    "polars": r"\bpolars\b",
    "pyarrow": r"\bpyarrow\b|\bparquet\b",
}
"""Packages that are not in the extra `dev`, and words of examples that need them."""


def read(page: str) -> str:
    """The text of a page."""
    return (ROOT / page).read_text()


def blocks(page: str, language: str) -> list[str]:
    """What is fenced in a page as of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", read(page), re.DOTALL | re.MULTILINE)


def need_packages(text: str) -> None:
    """Skip a test whose examples or modules need packages that are not installed."""
    for package, word in OPTIONAL.items():
        if re.search(word, text):
            pytest.importorskip(package, reason=f"needs {package}: pip install {package}")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with the examples, for commands to run in; tvix-build is in its directory bin."""
    link_checkout(tmp_path)
    return tmp_path


def output_of(command: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a command; stdout has stderr in it."""
    return shell(command, directory, stderr=subprocess.STDOUT, timeout=LIMIT)


def test_docstring_example_runs() -> None:
    assert doctest.testmod(tvix_build) == doctest.TestResults(failed=0, attempted=3)


def test_docstring_examples_of_modules_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for module, count in ((cli, 2), (records, 4)):
        assert doctest.testmod(module) == doctest.TestResults(failed=0, attempted=count)


@pytest.mark.parametrize("page", PAGES)
def test_python_examples_run(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path.cwd())  # An example may change it until the end of the test.
    need_packages("".join(blocks(page, "python")))
    for number, block in enumerate(blocks(page, "python")):
        test = doctest.DocTestParser().get_doctest(block, {}, f"{page}[{number}]", page, 0)
        assert test.examples
        assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_commands_print_what_is_said(page: str, directory: Path) -> None:
    need_packages("".join(blocks(page, "console")))
    for block in blocks(page, "console"):
        commands = re.findall(r"^\$ (.*)$", block, re.MULTILINE)
        printed = [f"$ {command}\n{output_of(command, directory).stdout}" for command in commands]
        assert "".join(printed) == block


@pytest.mark.slow
def test_commands_of_the_examples_run(directory: Path) -> None:
    commands = re.findall("^    (tvix-build .*)$", read("examples/README.md"), re.MULTILINE)
    statuses = [output_of(command, directory).returncode for command in commands]
    assert statuses == [0] * (len(commands) - 1) + [1]


@pytest.mark.parametrize("page", PAGES)
def test_starlark_loads_what_there_is(page: str) -> None:
    for block in blocks(page, "starlark"):
        for package, file, names in re.findall(r'load\("@tvix_build//(.*?):(.*?)", (.*)\)', block):
            for name in re.findall(r'"(\w+)"', names):
                assert re.search(rf"^(def {name}\(|{name} = )", read(f"{package}/{file}"), re.M)


def test_quick_start_shows_parts_of_files_that_are_tested() -> None:
    parts = read("docs/quick-start.md").split("```")
    shown = []
    for text, block in zip(parts[::2], parts[1::2], strict=False):
        language, _, code = block.partition("\n")
        if language in ("starlark", "c", "cpp"):
            paragraph = text.rstrip().split("\n\n")[-1]
            file = re.findall(r"\]\(\.\./(.*?)\)", paragraph)[0]
            assert code in read(file), file
            shown.append(Path(file).name)
    assert shown == ["WORKSPACE", "MODULE.bazel", "BUILD.bazel", "digest.c", "violations.cc"]


def test_man_page_is_that_of_the_help() -> None:
    page = (ROOT / "docs/tvix-build.1").read_text()
    assert page == man_page(), "run tests/generators/make_man_page.py"
    assert "\n.SS tvix\\-build store get [OPTIONS] STORE DIGEST...\n" in page


def test_python_reference_is_the_public_interface() -> None:
    names = re.findall(r"^::: tvix_build\.(\w+)$", read("docs/python.md"), re.MULTILINE)
    assert sorted(names) == sorted(tvix_build.__all__)


def test_violations_are_returned_to_a_caller() -> None:
    grpc = pytest.importorskip("grpc")
    from tvix_build.proxy.client import bad_request

    names: dict[str, Any] = {}
    (block,) = blocks("docs/python.md", "py")
    exec(block, names)

    def do_build(request: BuildRequest, context: Any) -> Build:
        names["validate_call"](request, context)
        return Build(build_request=request)

    handler = grpc.unary_unary_rpc_method_handler(
        do_build, BuildRequest.FromString, Build.SerializeToString
    )
    service = "tvix.build.v1.BuildService"
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, {"DoBuild": handler})]
    )
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(f"/{service}/DoBuild")
        assert call(b"\x0a\x02sh") == b"\x0a\x04\x0a\x02sh"
        with pytest.raises(grpc.RpcError) as caught:
            call(b"")
    server.stop(None).wait()
    (found,) = bad_request(caught.value).field_violations
    assert (found.field, found.reason) == ("command_args", "required")


@pytest.mark.parametrize("choice", [Kind, Schema, ViolationCode])
def test_python_reference_has_every_member(choice: type[Kind | Schema | ViolationCode]) -> None:
    """The reference omits members without a docstring."""
    source = ast.parse(inspect.getsource(report))
    classes = {one.name: one for one in source.body if isinstance(one, ast.ClassDef)}
    definition = classes[choice.__name__]
    texts = [isinstance(one, ast.Expr) for one in definition.body[1 : 1 + 2 * len(choice)]]
    assert texts == [False, True] * len(choice)


def test_python_reference_has_the_public_modules() -> None:
    row = re.search(r"those of `tvix_build\.(.*?), with", read("docs/stability.md"))
    assert row
    modules = re.findall(r"[a-z_0-9]+(?:\.[a-z_0-9]+)*(?=`)", row[1])
    found = {module.name for module in pkgutil.iter_modules(tvix_build.__path__)}
    public = {name for name in found if not name.startswith("_")} - {"cli"}
    assert {name.partition(".")[0] for name in modules} == public
    need_packages(" ".join(modules))
    expected = []
    for module in modules:
        names = importlib.import_module(f"tvix_build.{module}").__all__
        expected += [f"tvix_build.{module}.{name}" for name in names]
    text = read("docs/python.md")
    assert sorted(re.findall(r"^::: (tvix_build(?:\.\w+){2,})$", text, re.MULTILINE)) == sorted(
        expected
    )


def test_canonical_form_lists_the_codes_in_order() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| [^|]* \|", read("docs/canonical-form.md"), re.MULTILINE)
    codes = [code.value for code in ViolationCode]
    assert [row for row in rows if row in codes] == codes


def test_readme_names_the_public_interface() -> None:
    text = read("README.md")
    exceptions = {"__version__", "BatchReport", "CanonicalBatch", "Digests", "Error", "Kind"}
    exceptions |= {"Schema", "Violation", "ViolationCode"}
    assert [
        name for name in tvix_build.__all__ if name not in text and name not in exceptions
    ] == []


def test_module_has_the_version() -> None:
    assert f'version = "{tvix_build.__version__}"' in read("MODULE.bazel")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", read(page)):
        assert ((ROOT / page).parent / target).exists(), target


def test_combinations_that_were_tried_name_a_command() -> None:
    table = read("docs/platforms.md").partition("\n## ")[0]
    _, _, *statuses = re.findall(r"^\|.* \| (.*) \|$", table, re.MULTILINE)
    assert {status.partition(":")[0] for status in statuses} == {"tried", "built only", "read"}
    for status in statuses:
        if status != "read":
            path = re.match(r"(?:tried|built only): `(?:cd )?([\w./]+)", status)
            assert path, status
            assert (ROOT / path[1]).exists(), status


def test_promises_name_tests_that_exist() -> None:
    sources = {file.stem: file.read_text() for file in (ROOT / "tests").glob("*/test_*.py")}
    named = re.findall(r"`(test_\w+)(?:::(\w+))?`", read("docs/promises.md"))
    assert named
    missing = [
        (file, test)
        for file, test in named
        if file not in sources or (test and f"def {test}(" not in sources[file])
    ]
    assert missing == []
