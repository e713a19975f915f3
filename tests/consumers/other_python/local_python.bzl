# SPDX-License-Identifier: MIT
"""A stand-in for a hermetic Python: the toolchain of the Python that CONSUMER_PYTHON names, or else of python3."""

_BUILD = """
load("@rules_python//python:defs.bzl", "py_runtime", "py_runtime_pair")

package(default_visibility = ["//visibility:public"])

exports_files(["python"])

py_runtime(
    name = "runtime",
    interpreter = "python",
    python_version = "PY3",
    stub_shebang = "#!/usr/bin/env python3",
)

py_runtime_pair(
    name = "runtime_pair",
    py3_runtime = ":runtime",
)

toolchain(
    name = "toolchain",
    toolchain = ":runtime_pair",
    toolchain_type = "@rules_python//python:toolchain_type",
)
"""

def _local_python_impl(ctx):
    python = ctx.os.environ.get("CONSUMER_PYTHON") or ctx.which("python3")
    version = ctx.execute([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).stdout.strip()
    ctx.symlink(python, "python")
    ctx.file("version.bzl", "VERSION = \"%s\"\n" % version)
    ctx.file("BUILD.bazel", _BUILD)

local_python = repository_rule(
    implementation = _local_python_impl,
    environ = ["CONSUMER_PYTHON"],
)
