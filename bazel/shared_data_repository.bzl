# SPDX-License-Identifier: MIT
"""Large corpora for tests, from the directory ../shared/data next to the project.

The repository has the name "shared", so tests find the directory at the same path in a source tree and in Bazel's
runfiles: ../shared/data, relative to the project's root. Without the directory, the repository is empty.
"""

_BUILD = """
filegroup(
    name = "data",
    srcs = glob(["data/**"], allow_empty = True),
    visibility = ["//visibility:public"],
)
"""

def _shared_data_repository_impl(ctx):
    directory = ctx.path(ctx.attr.root).dirname.dirname.get_child("shared").get_child("data")
    if directory.exists:
        ctx.symlink(directory, "data")
    ctx.file("BUILD.bazel", _BUILD)

shared_data_repository = repository_rule(
    implementation = _shared_data_repository_impl,
    attrs = {"root": attr.label(default = Label("//:WORKSPACE"))},
    local = True,
)
