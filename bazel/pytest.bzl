# SPDX-License-Identifier: MIT
"""pytest_tests: one test target for each test file."""

load("@rules_python//python:defs.bzl", "py_test")

def pytest_tests(srcs, deps, suffix = "", args = [], data = [], env = {}, shards = {}, exhaustive = [], partly_exhaustive = [], tags = [], **kwargs):
    """Define a py_test with the name of the file for each test_*.py file.

    Args:
      srcs: the files.
      deps: Python libraries that the tests need; pytest itself need not be listed.
      suffix: a suffix for the names of the tests.
      args: arguments of pytest, before the file.
      data: files that the tests read.
      env: environment variables of the tests.
      shards: the numbers of processes for files whose tests run in several ones.
      exhaustive: files that only `tools/test --all` runs.
      partly_exhaustive: files of which only `tools/test --all` runs the tests with the mark `exhaustive`, in a target
        with the suffix "_exhaustive".
      tags: tags of the tests.
      **kwargs: passed to py_test.
    """
    main = str(Label("//bazel:pytest_main.py"))
    pytest = str(Label("@tvix_build_pip_test//:packages"))
    for src in srcs:
        whole = ("", [], ["exhaustive"] if src in exhaustive else [])
        ordinary = ("", ["-m 'not exhaustive'"], [])
        repeating = ("_exhaustive", ["-m exhaustive"], ["exhaustive"])
        for part, selection, part_tags in [ordinary, repeating] if src in partly_exhaustive else [whole]:
            py_test(
                name = src.split("/")[-1][:-len(".py")] + suffix + part,
                srcs = [src, main],
                args = args + selection + ["$(rootpath %s)" % src],
                data = data,
                env = env,
                legacy_create_init = 0,
                main = main,
                shard_count = shards.get(src),
                tags = tags + part_tags,
                deps = deps + [pytest],
                **kwargs
            )
