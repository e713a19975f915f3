# SPDX-License-Identifier: MIT
"""python_check: an empty Python library that only analyzes with a certain version of Python.

Extension modules in packages from PyPI load in one version only. Without this check, only the tests would fail.
"""

load("@rules_python//python:defs.bzl", "PyInfo")

_TOOLCHAIN = "@rules_python//python:toolchain_type"

_ERROR = """
The toolchain has Python {found}, but packages from PyPI are installed for Python {version}. Name the Python of the \
toolchain, or set the flags of @tvix_build//bazel/python: see docs/bazel.md of tvix_build."""

def _python_check_impl(ctx):
    runtime = ctx.toolchains[_TOOLCHAIN].py3_runtime

    # Bazel before version 7, and some toolchains, do not know the version.
    info = getattr(runtime, "interpreter_version_info", None)
    found = "%s.%s" % (info.major, info.minor) if info and info.major else ctx.attr.version
    if found != ctx.attr.version:
        fail(_ERROR.format(found = found, version = ctx.attr.version))
    return [DefaultInfo(), PyInfo(transitive_sources = depset())]

python_check = rule(
    implementation = _python_check_impl,
    attrs = {"version": attr.string(doc = "Such as 3.12.", mandatory = True)},
    provides = [PyInfo],
    toolchains = [_TOOLCHAIN],
)
