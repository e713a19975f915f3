# SPDX-License-Identifier: MIT
"""The project's version, read from py/tvix_build/_version.py, the only place where it is defined."""

def _metadata_repository_impl(ctx):
    for line in ctx.read(ctx.attr.version_file).splitlines():
        if line.startswith("__version__"):
            ctx.file("BUILD.bazel")
            ctx.file("metadata.bzl", "VERSION = \"%s\"\n" % line.split("\"")[1])
            return
    fail("no __version__ in %s" % ctx.attr.version_file)

metadata_repository = repository_rule(
    implementation = _metadata_repository_impl,
    attrs = {"version_file": attr.label(mandatory = True, allow_single_file = True)},
)
