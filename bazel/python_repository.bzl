# SPDX-License-Identifier: MIT
"""A Python installation: by default the python3 on the PATH, or the one that PYTHON_BIN_PATH names.

Select it with --repo_env=PYTHON_BIN_PATH=/path/to/python3, or with the attribute `interpreter`.
"""

_DESCRIBE = """
import os, sys, sysconfig
assert sys.version_info >= (3, 10), f"Python 3.10 or newer is needed, {sys.executable} is {sys.version}"
print(sys.executable)
print(os.path.realpath(sys.executable))
print(sysconfig.get_path("include"))
print(sysconfig.get_platform().replace("-", "_").replace(".", "_"))
print("%d.%d" % sys.version_info[:2])
"""

_BUILD = """
load("@rules_cc//cc:defs.bzl", "cc_library")
load("@rules_python//python:defs.bzl", "py_runtime", "py_runtime_pair")
load(":python_check.bzl", "python_check")

package(default_visibility = ["//visibility:public"])

# An empty environment isolates the build from the interpreter's site-packages.
py_runtime(
    name = "runtime",
    files = ["environment/pyvenv.cfg"],
    interpreter = "environment/bin/python3",
    python_version = "PY3",
    stub_shebang = "#!{python}",
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

cc_library(
    name = "headers",
    hdrs = glob(["include/**/*.h"]),
    includes = ["include"],
)

python_check(
    name = "check",
    version = "{version}",
)
"""

def run(ctx, command, what, **kwargs):
    """Run a command in a repository rule; if it fails, fail with its output.

    Args:
      ctx: the context of the repository rule.
      command: list of arguments.
      what: what the command does, for the error message.
      **kwargs: passed on to ctx.execute.

    Returns:
      What the command wrote to its standard output.
    """
    result = ctx.execute(command, **kwargs)
    if result.return_code:
        fail("%s failed:\n%s%s" % (what, result.stdout, result.stderr))
    return result.stdout

def _python_repository_impl(ctx):
    if ctx.attr.interpreter:
        python = ctx.path(ctx.attr.interpreter)
    else:
        python = ctx.os.environ.get("PYTHON_BIN_PATH") or ctx.which("python3")
    if not python:
        fail("python3 is not on the PATH")
    executable, real, include, platform, version = run(
        ctx,
        [python, "-I", "-c", _DESCRIBE],
        "asking " + str(python),
    ).splitlines()
    if not ctx.path(include + "/Python.h").exists:
        fail("%s has no headers (no Python.h in %s); on Debian install python3-dev" % (executable, include))
    ctx.symlink(executable, "environment/bin/python3")
    ctx.file("environment/pyvenv.cfg", "home = %s\ninclude-system-site-packages = false\n" % ctx.path(real).dirname)
    ctx.symlink(include, "include")
    ctx.symlink(ctx.attr._check, "python_check.bzl")
    ctx.file("BUILD.bazel", _BUILD.format(python = real, version = version))
    ctx.file("interpreter", executable)
    ctx.file("platform.bzl", "PYTHON_PLATFORM = \"%s\"\n" % platform)

python_repository = repository_rule(
    implementation = _python_repository_impl,
    doc = "Headers, platform tag and, for workspaces that register it, the toolchain of a Python installation.",
    attrs = {
        "interpreter": attr.label(
            doc = "The interpreter, a file of another repository, such as @python_3_12_host//:python.",
            allow_single_file = True,
        ),
        "_check": attr.label(default = Label("//bazel:python_check.bzl")),
    },
    environ = ["PATH", "PYTHON_BIN_PATH"],
    configure = True,
    local = True,
)
