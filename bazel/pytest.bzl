# SPDX-License-Identifier: MIT
"""pytest_tests: one target for each file of tests."""

load("@rules_python//python:defs.bzl", "py_test")

def pytest_tests(srcs, deps, suffix = "", args = [], data = [], env = {}, **kwargs):
    """Makes a test of the same name of each test_*.py file.

    Args:
      srcs: the files.
      deps: Python libraries that all of them need; pytest itself need not be listed.
      suffix: what the names of the tests end with.
      args: arguments of pytest, before the file.
      data: files that all of them read.
      env: environment variables for all of them.
      **kwargs: passed on to py_test.
    """
    main = str(Label("//bazel:pytest_main.py"))
    pytest = str(Label("@tvix_build_pip_test//:pytest"))
    for src in srcs:
        py_test(
            name = src.split("/")[-1][:-len(".py")] + suffix,
            srcs = [src, main],
            args = args + ["$(rootpath %s)" % src],
            data = data,
            env = env,
            legacy_create_init = 0,
            main = main,
            deps = deps + [pytest],
            **kwargs
        )
