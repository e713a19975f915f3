# SPDX-License-Identifier: MIT
"""pytest_tests: one target for each file of tests."""

load("@rules_python//python:defs.bzl", "py_test")

def pytest_tests(srcs, deps, data = [], env = {}, **kwargs):
    """Makes a test of the same name of each test_*.py file.

    Args:
      srcs: the files.
      deps: Python libraries that all of them need; pytest itself need not be listed.
      data: files that all of them read.
      env: environment variables for all of them.
      **kwargs: passed on to py_test.
    """
    main = str(Label("//bazel:pytest_main.py"))
    pytest = str(Label("@tvix_build_pip_test//:pytest"))
    for src in srcs:
        py_test(
            name = src[:-len(".py")],
            srcs = [src, main],
            args = ["$(rootpath %s)" % src],
            data = data,
            env = env,
            legacy_create_init = 0,
            main = main,
            deps = deps + [pytest],
            **kwargs
        )
