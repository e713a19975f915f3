# SPDX-License-Identifier: MIT
"""What WORKSPACE files load, with Bazel 4.2.3 to 7.

    load("@tvix_build//bazel:workspace.bzl", "tvix_build_dependencies", "tvix_build_toolchains")
    tvix_build_dependencies()
    tvix_build_toolchains()

A repository that is defined before the call stays as it is.
"""

load(":compat.bzl", "compat_repository")
load(":protoc_repository.bzl", "protoc_repository")
load(":repositories.bzl", "DEVELOPMENT_REPOSITORIES", "REPOSITORIES", "define_repositories")

_RULES = {
    "com_google_protobuf": (protoc_repository, {"protoc": "@tvix_build_pip_generate//:site-packages/bin/protoc"}),
    "remote_coverage_tools": (compat_repository, {
        "files": ["BUILD.bazel"],
        "folder": "remote_coverage_tools",
    }),
    "rules_cc": (compat_repository, {
        "files": ["cc/BUILD.bazel", "cc/defs.bzl"],
        "folder": "rules_cc",
    }),
    "rules_java": (compat_repository, {
        "files": ["java/BUILD.bazel", "java/defs.bzl"],
        "folder": "rules_java",
    }),
    "rules_proto": (compat_repository, {
        "files": ["proto/BUILD.bazel", "proto/defs.bzl", "proto/native.bzl"],
        "folder": "rules_proto",
    }),
    "rules_python": (compat_repository, {
        "files": ["python/BUILD.bazel", "python/defs.bzl", "python/native.bzl"],
        "folder": "rules_python",
    }),
}

def tvix_build_dependencies():
    """Defines the repositories that the public targets need."""
    define_repositories(dict(_RULES, **REPOSITORIES), native.existing_rules())

def tvix_build_development_dependencies():
    """Defines what the project's own tests need besides."""
    define_repositories(DEVELOPMENT_REPOSITORIES, native.existing_rules())

def tvix_build_toolchains():
    """Registers the Python that the extension module and the packages of PyPI are for."""
    native.register_toolchains("@tvix_build_python//:toolchain")
