# SPDX-License-Identifier: MIT
"""buildifier, which formats Starlark: from the PATH, or else from npm's @bazel/buildifier, or else none."""

load(":npm.bzl", "npm_install")

_PROGRAM = "node_modules/@bazel/buildifier/buildifier-linux_amd64"

def _npm_buildifier(ctx):
    """Install npm's package and return its program; None if npm is missing or fails."""
    if ctx.execute(["uname", "-sm"]).stdout.strip() != "Linux x86_64":
        return None
    return ctx.path(_PROGRAM) if npm_install(ctx, ctx.attr._package, ctx.attr._lock) else None

def _buildifier_repository_impl(ctx):
    program = ctx.which("buildifier") or _npm_buildifier(ctx)
    if program:
        ctx.symlink(program, "buildifier")
    ctx.file("BUILD.bazel", "exports_files([\"buildifier\"])\n" if program else "")
    ctx.file("buildifier.bzl", "BUILDIFIER = [%s]\n" % ("str(Label(\"//:buildifier\"))" if program else ""))

buildifier_repository = repository_rule(
    implementation = _buildifier_repository_impl,
    doc = "@NAME//:buildifier.bzl has BUILDIFIER, a list with the program's label, empty where there is none.",
    attrs = {
        "_lock": attr.label(default = Label("//requirements:package-lock.json")),
        "_package": attr.label(default = Label("//requirements:package.json")),
    },
)
