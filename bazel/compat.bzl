# SPDX-License-Identifier: MIT
"""Repositories made from the directory compat/, see compat/README.md."""

def _compat_repository_impl(ctx):
    directory = ctx.path(ctx.attr._anchor).dirname.get_child("compat").get_child(ctx.attr.directory)
    for file in ctx.attr.files:
        ctx.symlink(str(directory) + "/" + file, file)

compat_repository = repository_rule(
    implementation = _compat_repository_impl,
    doc = "A repository of the given files of a directory in compat/, wherever this project lies.",
    attrs = {
        "files": attr.string_list(mandatory = True),
        "directory": attr.string(mandatory = True),
        "_anchor": attr.label(default = Label("//bazel:BUILD.bazel")),
    },
)
