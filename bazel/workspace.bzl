# SPDX-License-Identifier: MIT
"""Macros for WORKSPACE files, for Bazel 4.2.3 to 7.

    load("@tvix_build//bazel:workspace.bzl", "tvix_build_dependencies", "tvix_build_toolchains")
    tvix_build_dependencies()
    tvix_build_toolchains()

The macros do not replace repositories that are already defined.
"""

load(":blake3_repository.bzl", "blake3_repository")
load(":compat.bzl", "compat_repository")
load(":protoc_repository.bzl", "protoc_repository")
load(":repositories.bzl", "DEVELOPMENT_REPOSITORIES", "define_repositories", "public_repositories")

_RULES = {
    "blake3": (blake3_repository, {}),
    "com_google_protobuf": (protoc_repository, {"protoc": "@tvix_build_pip_generate//:site-packages/bin/protoc"}),
    "remote_coverage_tools": (compat_repository, {
        "files": ["BUILD.bazel"],
        "directory": "remote_coverage_tools",
    }),
    "rules_cc": (compat_repository, {
        "files": ["cc/BUILD.bazel", "cc/defs.bzl"],
        "directory": "rules_cc",
    }),
    "rules_java": (compat_repository, {
        "files": ["java/BUILD.bazel", "java/defs.bzl"],
        "directory": "rules_java",
    }),
    "rules_proto": (compat_repository, {
        "files": ["proto/BUILD.bazel", "proto/defs.bzl", "proto/native.bzl"],
        "directory": "rules_proto",
    }),
    "rules_python": (compat_repository, {
        "files": ["python/BUILD.bazel", "python/defs.bzl", "python/native.bzl"],
        "directory": "rules_python",
    }),
}

_DEVELOPMENT_RULES = {
    "rules_shell": (compat_repository, {
        "files": ["shell/BUILD.bazel", "shell/sh_test.bzl"],
        "directory": "rules_shell",
    }),
}

def tvix_build_dependencies(python = None):
    """Define the repositories that public targets need.

    Args:
      python: label of the interpreter for which packages from PyPI are installed, a file of a repository; by default the
        python3 on the PATH, or the one that PYTHON_BIN_PATH names.
    """
    define_repositories(dict(_RULES, **public_repositories(python)), native.existing_rules())

def tvix_build_development_dependencies():
    """Define the additional repositories of the project's own tests."""
    define_repositories(dict(_DEVELOPMENT_RULES, **DEVELOPMENT_REPOSITORIES), native.existing_rules())

def tvix_build_toolchains():
    """Register the toolchain of the Python for which packages are installed; not for workspaces with a Python of theirs."""
    native.register_toolchains("@tvix_build_python//:toolchain")
