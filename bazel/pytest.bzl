# SPDX-License-Identifier: MIT
"""pytest_test and pytest_tests: test targets that run files with pytest."""

load("@rules_python//python:defs.bzl", "py_test")

def pytest_test(name, srcs, deps, args = [], data = [], shards = 1, **kwargs):
    """Define a py_test that runs files with pytest.

    Args:
      name: the name of the target.
      srcs: the test_*.py files.
      deps: Python libraries that the tests need; pytest itself need not be listed.
      args: arguments of pytest, before the files.
      data: files that the tests read.
      shards: the number of processes that run the tests, each a part of them.
      **kwargs: passed to py_test.
    """
    main = str(Label("//bazel:pytest_main.py"))
    py_test(
        name = name,
        srcs = srcs + [main],
        args = args + ["$(rootpath %s)" % src for src in srcs],
        data = data + [str(Label("//bazel:unicode_tables"))],
        legacy_create_init = 0,
        main = main,
        shard_count = shards if shards > 1 else None,
        deps = deps + [str(Label("@tvix_build_pip_test//:packages"))],
        **kwargs
    )

def pytest_tests(srcs, deps, **kwargs):
    """Define a pytest_test with the name of the file for each test_*.py file.

    Args:
      srcs: the files.
      deps: Python libraries that the tests need; pytest itself need not be listed.
      **kwargs: passed to pytest_test.
    """
    for src in srcs:
        pytest_test(
            name = src.split("/")[-1][:-len(".py")],
            srcs = [src],
            deps = deps,
            **kwargs
        )
