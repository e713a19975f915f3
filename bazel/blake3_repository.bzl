# SPDX-License-Identifier: MIT
"""The official C code of BLAKE3, which is not copied into this tree.

The first of these sources that exists is used: the directory that BLAKE3_C_DIR names, Debian's librust-blake3-dev, the
release archive. setup.py uses the same sources.
"""

_DEBIAN = "/usr/share/cargo/registry"

_RELEASE = {
    "integrity": "sha256-a1Gu/lFZaXhdoC6Hvvr8f9x6BlzTRYzxFB8pJndJ6B8=",
    "strip_prefix": "BLAKE3-1.8.2",
    "url": "https://github.com/BLAKE3-team/BLAKE3/archive/refs/tags/1.8.2.tar.gz",
}

def _debian_directory(ctx):
    registry = ctx.path(_DEBIAN)
    if registry.exists:
        for entry in registry.readdir():
            if entry.basename.startswith("blake3-") and entry.get_child("c").get_child("blake3.h").exists:
                return entry.get_child("c")
    return None

def _source_directory(ctx):
    named = ctx.os.environ.get("BLAKE3_C_DIR")
    if named:
        directory = ctx.path(named)
        if not directory.get_child("blake3.h").exists:
            fail("BLAKE3_C_DIR=%s holds no blake3.h" % named)
        return directory
    directory = _debian_directory(ctx)
    if not directory:
        ctx.download_and_extract(output = "release", stripPrefix = _RELEASE["strip_prefix"], url = _RELEASE["url"], integrity = _RELEASE["integrity"])
        directory = ctx.path("release/c")
    return directory

def _blake3_repository_impl(ctx):
    for file in _source_directory(ctx).readdir():
        ctx.symlink(file, "c/" + file.basename)
    ctx.file("BUILD.bazel")
    ctx.symlink(ctx.attr._build_file, "c/BUILD.bazel")

blake3_repository = repository_rule(
    implementation = _blake3_repository_impl,
    doc = "@NAME//c:blake3, a cc_library of the official BLAKE3 sources.",
    attrs = {"_build_file": attr.label(default = Label("//bazel:blake3.BUILD"))},
    environ = ["BLAKE3_C_DIR"],
)
