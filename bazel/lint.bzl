# SPDX-License-Identifier: MIT
"""lint_tests: formatting, lint and types of the whole tree, as tests."""

load("@rules_python//python:defs.bzl", "py_test")
load(":command_test.bzl", "command_test")

_RUFF = "@tvix_build_pip_test//:site-packages/bin/ruff"
_CLANG_FORMAT = "@tvix_build_pip_test//:site-packages/clang_format/data/bin/clang-format"

_PYTHON = "//:python_sources"
_C = "//:c_sources"

def lint_tests(name):
    """Makes the tests NAME_ruff_format, NAME_ruff_check, NAME_mypy and NAME_clang_format.

    Args:
      name: prefix of the names.
    """
    for what, args in {
        "check": ["check"],
        "format": ["format", "--check", "--diff"],
    }.items():
        command_test(
            name = name + "_ruff_" + what,
            args = args + ["--no-cache", "--config=pyproject.toml"] + ["$(rootpaths %s)" % _PYTHON],
            data = [_PYTHON, "//:pyproject.toml"],
            program = _RUFF,
        )
    command_test(
        name = name + "_clang_format",
        args = ["--dry-run", "-Werror", "--style=file"] + ["$(rootpaths %s)" % _C],
        data = [_C, "//:.clang-format"],
        program = _CLANG_FORMAT,
    )
    py_test(
        name = name + "_mypy",
        srcs = ["//bazel:run_module.py"],
        args = ["mypy", "--config-file=pyproject.toml", "--cache-dir=/dev/null"] + ["$(rootpaths %s)" % _PYTHON],
        data = [_PYTHON, "//:pyproject.toml"],
        legacy_create_init = 0,
        main = "//bazel:run_module.py",
        tags = ["lint"],
        deps = [
            "//py/tvix_build",
            "//tests:support",
            "@tvix_build_pip_test//:mypy",
            "@tvix_build_pip_test//:types_protobuf",
            "@tvix_build_pip_test//:types_setuptools",
        ],
    )
