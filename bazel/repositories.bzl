# SPDX-License-Identifier: MIT
"""What WORKSPACE files load: the repositories that this project needs.

    load("@tvix_build//bazel:repositories.bzl", "tvix_build_repositories")
    tvix_build_repositories()

A repository that is defined before the call stays as it is.
"""

load(":blake3_repository.bzl", "blake3_repository")
load(":buildifier_repository.bzl", "buildifier_repository")
load(":compat.bzl", "compat_repository")
load(":metadata_repository.bzl", "metadata_repository")
load(":pip_repository.bzl", "pip_repository")
load(":protoc_repository.bzl", "protoc_repository")
load(":python_repository.bzl", "python_repository")
load(":shared_data_repository.bzl", "shared_data_repository")

_COMPAT = {
    "remote_coverage_tools": ["BUILD.bazel"],
    "rules_cc": ["cc/BUILD.bazel", "cc/defs.bzl"],
    "rules_java": ["java/BUILD.bazel", "java/defs.bzl"],
    "rules_python": ["python/BUILD.bazel", "python/defs.bzl", "python/native.bzl"],
}

# Debian's packages bazel-rules-proto, bazel-skylib and bazel-platforms.
_DEBIAN = {
    "bazel_skylib": "/usr/share/bazel/tools/skylib",
    "platforms": "/usr/share/bazel/tools/platforms",
    "rules_proto": "/usr/share/bazel/rules/proto",
}

def _missing(name):
    return not native.existing_rule(name)

def tvix_build_repositories():
    """Defines every repository that is not defined yet and registers the Python toolchain."""
    for name, files in _COMPAT.items():
        if _missing(name):
            compat_repository(name = name, folder = name, files = files)
    for name, path in _DEBIAN.items():
        if _missing(name):
            native.local_repository(name = name, path = path)
    if _missing("tvix_build_python"):
        python_repository(name = "tvix_build_python")
    for purpose in ["arrow", "docs", "generate", "pyright", "test"]:
        if _missing("tvix_build_pip_" + purpose):
            pip_repository(
                name = "tvix_build_pip_" + purpose,
                lock = Label("//requirements:%s.txt" % purpose),
            )
    if _missing("com_google_protobuf"):
        protoc_repository(
            name = "com_google_protobuf",
            protoc = "@tvix_build_pip_generate//:site-packages/bin/protoc",
        )
    if _missing("tvix_build_blake3"):
        blake3_repository(name = "tvix_build_blake3")
    if _missing("tvix_build_metadata"):
        metadata_repository(
            name = "tvix_build_metadata",
            version_file = Label("//py/tvix_build:_version.py"),
        )
    if _missing("tvix_build_buildifier"):
        buildifier_repository(name = "tvix_build_buildifier")
    if _missing("shared"):
        shared_data_repository(name = "shared")
    native.register_toolchains("@tvix_build_python//:toolchain")
