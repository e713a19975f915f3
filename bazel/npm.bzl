# SPDX-License-Identifier: MIT
"""Packages from npm. Machines without npm or without a network do without them."""

def npm_install(ctx, package, lock):
    """Install the packages of a lock file in the directory of a repository.

    Args:
      ctx: the context of the repository rule.
      package: the label of package.json.
      lock: the label of package-lock.json.

    Returns:
      Whether the packages are installed.
    """
    npm = ctx.which("npm")
    if not npm:
        return False
    for file in [package, lock]:
        ctx.symlink(file, file.name.rpartition("/")[2])
    return ctx.execute([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]).return_code == 0

def _npm_repository_impl(ctx):
    if not npm_install(ctx, ctx.attr.package, ctx.attr.lock):
        ctx.file("node_modules/README", "Installing the packages failed: is npm installed?\n")
    ctx.file("BUILD.bazel", "exports_files([\"node_modules\"])\n")

npm_repository = repository_rule(
    implementation = _npm_repository_impl,
    doc = "The packages of a lock file, as the directory @NAME//:node_modules. It has none if npm is missing or fails.",
    attrs = {
        "lock": attr.label(mandatory = True, allow_single_file = True),
        "package": attr.label(mandatory = True, allow_single_file = True),
    },
)
