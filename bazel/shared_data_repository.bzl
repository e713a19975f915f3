# SPDX-License-Identifier: MIT
"""Large corpora for tests, from the folder ../shared/data beside the project, where there is one.

The repository is called "shared", so a test finds the folder at the same place from a source tree and from Bazel's
runfiles: ../shared/data of the project's root. It is empty where the folder is absent.
"""

_BUILD = """
filegroup(
    name = "data",
    srcs = glob(["data/**"], allow_empty = True),
    visibility = ["//visibility:public"],
)
"""

def _shared_data_repository_impl(ctx):
    folder = ctx.path(ctx.attr.root).dirname.dirname.get_child("shared").get_child("data")
    if folder.exists:
        ctx.symlink(folder, "data")
    ctx.file("BUILD.bazel", _BUILD)

shared_data_repository = repository_rule(
    implementation = _shared_data_repository_impl,
    attrs = {"root": attr.label(default = Label("//:WORKSPACE"))},
    local = True,
)
