# SPDX-License-Identifier: MIT
"""Packages from PyPI: one py_library for each distribution of a lock file."""

load(":python_repository.bzl", "run")

def _pip_repository_impl(ctx):
    python = ctx.read(ctx.attr._python)
    packages = ctx.path("site-packages")
    lock = ctx.path(ctx.attr.lock)
    arguments = ["--only-binary=:all:"]
    environment = {}
    if ctx.attr.platform:
        arguments += ["--platform=" + ctx.attr.platform, "--python-version=" + ctx.attr.python_version]
    if ctx.attr.sources:
        # Use the setuptools version of a lock file, not the newest one.
        arguments += ["--no-binary=" + ",".join(ctx.attr.sources), "--no-build-isolation", "--use-pep517"]
        environment["PYTHONPATH"] = str(ctx.path(ctx.attr.setuptools).dirname.dirname)
    run(ctx, [
        python,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--no-compile",
        "--no-warn-script-location",
        "--target",
        packages,
        "--requirement",
        lock,
    ] + arguments, "pip install of " + str(lock), environment = environment, timeout = 1800)

    # Sandboxes cannot write into the directory: there, Python would compile what it imports at every start. Some files
    # are not for this version of Python; as in pip, they stay uncompiled.
    ctx.execute(
        [python, "-m", "compileall", "-qq", "-j", "0", "--invalidation-mode", "unchecked-hash", packages],
        timeout = 1800,
    )
    build = run(
        ctx,
        [python, "-I", ctx.path(ctx.attr._writer), packages, str(ctx.attr._check), lock],
        "describing the distributions of " + str(lock),
    )
    ctx.file("BUILD.bazel", build)

pip_repository = repository_rule(
    implementation = _pip_repository_impl,
    doc = """The distributions of a lock file, installed with pip.

The target for a distribution is its name, normalized, with underscores: @NAME//:grpcio_tools. It depends on those
that the distribution requires, as far as they are in the lock file, and is empty if this Python does not need the
distribution. A distribution's scripts are files of the
repository: @NAME//:site-packages/bin/ruff; so is the directory of all, @NAME//:site-packages.
@NAME//:packages is a library of it.""",
    attrs = {
        "lock": attr.label(mandatory = True, allow_single_file = True),
        "platform": attr.string(doc = "The platform of the wheels; by default that of this machine."),
        "python_version": attr.string(doc = "With `platform`: the version of Python of the wheels."),
        "setuptools": attr.label(doc = "The __init__.py of setuptools, which `sources` need."),
        "sources": attr.string_list(doc = "Distributions of which only sources are published."),
        "_check": attr.label(default = Label("@tvix_build_python//:check")),
        # Each interpreter needs other files.
        "_python": attr.label(default = Label("@tvix_build_python//:interpreter")),
        "_writer": attr.label(default = Label("//bazel:pip_build_file.py")),
    },
)
