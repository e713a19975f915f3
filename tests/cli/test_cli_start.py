# SPDX-License-Identifier: MIT
"""Help, the version and completion start fast: without protobuf, the extension, rich and gRPC."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from cli_support import COMMAND, environment, run
from tvix_build.cli import options
from tvix_build.cli.group import COMMANDS, group
from tvix_build.proxy.shared.services import SERVICES
from tvix_build.records.source import FORMATS
from waiting import LIMIT

SLOW = {"asyncio", "google.protobuf", "grpc", "pyarrow", "rich", "tvix_build._native"}

# Runs the command line, and prints the modules that it has imported.
MODULES = """
import sys
from tvix_build.__main__ import main
assert main() == 0
print(*sys.modules, sep="\\n")
"""


def modules(*arguments: str, **variables: str) -> set[str]:
    """Run the command line in a process, and return the modules that it has imported."""
    return imported(MODULES, *arguments, **variables)


def imported(code: str, *arguments: str, **variables: str) -> set[str]:
    """Run code that prints the modules, and return them."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**environment(), **variables},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        timeout=LIMIT,
    )
    return set(done.stdout.splitlines())


@pytest.mark.parametrize("arguments", [["--version"], ["--help"]])
def test_version_and_help_import_no_command(arguments: list[str]) -> None:
    found = modules(*arguments)
    assert found & SLOW == set()
    assert [name for name in found if name.startswith("tvix_build.cli.commands.")] == []


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_commands_imports_what_it_needs(command: str) -> None:
    assert modules(command, "--help") & SLOW == set()


def test_commands_import_what_they_need() -> None:
    assert "tvix_build._native" in modules("validate", "examples/requests")


def test_commands_of_binary_records_import_no_messages() -> None:
    found = modules("validate", str(min(Path("examples/requests").glob("*.binpb"))))
    assert found & {"google.protobuf.descriptor", "tvix_build.castore"} == set()


def test_builds_in_the_sandbox_import_what_they_need() -> None:
    """Not what only derivations, texts, terminals and asyncio need."""
    code = "import sys, tvix_build.cli.build, tvix_build.cli.sandbox"
    found = imported(f"{code}; print(*sys.modules, sep='\\n')")
    needless = {"asyncio", "google.protobuf.json_format", "rich.progress", "tvix_build.nix"}
    assert found & needless == set()


# Runs a command, then allocates in threads, and prints how glibc describes its arenas.
ARENAS = """
import ctypes, sys, threading
from tvix_build.__main__ import main
assert main() == 0
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
for _ in range(4):
    thread = threading.Thread(target=libc.malloc, args=(1 << 10,))
    thread.start()
    thread.join()
sys.stdout.flush()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no arenas")
@pytest.mark.parametrize(("command", "one"), [("serve", True), ("show", False)])
def test_threads_of_serve_share_an_arena(command: str, one: bool) -> None:
    lines = imported(ARENAS, command, "--help")
    assert (len([line for line in lines if line.startswith("<heap nr=")]) == 1) is one


def command_of(name: str) -> click.Command:
    """Return a command of the table."""
    context = group.make_context("tvix-build", ["--help"], resilient_parsing=True)
    command = group.get_command(context, name)
    assert command is not None
    return command


def test_table_of_commands_has_each_command() -> None:
    for name in COMMANDS:
        assert command_of(name).name == name
    assert run("nothing").status == 2


def test_options_have_the_formats_and_schemas() -> None:
    assert list(options.FORMATS) == list(FORMATS)
    schemas = {name: one.type for one in command_of("serve").params for name in one.opts}[
        "--schema"
    ]
    assert isinstance(schemas, click.Choice)
    assert set(schemas.choices) == set(SERVICES)


def complete(monkeypatch: pytest.MonkeyPatch, words: str) -> list[str]:
    """Return the completions of the last word in bash, each with its type."""
    for name, value in _completion(words).items():
        monkeypatch.setenv(name, value)
    result = run()
    assert (result.status, result.stderr) == (0, "")
    return result.stdout.decode().splitlines()


def _completion(words: str) -> dict[str, str]:
    return {
        "_TVIX_BUILD_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("tvix-build va", ["plain,validate"]),
        ("tvix-build --ver", ["plain,--version"]),
        ("tvix-build validate --out", ["plain,--output"]),
        ("tvix-build validate --input-format js", ["plain,json"]),
        ("tvix-build validate re", ["file,re"]),
        ("tvix-build serve --store re", ["file,re"]),
        ("tvix-build store v", ["plain,verify"]),
        ("tvix-build castore g", ["plain,gc", "plain,get"]),
        ("tvix-build serve --schema sn", ["plain,snix.build.v1", "plain,snix.build.v1@2026"]),
    ],
)
def test_completion(monkeypatch: pytest.MonkeyPatch, words: str, expected: list[str]) -> None:
    assert complete(monkeypatch, words) == expected


def test_completion_of_all_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    assert complete(monkeypatch, "tvix-build ") == [f"plain,{name}" for name in COMMANDS]


@pytest.mark.parametrize("words", ["tvix-build va", "tvix-build serve --schema t"])
def test_completion_imports_what_it_needs(words: str) -> None:
    assert modules(**_completion(words)) & SLOW == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    monkeypatch.setenv("_TVIX_BUILD_COMPLETE", f"{shell}_source")
    script = run().stdout.decode()
    assert f"_TVIX_BUILD_COMPLETE={shell}_complete" in script


def test_bash_completes(tmp_path: Path) -> None:
    program = tmp_path / "tvix-build"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
    program.chmod(0o755)
    code = """
        eval "$(_TVIX_BUILD_COMPLETE=bash_source tvix-build)"
        complete -p tvix-build
        COMP_WORDS=(tvix-build va) COMP_CWORD=1
        _tvix_build_completion tvix-build
        echo "${COMPREPLY[@]}"
    """
    variables = environment()
    variables["PATH"] = f"{tmp_path}:{variables['PATH']}"
    done = subprocess.run(
        ["bash", "-c", code],
        env=variables,
        capture_output=True,
        text=True,
        check=True,
        timeout=LIMIT,
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines == ["complete -o nosort -F _tvix_build_completion tvix-build", "validate"]
