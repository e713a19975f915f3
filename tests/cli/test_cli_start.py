# SPDX-License-Identifier: MIT
"""Help, the version and completion start fast: without protobuf, the extension, rich and gRPC."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cli_support import environment, run
from tvix_build.cli import options
from tvix_build.cli.group import COMMANDS, group
from tvix_build.proxy.shared.services import SERVICES
from tvix_build.records.source import FORMATS

SLOW = {"asyncio", "google.protobuf", "grpc", "pyarrow", "rich", "tvix_build._native"}

# Runs the command line, and prints the modules that it has imported.
MODULES = """
import sys
from tvix_build.__main__ import main
assert main() == 0
print(*sys.modules, sep="\\n")
"""


def modules(*arguments: str) -> set[str]:
    """Run the command line in a process, and return the modules that it has imported."""
    done = subprocess.run(
        [sys.executable, "-c", MODULES, *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        timeout=60,
    )
    return set(done.stdout.splitlines())


@pytest.mark.parametrize("arguments", [["--version"], ["--help"]])
def test_version_and_help_import_no_command(arguments: list[str]) -> None:
    found = modules(*arguments)
    assert found & SLOW == set()
    assert [name for name in found if name.startswith("tvix_build.cli.commands.")] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_commands_imports_what_it_needs(command: str) -> None:
    assert modules(command, "--help") & SLOW == set()


def test_commands_import_what_they_need() -> None:
    assert "tvix_build._native" in modules("validate", "examples/requests")


def test_table_of_commands_has_each_command() -> None:
    context = group.make_context("tvix-build", ["--help"], resilient_parsing=True)
    for name in COMMANDS:
        command = group.get_command(context, name)
        assert command is not None
        assert command.name == name
    assert run("nothing").status == 2


def test_options_have_the_formats_and_schemas() -> None:
    assert list(options.FORMATS) == list(FORMATS)
    offered = [schema for schema, service in SERVICES.items() if service.module]
    assert [schema.value for schema in offered] == ["tvix.build.v1", "snix.build.v1"]
